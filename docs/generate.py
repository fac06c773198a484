"""The references that follow from the code: `python -m docs.generate` writes them to `docs/reference`.

`--check` writes nothing and exits 1 if a page differs from what the code says. The pages are generated: change the
docstrings and descriptions they are made of, never the pages. That of the command line is `signalbox.cli.reference`'s.
"""

import argparse
import ast
import inspect
import itertools
import json
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from schemas.catalog import PAYLOADS
from signalbox import errors
from signalbox.agents import Skill
from signalbox.agents.plan import topic_router
from signalbox.app import default_app
from signalbox.cli.main import EXIT_CODES
from signalbox.config import PROFILES, KafkaSettings, Settings, profile_file
from signalbox.sensors import Sensor
from signalbox.supervision.broker import TOPICS
from signalbox.telemetry.metrics import catalogue

DIRECTORY = Path(__file__).parent / "reference"
COMMAND = "python -m docs.generate"
_SETTING_HEADS = ("setting", "type", "default", "means")
_COMPUTED_DEFAULTS = {"node.name": "the host's name", "kafka.routes": "see [topics](topics.md)"}
_TOPIC_USES = {
    "signals": "What sensors, users and other systems say. The agents' input.",
    "alerts": "Alerts as they are raised, escalated, acknowledged and resolved. Read back if an agent listens to them.",
    "scaling": "Scaling decisions. Read back if an agent listens to them.",
    "results": "One answer per task.",
    "telemetry": "What agents tell about themselves: actions before and after, errors.",
    "control": "Commands to agents, from anyone; also the audit log of those commands. The agents' input.",
    "effects": "Actions with effects: asked for, tried again, and how they ended. Read back if the app has such.",
    "registry": "Which agents there are, by id, and which nodes, by `node/<name>`. Compacted: the latest record of a"
    " key is the valid one. Read back if an agent listens to it, as the coordinator does.",
    "dead-letters": "Records that could not be handled, with reason, origin and bytes. Takes records of up to 4 MB.",
}


def settings_page() -> str:
    """Every setting with its type, default and meaning."""
    head = """
        Later wins: the defaults below, the profile's file, the file given with `-c`, environment variables, `--set`.
        `kafka.bootstrap` is `SIGNALBOX_KAFKA__BOOTSTRAP` in the environment (two underscores between the parts) and
        `--set kafka.bootstrap=...` on the command line. An unknown name is an error. `signalbox config show --origin`
        shows the values in force and where each comes from. Names ending in `_s` are seconds, in `_ms` milliseconds,
        in `_bytes` bytes. In a file:

        ```toml
        [kafka]
        bootstrap = "broker-1:9092,broker-2:9092"

        [kafka.client]
        "security.protocol" = "SASL_SSL"
        "sasl.mechanism" = "SCRAM-SHA-512"
        "sasl.username" = "signalbox"

        [agents.task_agent]
        size = 20
        ```

        What such a file must not hold, such as `sasl.password`, fits into the environment as well, because a group can
        be given as one JSON object: `SIGNALBOX_KAFKA__CLIENT='{"sasl.password": "..."}'`.
    """
    parts = [_head("Settings", head)]
    for name, field in Settings.model_fields.items():
        group = _model_in(field)
        if group is None:
            continue
        title = f"{name}.<name>" if field.annotation is not group else name
        parts += [f"## {title}\n", f"{_summary(group)}\n", _table(_SETTING_HEADS, _setting_rows(group, title))]
    parts.append("## Profiles\n")
    parts.append("`--profile`, else `SIGNALBOX_PROFILE`, else `dev`.\n")
    parts += [f"`{name}`:\n\n```toml\n{profile_file(name).read_text().strip()}\n```\n" for name in PROFILES]
    parts += ["## Settings of the shipped sensors\n", *_sensor_settings()]
    parts += ["## Settings of the shipped skills\n", *_skill_settings()]
    return "\n".join(parts)


