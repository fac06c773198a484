"""The command `signalbox`: one file per command group, put together in `main.py`.

Start-up time is part of the interface, so a file imports what it needs at the top only if that is light; settings, the
broker's client and the agents are imported inside the commands that use them.
"""
