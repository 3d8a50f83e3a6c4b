"""The Markdown files: README.md stays short, links work, and the commands that they name exist."""

import collections
import functools
import importlib.util
import pathlib
import re
import urllib.parse

import markdown_it
import pytest

ROOT = pathlib.Path(__file__).parents[1]
FOLDERS = [path for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".") and path.name != "runs"]
PAGES = sorted(
    page.relative_to(ROOT).as_posix() for page in (*ROOT.glob("*.md"), *(p for f in FOLDERS for p in f.rglob("*.md")))
)


@functools.cache
def tokens(page):
    """The inline tokens of a page by block: [(tag of the block, tokens)]."""
    parsed = markdown_it.MarkdownIt("commonmark").enable("table").parse((ROOT / page).read_text("utf-8"))
    return [(parsed[i - 1].tag, token.children) for i, token in enumerate(parsed) if token.type == "inline"]


def links(page):
    for _, children in tokens(page):
        for token in children:
            if target := token.attrGet("href") or token.attrGet("src"):
                yield str(target)


@functools.cache
def anchors(page):
    """The anchors that GitHub gives to the headings of a page."""
    found, seen = set(), collections.Counter()
    for tag, children in tokens(page):
        if re.fullmatch("h[1-6]", tag):
            text = "".join(token.content for token in children if token.type in ("text", "code_inline"))
            slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
            seen[slug] += 1
    return found


def test_the_readme_is_short():
    readme = (ROOT / "README.md").read_bytes()
    assert len(readme.splitlines()) <= 200
    assert len(readme) <= 12_288


@pytest.mark.parametrize("page", PAGES)
def test_links_work(page):
    for link in links(page):
        target, _, anchor = urllib.parse.unquote(link).partition("#")
        if re.match(r"[a-z]+:", target):
            continue  # another site
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.exists(), f"{page}: {link}"
        if anchor:
            assert anchor in anchors(path.resolve().relative_to(ROOT).as_posix()), f"{page}: {link}"


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_and_configs_exist(page):
    text = (ROOT / page).read_text("utf-8")
    for module in set(re.findall(r"python3? -m ((?:openset_jax|benchmarks)\.[\w.]*\w)", text)):
        assert importlib.util.find_spec(module), f"{page}: {module}"
    for config in set(re.findall(r"--config=(configs/\w+\.py)", text)):
        assert (ROOT / config).is_file(), f"{page}: {config}"


def test_the_readme_names_commands_and_configs():
    """The expressions above find what they are for."""
    text = (ROOT / "README.md").read_text("utf-8")
    assert "python -m openset_jax.train" in text and "--config=configs/digits.py" in text
    assert {"README.md", "configs/README.md", "benchmarks/RESULTS.md"} <= set(PAGES)
    assert "what-a-run-writes" in anchors("openset_jax/openset/README.md")


@pytest.mark.parametrize("name", ["test", "demo"])
def test_marked_commands_are_followed_by_a_block(name):
    """`.ci/run` runs these two."""
    text = (ROOT / "README.md").read_text("utf-8")
    assert re.findall(rf"^<!-- command: {name} -->\n```bash\n[^`]+```$", text, re.MULTILINE)
