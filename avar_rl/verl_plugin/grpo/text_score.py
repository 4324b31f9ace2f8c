"""What verl carries from its reward workers to the trainer about one response."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field

from rewards.combine import Values
from rewards.sample import Sample

TEXT_SCORE = "avar_text_score"  # key of the JSON in verl's reward_extra_info (verl skips text)


@dataclass(frozen=True)
class TextScore:
    """The text rewards of one response, with what the attention rewards need to know of its data row.

    sample: the response and its data row, as the rewards saw them.
    values: what the text rewards returned; nothing where one failed.
    error: traceback, reward and row of a reward that failed, or what is wrong with the row; "" without.
    """

    sample: Sample
    values: Values = field(default_factory=Values)
    error: str = ""

    def numbers(self) -> dict[str, float | None]:
        """One number for each text reward, for verl's group filter and validation.

        An undecided accuracy is NaN, which never equals another one: the filter keeps such a group.
        """
        numbers = dict(self.values.raw)
        if self.error or numbers.get("accuracy", 0.0) is None:
            numbers["accuracy"] = math.nan
        return numbers

    def to_json(self) -> str:
        """Everything but the text of the response, which the trainer decodes from its tokens."""
        sample = vars(self.sample) | {"response": ""}
        values = {"raw": dict(self.values.raw), "closed": sorted(self.values.closed)}
        return json.dumps({"sample": sample, "values": values, "error": self.error}, default=str)

    @classmethod
    def from_json(cls, text: str) -> TextScore:
        """The inverse of `to_json`; what JSON does not know in a data row has become text."""
        facts = json.loads(text)
        sample, values = facts["sample"], facts["values"]
        sizes = tuple((width, height) for width, height in sample["image_sizes"])
        sample |= {"image_sizes": sizes, "options": tuple(sample["options"])}
        return cls(Sample(**sample), Values(values["raw"], frozenset(values["closed"])), facts["error"])
