"""`signalbox action`: which actions an app has, and what each takes and promises."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from signalbox.cli.apps import load_plan
from signalbox.cli.base import Command, group, session
from signalbox.errors import NotFound

if TYPE_CHECKING:
    from signalbox.actions import Action

app = group("Actions.")


@app.command("list", cls=Command)
def list_actions(ctx: typer.Context) -> None:
    """List the app's actions."""
    state = session(ctx)
    actions = load_plan(state.settings()).actions.values()
    state.output().records([_described(action) for action in actions], ("name", "effect", "timeout_s", "description"))


@app.command("show", cls=Command)
def show(ctx: typer.Context, name: Annotated[str, typer.Argument(metavar="NAME")]) -> None:
    """Show how an action is run, and the JSON Schemas of its parameters and of its result."""
    state = session(ctx)
    actions = load_plan(state.settings()).actions
    if name not in actions:
        msg = f"there is no action {name!r}"
        raise NotFound(msg, hint=f"the app has: {', '.join(sorted(actions))}")
    action = actions[name]
    schemas = {"params": action.params.model_json_schema(), "result": action.result.json_schema(mode="serialization")}
    state.output().record({**_described(action), **schemas})


def _described(action: "Action") -> dict[str, Any]:
    return {
        "name": action.name,
        "description": action.description,
        "effect": action.effect,
        "timeout_s": action.timeout_s,
        "limit": action.limit,
        "max_attempts": action.retry.max_attempts,
        "on_unknown": action.on_unknown,
        "resources": dict(action.resources),
    }
