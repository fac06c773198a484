"""`signalbox demo`: the guided scenario, on a node of its own with the embedded broker, from start to a clean end.

Everything in it is real: the readings are this machine's, the tasks go through Kafka, the worker is killed with
SIGKILL, and the figures are counted from the topics. It fails if anything was lost or answered twice.
"""

import contextlib
import os
import queue
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from signalbox.cli import demo_burst
from signalbox.cli.base import session
from signalbox.cli.demo_burst import Burst, show_burst
from signalbox.cli.demo_outage import Outage, show_outage
from signalbox.cli.demo_watch import wait_until, watching
from signalbox.cli.session import SOURCE, Session
from signalbox.errors import SignalboxError

if TYPE_CHECKING:
    from schemas.signal import Signal
    from signalbox.cli.node_client import NodeClient
    from signalbox.config import KafkaSettings

TASKS = 2000
#: The slowest start seen on a small busy machine was a tenth of this.
_START_TIMEOUT_S = 60.0
_ANSWER_TIMEOUT_S = 60.0
_ALERT_TIMEOUT_S = 20.0
_TOPICS = ("signals", "results", "alerts", "dead-letters")
#: What a machine uses of its memory or disk is never nothing, so a bound below it makes a real reading alarming.
_ALERT_THRESHOLD = 0.02


@dataclass(slots=True)
class Seen:
    """What has been read back from the topics."""

    readings: list["Signal[Any]"] = field(default_factory=list)
    alerts: list["Signal[Any]"] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    dead_letters: list["Signal[Any]"] = field(default_factory=list)


def demo(
    ctx: typer.Context,
    duration: Annotated[
        float, typer.Option("--duration", metavar="S", min=2, help="Seconds over which the tasks are sent.")
    ] = 8.0,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Decides when the worker is killed.")] = 7,
) -> None:
    """Show the system at work here: sensors, tasks, a killed worker, alerts, an outage, a burst. Ends by itself."""
    state = session(ctx)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="signalbox-demo-", ignore_cleanup_errors=True) as folder:
        data_dir = Path(folder) / "node"
        _say("starting a node: embedded Kafka broker, topics, sensors, one worker")
        with _node(data_dir) as node:
            _say(f"{node} ({time.monotonic() - began:.1f} s)")
            kafka = _kafka(data_dir)
            seen = Seen()
            with watching(kafka, _TOPICS, start="start", note=partial(_sort, seen)):
                _show_sensors(seen)
                killed = _run_tasks(kafka, data_dir, duration, random.Random(seed))  # noqa: S311 - no secret
                _await_answers(seen)
                _show_bad_input(kafka, seen)
                _show_alerts(seen)
            outage = show_outage(kafka, _say)
            burst = show_burst(kafka, _client(data_dir), _say)
        _say("node drained and stopped; nothing is left running")
    _summarise(state, seen, outage, burst, killed, time.monotonic() - began)


