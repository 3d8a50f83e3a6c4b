"""Configs as plain JSON values."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import ml_collections


def to_json(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The config as JSON values; tuples become lists."""
    return json.loads(json.dumps(config.to_dict(), default=lambda value: value.to_dict()))  # configs inside tuples


def from_json(values: Mapping[str, Any]) -> ml_collections.ConfigDict:
    """The inverse of `to_json`; lists become tuples."""

    def convert(value):
        if isinstance(value, dict):
            return ml_collections.ConfigDict({k: convert(v) for k, v in value.items()})
        return tuple(map(convert, value)) if isinstance(value, list) else value

    return convert(dict(values))


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields ("a.b", value) for every leaf of nested dicts."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
