"""The Dockerfile, the compose file and what lies in deploy/: as far as they can be judged without an engine, and with.

Without Docker their structure is checked, and Apache Kafka's own tool reads the settings that the broker would get.
"""

import re
import shutil
import subprocess
import tomllib
import warnings
from pathlib import Path
from typing import Any

import httpx2
import pytest
import typer
import yaml

from connectors.brokers.jars import KAFKA_VERSION, find_java, kafka_jars
from connectors.brokers.process import free_port
from connectors.kafka.client import MAX_RECORD_BYTES
from signalbox.cli.main import app
from signalbox.config import load_settings
from signalbox.errors import ConfigError
from signalbox.telemetry.metrics import catalogue

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
UNIT = (ROOT / "deploy" / "systemd" / "signalbox.service").read_text()
_VARIABLE = re.compile(r"\$\{\w+:-(\w+)\}")
_PINNED = re.compile(r"[\w./-]+:\d+\.\d+\.\d+[\w.-]*")


def compose() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return content


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = compose()["services"]
    return found


def has(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=30).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def test_images_are_pinned():
    """Every image is named with a whole version, and Kafka's is the one that the tests run on."""
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    images = [service["image"] for service in services().values()]
    assert [one for one in (*bases, *images) if not _PINNED.fullmatch(one)] == []
    assert services()["kafka"]["image"] == f"apache/kafka:{KAFKA_VERSION}"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert services()["signalbox"]["image"] == f"signalbox:{project['version']}"


def test_ports_are_published_on_the_loopback_only():
    """Nobody else on the network reaches the broker or the node."""
    ports = [port for service in services().values() for port in service.get("ports", [])]
    assert len(ports) == 2
    assert all(str(port).startswith("127.0.0.1:") for port in ports)


def test_the_node_waits_for_a_healthy_broker():
    """Both have a health check, and the node starts when the broker's says yes."""
    assert services()["kafka"]["healthcheck"]["test"][0] == "CMD"
    assert re.search(r"^HEALTHCHECK .*\\\n.*http://127\.0\.0\.1:8080/livez", DOCKERFILE, re.MULTILINE)
    assert services()["signalbox"]["depends_on"] == {"kafka": {"condition": "service_healthy"}}


def test_state_outlives_the_containers():
    """Kafka's log and the node's data directory lie on named volumes, where the programs look for them."""
    kafka, node = services()["kafka"], services()["signalbox"]
    assert kafka["volumes"] == [f"kafka-data:{kafka['environment']['KAFKA_LOG_DIRS']}"]
    [volume] = node["volumes"]
    assert f"SIGNALBOX_DATA_DIR={volume.partition(':')[2]}\n" in DOCKERFILE
    assert f"VOLUME {volume.partition(':')[2]}\n" in DOCKERFILE
    assert set(compose()["volumes"]) == {"kafka-data", "signalbox-data"}


def test_the_node_has_few_rights():
    """It runs as a user of its own, without capabilities, on a file system that it cannot write to."""
    last_stage = DOCKERFILE.rpartition("FROM ")[2]
    node = services()["signalbox"]
    assert "\nUSER signalbox\n" in last_stage
    assert (node["read_only"], node["cap_drop"]) == (True, ["ALL"])
    assert node["security_opt"] == ["no-new-privileges:true"]


def test_no_secret_is_written_down():
    """No password, token or key stands in the files."""
    texts = [(ROOT / name).read_text() for name in ("Dockerfile", "docker-compose.yml")]
    assert not [text for text in texts if re.search(r"password|secret|token|api_?key", text, re.IGNORECASE)]


def test_the_node_has_time_to_drain():
    """The container and the unit are not killed while sensors and then workers may still drain."""
    drain_s = load_settings(profile="prod").supervision.drain_timeout_s
    assert int(services()["signalbox"]["stop_grace_period"].removesuffix("s")) > 2 * drain_s
    assert int(re.search(r"^TimeoutStopSec=(\d+)$", UNIT, re.MULTILINE)[1]) > 2 * drain_s  # type: ignore[index]


