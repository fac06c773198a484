"""`signalbox up`: runs a node in the foreground until it is told to end."""

from typing import Annotated, Any

import typer

from signalbox.cli.base import session
from signalbox.cli.session import Session, external_broker
from signalbox.errors import UsageError

_LOCAL_BROKERS = ("embedded", "kafka")


def up(
    ctx: typer.Context,
    broker: Annotated[
        str | None,
        typer.Option(
            "--broker", metavar="embedded|kafka|HOST:PORT", help="Run a broker of this kind, or use the one there."
        ),
    ] = None,
    http: Annotated[
        str | None, typer.Option("--http", metavar="HOST:PORT", help="Where to serve HTTP; port 0 takes a free one.")
    ] = None,
    app: Annotated[
        str | None, typer.Option("--app", metavar="MODULE:ATTR", help="The app to run; the present folder is searched.")
    ] = None,
    flows: Annotated[
        str | None, typer.Option("--flows", metavar="A,B", help="Which flows to run; default: all.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", metavar="N", min=1, help="Worker processes of the agents flow to begin with."),
    ] = None,
) -> None:
    """Start a node in the foreground: broker (if it is its own), topics, sensors, agents, HTTP.

    When it is ready it prints one line, `ready http://HOST:PORT kafka HOST:PORT`. Ctrl-C or SIGTERM end it when what it
    has taken in is handled; a second time, at once.
    """
    state = session(ctx)
    chosen = _flows(flows)
    _override(state, _broker(broker))
    _override(state, _http(http))
    _override(state, {} if app is None else {"node.app": app})
    _override(state, {} if workers is None else {"flows.agents.workers": str(workers)})
    _override(state, _log_level(state))
    settings = state.settings()

    from signalbox.cli.configuration import examine
    from signalbox.supervision.node import Node

    examine(settings)
    Node(settings, flows=chosen).run(on_ready=typer.echo)


def _override(state: Session, values: dict[str, str]) -> None:
    state.add({"set": [f"{name}={value}" for name, value in values.items()]})


def _flows(names: str | None) -> list[str]:
    from signalbox.config import FlowsSettings

    known = list(FlowsSettings.model_fields)
    chosen = known if names is None else [name.strip() for name in names.split(",")]
    if unknown := [name for name in chosen if name not in known]:
        msg = f"there is no flow {', '.join(map(repr, unknown))}"
        raise UsageError(msg, hint=f"there are: {', '.join(known)}")
    return chosen


def _broker(broker: str | None) -> dict[str, str]:
    if broker is None:
        return {}
    return {"kafka.broker": broker} if broker in _LOCAL_BROKERS else external_broker(broker)


def _http(address: str | None) -> dict[str, str]:
    if address is None:
        return {}
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        msg = f"--http takes HOST:PORT, not {address!r}"
        raise UsageError(msg, hint="such as --http 127.0.0.1:8080")
    return {"http.host": host.strip("[]"), "http.port": port}


def _log_level(state: Session) -> dict[str, Any]:
    """-v and -q as a setting, unless it is set outright."""
    if "log.level" in state.overrides():
        return {}
    if state.options.verbose:
        return {"log.level": "debug"}
    return {"log.level": "error"} if state.options.quiet else {}
