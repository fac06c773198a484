"""Which agents and nodes there are, as the topic `registry` tells, and queries about them. See `view.py`."""
