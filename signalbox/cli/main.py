"""The command `signalbox`: its global options and its commands.

Exit codes and the way errors are told are those of `signalbox.errors`, applied in `signalbox.cli.base`.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from signalbox.cli import (
    actions,
    agents,
    alerts,
    configuration,
    dead_letters,
    demo,
    doctor,
    health,
    recovery,
    routes,
    scale,
    signals,
    tasks,
    topics,
    up,
)
from signalbox.cli.base import GLOBAL_PANEL, PROGRAM, Command, Root, session
from signalbox.cli.output import Format

EXIT_CODES = {
    0: "ok",
    1: "failed",
    2: "usage",
    3: "bad configuration",
    4: "dependency unreachable",
    5: "not found",
    6: "condition not met",
    7: "refused or conflict",
    8: "saved state damaged",
    124: "timeout",
    130: "interrupted",
}
_EPILOG = f"Exit codes: {', '.join(f'{code} {meaning}' for code, meaning in EXIT_CODES.items())}."

app = typer.Typer(
    name=PROGRAM,
    cls=Root,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"auto_envvar_prefix": PROGRAM.upper(), "help_option_names": ["-h", "--help"]},
    epilog=_EPILOG,
)
app.command("up", cls=Command)(up.up)
app.command("demo", cls=Command)(demo.demo)
app.add_typer(signals.app, name="signal")
app.add_typer(topics.app, name="topic")
app.add_typer(routes.app, name="route")
app.add_typer(agents.app, name="agent")
app.add_typer(actions.app, name="action")
app.add_typer(tasks.app, name="task")
app.add_typer(scale.app, name="scale")
app.add_typer(alerts.app, name="alert")
app.add_typer(dead_letters.app, name="dlq")
app.add_typer(recovery.app, name="recovery")
app.command("lag", cls=Command)(health.lag)
app.command("status", cls=Command)(health.status)
app.command("doctor", cls=Command)(doctor.doctor)
app.command("check", cls=Command)(configuration.check)
app.add_typer(configuration.app, name="config")
app.command("version", cls=Command)(health.version)


def run() -> None:
    """Run the command that the process was started with; ends the process."""
    app()


def _show_version(wanted: bool) -> None:
    if wanted:
        import signalbox

        typer.echo(f"{PROGRAM} {signalbox.__version__}")
        raise typer.Exit


def _global(*names: str, variable: str, help: str, **more: Any) -> Any:
    """One global option with its environment variable."""
    return typer.Option(*names, envvar=f"SIGNALBOX_{variable}", help=help, rich_help_panel=GLOBAL_PANEL, **more)


@app.callback()
def root(
    ctx: typer.Context,
    config: Annotated[
        Path | None,
        _global("--config", "-c", variable="CONFIG", metavar="FILE", help="A settings file on top of the profile's."),
    ] = None,
    profile: Annotated[
        str | None, _global("--profile", variable="PROFILE", metavar="dev|prod", help="Which profile's settings.")
    ] = None,
    set: Annotated[
        list[str] | None,
        _global("--set", variable="SET", metavar="A.B=C", help="Set one setting; may be given again."),
    ] = None,
    bootstrap: Annotated[
        str | None,
        _global(
            "--bootstrap",
            variable="BOOTSTRAP",
            metavar="HOST:PORT",
            help="The Kafka broker to use, in place of the running node's.",
        ),
    ] = None,
    data_dir: Annotated[
        Path | None,
        _global(
            "--data-dir",
            variable="DATA_DIR",
            metavar="DIR",
            help="The node's data directory, by which it is found. Default: .signalbox",
        ),
    ] = None,
    output: Annotated[
        Format | None,
        _global(
            "--output",
            "-o",
            variable="OUTPUT",
            metavar="table|json|jsonl|yaml|none",
            help="How data is written to stdout.",
        ),
    ] = None,
    quiet: Annotated[bool, _global("--quiet", "-q", variable="QUIET", help="No messages but errors.")] = False,
    verbose: Annotated[
        int,
        _global(
            "--verbose",
            "-v",
            variable="VERBOSE",
            count=True,
            show_default=False,
            help="More messages, and the traceback of an error.",
        ),
    ] = 0,
    timeout: Annotated[
        float | None,
        _global("--timeout", variable="TIMEOUT", metavar="S", min=0.0, help="Give up after so many seconds."),
    ] = None,
    yes: Annotated[bool, _global("--yes", "-y", variable="YES", help="Answer yes to every question.")] = False,
    version: Annotated[  # the callback answers
        bool,
        typer.Option(
            "--version",
            callback=_show_version,
            is_eager=True,
            allow_from_autoenv=False,
            show_envvar=False,
            help="Print the version and end.",
        ),
    ] = False,
) -> None:
    """Autonomous, durable agents on Kafka: start a node, send it signals, and look at what it does."""
    session(ctx).add(ctx.params)
