"""What the site adds to docs/ when it is built: a hook of MkDocs, which imports nothing of the
project but its table of commands.

- CONTRIBUTING.md and CHANGELOG.md lie at the root, where readers look for them, and are pages here, too.
- The notebooks of examples/ become pages, with the outputs that they are committed with.
- Links to these are written as they hold in the repository, `../CONTRIBUTING.md`, and turned here.
- The page of commands is what each command says to --help, so it cannot grow old.
- A list may follow a line of text, as in CommonMark: Python-Markdown wants an empty line between them.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from markdown import Extension, Markdown
from markdown.preprocessors import Preprocessor
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
ROOT_PAGES = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}


class ListAfterText(Preprocessor):
    """Puts an empty line before a list that follows text."""

    def run(self, lines: list[str]) -> list[str]:
        shown: list[str] = []
        for line in lines:
            if re.match(r"(-|\d\.) ", line) and shown and re.match(r"[^\s\-\d]", shown[-1]):
                shown.append("")
            shown.append(line)
        return shown


class ListsAfterText(Extension):
    def extendMarkdown(self, md: Markdown) -> None:
        md.preprocessors.register(ListAfterText(md), "list_after_text", 24)  # 25 has taken fenced code out


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    extensions: list[Any] = config.markdown_extensions  # MkDocs says names only; Markdown takes objects, too
    extensions.append(ListsAfterText())
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for page, source in ROOT_PAGES.items():
        text = (ROOT / source).read_text().replace("](docs/", "](")
        files.append(File.generated(config, page, content=text))
    for notebook in sorted((ROOT / "examples").glob("*.ipynb")):
        add_notebook(notebook, files, config)
    return files


def add_notebook(path: Path, files: Files, config: MkDocsConfig) -> None:
    """The notebook as a page `examples/NAME.md`, its pictures as files beside it."""
    parts = []
    for place, cell in enumerate(json.loads(path.read_text())["cells"]):
        source = "".join(cell["source"])
        if cell["cell_type"] != "code":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        for number, output in enumerate(cell["outputs"]):
            if output["output_type"] == "stream":
                parts.append(f"```text\n{''.join(output['text']).rstrip()}\n```")
            elif "image/png" in output.get("data", {}):
                name = f"{path.stem}-{place}-{number}.png"
                picture = base64.b64decode("".join(output["data"]["image/png"]))
                files.append(File.generated(config, f"examples/{name}", content=picture))
                parts.append(f"![output of the cell above]({name})")
    parts.insert(1, f"This page is the notebook `examples/{path.name}` with the outputs of its last run.")
    files.append(File.generated(config, f"examples/{path.stem}.md", content="\n\n".join(parts)))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    for target, source in ROOT_PAGES.items():
        markdown = markdown.replace(f"](../{source}", f"]({target}")
    markdown = re.sub(r"\]\(\.\./examples/(\w+)\.ipynb", r"](examples/\1.md", markdown)
    return markdown + commands() if page.file.src_uri == "commands.md" else markdown


def commands() -> str:
    """A section for each group of commands, in it one for each command with what it says to --help."""
    sys.path.insert(0, str(ROOT))
    from avar_rl.cli import COMMANDS

    names = [name for group in COMMANDS.values() for name in group]
    with ThreadPoolExecutor(4) as pool:
        helps = dict(zip(names, pool.map(help_of, names), strict=True))
    parts = []
    for group, members in COMMANDS.items():
        parts.append(f"\n## {group.capitalize()}\n")
        for name, (_, line) in members.items():
            parts.append(f"### avar {name}\n\n{line[0].upper()}{line[1:]}.\n\n```text\n{helps[name]}\n```\n")
    return "\n".join(parts)


def help_of(name: str) -> str:
    """What `avar NAME --help` prints, 88 columns wide. PluginError where it fails, which ends the build."""
    environment = os.environ | {"COLUMNS": "88", "NO_COLOR": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "avar_rl", name, "--help"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    if done.returncode:
        raise PluginError(f"avar {name} --help failed:\n{done.stderr}")
    return done.stdout.strip()
