"""`signalbox status`, `lag` and `version`: how the system is doing."""

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from signalbox.cli.base import session
from signalbox.cli.output import cell, flattened

if TYPE_CHECKING:
    from signalbox.cli.node_client import NodeClient

_WATCH_S = 1.0


def status(
    ctx: typer.Context,
    watch: Annotated[bool, typer.Option("--watch", help="Again every second, until Ctrl-C.")] = False,
) -> None:
    """Show how the node that runs on the data directory is doing."""
    state = session(ctx)
    node = state.node()
    output = state.output()
    if not watch:
        output.record(node.get("/api/v1/status"))
    elif output.format == "table":
        _watch_live(node)
    else:
        output.stream(_statuses(node), {})


def lag(ctx: typer.Context) -> None:
    """Show how many records each flow is behind, by partition and in total.

    A partition that a flow has never confirmed has no position, and its lag is unknown.
    """
    state = session(ctx)
    settings = state.connected()
    admin = state.admin()
    names = [topic.name for topic in admin.topics()]
    rows: list[dict[str, Any]] = []
    for flow in type(settings.flows).model_fields:
        group = settings.topic(f"signalbox.{flow}")
        partitions = [
            one for one in admin.lag(group, names) if one.position is not None or _is_input(settings, one.topic)
        ]
        rows += [
            {
                "flow": flow,
                "topic": one.topic,
                "partition": one.partition,
                "position": one.position,
                "end": one.end,
                "lag": one.records,
            }
            for one in partitions
        ]
        known = [one.records for one in partitions if one.records is not None]
        total = sum(known) if len(known) == len(partitions) else None
        rows.append({"flow": flow, "topic": "total", "partition": None, "position": None, "end": None, "lag": total})
    state.output().records(rows)


def version(ctx: typer.Context) -> None:
    """Show the versions of signalbox and of what it runs on."""
    import platform
    from importlib.metadata import version as installed

    import signalbox
    from signalbox import plugins

    session(ctx).output().record(
        {
            "signalbox": signalbox.__version__,
            "python": platform.python_version(),
            "bytewax": installed("bytewax"),
            "confluent_kafka": installed("confluent-kafka"),
            "librdkafka": plugins.load("confluent_kafka:libversion")()[0],
            "platform": platform.platform(),
        }
    )


def _is_input(settings: Any, topic: str) -> bool:
    return bool(topic == settings.topic("signals"))


def _statuses(node: "NodeClient") -> Iterator[Mapping[str, Any]]:
    while True:
        yield node.get("/api/v1/status")
        time.sleep(_WATCH_S)


def _watch_live(node: "NodeClient") -> None:
    from rich.live import Live
    from rich.table import Table

    with Live(auto_refresh=False) as live:
        for answer in _statuses(node):
            table = Table(box=None, show_header=False, pad_edge=False)
            for name, value in flattened(answer):
                table.add_row(name, cell(value))
            live.update(table, refresh=True)