def metrics_page() -> str:
    """Every metric of `/metrics`."""
    head = """
        Served on `/metrics` in the format of Prometheus, summed over the processes of the node. Labels are bounded:
        `agent` names an agent class, never an instance, and no label holds a subject, a signal id or a pattern.
    """
    rows = ((f"`{m.name}`", m.type, ", ".join(f"`{one}`" for one in m.labels), m.help) for m in catalogue())
    return _head("Metrics", head) + "\n" + _table(("metric", "type", "labels", "means"), rows)


def topics_page() -> str:
    """The topics, and which signal type is written to which."""
    head = f"""
        The name at the broker is `kafka.topic_prefix` and the name below. A node creates the topics that are missing,
        with `kafka.partitions` ({KafkaSettings().partitions}) partitions, and takes existing ones as they are.

        Values are CloudEvents 1.0 in JSON; `ce_id` and `ce_type` are repeated as headers. The key is the signal's
        subject, or its source if it has none, so that the signals of one entity stay in order.
    """
    routes = ((f"`{pattern}`", f"`{topic}`") for pattern, topic in KafkaSettings().routes.items())
    return "\n".join(
        [
            _head("Topics", head),
            _table(("topic", "holds"), ((f"`{topic}`", _TOPIC_USES[topic]) for topic in TOPICS)),
            "## Which signal goes where\n",
            "What agents emit is written to the topic of the most specific pattern that matches its type. Change the"
            " table with `kafka.routes`.\n",
            _table(("type", "topic"), routes),
        ]
    )


def signals_page() -> str:
    """The shipped signal types and their payloads."""
    head = """
        The types that this software emits or reads, and what their `data` holds. Your own types are free: any dotted
        path of letters, digits, `_` and `-`. JSON Schemas of the envelope and of every payload are in `schemas/json`.
    """
    types: dict[type[BaseModel], list[str]] = {}
    for type_, model in PAYLOADS.items():
        types.setdefault(model, []).append(type_)
    router = topic_router(KafkaSettings().routes)
    parts = [_head("Signals", head)]
    for model, names in types.items():
        topics = {
            name: router.route(name)[0].target if name != "signal.dead_letter" else "dead-letters" for name in names
        }
        listed = ", ".join(f"`{name}` (on `{topic}`)" for name, topic in topics.items())
        parts += [
            f"## {model.__name__}\n",
            f"{_summary(model)}\n",
            f"{listed}\n",
            _table(("field", "type", "default", "is"), _payload_rows(model)),
        ]
    return "\n".join(parts)


def exit_codes_page() -> str:
    """What the exit codes mean, and the errors behind them."""
    head = """
        Of the command `signalbox`, for scripts. Every error is told on stderr as `error: ...`, followed by `hint: ...`
        if there is something to be done about it.
    """
    kinds: list[type[errors.SignalboxError]] = [errors.SignalboxError, *errors.SignalboxError.__subclasses__()]
    by_code = {kind.exit_code: kind for kind in kinds if kind.__module__ == errors.__name__}
    rows = ((code, meaning, _summary(by_code[code]) if code in by_code else "") for code, meaning in EXIT_CODES.items())
    return _head("Exit codes", head) + "\n" + _table(("code", "means", "that is"), rows)


PAGES: Mapping[str, Callable[[], str]] = {
    "settings.md": settings_page,
    "metrics.md": metrics_page,
    "topics.md": topics_page,
    "signals.md": signals_page,
    "exit-codes.md": exit_codes_page,
}


