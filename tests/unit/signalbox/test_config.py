"""Settings: where values come from, which wins, what is refused, and that secrets are not shown."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from signalbox.config import PROFILES, Settings, load_settings, masked, profile_file, resolved_environment
from signalbox.errors import ConfigError


def _write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_later_sources_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Defaults, then the profile, then the file, then the environment, then overrides; each replaces single keys."""
    file = _write(tmp_path / "c.toml", '[kafka]\nbootstrap = "file:1"\npartitions = 3\nlinger_ms = 7\n')
    assert load_settings(file=file).kafka.bootstrap == "file:1"
    monkeypatch.setenv("SIGNALBOX_KAFKA__BOOTSTRAP", "env:2")
    monkeypatch.setenv("SIGNALBOX_KAFKA__PARTITIONS", "4")
    settings = load_settings(file=file, overrides={"kafka.bootstrap": "flag:3"})
    assert (settings.kafka.bootstrap, settings.kafka.partitions, settings.kafka.linger_ms) == ("flag:3", 4, 7)
    assert settings.kafka.replication == 1


@pytest.mark.parametrize("profile", PROFILES)
def test_the_profiles_are_valid(profile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every profile that ships loads, by argument and by environment, and knows its own name."""
    assert profile_file(profile).is_file()
    by_argument = load_settings(profile=profile)
    monkeypatch.setenv("SIGNALBOX_PROFILE", profile)
    assert load_settings().model_dump() == by_argument.model_dump()
    assert by_argument.profile == profile


def test_the_profiles_set_the_pool_sizes_of_the_contract() -> None:
    """In production the task pool has 20 members; in development the class's own 5."""
    assert load_settings(profile="prod").agents["task_agent"].size == 20
    assert "task_agent" not in load_settings(profile="dev").agents


@pytest.mark.parametrize(
    ("overrides", "key", "more"),
    [
        ({"kafka.bootstrp": "x"}, "kafka.bootstrp", "no such setting"),
        ({"nonsense": 1}, "nonsense", "no such setting"),
        ({"kafka.partitions": "many"}, "kafka.partitions", "integer"),
        ({"kafka.partitions": 0}, "kafka.partitions", "greater than 0"),
        ({"http.port": 70_000}, "http.port", "65535"),
        ({"kafka.start": "middle"}, "kafka.start", "earliest"),
        ({"kafka.topic_prefix": "a b"}, "kafka.topic_prefix", "pattern"),
        ({"kafka": "x"}, "kafka", ""),
        ({"kafka.partitions": 1, "kafka.partitions.more": 2}, "kafka.partitions", ""),
        ({"flows.agents.epoch_ms": "{bad json"}, "flows.agents.epoch_ms", "integer"),
    ],
)
def test_what_does_not_fit_is_named(overrides: dict[str, Any], key: str, more: str) -> None:
    """An unknown key or a wrong value is a configuration error that names the key, and the command that lists them."""
    with pytest.raises(ConfigError, match=f"(?s){key}.*{more}") as caught:
        load_settings(overrides=overrides)
    assert "config show" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("text", "message"),
    [("[kafka\n", "cannot be read"), ("[kafka]\nbootstrp = 1\n", "kafka.bootstrp: there is no such")],
)
def test_a_bad_file_is_a_configuration_error(tmp_path: Path, text: str, message: str) -> None:
    """A file that is no TOML, or sets what does not exist, is refused before anything starts."""
    with pytest.raises(ConfigError, match=message):
        load_settings(file=_write(tmp_path / "c.toml", text))


def test_a_missing_file_or_profile_is_a_configuration_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files and profiles that are not there are named, with where their names may have come from."""
    monkeypatch.setenv("SIGNALBOX_CONFIG", str(tmp_path / "none.toml"))
    with pytest.raises(ConfigError, match=r"none\.toml") as caught:
        load_settings()
    assert "SIGNALBOX_CONFIG" in (caught.value.hint or "")
    with pytest.raises(ConfigError, match="no profile 'test'") as caught:
        load_settings(profile="test")
    assert "dev, prod" in (caught.value.hint or "")


def test_overrides_reach_every_form_of_value() -> None:
    """Texts become numbers, booleans and, as JSON, objects; dots in the names of client settings and routes stay."""
    settings = load_settings(
        overrides={
            "log.file": "false",
            "kafka.linger_ms": "2.5",
            "agents.task_agent": '{"size": 7}',
            "kafka.client.sasl.username": "me",
            "kafka.client.security.protocol": "SASL_SSL",
            "kafka.routes.room.**": "alerts",
            "http.host": "[::1]",
        }
    )
    assert (settings.log.file, settings.kafka.linger_ms, settings.agents["task_agent"].size) == (False, 2.5, 7)
    assert settings.kafka.client == {"sasl.username": "me", "security.protocol": "SASL_SSL"}
    assert settings.kafka.routes["room.**"] == "alerts"
    assert settings.http.host == "[::1]"


def test_routes_come_on_top_of_the_defaults(tmp_path: Path) -> None:
    """A route of one's own does not take away where results, alerts and the rest go."""
    file = _write(tmp_path / "c.toml", '[kafka.routes]\n"room.**" = "alerts"\n"task.failed" = "alerts"\n')
    routes = load_settings(file=file).kafka.routes
    assert routes == {**Settings().kafka.routes, "room.**": "alerts", "task.failed": "alerts"}


