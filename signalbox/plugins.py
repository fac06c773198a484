"""Finds what lives outside the core by import string, so that the core imports neither the engine nor the broker."""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from signalbox.errors import ConfigError, described

if TYPE_CHECKING:
    from signalbox.app import App
    from signalbox.config import KafkaSettings
    from signalbox.ports import Admin, LocalBroker, Publisher, Reader, RecoveryKeeper


def load(reference: str) -> Any:
    """Import `module:attribute`.

    Raises:
        ConfigError: the reference is not of that form, or names nothing.
    """
    module_name, _, attribute = reference.partition(":")
    if not module_name or not attribute:
        msg = f"{reference!r} is not an import string"
        raise ConfigError(msg, hint="write module:attribute, such as my_agents:app")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        msg = f"cannot import {module_name!r}: {error}"
        raise ConfigError(msg, hint="is its folder the present one, or on PYTHONPATH?") from error
    except Exception as error:
        name, message = described(error)
        msg = f"cannot import {module_name!r}: it raised {name}: {message}"
        raise ConfigError(msg, hint=f"`python -m {module_name}` shows where") from error
    try:
        return getattr(module, attribute)
    except AttributeError:
        msg = f"{module_name!r} has no attribute {attribute!r}"
        raise ConfigError(msg, hint=f"check the name behind the colon in {reference!r}") from None


def load_app(reference: str) -> "App":
    """Import the app that `node.app` names.

    Raises:
        ConfigError: the reference names nothing, or something that is not an `App`.
    """
    app = load(reference)
    if not isinstance(app, load("signalbox.app:App")):
        msg = f"{reference!r} is a {type(app).__name__}, not an App"
        raise ConfigError(msg, hint="write app = App(agents=[...]) in that module, and name it as module:app")
    return cast("App", app)


def publisher(settings: "KafkaSettings") -> "Publisher":
    """A delivery-checked producer of signals."""
    return cast("Publisher", load("connectors.kafka.publisher:KafkaPublisher")(settings))


def reader(settings: "KafkaSettings") -> "Reader":
    """A reader of topics without a consumer group."""
    return cast("Reader", load("connectors.kafka.reader:KafkaReader")(settings))


def admin(settings: "KafkaSettings") -> "Admin":
    """Asks and arranges things at the broker."""
    return cast("Admin", load("connectors.kafka.admin:KafkaAdmin")(settings))


def local_broker(kind: Literal["embedded", "kafka"], data_dir: Path) -> "LocalBroker":
    """A broker that this node runs itself; not yet started."""
    name = {"embedded": "embedded:EmbeddedBroker", "kafka": "apache:ApacheKafka"}[kind]
    return cast("LocalBroker", load(f"connectors.brokers.{name}")(data_dir))


def recovery(directory: Path) -> "RecoveryKeeper":
    """The keeper of a flow's recovery directory."""
    return cast("RecoveryKeeper", load("connectors.recovery.store:RecoveryStore")(directory))
