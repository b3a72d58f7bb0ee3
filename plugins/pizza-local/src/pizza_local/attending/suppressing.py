# SPDX-License-Identifier: Apache-2.0
"""Attention that looks less at some tokens than it would."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from pizza_local.attending.replaced import Attended, Call, UnknownAttentionError

Mode = Literal["additive", "multiplicative"]

# What a layer may pass that changes the scores in a way that is not known here.
_UNKNOWN = ("indices", "block_indices", "alibi", "head_mask")


class Suppressor:
    """Suppresses tokens before the softmax, in every layer and head that looks at the input.

    Args:
        suppressed: ``(b, n_positions)`` bool: which tokens, for each row of the batch.
        factor: How much of the score is left.
        mode: ``"additive"``: ``H + log(factor)``. ``"multiplicative"``: ``H - min(H)`` times the
            factor, the minimum being that of the positions that the row may look at.

    Source: Deiseroth, Deb et al. 2023, arXiv:2301.08110, section 3, and the authors' code.
    """

    def __init__(self, suppressed: Tensor, factor: float, mode: Mode) -> None:
        self._suppressed, self._factor, self._mode = suppressed, factor, mode
        self.seen = 0

    def attend(self, call: Call) -> Attended:
        """See `Handler.attend`."""
        if call.role == "output":
            return call.run()
        unknown = [name for name in _UNKNOWN if call.options.get(name) is not None]
        if unknown or call.key.shape[2] != self._suppressed.shape[1]:
            what = ", ".join(unknown) or f"{call.key.shape[2]} keys for the input's tokens"
            who = type(call.module).__name__
            raise UnknownAttentionError(f"{who} attends in a way of its own ({what}).", who)
        self.seen += call.role == "input"
        columns = self._suppressed.to(call.query.device)[:, None, None, :]
        if self._mode == "additive":
            bias = torch.zeros(columns.shape, dtype=call.query.dtype, device=columns.device)
            return call.run(bias=bias.masked_fill_(columns, math.log(self._factor)))
        scores = _scores(call)
        seen = torch.ones_like(scores, dtype=torch.bool)
        if call.mask is not None:
            # Masks are the lowest number of their type where nothing is to be seen.
            seen = (call.mask > torch.finfo(call.mask.dtype).min / 2).expand_as(scores)
        lowest = scores.masked_fill(~seen, math.inf).amin(-1, keepdim=True)
        # The softmax does not see that min(H) is missing from the whole row.
        change = (self._factor - 1) * (scores - lowest)
        return call.run(bias=change.masked_fill(~(columns & seen), 0.0).to(call.query.dtype))


def _scores(call: Call) -> Tensor:
    """Scores before mask and softmax, ``(b, heads, q, k)``, in single precision at least."""
    query, key, options = call.query, call.key, call.options
    if query.dtype != torch.float64:
        query, key = query.float(), key.float()
    shared = query.shape[1] // key.shape[1]
    if shared > 1:
        key = key.repeat_interleave(shared, dim=1)
    scaling: float | None = options.get("scaling")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = query @ key.transpose(-1, -2) * scale
    if options.get("position_bias") is not None:
        scores = scores + options["position_bias"]
    softcap = options.get("softcap")
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    return scores
