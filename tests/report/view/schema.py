"""The JSON Schemas that the package ships, and a validator that refuses further keys."""

import json
from importlib.resources import files
from typing import Any

from jsonschema import Draft202012Validator


def shipped(name: str) -> Any:
    return json.loads((files("lrwd_sweep.report.view") / f"{name}.schema.json").read_text(encoding="utf-8"))


def faults(document: Any, name: str) -> list[str]:
    """List the places where a document breaks the schema or holds a key that the schema does not name."""
    schema = shipped(name)
    Draft202012Validator.check_schema(schema)
    errors = Draft202012Validator(_closed(schema)).iter_errors(document)
    return [f"{error.json_path}: {error.message}" for error in errors]


def _closed(schema: Any, name: str = "") -> Any:
    """Close every object of a schema; an estimate only where it is used, for some have further keys."""
    if isinstance(schema, dict):
        closed = {key: _closed(value, key) for key, value in schema.items()}
        is_object = {"properties", "$ref"} & schema.keys() and name not in ("estimate", "if", "then")
        return closed | {"unevaluatedProperties": False} if is_object else closed
    return [_closed(each) for each in schema] if isinstance(schema, list) else schema
