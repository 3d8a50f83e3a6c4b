"""What tests of pages read from their HTML, and names that no page may fall for."""

import json
import re

HOSTILE = ("<script>alert(1)</script>", '" onload="alert(1)', "</script>\u2028&amp;", "caf\udce9\x00{{ 1 }}")


def data_of(html):
    """What the script reads; refuses NaN and infinities, as a browser does."""

    def refuse(name):
        raise AssertionError(name)

    text = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)[1]
    return json.loads(text, parse_constant=refuse)


def without_scripts(html):
    return re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)
