"""Self-contained HTML pages from Jinja templates, whose Content-Security-Policy allows scripts by their hashes only."""

import base64
import functools
import hashlib
import importlib.resources
from collections.abc import Mapping
from typing import Any

import jinja2

REPORT = "openset_jax.report"


def read(name: str, package: str = REPORT) -> str:
    """Returns the text of a file of a package."""
    return importlib.resources.files(package).joinpath(name).read_text("utf-8")


def render(
    name: str, *, scripts: Mapping[str, str], package: str = REPORT, filters: Mapping[str, Any] | None = None, **values: Any
) -> str:
    """Returns a rendered template, as HTML that UTF-8 can encode.

    Args:
      name: file of the template in `package`. Files that it includes may also be in the package of the report.
      scripts: name -> text; the template gets these, and `hashes` for its Content-Security-Policy.
      values: further variables of the template.
    """
    environment = _environment(package)
    environment.filters |= filters or {}
    digests = [hashlib.sha256(script.encode("utf-8")).digest() for script in scripts.values()]
    hashes = ["sha256-" + base64.b64encode(digest).decode("ascii") for digest in digests]
    html = environment.get_template(name).render(scripts=scripts, hashes=hashes, **values)
    return html.encode("utf-8", "backslashreplace").decode("utf-8")  # file names need not be UTF-8


@functools.cache
def _environment(package: str) -> jinja2.Environment:
    """Compiles each template once: an experiment renders a page for each arm."""
    loader = jinja2.ChoiceLoader([jinja2.PackageLoader(package, ""), jinja2.PackageLoader(REPORT, "")])
    environment = jinja2.Environment(
        autoescape=True, loader=loader, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False}
    return environment
