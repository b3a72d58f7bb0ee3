# SPDX-License-Identifier: Apache-2.0
"""One forward pass, with what the model takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pizza_local.scoring.architecture import Architecture

Ints = NDArray[np.int64]


def logits_of(
    model: Any,
    architecture: Architecture,
    tokens: Ints,
    positions: Ints,
    columns: Ints,
    lengths: Ints | None = None,
) -> torch.Tensor:
    """Logits of some columns of a batch, the head being applied to no others if possible.

    Args:
        model: The model.
        architecture: Facts about it.
        tokens: Token ids, ``(B, N)``.
        positions: Positions of all rows, ``(N,)``.
        columns: Which columns are wanted, ``(C,)``.
        lengths: How much of each row is no padding, ``(B,)``, if the model must be told.

    Returns:
        Shape ``(B, C, V)``.
    """
    device = architecture.device
    keep = torch.from_numpy(columns).to(device)
    settings: dict[str, Any] = {"use_cache": False}
    if architecture.takes_positions:
        settings["position_ids"] = torch.from_numpy(positions).to(device).expand(len(tokens), -1)
    if lengths is not None:
        real = np.arange(tokens.shape[1]) < lengths[:, None]
        settings["attention_mask"] = torch.from_numpy(real.astype(np.int64)).to(device)
    if architecture.keeps_logits:
        settings["logits_to_keep"] = keep
    logits: torch.Tensor = model(input_ids=torch.from_numpy(tokens).to(device), **settings).logits
    return logits if architecture.keeps_logits else logits[:, keep.to(logits.device)]
