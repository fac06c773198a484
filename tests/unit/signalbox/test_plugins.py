"""Finding things by import string."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from signalbox import plugins
from signalbox.app import default_app
from signalbox.config import KafkaSettings
from signalbox.errors import ConfigError


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose modules can be imported."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_reference_gives_what_it_names() -> None:
    """`module:attribute` is imported and looked up."""
    assert plugins.load("signalbox.app:default_app") is default_app


@pytest.mark.parametrize("reference", ["", "signalbox.app", "signalbox.app:", ":default_app", "a b"])
def test_another_form_is_refused(reference: str) -> None:
    """What is not `module:attribute` is refused with the form that is right."""
    with pytest.raises(ConfigError, match=re.escape(repr(reference))) as caught:
        plugins.load(reference)
    assert "module:attribute" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("no_such_module_at_all:app", "cannot import 'no_such_module_at_all'"),
        ("signalbox.no_such:app", "cannot import 'signalbox.no_such'"),
        ("signalbox.app:no_such", "has no attribute 'no_such'"),
    ],
)
def test_what_is_not_there_is_named(reference: str, message: str) -> None:
    """A module or attribute that does not exist is a configuration error that names it and says where to look."""
    with pytest.raises(ConfigError, match=message) as caught:
        plugins.load(reference)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import no_such_module_at_all", "no_such_module_at_all"),
        ("x = 1 +", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError"),
    ],
)
def test_a_module_that_fails_says_why(modules: Path, source: str, message: str) -> None:
    """A user's module that cannot be imported, for whatever reason, is a configuration error with that reason."""
    (modules / "users_broken_app.py").write_text(source)
    with pytest.raises(ConfigError, match=f"(?s)users_broken_app.*{message}") as caught:
        plugins.load("users_broken_app:app")
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("source", ["app = 5", "app = [1]", "from signalbox.app import App\napp = App"])
def test_an_app_is_an_app(modules: Path, source: str) -> None:
    """What `node.app` names must be an `App`; something else is refused with what to write."""
    (modules / "users_wrong_app.py").write_text(source)
    with pytest.raises(ConfigError, match="not an App") as caught:
        plugins.load_app("users_wrong_app:app")
    assert "App(agents=[...])" in (caught.value.hint or "")
    assert plugins.load_app("signalbox.app:default_app") is default_app


def test_the_connectors_are_found_by_name(tmp_path: Path) -> None:
    """Publisher, reader, admin and both brokers are there under the names that the core knows."""
    settings = KafkaSettings(bootstrap="127.0.0.1:9")
    for make in (plugins.publisher, plugins.reader, plugins.admin):
        assert type(make(settings)).__module__.startswith("connectors.kafka.")
    for kind in ("embedded", "kafka"):
        broker = plugins.local_broker(kind, tmp_path)  # type: ignore[arg-type]
        assert not broker.alive()
