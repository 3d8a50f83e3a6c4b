"""Text for a terminal: names without control characters, and lists of moderate length.

Names of files and classes may have any characters. A terminal would obey their control characters, and a stream whose
encoding lacks a character would raise UnicodeEncodeError. All commands print with `show`.
"""

import sys
from collections.abc import Sequence


def show(text: str) -> None:
    """Prints lines, each as `printable`."""
    print("\n".join(map(printable, text.split("\n"))), flush=True)


def printable(text: str) -> str:
    """Returns one line of text in which characters are escaped as in a Python string, as "caf\\xe9" or "\\x1b[31m".

    Escaped are all that are not `str.isprintable` (control characters, line ends, bidirectional marks, surrogates), and all
    that the encoding of standard output lacks.
    """
    escaped = text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return escaped.encode(encoding, "backslashreplace").decode(encoding)


def shortened(name: str, most: int = 40) -> str:
    """Returns a name as `printable`; of a longer one than `most` characters, its beginning and its end."""
    name = printable(name)
    return name if len(name) <= most else f"{name[: most - 13]}...{name[-10:]}"


def abridged(items: Sequence[str], most: int = 20) -> str:
    """Returns "a, b, c"; of more than `most` items the first, the number of those left out, and the last (often "none")."""
    if len(items) > most:
        items = [*items[: most - 2], f"... {len(items) - most + 1:,} more ...", items[-1]]
    return ", ".join(map(printable, items))


def rounded(value: float) -> str:
    """Returns a number above 0 as text: whole from 10 on, with two significant digits below, as "12,190", "1.5", "0.05"."""
    return f"{value:,.0f}" if value >= 9.95 else f"{value:.2g}"
