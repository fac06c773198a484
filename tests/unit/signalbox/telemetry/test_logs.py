import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from signalbox.config import Settings
from signalbox.telemetry import logs

_SECRET = 'hunter2"and\\more'


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    for handler in set(root.handlers) - set(before):
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def _settings(tmp_path: Path, **log: Any) -> Settings:
    return Settings.model_validate(
        {
            "node": {"data_dir": tmp_path},
            "log": log,
            "kafka": {"client": {"sasl.username": "alice", "sasl.password": _SECRET}},
            "http": {"token": "token-1234"},
        }
    )


def _lines(tmp_path: Path, process: str = "agents-0") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "logs" / f"{process}.log").read_text().splitlines()]


def test_a_record_says_what_it_is_about(tmp_path: Path) -> None:
    """Bound keys, the process, level, logger and time are in every line of the file."""
    log = logs.get_logger("signalbox.x")
    logs.configure(_settings(tmp_path), process="agents-0")
    with structlog.contextvars.bound_contextvars(workflow_id="w-1"):
        log.bind(agent_id="a-1", action="echo").info("action %s", "done", duration_s=0.5)
    (line,) = _lines(tmp_path)
    stamp = line.pop("timestamp")
    assert stamp.endswith("+00:00")
    assert line == {
        "event": "action done", "agent_id": "a-1", "action": "echo", "workflow_id": "w-1", "duration_s": 0.5,
        "process": "agents-0", "level": "info", "logger": "signalbox.x",
    }  # fmt: skip


def test_libraries_and_users_go_the_same_way(tmp_path: Path) -> None:
    """Records of stdlib loggers, of warnings and of a user's own structlog loggers are lines of the same file."""
    logs.configure(_settings(tmp_path), process="agents-0")
    logging.getLogger("confluent_kafka").warning("broker %s down", 1)
    structlog.get_logger("users").info("mine", n=1)
    logging.getLogger("uvicorn.error").error("port")
    assert [(line["logger"], line["event"]) for line in _lines(tmp_path)] == [
        ("confluent_kafka", "broker 1 down"),
        ("users", "mine"),
        ("uvicorn.error", "port"),
    ]


def test_the_level_holds_for_everybody(tmp_path: Path) -> None:
    """Below the level nothing is written, at it everything."""
    log = logs.get_logger("x")
    logs.configure(_settings(tmp_path, level="warning"), process="agents-0")
    log.info("no")
    logging.getLogger("lib").info("no")
    log.warning("yes")
    logging.getLogger("lib").warning("yes")
    assert [line["event"] for line in _lines(tmp_path)] == ["yes", "yes"]


def test_secrets_never_reach_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Values of the settings' secrets, and whatever is named like one, are blanked out, in tracebacks too."""
    logs.configure(_settings(tmp_path), process="agents-0")
    log = logs.get_logger("x")
    log.info(
        "connecting with %s",
        _SECRET,
        shown=[_SECRET],
        url=f"sasl://alice:{_SECRET}@broker",
        api_token="abc",
        user="alice",
    )
    log.info("nested", client={"sasl.password": "other", "deep": {"authorization": "Bearer x", "n": 1}})
    try:
        raise ValueError(f"bad {_SECRET} and token-1234")
    except ValueError:
        log.exception("failed")
    written = (tmp_path / "logs" / "agents-0.log").read_text() + capsys.readouterr().err
    for secret in ("hunter2", "token-1234", "abc", "other", "Bearer"):
        assert secret not in written
    first, second, third = _lines(tmp_path)
    assert first["user"] == "alice"
    assert second["client"] == {"sasl.password": "**********", "deep": {"authorization": "**********", "n": 1}}
    assert "ValueError: bad **********" in third["exception"]


def test_a_file_rotates_within_its_bounds(tmp_path: Path) -> None:
    """No more than the given number of files of the given size are kept."""
    logs.configure(_settings(tmp_path, file_bytes=1000, file_count=2, console=False), process="agents-0")
    for number in range(100):
        logs.get_logger("x").info("a line of some length", number=number)
    files = sorted((tmp_path / "logs").iterdir())
    assert [file.name for file in files] == ["agents-0.log", "agents-0.log.1", "agents-0.log.2"]
    assert all(file.stat().st_size <= 1000 for file in files)
    assert _lines(tmp_path)[-1]["number"] == 99


def test_console_and_file_can_be_turned_off(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With both off nothing is written anywhere."""
    logs.configure(_settings(tmp_path, console=False, file=False), process="agents-0")
    logs.get_logger("x").error("unheard")
    assert capsys.readouterr() == ("", "")
    assert not (tmp_path / "logs").exists()


def test_machines_get_json_on_stderr_and_people_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal gets readable lines, in colour unless NO_COLOR forbids; stdout stays free for data."""
    logs.configure(_settings(tmp_path, file=False), process="agents-0")
    logs.get_logger("x").info("hello", n=1)
    told = capsys.readouterr()
    assert told.out == ""
    assert json.loads(told.err)["n"] == 1

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("NO_COLOR", "1")
    logs.configure(_settings(tmp_path, file=False), process="agents-0")
    logs.get_logger("x").info("hello", n=1)
    plain = capsys.readouterr().err
    assert "hello" in plain
    assert "n=1" in plain
    assert "\x1b[" not in plain

    monkeypatch.delenv("NO_COLOR")
    logs.configure(_settings(tmp_path, file=False), process="agents-0")
    logs.get_logger("x").info("hello")
    assert "\x1b[" in capsys.readouterr().err


def test_configuring_again_replaces_what_was(tmp_path: Path) -> None:
    """A process that configures twice writes each record once, to the later place."""
    logs.configure(_settings(tmp_path, console=False), process="early")
    logs.configure(_settings(tmp_path, console=False), process="late")
    logs.get_logger("x").info("once")
    assert _lines(tmp_path, "early") == []
    assert [line["event"] for line in _lines(tmp_path, "late")] == ["once"]


def test_a_logger_that_nobody_configured_stays_off_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    """A library user who configures nothing sees warnings as Python does, never on stdout."""
    logs.get_logger("x").warning("careful")
    assert capsys.readouterr().out == ""
