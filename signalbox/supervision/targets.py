"""How many workers and agents there are to be, on disk: what a supervisor that is killed goes on from.

One small file, replaced as a whole and synced before anything is done, so that a change that was begun is finished by
whoever comes next. Read commands are counted in the same file: each is obeyed once.
"""

from pathlib import Path

import msgspec

from signalbox.config import Settings
from signalbox.durable import write_durably
from signalbox.errors import ConfigError
from signalbox.machine import processors
from signalbox.scaling.policy import Policy

#: The flow that decides about the others: to pause it is to pause its decisions.
AUTOSCALER = "scaling"
_MOST_WORKERS = 10


class Change(msgspec.Struct, kw_only=True):
    """A change of the number of workers."""

    id: str
    before: int
    desired: int
    reason: str = ""
    decision_id: str | None = None


class FlowTarget(msgspec.Struct, kw_only=True):
    """What is wanted of a flow."""

    workers: int
    """Workers that there are to be."""
    configured: int
    """What the settings said when `workers` was decided: other settings at a later start win."""
    generation: int = 0
    """Number of the last generation that began."""
    paused: bool = False
    """Whether it is to have no workers for the time being."""
    asked: Change | None = None
    """What was asked for last."""
    change: Change | None = None
    """What has begun and is not confirmed."""
    pauses: list[float] = []
    """Seconds that the last changes paused the flow, the latest last."""


class Targets(msgspec.Struct, kw_only=True):
    """What is wanted of everything that can be scaled."""

    flows: dict[str, FlowTarget] = {}
    pools: dict[str, int] = {}
    """Agents that a pool is to have; those not named have what the settings say."""
    autoscaling: bool = True
    """Whether decisions of the autoscaler are obeyed."""
    read: dict[int, int] = {}
    """Next offset of the commands to read, by partition of `control`."""
    since_s: float | None = None
    """Unix seconds of the last command that was read, or of the first start; earlier ones are not looked for."""


def flow_policy(settings: Settings, name: str) -> Policy:
    """The bounds and habits by which a flow is scaled.

    What `scaling.flows` does not say: never fewer workers than the flow is set to begin with, and at most as many as
    there are processors. The autoscaler's own flow is one agent, and so one worker.
    """
    workers = settings.flows.of(name).workers
    most = workers if name == AUTOSCALER else max(workers, min(_MOST_WORKERS, processors()))
    given = settings.scaling.flows.get(name, Policy()).model_dump(exclude_unset=True)
    least = min(workers, given.get("max", workers))
    return Policy.model_validate({"min": least, "max": max(most, given.get("min", 1)), **given})


class TargetsFile:
    """The file of a data directory, and what it says."""

    def __init__(self, path: Path) -> None:
        """Read the file, if there is one.

        Raises:
            ConfigError: it is there and cannot be read.
        """
        self._path = path
        try:
            self.now = msgspec.json.decode(path.read_bytes(), type=Targets) if path.exists() else Targets()
        except (OSError, msgspec.MsgspecError) as error:
            msg = f"{path} cannot be read: {error}"
            raise ConfigError(
                msg, hint="remove it: the flows then begin with the workers that the settings say"
            ) from error

    def flow(self, name: str, configured: int) -> FlowTarget:
        """What is wanted of a flow of which the settings want `configured` workers."""
        known = self.now.flows.get(name)
        if known is None:
            known = self.now.flows[name] = FlowTarget(workers=configured, configured=configured)
        elif known.configured != configured:
            known.workers = known.configured = configured
            known.change = None
        return known

    def save(self) -> None:
        """Write it down, for good."""
        write_durably(self._path, msgspec.json.format(msgspec.json.encode(self.now)))
