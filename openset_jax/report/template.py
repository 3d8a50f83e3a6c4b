"""Self-contained HTML pages from Jinja templates, whose Content-Security-Policy allows scripts by their hashes only."""

import base64
import hashlib
import importlib.resources
from collections.abc import Callable, Mapping
from typing import Any

import jinja2

REPORT = "openset_jax.report"


def read(name: str, package: str = REPORT) -> str:
    """Returns the text of a file of a package."""
    return importlib.resources.files(package).joinpath(name).read_text("utf-8")


def render(
    name: str,
    *,
    scripts: Mapping[str, str],
    package: str = REPORT,
    filters: Mapping[str, Callable[..., Any]] | None = None,
    **values: Any,
) -> str:
    """Returns a rendered template, as HTML that UTF-8 can encode.

    Args:
      name: file of the template in `package`. Files that it includes may also be in the package of the report.
      scripts: name -> text; the template gets these, and `hashes` for its Content-Security-Policy.
      filters: further Jinja filters.
      values: further variables of the template.
    """
    environment = jinja2.Environment(
        autoescape=True,
        loader=jinja2.ChoiceLoader([_loader(package), _loader(REPORT)]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False}
    environment.filters |= filters or {}
    hashes = [_hash(script) for script in scripts.values()]
    html = environment.get_template(name).render(scripts=scripts, hashes=hashes, **values)
    return html.encode("utf-8", "backslashreplace").decode("utf-8")  # file names need not be UTF-8


def _loader(package: str) -> jinja2.BaseLoader:
    def load(name: str) -> str | None:
        try:
            return read(name, package)
        except FileNotFoundError:
            return None

    return jinja2.FunctionLoader(load)


def _hash(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
