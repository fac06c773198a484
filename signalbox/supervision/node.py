"""What `signalbox up` runs: one supervised set of processes on one data directory, from the lock to the last reap.

Start: lock, HTTP, broker, topics, registry, sensors and workers, ready. End: sensors, workers (drained), registry,
HTTP, broker, lock, so that what was sensed is still processed and what is processed is still written. A start that
fails ends the same way. The parts have their own modules: `group.py` keeps processes running, `broker.py` the broker,
`registry.py` tells other nodes of this one, `view.py` shows the node.
"""

import asyncio
import contextlib
import os
import platform
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import signalbox
from signalbox import plugins
from signalbox.clock import Clock, SystemClock
from signalbox.config import Settings, resolved_environment
from signalbox.dashboard.api import build_api
from signalbox.dashboard.server import HttpServer, allowed_hosts
from signalbox.errors import Conflict, UsageError
from signalbox.supervision import discovery, fork_server, inspection, lock
from signalbox.supervision.broker import TOPICS, OuterBroker, OwnBroker
from signalbox.supervision.commands import CommandFeed
from signalbox.supervision.generation import Launch, Place
from signalbox.supervision.group import ProcessGroup
from signalbox.supervision.notices import Notices
from signalbox.supervision.outbox import Outbox
from signalbox.supervision.process import Program, Starter
from signalbox.supervision.registry import Heartbeat, RegistryFeed
from signalbox.supervision.saved_state import SavedState
from signalbox.supervision.scaler import Scaler
from signalbox.supervision.targets import TargetsFile
from signalbox.supervision.view import NodeView, has_settled, is_calm, stuck_s
from signalbox.telemetry import logs
from signalbox.telemetry.exposition import DIRECTORY_VARIABLE, Exposition
from signalbox.telemetry.metrics import BUILD_INFO

#: How the children are started. A flow's name, `--index`, `--addresses` and `--standby` are added to `worker`, or else
#: `--fork-server`.
COMMANDS: Mapping[str, Sequence[str]] = {
    "worker": (sys.executable, "-m", "flows.worker"),
    "sensors": (sys.executable, "-m", "signalbox.sensors"),
}

#: How long the end waits for the broker to take what is left to tell about scaling.
_LAST_NOTICES_S = 3.0

log = logs.get_logger(__name__)


