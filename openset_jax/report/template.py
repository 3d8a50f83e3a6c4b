"""Self-contained pages from templates: the scripts that they may run are named by their hashes, and names are escaped."""

import base64
import hashlib
import importlib.resources
from collections.abc import Callable, Mapping
from typing import Any

import jinja2

REPORT = "openset_jax.report"


def read(name: str, package: str = REPORT) -> str:
    """A file that comes with a package."""
    return importlib.resources.files(package).joinpath(name).read_text("utf-8")


def render(
    name: str,
    *,
    scripts: Mapping[str, str],
    package: str = REPORT,
    filters: Mapping[str, Callable[..., Any]] | None = None,
    **values: Any,
) -> str:
    """A template as HTML that UTF-8 can encode; what is not in its package is taken from the report's.

    Args:
      scripts: name -> text; the template sees these, and `hashes` for its Content-Security-Policy.
      values: what else it sees.
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


def _loader(package):
    def load(name):
        try:
            return read(name, package)
        except FileNotFoundError:
            return None

    return jinja2.FunctionLoader(load)


def _hash(script):
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
