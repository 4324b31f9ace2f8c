"""The documents name what is there: files, modules, links. `make docs` checks the rest when it builds the site."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
# Files that a reader is to make
READERS_OWN = {"rewards/my_reward.py", "rewards/brevity.py"}
FOLDERS = "avar_rl|rewards|data_tools|recipes|tests|benchmarks|docs|examples|requirements"


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file() or (path / "__main__.py").is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_names_files_modules_and_links_that_exist(page):
    text = page.read_text()
    files = set(re.findall(rf"`((?:{FOLDERS})/[\w./-]+)`", text)) - READERS_OWN
    assert {file for file in files if not (ROOT / file).exists()} == set()
    named = re.findall(rf"python -m ((?:{FOLDERS})[\w.]*\w)|^::: ([\w.]+)", text, flags=re.MULTILINE)
    assert {one for pair in named for one in pair if one and not is_module(one)} == set()
    links = {link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link}
    assert {link for link in links if not (page.parent / link).exists()} == set()


def test_every_page_begins_with_a_title_and_a_sentence():
    for page in PAGES:
        lines = [line for line in page.read_text().splitlines() if line]
        assert lines[0].startswith("# ") and re.match(r"[\w`\[]", lines[1]), page


def test_every_page_is_in_the_navigation():
    named = (ROOT / "mkdocs.yml").read_text()
    for page in (ROOT / "docs").rglob("*.md"):
        assert str(page.relative_to(ROOT / "docs")) in named, page
