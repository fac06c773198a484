"""What the actions of one worker process share."""

from dataclasses import dataclass
from typing import Self

from signalbox.actions.http_client import HttpClient
from signalbox.clock import Clock
from signalbox.config import Settings
from signalbox.resources import ResourceManager


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Made once per worker process by `of`, before the first action runs, and closed after the last."""

    settings: Settings
    clock: Clock
    http: HttpClient
    """Calls other hosts, within the limits of `actions.http`."""
    resources: ResourceManager
    """This process's part of what the settings under `resources` allow the node."""

    @classmethod
    def of(cls, settings: Settings, clock: Clock, *, workers: int = 1, index: int = 0) -> Self:
        """All that the settings say, for worker process `index` of so many on this node."""
        return cls(
            settings=settings,
            clock=clock,
            http=HttpClient(settings.actions.http),
            resources=ResourceManager(settings.resources, clock, workers=workers, index=index),
        )

    async def close(self) -> None:
        """Let go of what they hold open; called in the actions' event loop."""
        await self.http.close()
