"""Rows of CSV files that a spreadsheet does not take for formulas.

A spreadsheet runs a cell that begins with one of `_FORMULA` as a formula, although it is the name of a class or a file
(https://owasp.org/www-community/attacks/CSV_Injection).
"""

import csv
from collections.abc import Callable, Iterable
from typing import IO, Any

Cell = str | float | None

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def row_writer(file: IO[str]) -> Callable[[Iterable[Cell]], Any]:
    """Returns a function that writes a row: numbers in full precision, None as an empty cell, texts as `text_cell`."""
    plain = csv.writer(file, lineterminator="\n")
    quoted = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)

    def write(row: Iterable[Cell]) -> None:
        cells = [text_cell(cell) if isinstance(cell, str) else cell for cell in row]
        # up to Python 3.12, the module does not quote a carriage return, which readers take for the end of the row
        torn = any(isinstance(cell, str) and "\r" in cell for cell in cells)
        (quoted if torn else plain).writerow(cells)

    return write


def text_cell(text: str) -> str:
    """Returns a text, with a leading apostrophe if it would be a formula. Numbers, also separated by ";", are unchanged."""
    return f"'{text}" if text.startswith(_FORMULA) and not all(map(_is_number, text.split(";"))) else text


def path_cell(path: str) -> str:
    """Returns a path, as "./@eaDir/1.jpg" instead of "@eaDir/1.jpg": not a formula, and a path of the same file."""
    return f"./{path}" if path.startswith(_FORMULA) else path


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
