"""`signalbox route`: patterns tried out, and who handles a signal type."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from signalbox.cli.apps import load_plans
from signalbox.cli.base import Command, group, session
from signalbox.cli.files import lines_of
from signalbox.errors import ConditionNotMet, UsageError

if TYPE_CHECKING:
    from signalbox.agents.plan import Handler
    from signalbox.routing import Route

app = group("Patterns over signal types, and who handles a type.")


@app.command("test", cls=Command)
def try_pattern(
    ctx: typer.Context,
    pattern: Annotated[str | None, typer.Argument(metavar="PATTERN")] = None,
    type: Annotated[str | None, typer.Argument(metavar="TYPE")] = None,
    file: Annotated[
        str | None,
        typer.Option("--file", metavar="F.tsv|-", help="Test every line `pattern<TAB>type` of a file, or of stdin."),
    ] = None,
) -> None:
    """Say whether PATTERN matches TYPE: yes (exit 0), no (6), or invalid (2).

    With --file it prints `yes`, `no` or `invalid` for every line, and exits 0.
    """
    state = session(ctx)
    if file is not None:
        if pattern is not None:
            msg = "give either PATTERN and TYPE or --file, not both"
            raise UsageError(msg)
        with lines_of(file) as lines:
            state.output().words((_judge_line(line) for line in lines), "match")
        return
    if pattern is None or type is None:
        msg = "give PATTERN and TYPE, or --file"
        raise UsageError(msg, hint="such as: signalbox route test 'room.*.temperature' room.kitchen.temperature")
    from signalbox.routing import InvalidPattern, Pattern

    try:
        matches = Pattern.parse(pattern).matches(type)
    except InvalidPattern as error:
        raise UsageError(str(error), hint=error.hint) from None
    state.output().words(["yes" if matches else "no"], "match")
    if not matches:
        raise typer.Exit(ConditionNotMet.exit_code)


@app.command("list", cls=Command)
def list_routes(ctx: typer.Context) -> None:
    """List every route of the app, in the order in which routes are tried, and then those of the autoscaler's flow."""
    state = session(ctx)
    routes = (route for plan in load_plans(state.settings()) for route in plan.routes())
    state.output().records([_described(order, route) for order, route in enumerate(routes, 1)])


@app.command("which", cls=Command)
def which(ctx: typer.Context, type: Annotated[str, typer.Argument(metavar="TYPE")]) -> None:
    """List who handles signals of TYPE, in order, and why in that order. Exit 6 if nobody does.

    The more specific pattern comes first, then the higher priority, then the earlier registration. A condition is
    checked when a signal comes: a handler whose condition does not hold is passed over. The autoscaler, which has a
    flow of its own, comes last.
    """
    from signalbox.routing import is_valid_type

    state = session(ctx)
    routes = [route for plan in load_plans(state.settings()) for route in plan.router.route(type)]
    state.output().records([_described(order, route) for order, route in enumerate(routes, 1)])
    if not routes:
        why = "no pattern matches it" if is_valid_type(type) else "it is not a valid type, and so matches no pattern"
        msg = f"nobody handles {type!r}: {why}"
        raise ConditionNotMet(msg, hint="`signalbox route list` lists every route")


def _judge_line(line: str) -> str:
    from signalbox.routing import InvalidPattern, Pattern

    text, _, type = line.partition("\t")
    try:
        return "yes" if Pattern.parse(text).matches(type) else "no"
    except InvalidPattern:
        return "invalid"


def _described(order: int, route: "Route[Handler]") -> dict[str, Any]:
    handler = route.target
    return {
        "order": order,
        "agent": handler.agent,
        "handler": handler.name,
        "pattern": route.pattern.text,
        "specificity": route.pattern.specificity,
        "priority": route.priority,
        "condition": None if handler.when is None else str(handler.when),
    }
