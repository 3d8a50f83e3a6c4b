"""CSV files are read back as they were written, and spreadsheets find no formulas in them."""

import csv
import io

import pytest

from openset_jax.report import csv_rows


def written(*rows):
    file = io.StringIO(newline="")
    write = csv_rows.row_writer(file)
    for row in rows:
        write(row)
    return file.getvalue()


@pytest.mark.parametrize("name", ["=1+1", "+1 more", "-", "-x", "@SUM(A1)", "\tx", "\r=x", "=-1"])
def test_names_are_no_formulas(name):
    assert csv_rows.text_cell(name) == f"'{name}"
    (row,) = csv.reader(io.StringIO(written([name]), newline=""))
    assert row == [f"'{name}"]
    assert csv_rows.path_cell(name) == f"./{name}", "the same file"


@pytest.mark.parametrize("text", ["", "a", "a=b", "a-b", "/x/=y", "-1", "+1.5", "-inf", "-0.01;0.02;-1e-05"])
def test_other_texts_and_numbers_are_unchanged(text):
    assert csv_rows.text_cell(text) == text


def test_numbers_have_full_precision_and_none_is_empty():
    assert written([-0.1, 1 / 3, 2, None, "x"]) == "-0.1,0.3333333333333333,2,,x\n"


def test_line_ends_in_names_do_not_tear_rows():
    rows = [["Icon\r", "a"], ["a\nb", 'say "x", y'], ["x", "y"]]
    assert list(csv.reader(io.StringIO(written(*rows), newline=""))) == rows
