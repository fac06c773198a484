"""One run of the command line: its global options, and what they lead to: settings, the running node, the broker.

Nothing is loaded or connected before a command asks for it. A command that talks to Kafka uses, in this order, the
broker given with `--bootstrap`, the one of the node that runs on the data directory, and the one in the settings.
"""

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from signalbox.cli.output import Format, Output
from signalbox.errors import SignalboxError, Unreachable, UsageError

if TYPE_CHECKING:
    from signalbox.cli.node_client import NodeClient
    from signalbox.config import KafkaSettings, Settings
    from signalbox.ports import Admin, Publisher, Reader

#: Where a signal made on the command line says it comes from.
SOURCE = "signalbox/cli"
#: How long a command waits for a broker or a node unless `--timeout` says otherwise.
DEFAULT_TIMEOUT_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GlobalOptions:
    """The options every command takes, by their names on the command line."""

    config: Path | None = None
    profile: str | None = None
    set: Sequence[str] = ()
    bootstrap: str | None = None
    data_dir: Path | None = None
    output: Format | None = None
    quiet: bool = False
    verbose: int = 0
    timeout: float | None = None
    yes: bool = False


class Session:
    """Global options and what follows from them."""

    def __init__(self) -> None:
        self.options = GlobalOptions()
        self._settings: Settings | None = None

    def add(self, given: Mapping[str, Any]) -> None:
        """Take over options, by name; later ones win, and `set` collects. Names that are none are ignored."""
        known = {field.name for field in fields(GlobalOptions)}
        values = {name: value for name, value in given.items() if name in known and value is not None}
        values["set"] = (*self.options.set, *values.get("set", ()))
        self.options = replace(self.options, **values)
        self._settings = None

    def overrides(self) -> dict[str, Any]:
        """What the options set, as dotted settings.

        Raises:
            UsageError: a `--set` is not of the form `a.b=c`, or `--bootstrap` names no port.
        """
        values: dict[str, Any] = dict(_pairs(self.options.set))
        if self.options.data_dir is not None:
            values["node.data_dir"] = str(self.options.data_dir)
        if self.options.bootstrap is not None:
            values |= external_broker(self.options.bootstrap)
        return values

    def settings(self) -> "Settings":
        """The settings as this command line resolves them. Raises `ConfigError` as `load_settings` does."""
        if self._settings is None:
            from signalbox.config import load_settings

            self._settings = load_settings(
                profile=self.options.profile, file=self.options.config, overrides=self.overrides()
            )
        return self._settings

    def node(self) -> "NodeClient":
        """The HTTP interface of the node that runs on the data directory.

        Raises:
            Unreachable: none runs there.
        """
        if (node := self.find_node()) is None:
            raise self._no_node()
        return node

    def find_node(self) -> "NodeClient | None":
        """The same, or None if no node runs there."""
        from signalbox.cli.node_client import NodeClient
        from signalbox.supervision import discovery

        record = discovery.find(self.settings().node.data_dir)
        return None if record is None else NodeClient(record, timeout_s=self.timeout_s())

    def connected(self) -> "Settings":
        """The settings with the broker to talk to in `kafka`; see the module's docstring for which one that is.

        Raises:
            Unreachable: no node runs on the data directory, and no broker is named otherwise.
        """
        settings = self.settings()
        if self.options.bootstrap is not None:
            return settings
        node = self.find_node()
        if node is not None:
            own = any(name.startswith("kafka.") for name in self.overrides())
            kafka = settings.kafka if own else _kafka_of_node(settings.node.data_dir) or settings.kafka
            return settings.model_copy(
                update={"kafka": kafka.model_copy(update={"bootstrap": node.record.bootstrap, "broker": "external"})}
            )
        if settings.kafka.broker != "external":
            raise self._no_node()
        return settings

    @contextlib.contextmanager
    def publisher(self) -> "Iterator[Publisher]":
        """A publisher to the broker, closed at the end."""
        from signalbox import plugins

        publisher = plugins.publisher(self._kafka())
        try:
            yield publisher
        finally:
            publisher.close()

    def reader(self) -> "Reader":
        from signalbox import plugins

        return plugins.reader(self._kafka())

    def admin(self) -> "Admin":
        from signalbox import plugins

        return plugins.admin(self._kafka())

    def output(self, default: Format = "table") -> Output:
        """Writes data to stdout in the format that was asked for, else in the command's own."""
        return Output(self.options.output or default)

    def timeout_s(self, default: float = DEFAULT_TIMEOUT_S) -> float:
        return default if self.options.timeout is None else self.options.timeout

    def note(self, message: str) -> None:
        """Tell a person something on stderr, unless `-q` was given."""
        if not self.options.quiet:
            print(message, file=sys.stderr, flush=True)  # noqa: T201

    def progress(self) -> bool:
        """Whether a progress bar is wanted: only on a terminal, and not with `-q`."""
        return sys.stderr.isatty() and not self.options.quiet

    def confirm(self, question: str) -> None:
        """Ask before something that cannot be undone; `-y` answers yes.

        Raises:
            UsageError: there is no terminal to ask on.
            SignalboxError: the answer was no.
        """
        if self.options.yes:
            return
        if not sys.stdin.isatty():
            msg = f"{question} There is no terminal to ask on"
            raise UsageError(msg, hint="-y answers yes")
        import typer

        if not typer.confirm(question, err=True):
            msg = "nothing was done"
            raise SignalboxError(msg)

    def _kafka(self) -> "KafkaSettings":
        """The broker's settings, once it is decided what becomes of the client's own log: shown with -v only."""
        import logging

        if self.options.verbose:
            logging.basicConfig(level="DEBUG" if self.options.verbose > 1 else "INFO", format="%(message)s")
        else:
            logging.basicConfig(handlers=[logging.NullHandler()])
        return self.connected().kafka

    def _no_node(self) -> Unreachable:
        msg = f"no node runs on the data directory {self.settings().node.data_dir}"
        return Unreachable(msg, hint="start one with `signalbox up`, or name another with --data-dir or --bootstrap")


def external_broker(bootstrap: str) -> dict[str, str]:
    """The settings that make somebody else's broker the one to use.

    Raises:
        UsageError: it is not `HOST:PORT`, or several of them separated by commas.
    """
    for address in bootstrap.split(","):
        host, _, port = address.strip().rpartition(":")
        if not host or not port.isdigit():
            msg = f"{address!r} is not an address of a broker"
            raise UsageError(msg, hint="write HOST:PORT, such as 127.0.0.1:9092")
    return {"kafka.bootstrap": bootstrap, "kafka.broker": "external"}


def _pairs(words: Sequence[str]) -> dict[str, str]:
    values = {}
    for word in words:
        name, separator, value = word.partition("=")
        if not name or not separator:
            msg = f"--set takes NAME=VALUE, not {word!r}"
            raise UsageError(msg, hint="such as --set kafka.partitions=4")
        values[name] = value
    return values


def _kafka_of_node(data_dir: Path) -> "KafkaSettings | None":
    """The `kafka` settings that the running node resolved: its topic prefix and its client's security settings."""
    from signalbox.config import KafkaSettings

    try:
        values = json.loads((data_dir / "run" / "settings.json").read_text())
        return KafkaSettings.model_validate(values["kafka"])
    except (OSError, ValueError, KeyError):  # another user's node, or one of another version
        return None
