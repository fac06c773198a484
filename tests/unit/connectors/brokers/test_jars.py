"""Fetching Apache Kafka's jars and finding Java, with scripts in place of both."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from connectors.brokers.apache import ApacheKafka
from connectors.brokers.jars import cached_jars, find_java, kafka_jars
from signalbox.errors import ConfigError, SignalboxError, Unreachable

#: Puts a jar where the real Maven would, after a moment in which another may overtake it.
_GOOD_MAVEN = """
for word in "$@"; do case "$word" in -DoutputDirectory=*) out="${word#-DoutputDirectory=}";; esac; done
mkdir -p "$out" && echo jar > "$out/kafka.jar"
"""

Tool = Callable[[str, str], None]


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tool:
    """Puts a script of that name on an otherwise bare PATH, and the cache below the test's directory."""
    tools = tmp_path / "bin"
    tools.mkdir()
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("JAVA_HOME", raising=False)

    def write(name: str, script: str) -> None:
        (tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (tools / name).chmod(0o755)

    return write


@pytest.fixture
def bare_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PATH with nothing on it."""
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("JAVA_HOME", raising=False)


def test_jars_are_fetched_once(tool: Tool) -> None:
    """The first call fetches into the user's cache; later ones need no Maven."""
    tool("mvn", _GOOD_MAVEN)
    assert [path.name for path in kafka_jars().iterdir()] == ["kafka.jar"]
    tool("mvn", "exit 1")
    assert kafka_jars() == cached_jars()


def test_two_starters_fetch_without_colliding(tool: Tool) -> None:
    """Starters that fetch at the same time all get the whole jars, and leave no scraps in the cache."""
    tool("mvn", f"{_GOOD_MAVEN}\nsleep 0.2")
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(kafka_jars())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [cached_jars()] * 3
    assert [path.name for path in cached_jars().parent.iterdir()] == [cached_jars().name]


def test_a_failed_fetch_leaves_nothing_and_says_why(tool: Tool) -> None:
    """What Maven printed is in the error, and the next call tries again."""
    tool("mvn", "echo 'no route to repo.example'; exit 1")
    with pytest.raises(Unreachable, match="no route to repo"):
        kafka_jars()
    assert not list(cached_jars().parent.iterdir())
    tool("mvn", _GOOD_MAVEN)
    assert kafka_jars().is_dir()


def test_a_fetch_that_hangs_is_given_up(tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Maven gets a bounded time."""
    monkeypatch.setattr("connectors.brokers.jars._FETCH_TIMEOUT_S", 0.2)
    tool("mvn", "exec sleep 30")
    with pytest.raises(Unreachable, match=r"within 0\.2 s"):
        kafka_jars()


@pytest.mark.usefixtures("bare_path")
def test_without_maven_the_error_offers_other_brokers() -> None:
    """No Maven and no jars: the error says what is missing and what to use instead."""
    with pytest.raises(ConfigError, match="no mvn") as caught:
        kafka_jars()
    assert "--broker embedded" in (caught.value.hint or "")


@pytest.mark.usefixtures("bare_path")
def test_without_java_the_error_offers_other_brokers(tmp_path: Path) -> None:
    """No Java: the error says so, also when the broker is started."""
    with pytest.raises(ConfigError, match="none on PATH"):
        find_java()
    with pytest.raises(ConfigError, match="needs Java") as caught:
        ApacheKafka(tmp_path).start()
    assert "--broker embedded" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("printed", "version"),
    [('openjdk version "11.0.2" 2019-01-15', "11"), ('java version "1.8.0_202"', "1"), ("?", "?")],
)
def test_an_old_java_is_refused(tool: Tool, printed: str, version: str) -> None:
    """A Java before 17 is named with its version."""
    tool("java", f"echo '{printed}' >&2")
    with pytest.raises(ConfigError, match=f"17 or later.* is version [{version}]"):
        find_java()


@pytest.mark.parametrize("printed", ['openjdk version "17.0.15" 2025-04-15', 'openjdk version "25" 2025-09-16'])
def test_a_new_java_is_taken(tool: Tool, printed: str, tmp_path: Path) -> None:
    """Java 17 and later are fine."""
    tool("java", f"echo '{printed}' >&2")
    assert find_java() == str(tmp_path / "bin" / "java")


def test_java_home_goes_before_the_path(tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """JAVA_HOME decides, and an empty one is an error rather than a silent fallback."""
    tool("java", "echo 'openjdk version \"17\"' >&2")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert find_java() == str(tmp_path / "bin" / "java")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "empty"))
    with pytest.raises(ConfigError, match="none in JAVA_HOME"):
        find_java()


def test_a_directory_that_cannot_be_formatted_is_an_error(tool: Tool, tmp_path: Path) -> None:
    """What Kafka's own tool says about the directory reaches the user."""
    tool("mvn", _GOOD_MAVEN)
    tool("java", 'echo \'version "17"\' >&2; case "$*" in *StorageTool*) echo disk on fire; exit 1;; esac')
    with pytest.raises(SignalboxError, match="disk on fire"):
        ApacheKafka(tmp_path / "data").start()
