# SPDX-License-Identifier: Apache-2.0
"""AtMan: attention manipulation (Deiseroth, Deb et al. 2023)."""

from __future__ import annotations

import math
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pizza.abc import Findings, InternalsMethod
from pizza.errors import ConfigError
from pizza_local.attending.places import complete, row_bytes, transformer
from pizza_local.attending.replaced import attending
from pizza_local.attending.rows import refuse_layer
from pizza_local.attending.suppressing import Mode, Suppressor
from pizza_local.gradients.problem import Level
from pizza_local.methods.base import local
from pizza_local.subjects import Subject
from pizza_local.view import Side, View

_MOST = 64
_POSITIONS = 4096


class AtMan(InternalsMethod):
    """By how much the output becomes less likely when all attention to a unit is suppressed.

    In every layer and head the scores H of the unit's tokens are lowered before the softmax, for
    all that attend to them; ``score_t = log p(y_t) - log p(y_t | suppressed)``, which is the rise
    of the cross-entropy of output token t. The whole output's score is their sum (over the target's
    span, where it has one); of a contrast, the difference of both outputs'. A token that lies in a
    unit only in part is suppressed with it. No gradients; one forward a unit.

    Args:
        factor: How much is left. 1 = nothing is suppressed.
        mode: ``"additive"``: ``H + log(factor)``, which leaves ``factor`` of the weight before it
            is normalised. ``"multiplicative"``: ``factor * (H - min(H))``, as in the paper.
        similar: Suppress with a unit all tokens of the prompt whose embeddings have at least this
            cosine similarity to one of its own (0.6 in the authors' code); ``None``: only its own.
        function: ``"logprob"`` is all that AtMan explains.
        level: ``"token"``: a row for each output token and one for the whole; ``"sequence"``: only
            the whole output. Costs the same.

    Raises:
        ConfigError: An option has a value that means nothing, or means nothing here.

    Source: Deiseroth, Deb et al. 2023, arXiv:2301.08110, section 3: the score, the suppression of
    ``H`` and that of correlated tokens, as the authors' code has them (its multiplicative mode
    takes the row's minimum away first, its similar tokens share the factor). The additive mode is
    that of Aleph Alpha's interface.
    """

    def __init__(
        self,
        factor: float = 0.1,
        mode: Mode = "additive",
        similar: float | None = None,
        *,
        function: str = "logprob",
        level: Level = "token",
        layer: int = 0,
    ) -> None:
        if mode not in get_args(Mode):
            raise ConfigError(f"attention is suppressed by {', '.join(get_args(Mode))}: {mode!r}.")
        lowest = "above 0" if mode == "additive" else "0 or more"
        if not _is_number(factor) or factor < 0 or (factor == 0 and mode == "additive"):
            raise ConfigError(f"the factor is a number {lowest} in mode {mode!r}, not {factor!r}.")
        if similar is not None and not (_is_number(similar) and -1 <= similar <= 1):
            raise ConfigError(f"similar is a cosine, -1 to 1, or None, not {similar!r}.")
        if function != "logprob":
            raise ConfigError(
                f"AtMan explains the function 'logprob' (its score is a cross-entropy), not "
                f"{function!r}."
            )
        if level not in ("token", "sequence"):
            raise ConfigError(f"the level is 'token' or 'sequence', not {level!r}.")
        refuse_layer("AtMan", layer)
        self.factor, self.mode, self.similar, self.level = float(factor), mode, similar, level

    def inspect(self, view: Any) -> Findings:
        """See `InternalsMethod.inspect`.

        Raises:
            CapabilityError: The model's attention cannot be changed.
        """
        chosen = local(view, self).of("logprob", level=self.level)
        rows = np.zeros((1 + chosen.n_outputs, len(chosen.units)))
        for side in chosen.sides:
            each = self._rises(chosen, side)
            start, stop = (chosen.window if side.sign > 0 else None) or (0, len(each))
            rows[0] += side.sign * each[start:stop].sum(0)
            if side.sign > 0:
                rows[1:] = each
        return chosen.unit_findings(
            rows[:1] if self.level == "sequence" else rows,
            details={
                "engine": "forward",
                "factor": self.factor,
                "mode": self.mode,
                "similar": self.similar,
            },
            function="logprob",
        )

    def _rises(self, view: View, side: Side) -> NDArray[np.float64]:
        """Rise of each output token's cross-entropy with each unit, ``(n_outputs, n_units)``."""
        subject, function = side.subject, side.function
        assert function is not None  # noqa: S101 - `View.of` has set it
        transformer(subject)
        nothing = torch.zeros((1, len(subject.tokens)), dtype=torch.bool)
        suppressed = torch.cat([nothing, self._suppressed(view, side)])
        start = subject.start()

        def work(chunk: slice) -> Tensor:
            rows = suppressed[chunk]
            handler = Suppressor(rows, self.factor, self.mode)
            with torch.no_grad(), attending(subject.network.model, handler):
                view.counts.forward(len(rows) * subject.length)
                logits = subject.logits(start.expand(len(rows), -1, -1))
            complete(subject, handler.seen, "suppressing attention")
            return function.each(logits).to("cpu", torch.float64)

        most = max(1, min(_MOST, _POSITIONS // subject.length))
        key = ("atman", subject.length)
        parts = view.chunks.run(key, len(suppressed), row_bytes(subject), most, work, view.stop)
        values = torch.cat([part for _, part in parts]).numpy()
        rises: NDArray[np.float64] = (values[:1] - values[1:]).T
        return rises

    def _suppressed(self, view: View, side: Side) -> Tensor:
        """Which of a side's tokens are suppressed with each unit, ``(n_units, n_positions)``."""
        members = torch.from_numpy(view.assignment.share > 0)[:, side.places.cpu()]
        if self.similar is None:
            return members
        alike = _cosines(side.subject) >= self.similar
        own = torch.tensor([token.origin == "prompt" for token in side.subject.tokens])
        near = (members.unsqueeze(-1) & alike).any(dim=1)
        return members | (near & own)


def _cosines(subject: Subject) -> Tensor:
    """Cosine similarity of the input's embeddings, ``(n_positions, n_positions)``."""
    points = subject.start().to("cpu", torch.float64)
    unit = torch.nn.functional.normalize(points, dim=-1)
    return unit @ unit.T


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
