"""One worker process of a flow: `python -m flows.worker agents --index 0`.

SIGTERM and SIGINT drain: the sources end, everything is saved, and the process exits 0. Any other end is a crash, from
which the next start goes on at the last snapshot. A supervisor passes settings in the environment. With `--standby` the
process gets everything ready that needs no snapshot, and begins when its supervisor says so (`supervision/standby.py`).
"""

import argparse
import contextlib
import gc
import importlib
import logging
import os
import signal
import sys
import threading
from datetime import timedelta
from typing import NoReturn

import structlog
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import cluster_main

from connectors.recovery.store import RecoveryStore
from flows.assembly import Flow
from flows.reporting import MetricsReporter, handlers
from signalbox.config import FlowsSettings, Settings, load_settings
from signalbox.errors import SignalboxError, StateDamaged
from signalbox.supervision import fork_server
from signalbox.supervision.inspection import serve, socket_path
from signalbox.supervision.parent import die_with_parent
from signalbox.supervision.standby import wait_for_start
from signalbox.telemetry import logs

#: Files of the engine's recovery store, fixed for a data directory's whole life. They hold offsets and lists of pieces
#: only (see `connectors.segments`), so one is enough for any number of workers; each costs disk syncs in every epoch.
RECOVERY_PARTITIONS = 1
#: The hot path makes many short-lived objects without cycles; by default the collector would look at them for nothing.
_GC_THRESHOLDS = (100_000, 20, 50)
#: Seconds after which the engine's thread lets that of the actions in, and the other way round. By default one waits
#: five milliseconds for the other at every turn.
_SWITCH_S = 0.0005
_DRAIN_SIGNALS = {signal.SIGTERM, signal.SIGINT}

log = structlog.get_logger(__name__)


def main(argv: list[str] | None = None) -> int:
    """Run until drained; returns the exit code."""
    arguments = _parser().parse_args(argv)
    if arguments.fork_server is not None:
        for name in FlowsSettings.model_fields:
            importlib.import_module(f"flows.{name}")
        fork_server.serve(arguments.fork_server, main)
        return 0
    if arguments.flow is None:
        _parser().error("which flow?")
    die_with_parent()
    # Before any thread exists, so that all inherit it and only the one that waits for them gets these signals.
    signal.pthread_sigmask(signal.SIG_BLOCK, _DRAIN_SIGNALS)
    name = f"{arguments.flow}-{arguments.index}"
    try:
        settings = load_settings()
        logs.configure(settings, process=name)
        run(settings, arguments.flow, index=arguments.index, addresses=arguments.addresses, standby=arguments.standby)
    except Exception as error:  # noqa: BLE001 - whatever it is, it must reach the log before the process ends
        return _explain(error)
    return 0


def run(
    settings: Settings, name: str = "agents", *, index: int, addresses: list[str], standby: int | None = None
) -> None:
    """Run the flow `name` as worker process `index`, alone or with those at `addresses`.

    Args:
        settings: resolved.
        name: of the flow, which is that of its module.
        index: of this process, from 0.
        addresses: `HOST:PORT` of all processes by index, if there are several.
        standby: file descriptor on which the supervisor tells when to begin; None is at once.
    """
    store = RecoveryStore(settings.node.data_dir / "recovery" / name)
    flow = _built(settings, name, store, workers=max(1, len(addresses)), index=index)
    state = {"now": "starting"}
    _drain_on_signal(flow.drain, state)
    if standby is not None:
        flow.connect()
        if (start := wait_for_start(standby)) is None:
            return
        flow.sink.hub.clean = start.clean
    _run(flow, settings, store, state, index=index, addresses=addresses)


def _built(settings: Settings, name: str, store: RecoveryStore, *, workers: int, index: int) -> Flow:
    module = importlib.import_module(f"flows.{name}")
    try:
        flow: Flow = module.build(settings, workers=workers, index=index)
    except StateDamaged:
        # Where the topics began cannot be read; what is put in its place now is read by the next start.
        store.prepare()
        raise
    return flow


def _run(
    flow: Flow, settings: Settings, store: RecoveryStore, state: dict[str, str], *, index: int, addresses: list[str]
) -> None:
    data_dir = settings.node.data_dir
    using = contextlib.ExitStack()
    recovery = _prepared(store, using)
    gc.set_threshold(*_GC_THRESHOLDS)
    sys.setswitchinterval(_SWITCH_S)
    reporter = MetricsReporter(flow, index=index, every_s=settings.telemetry.flush_s)
    server = serve(
        socket_path(data_dir, f"{flow.name}-{index}"), handlers(flow, index=index, pid=os.getpid(), state=state)
    )
    reporter.start()
    state["now"] = "running"
    log.info("worker starts", flow=flow.name, index=index, workers=max(1, len(addresses)))
    try:
        cluster_main(
            flow.dataflow,
            addresses,
            index,
            epoch_interval=timedelta(milliseconds=flow.settings.epoch_ms),
            recovery_config=recovery,
        )
    finally:
        using.close()
        flow.executor.stop(settings.actions.grace_s)
        reporter.stop()
        server.close()
    log.info("worker drained", flow=flow.name, index=index)


def _prepared(store: RecoveryStore, using: contextlib.ExitStack) -> RecoveryConfig:
    """The engine's recovery store: as it was, or as a sound copy has it, or new; made whole or not at all.

    Until `using` is closed nobody else replaces it.
    """
    engine = store.directory / "engine"
    with store.prepared():
        if not engine.is_dir():
            scratch = store.directory / "engine.new"
            scratch.mkdir(exist_ok=True)
            for leftover in scratch.iterdir():
                leftover.unlink()
            init_db_dir(scratch, RECOVERY_PARTITIONS)
            scratch.rename(engine)
        using.enter_context(store.in_use())
    return RecoveryConfig(str(engine), backup_interval=timedelta(0))


def _drain_on_signal(drain: threading.Event, state: dict[str, str]) -> None:
    """Wait for a signal in a thread of its own: the engine's main thread does not come back to Python in time."""

    def wait() -> None:
        signal.sigwait(_DRAIN_SIGNALS)
        state["now"] = "draining"
        drain.set()
        signal.sigwait(_DRAIN_SIGNALS)
        os._exit(130)

    threading.Thread(target=wait, name="signals", daemon=True).start()


def _explain(error: BaseException) -> int:
    """Log an error with its root, and give the exit code of the first of our own in its chain."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, SignalboxError):
            log.error("worker stops", error=str(cause), hint=cause.hint)
            return cause.exit_code
        cause = cause.__cause__ or cause.__context__
    log.error("worker crashes", exc_info=error)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m flows.worker", description="One worker process of a flow.")
    parser.add_argument("flow", nargs="?", choices=list(FlowsSettings.model_fields))
    parser.add_argument("--index", type=int, default=0, help="number of this process, from 0")
    parser.add_argument(
        "--addresses", type=lambda text: text.split(","), default=[], help="HOST:PORT of all processes, by index"
    )
    parser.add_argument("--standby", type=int, metavar="FD", help="wait on this descriptor for the word to begin")
    parser.add_argument("--fork-server", type=int, metavar="FD", help="fork the workers that are asked for on this one")
    return parser


def _leave(code: int) -> NoReturn:
    """End at once: everything is saved, and to take clients and engine apart in order would only make others wait."""
    logging.shutdown()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _leave(main())
