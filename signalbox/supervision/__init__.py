"""Starts, watches, restarts and stops the processes of a node; see `node.py` for the whole and `process.py` for one."""