def _with_secrets() -> Settings:
    return Settings.model_validate(
        {
            "kafka": {"client": {"sasl.password": "s3cret-a", "ssl.key.pem": "s3cret-b", "sasl.username": "shown"}},
            "http": {"token": "s3cret-c"},
            "sensors": {"weather": {"api_token": "s3cret-d", "nested": {"Password": "s3cret-e"}, "city": "shown"}},
            "agents": {"task_agent": {"state": {"client_secret": "s3cret-f"}}},
        }
    )


def test_secrets_are_masked_wherever_they_are() -> None:
    """What is shown of settings, users' sensors and agents included, has no password, secret, token or key in it."""
    shown = json.dumps(masked(_with_secrets()))
    assert "s3cret" not in shown
    assert shown.count("shown") == 2
    assert shown.count("**********") == 6


@pytest.mark.parametrize(
    "overrides",
    [
        {"kafka.client": {"sasl.password": ["s3cret"]}},
        {"kafka.client.sasl.password": ["s3cret"]},
        {"http.token": {"value": "s3cret"}},
        {"http": ["s3cret"]},
    ],
)
def test_errors_do_not_tell_secrets(overrides: dict[str, Any]) -> None:
    """The message about a wrong value does not repeat it when it is, or may hold, a secret."""
    with pytest.raises(ConfigError) as caught:
        load_settings(overrides=overrides)
    assert "s3cret" not in str(caught.value)


def test_a_secret_is_not_in_the_text_of_settings() -> None:
    """The token is not shown when settings are printed or logged by accident."""
    assert "s3cret-c" not in repr(_with_secrets().http)


def test_a_child_takes_over_resolved_settings_with_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child process gets exactly the settings of its supervisor, from a file that only its owner can read."""
    settings = _with_secrets()
    path = tmp_path / "run" / "settings.json"
    for _ in range(2):
        environment = resolved_environment(settings, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert load_settings() == settings
    assert load_settings(overrides={"kafka.partitions": "3"}).kafka.partitions == 3


def test_a_child_knows_what_a_policy_leaves_unsaid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody has set follows from the target, in the supervisor and in its workers alike."""
    settings = load_settings(overrides={"scaling.pools.task_agent.max": "50"})
    for name, value in resolved_environment(settings, tmp_path / "settings.json").items():
        monkeypatch.setenv(name, value)
    assert load_settings().scaling.pools["task_agent"].model_fields_set == {"max"}


def test_settings_do_not_change() -> None:
    """Settings are frozen, so what one part sees is what all see."""
    with pytest.raises(ValueError, match="frozen"):
        Settings().kafka.bootstrap = "other"  # type: ignore[misc]


def test_topics_carry_the_prefix() -> None:
    """`topic` gives the broker's name of a topic of ours."""
    assert Settings.model_validate({"kafka": {"topic_prefix": "a."}}).topic("signals") == "a.signals"


def test_a_silence_is_longer_than_a_heartbeat():
    """A node whose time runs out before its next heartbeat would always seem dead, so that is refused."""
    with pytest.raises(ConfigError, match=r"registry: .*ttl_s \(5\) has to be longer than heartbeat_s \(5\)"):
        load_settings(overrides={"registry.ttl_s": "5"})
    assert load_settings(overrides={"registry.ttl_s": "5", "registry.heartbeat_s": "1"}).registry.ttl_s == 5


def test_pools_come_on_top_of_the_default():
    """A pool in the settings leaves `heavy_computation` as it is, and a part of a pool leaves its other parts."""
    pools = load_settings(overrides={"resources.pools.gpu.tokens": "2"}).resources.pools
    assert {name: pool.tokens for name, pool in pools.items()} == {"heavy_computation": 4, "gpu": 2}
    pools = load_settings(overrides={"resources.pools.heavy_computation.ttl_s": "60"}).resources.pools
    assert (pools["heavy_computation"].tokens, pools["heavy_computation"].ttl_s) == (4, 60)


def test_the_tokens_of_a_pool_are_no_secret():
    """Their number is shown, while what is called a token stays hidden."""
    shown = masked(load_settings(overrides={"http.token": "s3cret"}))
    assert shown["resources"]["pools"]["heavy_computation"]["tokens"] == 4
    assert "s3cret" not in str(shown)
    with pytest.raises(ConfigError, match="got 'many'"):
        load_settings(overrides={"resources.pools.gpu.tokens": "many"})


@pytest.mark.parametrize("flow", ["agents", "scaling"])
def test_transactions_need_another_broker_than_the_embedded_one(flow: str) -> None:
    """`exactly_once` with the embedded broker is refused before anything starts, and with others it is not."""
    wanted = {f"flows.{flow}.delivery": "exactly_once"}
    with pytest.raises(ConfigError, match="embedded") as caught:
        load_settings(overrides={"kafka.broker": "embedded", **wanted})
    assert "--broker" in (caught.value.hint or "")
    assert load_settings(overrides={"kafka.broker": "external", **wanted}).kafka.broker == "external"
