"""The JSON Schemas of everything on the wire: `python -m schemas.export` writes them to `schemas/json`.

`--check` writes nothing and exits 1 if a file differs from what the code says. The files are generated: change the
models, never the files. They describe what readers accept, so fields that readers ignore are allowed.
"""

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from schemas.catalog import PAYLOADS

DIRECTORY = Path(__file__).parent / "json"
COMMAND = "python -m schemas.export"
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
#: A URN, because no web server stands behind the schemas.
_ID = "urn:signalbox:schema:{}"
_TEXT = {"$ref": "#/$defs/printable", "type": ["string", "null"]}
_REQUIRED = {"$ref": "#/$defs/printable", "type": "string", "minLength": 1}
_TIME = {"$ref": "#/$defs/time"}
#: What must not occur is said as such: engines differ in whether `$` also matches before a final newline.
_ENVELOPE_DEFINITIONS = {
    "printable": {
        "description": "Text without control characters; other types are not restricted.",
        "not": {"type": "string", "pattern": "[\\u0000-\\u001f\\u007f-\\u009f]"},
    },
    "time": {
        "$ref": "#/$defs/printable",
        "type": ["string", "null"],
        "format": "date-time",
        "pattern": "^[0-9]{4}(-[0-9]{2}){2}[Tt ][0-9]{2}(:[0-9]{2}){2}(\\.[0-9]+)?([Zz]|[+-][0-9]{2}:?[0-9]{2})$",
    },
}


def schemas() -> dict[str, dict[str, Any]]:
    """Every schema by file name: `signal.json` for the envelope, and one per payload model."""
    types: dict[type[BaseModel], list[str]] = {}
    for signal_type, model in PAYLOADS.items():
        types.setdefault(model, []).append(signal_type)
    found = {"signal.json": envelope_schema()}
    for model, signal_types in types.items():
        name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", model.__name__).lower()
        body = model.model_json_schema(mode="validation")
        found[f"{name}.json"] = {"$schema": _DIALECT, "$id": _ID.format(name), "x-signal-types": signal_types, **body}
    return found


def envelope_schema() -> dict[str, Any]:
    """The schema of a signal in structured mode. Attributes that it does not name are CloudEvents extensions."""
    return {
        "$schema": _DIALECT,
        "$id": _ID.format("signal"),
        "title": "Signal",
        "description": "A CloudEvents 1.0 event in JSON, as schemas/signal.py reads it. Names that are not listed are"
        " extension attributes; readers keep them.",
        "type": "object",
        "required": ["specversion", "id", "source", "type"],
        "properties": {
            "specversion": {
                "enum": ["1.0", "1.0.1", "1.0.2"],
                "description": "Version of CloudEvents. Written is 1.0; the others are read.",
            },
            "id": {**_REQUIRED, "description": "With `source` unique; a repeat of it is a duplicate."},
            "source": {**_REQUIRED, "description": "Who sent it; also the Kafka key if there is no subject."},
            "type": {**_REQUIRED, "description": "What happened, as a dotted path; signals are routed by it."},
            "subject": {**_TEXT, "minLength": 1, "description": "The entity it is about; the Kafka key."},
            "time": {**_TIME, "description": "When it happened, with a zone."},
            "datacontenttype": {**_TEXT, "description": "Media type of `data`; JSON if absent."},
            "dataschema": {**_TEXT, "description": "URI of a schema that `data` adheres to."},
            "correlationid": {**_TEXT, "description": "The conversation that the signal belongs to."},
            "causationid": {**_TEXT, "description": "Id of the signal that this one was derived from."},
            "traceparent": {**_TEXT, "description": "W3C trace context."},
            "deadline": {**_TIME, "description": "Of no use to anybody after this time; with a zone."},
            "data": {"description": "Any JSON value; the payload schemas describe those of the shipped types."},
            "data_base64": {
                **_TEXT,
                "contentEncoding": "base64",
                "pattern": "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$",
                "description": "Binary data, in place of `data`.",
            },
        },
        "not": {
            "required": ["data", "data_base64"],
            "properties": {"data": {"not": {"type": "null"}}, "data_base64": {"not": {"type": "null"}}},
        },
        "propertyNames": {
            "anyOf": [{"const": "data_base64"}, {"not": {"pattern": "[^a-z0-9]"}, "minLength": 1, "maxLength": 64}]
        },
        "additionalProperties": {"$ref": "#/$defs/printable", "type": ["string", "integer", "boolean", "null"]},
        "$defs": _ENVELOPE_DEFINITIONS,
    }


def drifted(directory: Path = DIRECTORY) -> list[str]:
    """Names of the files that are missing, differ, or belong to no model any more."""
    wanted = _rendered()
    stale = {path.name for path in directory.glob("*.json")} - wanted.keys()
    changed = {name for name, text in wanted.items() if _text(directory / name) != text}
    return sorted(stale | changed)


def write(directory: Path = DIRECTORY) -> list[str]:
    """Make the files what the code says; returns the names of those written or removed."""
    wanted = _rendered()
    names = drifted(directory)
    directory.mkdir(parents=True, exist_ok=True)
    for name in names:
        if name in wanted:
            (directory / name).write_text(wanted[name], encoding="utf-8")
        else:
            (directory / name).unlink()
    return names


def main(arguments: Sequence[str] | None = None, *, directory: Path = DIRECTORY) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Write the JSON Schemas of everything on the wire.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is out of date")
    check = parser.parse_args(arguments).check
    names = drifted(directory) if check else write(directory)
    if check and names:
        sys.stderr.write(f"out of date in {directory}: {', '.join(names)}\nrun: {COMMAND}\n")
        return 1
    sys.stdout.write(f"{len(names)} files written\n" if names else "all files are up to date\n")
    return 0


def _rendered() -> Mapping[str, str]:
    return {name: json.dumps(body, indent=2, ensure_ascii=False) + "\n" for name, body in schemas().items()}


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


if __name__ == "__main__":
    sys.exit(main())
