"""Formats JSON values as text for files."""

import json
import re
from typing import Any

_NUMBERS = re.compile(r'\[\n[^\[\]{}"]*\]')  # a list without strings, lists and dicts; strings have no line breaks


def json_text(value: Any) -> str:
    """Returns the value as JSON with an indentation of 2 and a line break at the end; a list of numbers is one line."""
    return _NUMBERS.sub(lambda found: f"[{' '.join(found[0][1:-1].split())}]", json.dumps(value, indent=2)) + "\n"
