"""Formats numbers with intervals, and the names of kinds of "none"."""

from collections.abc import Mapping

Number = Mapping[str, float]  # {"value", "low", "high"}, as in `metrics.json`


def title(kind: str) -> str:
    """Returns the name of a kind of "none" in text and figures."""
    return kind.replace("_", " ")


def format_share(number: Number) -> str:
    """Returns a share and its interval, as "95.2 % (94.1 to 96.0 %)"."""
    return f"{100 * number['value']:.1f} % ({100 * number['low']:.1f} to {100 * number['high']:.1f} %)"


def format_number(number: Number) -> str:
    """Returns a number and its interval, as "0.952 (0.941 to 0.960)"."""
    return f"{number['value']:.3f} ({number['low']:.3f} to {number['high']:.3f})"
