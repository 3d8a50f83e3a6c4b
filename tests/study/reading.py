"""Reading an answer back."""

import re

HEADINGS = {
    "none": '## Would it always say "none"?',
    "enough": "## How many negatives are enough?",
    "remedies": "## Undersample, reweight, or move the threshold?",
    "layers": "## Is retraining the last layer enough?",
    "groups": "## From how many kinds must they come?",
    "numbers": "## The numbers",
    "intervals": "## What these intervals are",
}


def section(text, name):
    """The text below a heading, up to the next of its level; None without it."""
    parts = dict(re.findall(r"^(## .*)$\n((?:(?!## ).*\n)*)", text, re.MULTILINE))
    return parts.get(HEADINGS.get(name, name))


def line(text, begin):
    """The first line with this in it."""
    return next(found for found in text.splitlines() if begin in found)