@contextlib.contextmanager
def _node(data_dir: Path) -> Iterator[str]:
    """A node in a process of its own; gives its ready line."""
    settings = {
        "sensors.system_health.interval_s": "1",
        "agents.monitor_agent.state.alert_threshold": str(_ALERT_THRESHOLD),
        "log.console": "false",
        "actions.http.allow_private": "true",  # the service that it calls is on this machine
        **demo_burst.SETTINGS,
    }
    command = [sys.executable, "-m", "signalbox.cli", "--profile", "dev", "--data-dir", str(data_dir)]
    for name, value in settings.items():
        command += ["--set", f"{name}={value}"]
    process = subprocess.Popen(
        [*command, "up", "--broker", "embedded", "--http", "127.0.0.1:0", "--app", demo_burst.APP],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield _ready_line(process, data_dir)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(timeout=_START_TIMEOUT_S)


def _ready_line(process: subprocess.Popen[str], data_dir: Path) -> str:
    lines: queue.Queue[str] = queue.Queue()
    assert process.stdout is not None
    threading.Thread(target=lambda: lines.put(process.stdout.readline()), daemon=True).start()  # type: ignore[union-attr]
    try:
        line = lines.get(timeout=_START_TIMEOUT_S).strip()
    except queue.Empty:
        line = ""
    if not line.startswith("ready "):
        msg = "the node did not start"
        raise SignalboxError(msg, hint=f"its log: {data_dir / 'logs'}; `signalbox doctor` checks this machine")
    return line


def _kafka(data_dir: Path) -> "KafkaSettings":
    from signalbox.config import load_settings
    from signalbox.supervision import discovery

    record = discovery.find(data_dir)
    assert record is not None, "a ready node has announced itself"
    return load_settings(
        profile="dev", overrides={"kafka.bootstrap": record.bootstrap, "kafka.broker": "external"}
    ).kafka


def _client(data_dir: Path) -> "NodeClient":
    from signalbox.cli.node_client import NodeClient
    from signalbox.supervision import discovery

    record = discovery.find(data_dir)
    assert record is not None, "a ready node has announced itself"
    return NodeClient(record, timeout_s=_ANSWER_TIMEOUT_S)


def _sort(seen: Seen, topic: str, signal: "Signal[Any]") -> None:
    if topic == "results":
        seen.answers[signal.data["task_id"]] += 1
    elif topic == "alerts":
        seen.alerts.append(signal)
    elif topic == "dead-letters":
        seen.dead_letters.append(signal)
    elif signal.type.startswith("system.health."):
        seen.readings.append(signal)


def _show_sensors(seen: Seen) -> None:
    wait_until(lambda: len(seen.readings) >= 2, _START_TIMEOUT_S, "no sensor reading came")
    for reading in seen.readings[:2]:
        data = reading.data
        _say(
            f"sensor: {reading.type} of {reading.subject}: memory {data['memory_usage']:.0%}, "
            f"cpu {data['cpu_usage']:.0%}, disk {data['disk_usage']:.0%}, {data['process_count']} processes"
        )


def _run_tasks(kafka: "KafkaSettings", data_dir: Path, duration: float, rng: random.Random) -> int:
    """Send the tasks evenly, and kill the worker somewhere in the middle; returns its process id."""
    from schemas.signal import new_signal
    from signalbox import plugins

    publisher = plugins.publisher(kafka)
    kill_at = int(TASKS * rng.uniform(0.35, 0.65))
    killed = 0
    _say(f"sending {TASKS} tasks over {duration:.0f} s")
    began = time.monotonic()
    for number in range(TASKS):
        task_id = f"task-{number}"
        task = {"task_id": task_id, "action": "echo", "params": {"value": rng.randrange(1000)}}
        publisher.publish("signals", new_signal("task.submitted", task, source=SOURCE, subject=task_id))
        if number == kill_at:
            killed = _kill_worker(data_dir)
            _say(f"task {number}: worker process {killed} killed with SIGKILL, sending goes on")
        time.sleep(max(0.0, began + duration * number / TASKS - time.monotonic()))
    publisher.flush(_ANSWER_TIMEOUT_S)
    publisher.close()
    return killed


def _kill_worker(data_dir: Path) -> int:
    from signalbox.supervision import inspection

    status = inspection.ask(inspection.socket_path(data_dir, "agents-0"), "status")
    os.kill(status["pid"], signal.SIGKILL)
    return int(status["pid"])


def _await_answers(seen: Seen) -> None:
    wait_until(lambda: len(seen.answers) >= TASKS, _ANSWER_TIMEOUT_S, "some tasks were never answered")
    _say(f"the supervisor started a new worker from the last snapshot; {len(seen.answers)} tasks are answered")


def _show_bad_input(kafka: "KafkaSettings", seen: Seen) -> None:
    from signalbox import plugins

    publisher = plugins.publisher(kafka)
    publisher.publish_raw("signals", None, b'{"specversion": "1.0", "id": "half', ())
    publisher.flush(_ANSWER_TIMEOUT_S)
    publisher.close()
    wait_until(lambda: bool(seen.dead_letters), _ANSWER_TIMEOUT_S, "the broken record did not become a dead letter")
    letter = seen.dead_letters[0].data
    origin = letter["origin"]
    place = f"{origin['topic']}/{origin['partition']}/{origin['offset']}"
    _say(f"a broken record became a dead letter: {letter['reason']} at {place}")


def _show_alerts(seen: Seen) -> None:
    wait_until(lambda: bool(seen.alerts), _ALERT_TIMEOUT_S, "no alert came")
    _say(f"the bound is set to {_ALERT_THRESHOLD:.0%} here, so that a calm machine raises alerts too; on `alerts`:")
    for alert in seen.alerts:
        _say(f"alert: {alert.type} {alert.data['severity']}: {alert.data['message']}")


def _summarise(state: Session, seen: Seen, outage: Outage, burst: Burst, killed: int, took_s: float) -> None:
    duplicated = sum(count - 1 for count in seen.answers.values())
    summary = {
        "readings": len(seen.readings),
        "tasks_sent": TASKS,
        "tasks_answered": len(seen.answers),
        "lost": TASKS - len(seen.answers),
        "duplicated": duplicated,
        "workers_killed": int(killed > 0),
        "alerts": len(seen.alerts),
        "dead_letters": len(seen.dead_letters),
        "calls": len(outage.answers),
        "calls_retried": outage.retried,
        "fallbacks": outage.fallbacks,
        "parcels": burst.sent,
        "parcels_lost": burst.lost,
        "parcels_duplicated": burst.duplicated,
        "workers": " -> ".join(map(str, burst.workers)),
        "seconds": round(took_s, 1),
    }
    state.output().record(summary)
    if summary["lost"] or duplicated:
        msg = f"{summary['lost']} tasks were lost and {duplicated} answered twice"
        raise SignalboxError(msg)


def _say(line: str) -> None:
    typer.echo(f"• {line}", err=True)
