"""`alert list` and `alert ack`."""

import json
from typing import Any

from schemas.payloads.alerts import Alert
from schemas.signal import new_signal
from tests.support.fakes import MemoryBroker
from tests.unit.signalbox.cli.conftest import Cli


def tell(broker: MemoryBroker, alert_id: str, key: str, news: str, minute: int, **more: Any) -> None:
    at = f"2026-01-01T00:{minute:02}:00Z"
    alert = Alert(
        alert_id=alert_id,
        dedup_key=key,
        subject="host",
        metric="cpu_usage",
        severity="warning",
        state=news,
        value=0.9,
        raised_at="2026-01-01T00:00:00Z",
        updated_at=at,
        **more,
    )
    broker.add_signal("alerts", new_signal(f"alert.{news}", alert.model_dump(mode="json"), source="t", subject="host"))


def listed(cli: Cli, *words: str) -> list[tuple[str, str]]:
    return [(row["alert_id"], row["state"]) for row in json.loads(cli("alert", "list", "-o", "json", *words).stdout)]


def test_list_shows_the_latest_word_on_open_alerts(cli: Cli, broker: MemoryBroker) -> None:
    """One line per dedup key, newest first; what is resolved is gone, and a relapse is open again."""
    tell(broker, "1", "k1", "raised", 1)
    tell(broker, "1", "k1", "escalated", 2)
    tell(broker, "2", "k2", "raised", 3)
    tell(broker, "2", "k2", "resolved", 4)
    tell(broker, "3", "k3", "resolved", 5)
    tell(broker, "4", "k3", "raised", 6)
    assert listed(cli) == [("4", "raised"), ("1", "escalated")]


def test_all_shows_every_episode(cli: Cli, broker: MemoryBroker) -> None:
    """With --all, episodes that are over are listed too."""
    tell(broker, "3", "k3", "resolved", 5)
    tell(broker, "4", "k3", "raised", 6)
    assert listed(cli, "--all") == [("4", "raised"), ("3", "resolved")]


def test_alerts_of_users_are_listed_too(cli: Cli, broker: MemoryBroker) -> None:
    """An alert with fields of its own is shown with what its envelope tells."""
    broker.add_signal(
        "alerts", new_signal("alert.disk.full", {"severity": "critical"}, source="t", subject="d", id="9")
    )
    broker.add_signal("alerts", new_signal("insight.generated", {"x": 1}, source="t"))
    broker.add_signal("alerts", new_signal("alert.ack", {"alert_id": "9", "by": "me"}, source="t"))
    broker.add("alerts", b"junk")
    [row] = json.loads(cli("alert", "list", "-o", "json").stdout)
    assert (row["alert_id"], row["subject"], row["state"], row["severity"]) == ("9", "d", "full", "critical")


def test_ack_is_sent_to_the_alerts_subject(cli: Cli, broker: MemoryBroker) -> None:
    """The acknowledgement is a signal to the monitor of the alert's subject, by episode or by dedup key."""
    tell(broker, "1", "k1", "raised", 1)
    for id in ("1", "k1"):
        assert cli("alert", "ack", id, "--by", "me", "--note", "looking").exit_code == 0
    for signal in broker.signals("signals"):
        assert (signal.type, signal.subject) == ("alert.ack", "host")
        assert signal.data == {"alert_id": "1", "dedup_key": None, "by": "me", "note": "looking"}


def test_ack_of_what_is_not_open_is_not_found(cli: Cli, broker: MemoryBroker) -> None:
    """A resolved or unknown alert cannot be acknowledged: exit 5."""
    tell(broker, "1", "k1", "resolved", 1)
    assert cli("alert", "ack", "1").exit_code == 5
    assert cli("alert", "ack", "nonsense").exit_code == 5


def test_second_ack_is_a_conflict(cli: Cli, broker: MemoryBroker) -> None:
    """An alert that somebody has taken charge of is refused with 7, naming who."""
    tell(broker, "1", "k1", "acknowledged", 1, acknowledged_by="her")
    result = cli("alert", "ack", "1")
    assert (result.exit_code, "her" in result.stderr, broker.records("signals")) == (7, True, [])
