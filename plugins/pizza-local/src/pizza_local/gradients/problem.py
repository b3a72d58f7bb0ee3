# SPDX-License-Identifier: Apache-2.0
"""What an engine is asked for: `Problem`."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from pizza_local.counts import Counts
from pizza_local.gradients.functions import Function

Level = Literal["token", "sequence"]
"""``"token"``: one gradient per output position; ``"sequence"``: one of their weighted sum."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Problem:
    """A function of points inside a model, to be computed or differentiated.

    Attributes:
        points: ``(b, n_positions, d)``: what the model embeds where `layer` is 0, else what enters
            block `layer`; with as many layers as there are, the final norm.
        function: What is computed of the logits.
        level: Which gradients; values are always those of the output positions.
        layer: Where the points are.
        counts: Where passes are counted.
        stop: Set when the caller is gone.
    """

    points: Tensor
    function: Function
    level: Level = "token"
    layer: int = 0
    counts: Counts
    stop: threading.Event | None = None
