"""A target in words: one sample after another, and what the controller says to each."""

from typing import Any

from signalbox.scaling.controller import decide
from signalbox.scaling.memory import Memory
from signalbox.scaling.model import Decision, Sample
from signalbox.scaling.policy import Policy

#: Records per second that a unit of these tests can do.
RATE = 100.0


class Target:
    """Asks the controller about a target every two seconds. Decisions are carried out only if the test says so."""

    def __init__(self, policy: Policy | None = None, *, units: int = 1, **usual: Any) -> None:
        self.policy = policy or Policy()
        self.memory = Memory()
        self.at = 1000.0
        self.units = units
        self.usual = usual

    def tell(self, arrivals: float | None = 70.0, **fields: Any) -> Decision:
        """The decision on one more sample of units that do what they can; `fields` say what is otherwise."""
        self.at += 2
        power = RATE * self.units
        lag = fields.get("lag", 0.0)
        processed = power if lag else min(power, arrivals or 0.0)
        values = {
            "target": "flow/agents",
            "at": self.at,
            "units": self.units,
            "arrivals": arrivals,
            "processed": processed,
            "lag": 0.0,
            "busy": processed / power if power else None,
            "pauses": (0.3,),
        }
        sample = Sample(**{**values, **self.usual, **fields})
        decision, self.memory = decide(self.policy, self.memory, sample)
        return decision

    def tell_for(self, seconds: float, arrivals: float | None = 70.0, **fields: Any) -> Decision:
        """The last of the decisions on samples that are all alike."""
        decision = self.tell(arrivals, **fields)
        for _ in range(int(seconds / 2) - 1):
            decision = self.tell(arrivals, **fields)
        return decision

    def until_scaled(self, arrivals: float, *, within_s: float = 600, **fields: Any) -> Decision:
        """The first decision to scale, carried out, on samples that are all alike."""
        for _ in range(int(within_s / 2)):
            decision = self.tell(arrivals, **fields)
            if decision.verdict == "scale":
                self.units = decision.desired
                return decision
        msg = f"nothing was scaled within {within_s} s; the last decision was {decision}"
        raise AssertionError(msg)
