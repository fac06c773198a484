"""How many agents and workers there should be: decided by a pure function of what was recorded, and simulated."""
