"""What the supervisor tells about scaling: notices on topics, and the facts that this node's own processes read.

The facts lie in `<data_dir>/run/scaling.json`, replaced as a whole. They are there before a worker begins, and say what
is wanted now; they are not needed to go on after a crash (`targets.py`).
"""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from schemas.payloads.scaling import Autoscaling, PoolResized, Rescale
from schemas.signal import decode, new_signal
from signalbox.config import Settings
from signalbox.dead_letters import Where, dead_letter
from signalbox.durable import write_at_once
from signalbox.supervision.commands import Command
from signalbox.supervision.group import ProcessGroup
from signalbox.supervision.outbox import Outbox
from signalbox.supervision.targets import Change, Targets
from signalbox.telemetry.logs import get_logger

log = get_logger(__name__)


class Notices:
    """Tells about scaling; nothing here waits for the broker."""

    def __init__(self, settings: Settings, outbox: Outbox) -> None:
        self._settings = settings
        self._outbox = outbox
        self._path = settings.node.data_dir / "run" / "scaling.json"

    def rescale(self, what: str, **values: Any) -> dict[str, Any]:
        """Tell of a change as `scaling.rescale.<what>`; returns what was told."""
        payload = Rescale(**values)
        log.info("rescale", what=what, **payload.model_dump(exclude_none=True, exclude={"rescale_id"}))
        self._send("scaling", f"scaling.rescale.{what}", payload, subject=payload.target)
        return {
            "type": f"scaling.rescale.{what}",
            "at": datetime.now(UTC).isoformat(),
            **payload.model_dump(mode="json"),
        }

    def pool(self, name: str, change: Change) -> None:
        """Tell that a pool has another size, which every worker follows."""
        resized = PoolResized(
            pool=name,
            size=change.desired,
            before=change.before,
            reason=change.reason,
            decision_id=change.decision_id,
        )
        log.info("pool resized", **resized.model_dump(exclude_none=True))
        self._send("scaling", "scaling.pool.resized", resized, subject=f"pool/{name}")

    def autoscaling(self, *, on: bool, reason: str) -> None:
        """Tell that the autoscaler's decisions are obeyed from now on, or not."""
        self._send(
            "scaling", "scaling.resumed" if on else "scaling.paused", Autoscaling(reason=reason), subject="flow/scaling"
        )

    def refuse(self, command: Command, reason: str, message: str) -> None:
        """Set a command aside as a dead letter. The same record gives the same id."""
        signal, record = command
        letter = dead_letter(
            reason,
            message,
            where=Where(record.topic, record.partition, record.offset),
            key=record.key,
            value=record.value,
            headers=record.headers,
            limit_bytes=self._settings.limits.dead_letter_bytes,
            now=datetime.now(UTC),
            timestamp=record.timestamp,
            signal=signal,
            source=f"signalbox/{self._settings.node.name}",
        )
        log.warning("a command is refused", reason=reason, why=message, id=signal.id)
        self._outbox.send(letter.topic, decode(letter.value))

    async def facts(self, targets: Targets, groups: Mapping[str, ProcessGroup]) -> None:
        """Write down what is wanted and what there is, for the processes of this node."""
        facts = {
            "flows": {
                name: {
                    "workers": len(group.pids),
                    "target": group.target,
                    "generation": group.generation,
                    "changing": targets.flows[name].change is not None,
                    "pauses": targets.flows[name].pauses,
                }
                for name, group in groups.items()
            },
            "pools": {name: {"size": size} for name, size in targets.pools.items()},
        }
        await asyncio.to_thread(write_at_once, self._path, msgspec.json.encode(facts))

    def _send(self, topic: str, type: str, data: Any, *, subject: str) -> None:
        source = f"signalbox/{self._settings.node.name}"
        self._outbox.send(topic, new_signal(type, data, source=source, subject=subject))