def test_the_commands_exist():
    """What the containers and the unit run is a command line that the program takes."""
    command: Any = typer.main.get_command(app)
    started = re.search(r"^ExecStart=\S+/signalbox (.*)$", UNIT, re.MULTILINE)
    assert started is not None
    assert 'ENTRYPOINT ["signalbox"]' in DOCKERFILE
    default = re.search(r"^CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)
    assert default is not None
    for words in (services()["signalbox"]["command"], yaml.safe_load(default[1]), started[1].split()):
        context = command.make_context("signalbox", list(words))
        name, found, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        found.make_context(name, rest, parent=context)


def test_the_environment_is_taken(monkeypatch):
    """The variables that the compose file sets are settings that exist."""
    for name, value in services()["signalbox"]["environment"].items():
        monkeypatch.setenv(name, str(value))
    settings = load_settings(profile="prod")
    assert (settings.node.name, settings.kafka.replication) == ("compose", 1)


def test_the_broker_takes_our_largest_record():
    """A dead letter that holds a whole large record fits."""
    assert services()["kafka"]["environment"]["KAFKA_MESSAGE_MAX_BYTES"] >= MAX_RECORD_BYTES


def test_the_image_is_built_from_what_the_wheel_needs():
    """The build stage copies what the project file names, and `.dockerignore` lets it through."""
    copied = {word for line in re.findall(r"^COPY (.+)$", DOCKERFILE, re.MULTILINE) for word in line.split()[:-1]}
    wanted = {"pyproject.toml", "README.md", "LICENSE", "config", "schemas", "signalbox", "connectors", "flows"}
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert wanted <= copied
    assert wanted == allowed


def test_the_alert_rules_name_metrics_that_exist():
    """No rule watches a metric that nobody exports, or a label that it does not have."""
    known = {metric.name: set(metric.labels) for metric in catalogue()}
    [group] = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]:
        names = set(re.findall(r"signalbox_\w+", rule["expr"]))
        assert names <= known.keys(), rule["alert"]
        labels = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"])) - {"instance"}
        assert labels <= set.union(*(known[name] for name in names)), rule["alert"]


@pytest.mark.kafka
def test_kafka_takes_the_settings_of_the_compose_file(tmp_path):
    """Apache Kafka's own tool accepts the cluster id and the properties that the container's variables become."""
    try:
        java, jars = find_java(), kafka_jars()
    except ConfigError as error:
        pytest.skip(f"no Apache Kafka: {error}")
    environment = services()["kafka"]["environment"]
    values = {name[6:].lower().replace("_", "."): value for name, value in environment.items() if name[:6] == "KAFKA_"}
    values |= {"log.dirs": tmp_path / "data"}
    properties = "".join(f"{name}={value}\n" for name, value in values.items())
    (tmp_path / "server.properties").write_text(_VARIABLE.sub(r"\1", properties))
    format = (
        "kafka.tools.StorageTool",
        "format",
        "-c",
        tmp_path / "server.properties",
        "-t",
        environment["CLUSTER_ID"],
    )
    result = subprocess.run(
        [java, "-cp", f"{jars}/*", *format], capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_compose_itself_takes_the_file():
    """`docker compose config` finds nothing to complain about."""
    if not (shutil.which("docker") and has("docker", "compose", "version")):
        pytest.skip("no docker compose here")
    result = subprocess.run(
        ["docker", "compose", "-f", str(ROOT / "docker-compose.yml"), "config", "--quiet"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.docker
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_composed_system_becomes_ready(monkeypatch):
    """Built and started from scratch, broker and node become healthy, and the node says that it is ready."""
    if not (has("docker", "info") and has("docker", "compose", "version")):
        pytest.skip("no Docker engine with compose here")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the library's own making
        from testcontainers.compose import DockerCompose  # noqa: PLC0415 - slow to import, rarely there

    http_port = free_port()
    monkeypatch.setenv("HTTP_PORT", str(http_port))
    monkeypatch.setenv("KAFKA_PORT", str(free_port()))
    with DockerCompose(ROOT, build=True, wait=True):
        assert httpx2.get(f"http://127.0.0.1:{http_port}/readyz", trust_env=False).json() == {"ready": True}
