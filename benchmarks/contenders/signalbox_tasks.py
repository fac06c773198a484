"""`signalbox` for actions: the shipped task agents, one decent action and some bad ones, in one worker process.

Defaults throughout, but for the places in the line: with `BENCH_PLACES` so many actions may run at once.
"""

import asyncio
import os
import sys
import threading

from pydantic import BaseModel

from contenders.work import Orders
from flows import worker
from signalbox.actions import action
from signalbox.app import App


class Wait(BaseModel):
    """How long the outside world takes, in seconds."""

    seconds: float = 0.0


@action(timeout_s=60)
async def wait(params: Wait) -> float:
    """Wait for the outside world."""
    await asyncio.sleep(params.seconds)
    return params.seconds


@action(timeout_s=0.5)
def block(params: Wait) -> None:
    """Never come back."""
    threading.Event().wait()


@action(timeout_s=0.1)
async def come_late(params: Wait) -> None:
    """Take no notice of the time."""
    try:
        await asyncio.sleep(1)
    except asyncio.CancelledError:
        await asyncio.sleep(0.2)


@action()
async def leave(params: Wait) -> None:
    """Try to end the process."""
    raise SystemExit


@action()
def leak(params: Wait) -> None:
    """Leave a thread behind."""
    threading.Thread(target=threading.Event().wait, daemon=True).start()


@action()
async def lie(params: Wait) -> float:
    """Return something else than promised."""
    return "nothing"  # type: ignore[return-value]


app = App(actions=[wait, block, come_late, leave, leak, lie])


def main() -> int:
    """Run until SIGTERM."""
    orders = Orders.from_environment()
    os.environ |= {
        "SIGNALBOX_KAFKA__BOOTSTRAP": orders.bootstrap,
        "SIGNALBOX_KAFKA__TOPIC_PREFIX": orders.source.removesuffix("signals"),
        "SIGNALBOX_NODE__DATA_DIR": str(orders.state_dir),
        "SIGNALBOX_NODE__APP": "contenders.signalbox_tasks:app",
    }
    if places := os.environ.get("BENCH_PLACES"):
        os.environ |= {"SIGNALBOX_ACTIONS__MAX_RUNNING": places, "SIGNALBOX_ACTIONS__MAX_IN_FLIGHT": places}
    return worker.main(["agents", "--index", "0"])


if __name__ == "__main__":
    sys.exit(main())
