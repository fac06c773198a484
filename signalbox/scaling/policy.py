"""The settings of the controller: what a scaling decision weighs, with units and defaults.

A decision records the policy it was made by, so changing one explains, and never rewrites, what was decided before.
"""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

#: As many agents or workers as the system is made for.
MOST_UNITS = 100
Units = Annotated[int, Field(ge=1, le=MOST_UNITS)]


class _Group(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class Policy(_Group):
    """How one target, a flow's workers or a pool's agents, is scaled."""

    enabled: bool = True
    """Whether decisions are carried out by themselves. Commands of people always are."""
    min: Units = 1
    """Never fewer."""
    max: Units = 10
    """Never more."""
    scale_to_zero: bool = False
    """Whether an idle flow may have no worker at all until records come."""
    utilization: float = Field(0.75, gt=0, le=1)
    """The share of its capacity that a unit is meant to be busy."""
    busy_low: float = Field(0.5, ge=0, le=1)
    """Lower end of the dead band of utilization. Inside it, nothing changes soon; see docs/explanation/scaling.md."""
    busy_high: float = Field(0.9, gt=0, le=1)
    """Upper end of the dead band."""
    catch_up_s: PositiveFloat = 60.0
    """Seconds within which a backlog is to be worked off."""
    cooldown_s: NonNegativeFloat = 10.0
    """Least seconds between two changes; at least ten times the measured pause of a change counts."""
    down_window_s: NonNegativeFloat = 120.0
    """Fewer units are taken only when none of so many seconds asked for more."""
    up_samples: PositiveInt = 2
    """So many samples in a row have to ask for more units."""
    pause_s: PositiveFloat = 5.0
    """Seconds that a change is expected to pause the target, until some were measured; 0.001 for a pool."""
    idle_s: PositiveFloat = 300.0
    """A flow that may have no worker gets none after so long without lag and arrivals."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min > self.max:
            msg = f"min {self.min} is more than max {self.max}"
            raise ValueError(msg)
        if not self.busy_low < self.utilization <= self.busy_high:
            msg = (
                f"utilization {self.utilization} has to lie above busy_low {self.busy_low}"
                f" and not above busy_high {self.busy_high}"
            )
            raise ValueError(msg)
        return self


class ScalingSettings(_Group):
    """Decisions about how many workers and agents there are."""

    enabled: bool = True
    """Whether the autoscaler's decisions are carried out. Commands of people always are."""
    sample_s: PositiveFloat = 2.0
    """How often load is measured and a decision is made."""
    flows: dict[str, Policy] = Field(default_factory=dict)
    """Policies of flows by name. What is not given has its default, but for the bounds: never fewer workers than
    `flows.<name>.workers`, and at most as many as there are processors, up to ten."""
    pools: dict[str, Policy] = Field(default_factory=dict)
    """Policies of pools by agent class. Those not named have never fewer agents than `agents.<name>.size`."""
