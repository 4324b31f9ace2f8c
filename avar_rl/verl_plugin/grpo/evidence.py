"""Evidence boxes of a step's rows, written to the queue for the actor's passes: where in the images answers are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transfer_queue import KVBatchMeta

from avar_rl.attention.regions import evidence_boxes
from avar_rl.runtime.evidence import EvidenceError, read_evidence
from avar_rl.verl_plugin.forward.layout import EVIDENCE
from avar_rl.verl_plugin.grpo.queue import Rows
from avar_rl.verl_plugin.grpo.text_score import TEXT_SCORE, TextScore


def write_evidence(batch: KVBatchMeta) -> None:
    """Writes the boxes of every row, none for verl's filler rows (a worker reads the same columns of all).

    Raises:
        EvidenceError: a row's boxes are none, or do not fit its images; names the row (`avar validate` finds it, too).
    """
    rows = Rows(batch.keys, batch)
    columns = zip(batch.tags, rows.read(["extra_fields"]).objects("extra_fields"), strict=True)
    found = [_boxes({} if tag.get("is_padding", False) else fields) for tag, fields in columns]
    rows.write_tensors(EVIDENCE, [boxes_X5.flatten() for boxes_X5 in found])
    if batch.fields is not None and EVIDENCE not in batch.fields:
        batch.fields.append(EVIDENCE)


def _boxes(extra_fields: Mapping[str, Any]) -> Tensor:
    said = (extra_fields.get("reward_extra_info") or {}).get(TEXT_SCORE)
    if said is None:  # a filler row; a response that was not scored is found out with the rewards
        return evidence_boxes((), ())
    sample = TextScore.from_json(said).sample
    try:
        evidence = read_evidence((sample.row.get("extra_info") or {}).get("evidence"))
        return evidence_boxes(evidence, sample.image_sizes)
    except EvidenceError as error:
        raise EvidenceError(f"row {sample.row_id or '(no id)'}: {error}; `avar validate` finds such rows") from error
