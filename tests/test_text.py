"""Names of any characters, in terminals of any encoding."""

import io

import pytest

from openset_jax.text import abridged, printable, rounded, shortened, show
from openset_jax.training import run_log


@pytest.mark.parametrize(
    ("encoding", "name", "shown"),
    [
        ("utf-8", "béret, 95 %, 日本", "béret, 95 %, 日本"),
        ("ascii", "béret", "b\\xe9ret"),
        ("latin-1", "béret €", "béret \\u20ac"),
        ("utf-8", "caf\udce9", "caf\\udce9"),  # a byte of a file name that is not UTF-8
        ("utf-8", "\x1b[31mred\x07\x9b2J", "\\x1b[31mred\\x07\\x9b2J"),
        ("utf-8", "a\nb\r\tc\u2028d", "a\\nb\\r\\tc\\u2028d"),
        ("utf-8", "exe.\u202egpj", "exe.\\u202egpj"),  # a terminal would show the rest from right to left
    ],
)
def test_what_a_terminal_cannot_show_is_escaped(monkeypatch, encoding, name, shown):
    stream = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(stream, encoding=encoding))
    assert printable(name) == shown
    assert printable(shown) == shown, "what is escaped already stays"
    show(f"{name.replace(chr(10), '')}\nsecond line")
    run_log.say(name)
    lines = stream.getvalue().decode(encoding).split("\n")
    assert lines[0] == shown.replace("\\n", "") and lines[1] == "second line"
    assert "".join(lines[2:]) == shown.replace("\\n", "")


def test_long_lists_keep_their_first_and_last_items():
    assert abridged(["a", "b\n", "none"]) == "a, b\\n, none"
    assert abridged([*"abcdef", "none"], most=4) == "a, b, ... 4 more ..., none"
    assert abridged([]) == ""


def test_numbers_are_rounded_to_what_a_sentence_needs():
    values = (12_190.4, 65.3, 9.96, 9.94, 2.71, 1.0, 0.0521)
    assert [rounded(value) for value in values] == ["12,190", "65", "10", "9.9", "2.7", "1", "0.052"]


def test_long_names_are_shortened_to_their_ends():
    assert shortened("a\nb") == "a\\nb"
    assert shortened("x" * 40) == "x" * 40
    assert shortened("x" * 50 + "0123456789") == "x" * 27 + "...0123456789"
