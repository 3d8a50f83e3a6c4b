"""Finds sections and lines of an answer."""

import re

HEADINGS = {
    "none": '## Does the network always answer "none"?',
    "enough": "## How many negatives are enough?",
    "remedies": "## Undersample, reweight, or move the threshold?",
    "layers": "## Is retraining the last layer enough?",
    "groups": "## How many kinds of negatives are needed?",
    "numbers": "## The numbers",
    "intervals": "## What these intervals are",
}


def section(text, name):
    """Returns the text below a heading, up to the next heading of its level; None without the heading."""
    parts = dict(re.findall(r"^(## .*)$\n((?:(?!## ).*\n)*)", text, re.MULTILINE))
    return parts.get(HEADINGS.get(name, name))


def line(text, begin):
    """Returns the first line that contains the text."""
    return next(found for found in text.splitlines() if begin in found)
