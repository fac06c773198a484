"""`signalbox recovery`: what is saved of each flow, and whether it is sound.

Both commands read the data directory itself, whether a node runs on it or not, and change nothing that is saved.
"""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from signalbox.cli.base import Command, group, session
from signalbox.errors import NotFound, SignalboxError

if TYPE_CHECKING:
    from signalbox.cli.session import Session
    from signalbox.ports import Damage, KeptCopy, RecoveryReport

app = group("Saved state of the flows: what there is, and whether it is sound.")

_Flow = Annotated[str | None, typer.Argument(metavar="FLOW", help="Only this flow.")]


@app.command("inspect", cls=Command)
def inspect(ctx: typer.Context, flow: _Flow = None) -> None:
    """Show what is saved of each flow, or everything about one FLOW.

    That is where it would resume, how large it is, and its copies; of one flow also each input's next offset, and from
    which offset each output is read back.
    """
    state = session(ctx)
    found = _reports(state, flow)
    if flow is not None:
        state.output().record(_details(flow, found[flow]))
        return
    state.output().records([_summary(name, report) for name, report in found.items()])


@app.command("verify", cls=Command)
def verify(ctx: typer.Context, flow: _Flow = None) -> None:
    """Read all that is saved and list what is damaged: file, how it shows, and what is lost with it.

    Copies are read too. Exit 0 if everything is sound, and 1 if anything is damaged, be it only a copy; the message
    says what the next start would do about it.
    """
    state = session(ctx)
    found = _reports(state, flow)
    rows = [
        {"flow": name, "place": place, **_damage(damage)}
        for name, report in found.items()
        for place, damages in (("in use", report.damages), *((copy.name, copy.damages) for copy in report.copies))
        for damage in damages
    ]
    state.output().records(rows, ("flow", "place", "file", "problem", "lost"))
    for name, report in found.items():
        state.note(f"{name}: {_verdict(report)}")
    if rows:
        damaged = ", ".join(dict.fromkeys(row["flow"] for row in rows))
        msg = f"saved state is damaged: {damaged}"
        raise SignalboxError(msg, hint="docs/how-to/recover.md says how to go on")


def _reports(state: "Session", flow: str | None) -> "dict[str, RecoveryReport]":
    """By flow.

    Raises:
        NotFound: nothing is saved there.
    """
    from signalbox import plugins

    settings = state.settings()
    root = settings.node.data_dir / "recovery"
    # What somebody has put aside lies beside the flows.
    names = [name for name in type(settings.flows).model_fields if (root / name).is_dir()] if flow is None else [flow]
    missing = [name for name in names if not (root / name).is_dir()]
    if missing or not names:
        what = f"of flow {flow} " if missing else ""
        msg = f"nothing is saved {what}in {root}"
        raise NotFound(msg, hint="give the node's data directory with --data-dir; the first start makes what is in it")
    return {name: plugins.recovery(root / name).report() for name in names}


def _summary(name: str, report: "RecoveryReport") -> dict[str, Any]:
    newest = report.copies[0] if report.copies else None
    return {
        "flow": name,
        "state": "damaged" if report.damages else "running" if report.running else "sound",
        "epoch": report.epoch,
        "workers": report.workers,
        "groups": report.groups,
        "state_bytes": report.state_bytes,
        "engine_bytes": report.engine_bytes,
        "copies": len(report.copies),
        "newest_copy": None if newest is None else newest.name,
        "newest_copy_age_s": None if newest is None else _age_s(newest),
        "damages": len(report.damages) + sum(len(copy.damages) for copy in report.copies),
    }


def _details(name: str, report: "RecoveryReport") -> dict[str, Any]:
    return {
        **_summary(name, report),
        "directory": str(report.directory),
        "executions": report.executions,
        "inputs": dict(sorted(report.inputs.items())),
        "outputs": dict(sorted(report.outputs.items())),
        "copies": [
            {
                "name": copy.name,
                "generation": copy.generation,
                "age_s": _age_s(copy),
                "epoch": copy.epoch,
                "size_bytes": copy.size_bytes,
                "sound": not copy.damages,
            }
            for copy in report.copies
        ],
        "set_aside": list(report.set_aside),
        "damages": [_damage(damage) for damage in report.damages],
        "would_use": report.would_use,
    }


def _damage(damage: "Damage") -> dict[str, str]:
    return {"file": damage.file, "problem": damage.what, "lost": damage.lost}


def _verdict(report: "RecoveryReport") -> str:
    if not report.damages:
        sound = sum(not copy.damages for copy in report.copies)
        return f"sound, with {sound} sound of {len(report.copies)} copies"
    if report.would_use is None:
        return "damaged, and nothing is sound that the next start could go back to"
    if report.would_use == "beginning":
        return "damaged; the next start makes all state again from Kafka, as there is no copy yet"
    return f"damaged; the next start goes back to copy {report.would_use}"


def _age_s(copy: "KeptCopy") -> float | None:
    return None if copy.made_at is None else round((datetime.now(UTC) - copy.made_at).total_seconds(), 1)
