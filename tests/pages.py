"""Reads the data of HTML pages, and has hostile names that pages must escape."""

import json
import re

HOSTILE = ("<script>alert(1)</script>", '" onload="alert(1)', "</script>\u2028&amp;", "caf\udce9\x00{{ 1 }}")


def data_of(html):
    """Returns the JSON data of a page's script; fails for NaN and infinities, which browsers refuse."""

    def refuse(name):
        raise AssertionError(name)

    text = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)[1]
    return json.loads(text, parse_constant=refuse)


def without_scripts(html):
    return re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)
