"""The rules that react to a word about load at once: one agent more, one less, or a good part more in an emergency.

They know no rates and weigh no costs; `controller.py` does, wherever load is measured. A decision by rule records what
it followed from, as one of the controller does, and `replay` makes it again.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec

from signalbox.ids import derived_id
from signalbox.scaling.model import Decision, Held

Kind = Literal["high_load", "low_load", "queue_overflow"]
#: An emergency adds this share of the agents there are,
EMERGENCY_SHARE = 0.25
#: but at least so many.
EMERGENCY_LEAST = 2


class Occasion(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a rule decides by: a word about load, and what is known of the pool that it concerns."""

    rule: Kind
    cause: str
    """Id of the signal."""
    target: str
    at: float
    """Unix seconds."""
    units: int
    min: int
    max: int
    load: float | None = None
    """As a share of what can be borne; an overflow may come without."""
    threshold: float | None = None
    """What the load has to be beyond."""
    cooldown_s: float = 0.0
    changed_at: float | None = None
    """When the pool was last changed, in Unix seconds."""
    held: Held | None = None
    """Why nothing may change now, as in `Sample`."""
    measured: bool = False
    """Whether the load was measured of something else while the pool itself is measured, too."""


def judge(occasion: Occasion) -> Decision:
    """Decide by the rule that the occasion names; nothing but the occasion counts."""
    reason, message = _verdict(occasion)
    desired = occasion.units
    if reason == occasion.rule:
        desired = min(occasion.max, max(occasion.min, occasion.units + _step(occasion)))
    inputs: dict[str, Any] = {"occasion": msgspec.to_builtins(occasion)}
    return Decision(
        id=derived_id(occasion.cause, f"{occasion.target}|{occasion.rule}", 0),
        target=occasion.target,
        at=occasion.at,
        units=occasion.units,
        desired=desired,
        verdict="hold" if desired == occasion.units else "scale",
        reason=reason,
        message=f"{message}: {occasion.units} agents become {desired}" if desired != occasion.units else message,
        terms={
            "load": occasion.load,
            "threshold": occasion.threshold,
            "min": occasion.min,
            "max": occasion.max,
            "step": _step(occasion),
        },
        inputs=inputs,
    )


def replay(inputs: Mapping[str, Any]) -> Decision:
    """Make a recorded decision again.

    Args:
        inputs: `Decision.inputs` of a decision by rule, also after a round trip through JSON.

    Raises:
        KeyError: they are not those of a decision by rule.
        ValidationError: what they say is not an occasion.
    """
    return judge(msgspec.convert(inputs["occasion"], Occasion))


def _verdict(occasion: Occasion) -> tuple[str, str]:
    """The reason, which is the rule's name if it applies, and a sentence."""
    load, threshold = occasion.load, occasion.threshold
    if load is None or threshold is None:
        applies = "the queue overflows"
    else:
        applies = f"a load of {load:g} is {'below' if occasion.rule == 'low_load' else 'above'} {threshold:g}"
    return next(_obstacles(occasion), (occasion.rule, applies))


def _obstacles(occasion: Occasion) -> Iterator[tuple[str, str]]:
    """Why the rule does not apply, the weightiest reason first."""
    load, threshold = occasion.load, occasion.threshold
    if occasion.held is not None:
        yield occasion.held, f"nothing is changed now: {occasion.held}"
    if load is not None and threshold is not None:
        if occasion.rule == "high_load" and load <= threshold:
            yield "below_threshold", f"a load of {load:g} is not above {threshold:g}"
        if occasion.rule == "low_load" and load >= threshold:
            yield "above_threshold", f"a load of {load:g} is not below {threshold:g}"
    if occasion.measured:
        yield "measured", "the pool's own load is measured, and that decides"
    if occasion.rule == "low_load" and occasion.units <= occasion.min:
        yield "at_min", f"{occasion.units} agents are as few as may be"
    if occasion.rule != "low_load" and occasion.units >= occasion.max:
        yield "at_max", f"{occasion.units} agents are as many as may be"
    if occasion.changed_at is not None and (rest := occasion.changed_at + occasion.cooldown_s - occasion.at) > 0:
        yield "cooldown", f"the last change was less than {occasion.cooldown_s:g} s ago; {rest:.0f} s remain"


def _step(occasion: Occasion) -> int:
    match occasion.rule:
        case "high_load":
            return 1
        case "low_load":
            return -1
        case "queue_overflow":
            return max(EMERGENCY_LEAST, math.ceil(occasion.units * EMERGENCY_SHARE))
