"""The edge to verl's transfer queue: columns of a step's rows, read and written by the rows' keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import transfer_queue
from tensordict import TensorDict
from torch import Tensor
from transfer_queue import KVBatchMeta
from verl.utils.tensordict_utils import list_of_dict_to_tensordict


class Rows:
    """Rows of one step in the queue.

    keys: verl's names of the rows, in the order of everything read and written.
    """

    def __init__(self, keys: Sequence[str], batch: KVBatchMeta):
        assert batch.partition_id is not None, "verl names the partition of every batch"
        self.keys = list(keys)
        self._partition = batch.partition_id

    def read(self, names: Sequence[str]) -> ReadColumns:
        """Fetches the columns of these names at once."""
        data = transfer_queue.kv_batch_get(keys=self.keys, partition_id=self._partition, select_fields=list(names))
        return ReadColumns(data)

    def write_tensors(self, name: str, tensors: Sequence[Tensor]) -> None:
        """Replaces a column by one tensor (T,) for each row, of any lengths."""
        nested = torch.nested.as_nested_tensor(list(tensors), layout=torch.jagged)
        self._put(TensorDict({name: nested}, batch_size=len(self.keys)))

    def write_objects(self, objects: Sequence[Mapping[str, Any]]) -> None:
        """Replaces columns by values that are no tensors: a mapping of names to values for each row."""
        self._put(list_of_dict_to_tensordict([dict(row) for row in objects]))

    def _put(self, fields: TensorDict) -> None:
        transfer_queue.kv_batch_put(keys=self.keys, partition_id=self._partition, fields=fields)


class ReadColumns:
    """Columns that were read, by name."""

    def __init__(self, data: TensorDict):
        self._data = data

    def tensors(self, name: str) -> list[Tensor]:
        """A nested column as one tensor for each row."""
        column: Any = self._data[name]
        return list(column.unbind())

    def objects(self, name: str) -> list[Any]:
        """A column of values that are no tensors."""
        column: Any = self._data[name]
        return list(column)


def real_rows(batch: KVBatchMeta) -> Rows:
    """The rows of a batch without those that verl adds to fill it up."""
    pairs = zip(batch.keys, batch.tags, strict=True)
    return Rows([key for key, tag in pairs if not tag.get("is_padding", False)], batch)