def main(arguments: Sequence[str] | None = None, *, directory: Path = DIRECTORY) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Write the references that follow from the code.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a page is out of date")
    check = parser.parse_args(arguments).check
    texts = {directory / name: page() for name, page in PAGES.items()}
    stale = [path for path, text in texts.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    if check and stale:
        sys.stderr.write(f"out of date: {', '.join(map(str, stale))}\nrun: {COMMAND}\n")
        return 1
    directory.mkdir(parents=True, exist_ok=True)
    for path in stale:
        path.write_text(texts[path], encoding="utf-8")
    sys.stdout.write(f"{len(stale)} pages written\n" if stale else "all pages are up to date\n")
    return 0


def _head(title: str, text: str) -> str:
    return f"# {title}\n\nGenerated by `{COMMAND}`; do not edit.\n\n{textwrap.dedent(text).strip()}\n"


def _summary(described: Any) -> str:
    return " ".join((inspect.getdoc(described) or "").partition("\n\n")[0].split())


def _model_in(field: FieldInfo) -> type[BaseModel] | None:
    """The settings group that a field holds, itself or as the values of a dict."""
    candidates = (field.annotation, *get_args(field.annotation))
    return next((one for one in candidates if isinstance(one, type) and issubclass(one, BaseModel)), None)


def _setting_rows(group: type[BaseModel], prefix: str) -> Iterator[tuple[str, ...]]:
    texts, types = _attribute_docstrings(group), _types(group)
    for name, field in group.model_fields.items():
        if (inner := _model_in(field)) is not None:
            named = "" if field.annotation is inner else ".<name>"
            yield from _setting_rows(inner, f"{prefix}.{name}{named}")
            continue
        full_name = f"{prefix}.{name}"
        default = _COMPUTED_DEFAULTS.get(full_name) or _plain(field.get_default(call_default_factory=True))
        yield f"`{full_name}`", types[name], default, texts.get(name, "")


def _sensor_settings() -> Iterator[str]:
    for sensor in default_app.sensors:
        yield f"### sensors.{sensor.name}\n"
        yield f"{_summary(sensor)}\n"
        yield _own_settings(f"sensors.{sensor.name}", sensor.Settings, Sensor.Settings)


def _skill_settings() -> Iterator[str]:
    for agent in (*default_app.agents, *default_app.agents_elsewhere):
        for skill in agent.skills:
            prefix = f"agents.{agent.name}.skills.{skill.name}"
            yield f"### {prefix}\n"
            yield f"{skill.description}\n"
            yield _own_settings(prefix, skill.Settings, Skill.Settings)


def _own_settings(prefix: str, settings: type[BaseModel], base: type[BaseModel]) -> str:
    texts = _attribute_docstrings(base) | _attribute_docstrings(settings)
    types = _types(settings)
    rows = (
        (
            f"`{prefix}.{name}`",
            types[name],
            _plain(field.get_default(call_default_factory=True)),
            texts.get(name, ""),
        )
        for name, field in settings.model_fields.items()
    )
    return _table(_SETTING_HEADS, rows)


def _payload_rows(model: type[BaseModel]) -> Iterator[tuple[str, ...]]:
    types = _types(model)
    for name, field in model.model_fields.items():
        given = "required" if field.is_required() else _plain(field.default)
        yield f"`{name}`", types[name], given, field.description or ""


def _attribute_docstrings(cls: type) -> dict[str, str]:
    """The strings that stand below the attributes of a class, by attribute."""
    [body] = [node.body for node in ast.parse(textwrap.dedent(inspect.getsource(cls))).body if hasattr(node, "body")]
    found = {}
    for node, following in itertools.pairwise(body):
        if (
            isinstance(node, ast.AnnAssign)
            and isinstance(node.target, ast.Name)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
        ):
            found[node.target.id] = " ".join(str(following.value.value).split())
    return found


def _types(model: type[BaseModel]) -> dict[str, str]:
    """The types of a model's fields as JSON has them."""
    schema = model.model_json_schema(mode="validation")
    return {name: _type(one) for name, one in schema["properties"].items()}


def _type(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type(one) for one in schema["anyOf"]))
    if "enum" in schema:
        return ", ".join(f"`{one}`" for one in schema["enum"])
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if schema.get("type") == "array":
        return f"array of {_type(schema['items'])}" if schema.get("items") else "array"
    words = {"date-time": "time", "path": "path", "password": "secret"}
    return words.get(str(schema.get("format")), str(schema.get("type", "any")))


def _plain(value: Any) -> str:
    return f"`{json.dumps(value, default=str, ensure_ascii=False)}`"


def _table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
