"""Takes the log-sum-exp that attention kernels compute anyway, so that span mass scores no keys but those of the spans.

Under `CatchLogSumExp` every operation runs as it is; from those that return a log-sum-exp beside their output it is
kept. The kernels of CUDA are not run by this project's tests: names and layouts are those of torch 2.11 to 2.13 and
flash-attn 2.8.3. A layout that does not fit gives None, and span mass then computes the log-sum-exp on its own: the
same masses, from the scores of all keys. So it is for cuDNN's and the memory-efficient kernel where no gradient is
wanted. They leave the log-sum-exp out then, and are not asked for it: cuDNN would run another plan, and might round
otherwise.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

# Shapes: B batch, H query heads, T tokens, N tokens that are no padding.

# Operations whose second result is the log-sum-exp of the scaled scores, natural logarithm, float32.
KERNELS = {
    "aten::_scaled_dot_product_flash_attention_for_cpu",  # (B, H, T)
    "aten::_scaled_dot_product_flash_attention",  # (B, H, T)
    "aten::_scaled_dot_product_efficient_attention",  # (B, H, T rounded up); empty where no gradient is wanted
    "aten::_scaled_dot_product_cudnn_attention",  # (B, H, T, 1); None or empty where no gradient is wanted
    "aten::_flash_attention_forward",  # varlen: (H, N)
    "torch_attn::_varlen_attn",  # torch.nn.attention.varlen, on CUDA and (module varlen_cpu) CPU: (H, N)
    "flash_attn::_flash_attn_forward",  # (B, H, T)
    "flash_attn::_flash_attn_varlen_forward",  # (H, N)
}


class CatchLogSumExp(TorchDispatchMode):
    """A context for one attention call: keeps the log-sum-exp that its kernel returns; `per_query` gives it."""

    def __init__(self) -> None:
        super().__init__()
        self._caught: list[Tensor | None] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        if func.name().split(".")[0] in KERNELS:
            self._caught.append(output[1])
        return output

    def per_query(self, query: Tensor, valid: Tensor | None = None) -> Tensor | None:
        """The log-sum-exp of every query, float32 (B, H, T); None where no kernel gave one in a layout that fits.

        Args:
            query: (B, H, T, D), what the attention call was given; only its shape counts.
            valid: bool (B, T), False on padding: the tokens that an unpadding kernel saw.

        Several calls (one a sequence) are taken as pieces of one packed batch, in order.
        """
        B, H, T, _ = query.shape
        # Detached: a custom operation's results become part of the graph in place, after they were caught.
        caught = [lse.detach() for lse in self._caught if lse is not None]
        caught = [lse.squeeze(-1) if lse.ndim == 4 else lse for lse in caught]
        if not caught or caught[0].ndim not in (2, 3):
            return None
        lse = caught[0] if len(caught) == 1 else _joined(caught)
        if lse is None or lse.ndim not in (2, 3) or lse.shape[-2] != H:
            return None
        if lse.ndim == 3:
            return lse[..., :T] if lse.shape[0] == B and T <= lse.shape[2] < T + 32 else None
        if lse.shape[1] == B * T:
            return lse.view(H, B, T).transpose(0, 1)
        if valid is None or lse.shape[1] != int(valid.sum()):
            return None
        lse_BTH = lse.new_zeros(B, T, H)
        lse_BTH[valid.bool()] = lse.T
        return lse_BTH.transpose(1, 2)


def _joined(pieces: list[Tensor]) -> Tensor | None:
    if any(piece.shape[:-1] != (1, pieces[0].shape[1]) for piece in pieces):
        return None
    return torch.cat(pieces, dim=-1)[0]
