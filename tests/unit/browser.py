"""A page in a real browser, headless: what is in the document after its script has run, as a tree of elements."""

import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
QUIET += ["--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars"]
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium (apt-get install chromium)")


class Element:
    def __init__(self, tag: str, attributes: dict[str, str]):
        self.tag, self.attributes, self.children = tag, attributes, []

    @property
    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    def all(self, what: str) -> list["Element"]:
        """Descendants by `tag`, `.class` or `#id`, in the order of the document."""
        key, value = {".": ("class", what[1:]), "#": ("id", what[1:])}.get(what[0], ("tag", what))
        found = []
        for child in self.children:
            if isinstance(child, Element):
                own = child.tag if key == "tag" else child.attributes.get(key, "")
                found += [child] if value in own.split() else []
                found += child.all(what)
        return found


class Tree(HTMLParser):
    VOID = frozenset({"img", "meta", "input", "br", "link"})

    def __init__(self, html: str):
        super().__init__()
        self.root = Element("", {})
        self.open = [self.root]
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(element)
        if tag not in self.VOID:
            self.open.append(element)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop().tag == tag

    def handle_data(self, data):
        self.open[-1].children.append(data)


def browse(page: Path, hash_: str, *options: str) -> str:
    command = [BROWSER, "--headless", *QUIET, f"--user-data-dir={page.parent / 'profile'}", "--window-size=1360,900"]
    done = subprocess.run([*command, *options, f"{page.as_uri()}#{hash_}"], capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return done.stdout.decode()


def show(page: Path, hash_: str, *options: str) -> Element:
    """The document of a page at a location."""
    return Tree(browse(page, hash_, "--dump-dom", *options)).root
