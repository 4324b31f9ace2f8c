"""Prompt sets: text files in which `{question}`, `{options}` and the columns of a benchmark stand for what they hold.

`official` has each benchmark's own wording, `ours` words a question as the rows of this project's trainings do,
`think` asks for <think> and <answer> as well; anything else is a file of the user's.

A line `### NAME` in a file opens a section for some of the questions: those of the part NAME, those with options
(`### choice`), those without (`### open`). A text without sections is for all. `{options}` are lines `(A) text`,
`{dotted_options}` lines `A. text`; a line that holds such a placeholder alone is left out where a question has none.
`{official_question}` is the question as the benchmark's file has it, `{query}` its column query. `{{word}}` stands for
`{word}`. What is filled in is not looked through again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from avar_rl.evaluation.benchmarks.benchmark import Benchmark
from avar_rl.probe.samples import Conversation
from data_tools.formats.markup import escaped
from data_tools.formats.rows import IMAGE_PLACEHOLDER, with_image_places
from data_tools.formats.sample import DataSample, known_options, letters

FOLDER = Path(__file__).parent / "prompts"
OFFICIAL, SHIPPED = "official", ("ours", "think")
EVERY = ""  # the section of a file without sections
_SECTION = re.compile(r"^### *(\w+) *$", re.MULTILINE)
_PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}|\{(\w+)\}")
_OPTIONS = {"options": "({}) {}", "dotted_options": "{}. {}"}  # written by this project alone, never data's text
_OWN = ("question", "official_question", *_OPTIONS)


@dataclass(frozen=True)
class PromptSet:
    """The wording of one benchmark's questions: `sections` by name. `hash` is that of the file's content."""

    name: str
    sections: Mapping[str, str]
    hash: str

    def template(self, sample: DataSample) -> str:
        """The text for a question before its parts are filled in. ValueError: no section is for it."""
        kind = "choice" if known_options(sample) else "open"
        for section in (str(sample.extra.get("part", "")), kind, EVERY):
            if section in self.sections:
                return self.sections[section]
        raise ValueError(
            f"prompts {self.name}: no section is for {sample.id}; it has {', '.join(self.sections)}: add `### {kind}`"
        )

    def check(self, samples: Sequence[DataSample]) -> None:
        """Whether every placeholder of the sections that are used is a part of these questions.

        Raises:
            ValueError: an unknown one, with those that there are.
        """
        columns = {name for sample in samples for name, value in sample.extra.items() if _is_text(value)}
        known = [*_OWN, *sorted(columns - {*_OWN})]
        for template in dict.fromkeys(map(self.template, samples)):
            for name in _names(template):
                if name not in known:
                    raise ValueError(
                        f"prompts {self.name}: unknown placeholder {{{name}}}; there are {', '.join(known)}. "
                        f"Write {{{{{name}}}}} for the text itself"
                    )

    def conversation(self, sample: DataSample, system: str | None = None) -> Conversation:
        """The chat in which a question is asked, with a system turn where there is a `system` prompt.

        Raises:
            ValueError: no section is for the question, or not each of its images has one place.
        """
        text = with_image_places(_filled(self.template(sample), sample), len(sample.images))
        if text.count(IMAGE_PLACEHOLDER) != len(sample.images):
            raise ValueError(
                f"prompts {self.name}: {sample.id} has {len(sample.images)} images and {text.count(IMAGE_PLACEHOLDER)} "
                "places for them: those stand in its question and options, which the prompt must hold once each"
            )
        turns = [{"role": "system", "content": system}] if system else []
        return Conversation(sample.id, (*turns, {"role": "user", "content": text}), sample.read_images(Path()))


def load_prompts(name: str, benchmark: Benchmark) -> PromptSet:
    """The prompt set called `official`, `ours` or `think`, or the one in the file `name`, for a benchmark's questions.

    Raises:
        ValueError: no such file, an empty one, or the same section twice.
    """
    if name == OFFICIAL:
        path = FOLDER / OFFICIAL / f"{benchmark.parts[0].source}.txt"
    else:
        path = FOLDER / f"{name}.txt" if name in SHIPPED else Path(name)
    if not path.is_file():
        raise ValueError(f"--prompts {name}: neither {OFFICIAL}, {', '.join(SHIPPED)} nor a file of your own")
    content = path.read_bytes()
    try:
        sections = _sections(content.decode())
    except ValueError as error:
        raise ValueError(f"--prompts {name}: {error}") from None
    return PromptSet(path.name if path == Path(name) else name, sections, hashlib.sha256(content).hexdigest()[:12])


def _sections(text: str) -> dict[str, str]:
    first, *rest = _SECTION.split(text)
    names, texts = rest[::2], [part.strip("\n") for part in rest[1::2]]
    if not names:
        names, texts = [EVERY], [first.strip("\n")]
    elif first.strip():
        raise ValueError("there is text before the first section")
    if len(set(names)) < len(names):
        raise ValueError(f"a section is there twice: {', '.join(names)}")
    if empty := [name for name, part in zip(names, texts, strict=True) if not part.strip()]:
        raise ValueError(f"section {empty[0]} is empty" if empty[0] else "the file is empty")
    return dict(zip(names, texts, strict=True))


def _names(template: str) -> Collection[str]:
    return dict.fromkeys(name for _, name in _PLACEHOLDER.findall(template) if name)


def _filled(template: str, sample: DataSample) -> str:
    values = {name: escaped(str(value)) for name, value in sample.extra.items() if _is_text(value)}
    own = {name: _lettered(sample.options, form) for name, form in _OPTIONS.items()}
    own |= {"question": sample.question, "official_question": str(sample.extra.get("question") or sample.question)}
    values |= {name: escaped(text, images=True) for name, text in own.items()}
    alone = {f"{{{name}}}" for name in _OPTIONS if not values[name]}
    kept = "\n".join(line for line in template.split("\n") if line.strip() not in alone)
    return _PLACEHOLDER.sub(lambda found: f"{{{found[1]}}}" if found[1] else values.get(found[2], ""), kept).strip()


def _lettered(options: Sequence[str], form: str) -> str:
    named = zip(letters(len(options)), options, strict=True)
    return "\n".join(form.format(letter, text) for letter, text in named)


def _is_text(value: object) -> bool:
    return isinstance(value, str | int | float)