class Node:
    """A node; `run` it once."""

    def __init__(
        self,
        settings: Settings,
        *,
        flows: Sequence[str] = ("agents",),
        commands: Mapping[str, Sequence[str]] = COMMANDS,
        clock: Clock | None = None,
    ) -> None:
        """Args:
            settings: resolved; `kafka.broker` says whether the node runs a broker itself.
            flows: the names of the flows to run.
            commands: replaces how children are started, as `COMMANDS`.
            clock: for the times of restarts.

        Raises:
            UsageError: there is no such flow.
        """
        known = type(settings.flows).model_fields
        if unknown := [name for name in flows if name not in known]:
            msg = f"there is no flow {', '.join(unknown)}"
            raise UsageError(msg, hint=f"there are: {', '.join(known)}")
        self._settings = settings
        self._flow_names = tuple(flows)
        self._commands = commands
        self._clock = clock or SystemClock()
        self._data_dir = settings.node.data_dir
        self._run_dir = self._data_dir / "run"
        self._started_at = datetime.now(UTC)
        self._stopping = asyncio.Event()
        self._forced = False
        self._groups: list[ProcessGroup] = []
        self._saved: dict[str, SavedState] = {}
        self._registry: tuple[RegistryFeed, Heartbeat] | None = None
        self._obeying: tuple[Scaler, CommandFeed, Outbox] | None = None
        self._vital: set[asyncio.Task[None]] = set()

    def run(self, on_ready: Callable[[str], None]) -> None:
        """Run in the foreground until SIGINT or SIGTERM. Call it from the main thread.

        Args:
            on_ready: called once with `ready http://HOST:PORT kafka HOST:PORT`.

        Raises:
            Conflict: the data directory or the HTTP port is taken, or the snapshots belong to another Kafka cluster.
            Unreachable: the broker does not answer.
            ConfigError: a child refuses its settings or the app, or the broker cannot run here.
            KeyboardInterrupt: a second signal ended it by force; work since the last snapshot is done again.
        """
        asyncio.run(self._run(on_ready))
        if self._forced:
            raise KeyboardInterrupt

    async def _run(self, on_ready: Callable[[str], None]) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._asked_to_stop, signal.Signals(number).name)
        async with contextlib.AsyncExitStack() as stack:
            living = asyncio.create_task(self._live(stack, on_ready))
            stopping = asyncio.create_task(self._stopping.wait())
            await asyncio.wait({living, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if living.done():
                living.result()
            living.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await living
        log.info("stopped")

    def _asked_to_stop(self, name: str) -> None:
        if not self._stopping.is_set():
            log.info("stopping", signal=name)
            self._stopping.set()
            return
        log.warning("stopping by force", signal=name)
        self._forced = True
        for group in self._groups:
            group.kill()

    async def _live(self, stack: contextlib.AsyncExitStack, on_ready: Callable[[str], None]) -> None:
        """Start everything, pushing on `stack` how to end it; then watch it, and return only by an error."""
        held = await asyncio.to_thread(lock.acquire, self._data_dir, node=self._settings.node.name)
        stack.callback(held.release)
        logs.configure(self._settings, process="node")
        exposition = self._fresh_metrics()
        broker = self._broker()
        stack.push_async_callback(broker.stop)
        view = NodeView(settings=self._settings, exposition=exposition, broker=broker)
        http = HttpServer(self._settings.http, build_api(view, hosts=allowed_hosts(self._settings.http)))
        stack.push_async_callback(http.stop)
        held.describe(http=await http.start())
        stack.callback(discovery.withdraw, self._data_dir)

        self._settings = await self._connect(broker, port=int(http.url.rpartition(":")[2]))
        await stack.enter_async_context(self._registered(view))
        environment = self._environment()
        stack.callback((self._run_dir / "settings.json").unlink, missing_ok=True)  # it holds secrets
        view.scaler = await stack.enter_async_context(self._scaling())
        starter = self._worker_starter(environment, held.fd, stack)
        for name in self._flow_names:
            view.flows[name] = self._worker_group(name, starter, exposition, view.scaler)
        view.sensors = self._sensor_group(environment, held.fd, exposition)
        for saved in self._saved.values():
            stack.push_async_callback(saved.seal)
        await stack.enter_async_context(self._kept(list(view.flows.values())))
        keepers = [*(view.scaler.keep(group) for group in view.flows.values()), view.scaler.pools.keep()]
        keepers += [self._saved[name].keep(group) for name, group in view.flows.items()]
        for keeping in map(asyncio.create_task, keepers):
            self._vital.add(keeping)
            stack.callback(keeping.cancel)
        await stack.enter_async_context(self._kept([view.sensors]))
        stack.callback(setattr, view, "phase", "stopping")
        watch = broker.watch(lost=self._broker_lost, back=self._broker_back)
        self._vital.add(watch)
        stack.callback(watch.cancel)  # a broker that dies during the end is not started again
        await self._until(group.first_run() for group in view.flows.values())
        view.phase = "running"
        self._announce(http.url, broker.bootstrap, on_ready)
        await self._until([asyncio.Event().wait()])

    def _broker(self) -> OwnBroker | OuterBroker:
        kafka = self._settings.kafka
        if kafka.broker == "external":
            return OuterBroker(plugins.admin(kafka), self._settings, self._clock)
        return OwnBroker(plugins.local_broker(kafka.broker, self._data_dir), self._settings, self._clock)

    async def _connect(self, broker: OwnBroker | OuterBroker, *, port: int) -> Settings:
        """Bring up the broker and the topics, and return the settings with the addresses that came of it."""
        bootstrap = await broker.start()
        kafka = self._settings.kafka.model_copy(update={"bootstrap": bootstrap})
        http = self._settings.http.model_copy(update={"port": port})
        settings = self._settings.model_copy(update={"kafka": kafka, "http": http})
        await asyncio.to_thread(self._claim_recovery, settings)
        await asyncio.to_thread(_ensure_topics, settings)
        return settings

    def _claim_recovery(self, settings: Settings) -> None:
        """See to it that the snapshots belong to this broker: with the offsets of another one, work would be lost."""
        recovery, claim = self._data_dir / "recovery", self._data_dir / "recovery-cluster"
        if settings.kafka.broker == "embedded":
            if recovery.exists():
                log.info("removing the snapshots of an earlier run: its broker kept its topics in memory only")
                shutil.rmtree(recovery)
            (self._data_dir / "control.json").unlink(missing_ok=True)
            claim.write_text("embedded")
            return
        cluster = plugins.admin(settings.kafka).cluster_id()
        if recovery.exists() and claim.exists() and (claimed := claim.read_text()) != cluster:
            msg = f"the snapshots in {recovery.resolve()} belong to Kafka cluster {claimed}, not to {cluster}"
            hint = "use another --data-dir, or remove that folder to begin anew from the topics as they are"
            raise Conflict(msg, hint=hint)
        claim.write_text(cluster)

    def _fresh_metrics(self) -> Exposition:
        self._run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory = self._run_dir / "metrics"
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        BUILD_INFO.labels(
            version=signalbox.__version__, python=platform.python_version(), bytewax=_installed("bytewax")
        ).set(1)
        return Exposition(directory)

    def _environment(self) -> dict[str, str]:
        return {
            **resolved_environment(self._settings, self._run_dir / "settings.json"),
            DIRECTORY_VARIABLE: str((self._run_dir / "metrics").resolve()),
        }

    @contextlib.asynccontextmanager
    async def _scaling(self) -> AsyncIterator[Scaler]:
        """Obey commands about scaling, from the moment that this is entered."""
        outbox = Outbox(self._settings)
        targets = TargetsFile(self._data_dir / "control.json")
        scaler = Scaler(self._settings, targets, Notices(self._settings, outbox))
        feed = CommandFeed(self._settings, scaler.obey)
        self._obeying = scaler, feed, outbox
        await feed.release(targets.now.since_s, targets.now.read)
        scaler.listens()
        try:
            yield scaler
        finally:
            await feed.hold()
            await asyncio.to_thread(outbox.close, _LAST_NOTICES_S)

    def _worker_starter(self, environment: dict[str, str], fd: int, stack: contextlib.AsyncExitStack) -> Starter:
        command = self._commands["worker"]
        if not fork_server.can_fork():
            return Program(command, environment, (fd,))
        patience_s = self._settings.supervision.start_timeout_s
        server = fork_server.ForkServer(command, environment=environment, inherited=(fd,), patience_s=patience_s)
        stack.push_async_callback(server.close)
        return server

    def _worker_group(self, name: str, starter: Starter, exposition: Exposition, scaler: Scaler) -> ProcessGroup:
        def arguments(place: Place) -> Sequence[str]:
            together = ("--addresses", ",".join(place.addresses)) if place.addresses else ()
            return (name, "--index", str(place.index), *together)

        launch = Launch(
            starter=starter,
            arguments=arguments,
            socket=lambda index: inspection.socket_path(self._data_dir, f"{name}-{index}"),
            is_running=lambda answer: answer.get("state") == "running",
            has_settled=has_settled,
            is_calm=is_calm,
            stuck_s=stuck_s,
            stands_by=True,
        )
        flow = scaler.target(name, self._settings.flows.of(name).workers)
        if flow.workers > self._settings.kafka.partitions:
            log.warning(
                "more workers than partitions",
                flow=name,
                workers=flow.workers,
                partitions=self._settings.kafka.partitions,
            )
        saved = self._saved[name] = SavedState(name, plugins.recovery(self._data_dir / "recovery" / name), self._clock)

        async def between(generation: int) -> bool:
            is_sound = await saved.check()
            await scaler.began(name, generation)
            return is_sound

        return self._group(
            name,
            launch,
            0 if flow.paused else flow.workers,
            exposition,
            generation=flow.generation,
            between=between,
        )

    def _sensor_group(self, environment: dict[str, str], fd: int, exposition: Exposition) -> ProcessGroup:
        launch = Launch(
            starter=Program(self._commands["sensors"], environment, (fd,)),
            arguments=lambda _place: (),
            socket=lambda _index: inspection.socket_path(self._data_dir, "sensors"),
            is_running=lambda _answer: True,
        )
        return self._group("sensors", launch, 1, exposition)

    def _group(self, name: str, launch: Launch, target: int, exposition: Exposition, **more: Any) -> ProcessGroup:
        group = ProcessGroup(
            name,
            launch,
            target=target,
            settings=self._settings.supervision,
            clock=self._clock,
            on_exit=exposition.retire,
            **more,
        )
        self._groups.append(group)
        return group

    @contextlib.asynccontextmanager
    async def _registered(self, view: NodeView) -> AsyncIterator[None]:
        """Keep a view of the registry, and tell there that this node lives; at the end, that it stopped."""
        feed = view.registry = RegistryFeed(self._settings, self._clock)
        heartbeat = Heartbeat(
            self._settings,
            started_at=self._started_at,
            census=view.census,
            fill_ratio=lambda: feed.view.fill_ratio,
        )
        self._registry = feed, heartbeat
        beating = asyncio.create_task(heartbeat.run())
        feed.release()
        heartbeat.release()
        try:
            yield
        finally:
            beating.cancel()
            await heartbeat.end(
                "stopped by force" if self._forced else "drained" if self._stopping.is_set() else "failed"
            )
            await feed.hold()

    @contextlib.asynccontextmanager
    async def _kept(self, groups: Sequence[ProcessGroup]) -> AsyncIterator[None]:
        """Keep the groups running; at the end drain them, side by side."""
        running = {asyncio.create_task(group.run()) for group in groups}
        self._vital |= running
        try:
            yield
        finally:
            for group in groups:
                group.stop()
            await asyncio.wait(running)

    async def _until(self, goals: Iterable[Awaitable[Any]]) -> None:
        """Wait for all goals, or raise what ended a task that has to go on."""
        reached: asyncio.Future[Any] = asyncio.gather(*goals)
        try:
            await asyncio.wait({reached, *self._vital}, return_when=asyncio.FIRST_COMPLETED)
            for task in self._vital:
                if task.done():
                    task.result()
            await reached
        finally:
            reached.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reached

    async def _broker_lost(self) -> None:
        if self._settings.kafka.broker == "embedded":
            log.warning("the embedded broker lost its topics: flows and sensors start afresh")
            if self._obeying is not None:
                _, feed, outbox = self._obeying
                outbox.hold()
                await feed.hold()
            await asyncio.gather(*(part.hold() for part in (*self._groups, *(self._registry or ()))))

    async def _broker_back(self) -> None:
        await asyncio.to_thread(self._claim_recovery, self._settings)
        await asyncio.to_thread(_ensure_topics, self._settings)
        if self._obeying is not None and self._settings.kafka.broker == "embedded":
            scaler, feed, outbox = self._obeying
            scaler.forget_commands()
            outbox.release()
            await feed.release(None, {})
            scaler.listens()
        for part in (*self._groups, *(self._registry or ())):
            part.release()

    def _announce(self, url: str, bootstrap: str, on_ready: Callable[[str], None]) -> None:
        record = discovery.NodeRecord(
            pid=os.getpid(),
            http=url,
            bootstrap=bootstrap,
            node=self._settings.node.name,
            started_at=self._started_at,
            version=signalbox.__version__,
        )
        discovery.announce(self._data_dir, record)
        log.info("ready", http=url, kafka=bootstrap)
        on_ready(f"ready {url} kafka {bootstrap}")


def _ensure_topics(settings: Settings) -> None:
    names = sorted(settings.topic(name) for name in {*TOPICS, *settings.kafka.routes.values()})
    created = plugins.admin(settings.kafka).ensure_topics(
        names, partitions=settings.kafka.partitions, replication=settings.kafka.replication
    )
    if created:
        log.info("created topics", topics=created, partitions=settings.kafka.partitions)


def _installed(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unknown"
