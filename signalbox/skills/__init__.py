"""The skills that ship: bundles of handlers, state and settings that agents mount. The contract: `agents/skill.py`."""
