"""The skills that ship: bundles of handlers, state and settings that agents mount. The contract: `agents/skill.py`."""

from signalbox.skills.auto_scaling import AutoScalingSkill

__all__ = ["AutoScalingSkill"]
