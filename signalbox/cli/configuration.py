"""`signalbox config` and `signalbox check`: the settings as resolved, and whether what they describe fits together.

Neither starts nor changes anything, and neither needs a broker; `signalbox doctor` looks at the surroundings.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from signalbox.cli.base import Command, group, session
from signalbox.cli.output import flattened
from signalbox.cli.session import Session
from signalbox.errors import ConfigError

if TYPE_CHECKING:
    from signalbox.config import Settings

app = group("Settings.")

_PREFIX = "SIGNALBOX_"


@app.command("show", cls=Command)
def show(
    ctx: typer.Context,
    origin: Annotated[bool, typer.Option("--origin", help="Also say where each value comes from.")] = False,
) -> None:
    """Show every setting with its value, secrets hidden."""
    from signalbox.config import masked

    state = session(ctx)
    settings = state.settings()
    values = masked(settings)
    if not origin:
        state.output().record(values)
        return
    origin_of = _origins(state, settings)
    rows = ({"name": name, "value": value, "origin": origin_of(name)} for name, value in flattened(values))
    state.output().records(rows, ("name", "value", "origin"))


def check(ctx: typer.Context) -> None:
    """Check the settings, the app, its routes and its sensors without starting anything. Exit 3 says what is wrong."""
    state = session(ctx)
    state.output().record(examine(state.settings()))


def examine(settings: "Settings") -> dict[str, Any]:
    """What the settings describe, once it is known to fit together.

    Raises:
        ConfigError: it does not; the message names everything that was found wrong.
    """
    found: dict[str, Any] = {"profile": settings.profile, "app": settings.node.app}
    problems: list[ConfigError] = []
    for look in (_check_app, _check_topic_routes):
        try:
            found |= look(settings)
        except ConfigError as error:
            problems.append(error)
    if problems:
        raise ConfigError("; ".join(map(str, problems)), hint=next((one.hint for one in problems if one.hint), None))
    return found


def _check_app(settings: "Settings") -> dict[str, Any]:
    from signalbox.cli.apps import load_app, load_plans
    from signalbox.sensors.contract import build_sensors

    app = load_app(settings)
    plan, *_ = load_plans(settings)
    sensors = build_sensors(app.sensors, settings)
    return {
        "agents": [kind.name for kind in plan.kinds],
        "routes": len(list(plan.routes())),
        "actions": sorted(plan.actions),
        "sensors": [sensor.name for sensor in sensors],
    }


def _check_topic_routes(settings: "Settings") -> dict[str, Any]:
    from signalbox.agents.plan import topic_router

    router = topic_router(settings.kafka.routes)
    if not router.has_route("**"):
        msg = "kafka.routes has no pattern that every type matches, so some signals would have no topic"
        raise ConfigError(msg, hint='add "**" = "signals"')
    return {"topics": sorted({settings.topic(topic) for topic in settings.kafka.routes.values()})}


def _origins(state: Session, settings: "Settings") -> Callable[[str], str]:
    """A function from a setting's dotted name to where its value comes from; the later layers are asked first."""
    from signalbox.config import profile_file

    overrides = state.overrides()
    variables = {name.upper() for name in os.environ}
    given = state.options.config or (Path(file) if (file := os.environ.get(f"{_PREFIX}CONFIG")) else None)
    files = [(path, _names_in(path)) for path in (given, profile_file(settings.profile)) if path is not None]

    def origin_of(name: str) -> str:
        names = _with_parents(name)
        if any(one in overrides for one in names):
            return "command line"
        for one in names:
            if (variable := f"{_PREFIX}{one.replace('.', '__').upper()}") in variables:
                return variable
        return next((str(path) for path, there in files if any(one in there for one in names)), "default")

    return origin_of


def _with_parents(name: str) -> list[str]:
    """`a.b.c`, `a.b`, `a`: a value may have been set as a part of any of them."""
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(len(parts), 0, -1)]


def _names_in(path: Path) -> set[str]:
    import tomllib

    values: Mapping[str, Any] = tomllib.loads(path.read_text())
    return {name for name, _ in flattened(values)}
