"""`signalbox status`, `lag` and `version`: how the system is doing."""

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from signalbox.cli.base import session
from signalbox.cli.output import cell, flattened

if TYPE_CHECKING:
    from signalbox.cli.node_client import NodeClient
    from signalbox.ports import PartitionLag

_WATCH_S = 1.0
#: Topics that are listed even before a flow has confirmed anything on them.
_INPUTS = ("signals", "control")


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

    A partition with records on which a flow has never confirmed a position has an unknown lag, and so has the total.
    A flow other than agents that has confirmed nothing at all does not run here, and is left out.
    """
    state = session(ctx)
    settings = state.connected()
    admin = state.admin()
    names = [topic.name for topic in admin.topics()]
    inputs = {settings.topic(name) for name in _INPUTS}
    rows: list[dict[str, Any]] = []
    for flow in type(settings.flows).model_fields:
        partitions = admin.lag(settings.topic(f"signalbox.{flow}"), names)
        if flow != "agents" and all(one.position is None for one in partitions):
            continue
        shown = [_lag_row(flow, one) for one in partitions if one.position is not None or one.topic in inputs]
        lags = [row["lag"] for row in shown]
        if unknown := lags.count(None):
            state.note(f"{flow} has confirmed no position on {unknown} partitions, so its lag is unknown")
        total = None if unknown else sum(lags)
        rows += [
            *shown,
            {"flow": flow, "topic": "total", "partition": None, "position": None, "end": None, "lag": total},
        ]
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


def _lag_row(flow: str, one: "PartitionLag") -> dict[str, Any]:
    nothing_there = one.position is None and one.end == 0
    return {
        "flow": flow,
        "topic": one.topic,
        "partition": one.partition,
        "position": one.position,
        "end": one.end,
        "lag": 0 if nothing_there else one.records,
    }


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
