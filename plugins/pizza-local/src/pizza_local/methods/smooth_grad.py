# SPDX-License-Identifier: Apache-2.0
"""SmoothGrad and its kin: gradients at noisy copies of the prompt (Smilkov et al. 2017)."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from pizza.errors import ConfigError
from pizza_local.methods.base import LocalMethod, TokenScores
from pizza_local.methods.blocks import gradients_at
from pizza_local.methods.saliency import UNIT_AGGREGATION, Norm, reduced
from pizza_local.view import View

Variant = Literal["gradient", "input-x-gradient"]
Kind = Literal["smoothgrad", "smoothgrad-squared", "vargrad"]


class SmoothGrad(LocalMethod):
    """A gradient map, averaged over copies of the prompt with Gaussian noise on its embeddings.

    With ``m_s`` the map (one number per embedding dimension) of copy ``s``:

    - ``"smoothgrad"``: the mean of ``m_s``. Smilkov et al. 2017, arXiv:1706.03825, section 2.2.
    - ``"smoothgrad-squared"``: the mean of ``m_s^2``. Hooker et al. 2019, arXiv:1806.10758, sec. 4.
    - ``"vargrad"``: the variance of ``m_s`` (divided by their number). Adebayo et al. 2018,
      arXiv:1810.03292, section 2.

    Noise is put on the tokens of units only. The paper gives its size as a share of
    ``x_max - x_min``; of embeddings that range is set by a few outlying dimensions, so here it is a
    share of the root mean square of the units' embedding values.

    Args:
        samples: Copies.
        stdev: Standard deviation of the noise, relative to the root mean square of the embedding
            values of the units' tokens.
        norm: How the dimensions of a map become the token's score, as for `Saliency`: ``"l2"`` (the
            default for gradients), ``"l1"``, ``"max"`` or ``"sum"`` (the default for
            ``"input-x-gradient"``; signed).
        variant: The map: ``"gradient"``, or ``"input-x-gradient"``: the noisy embedding times the
            gradient there.
        kind: What is made of the copies' maps.
        **options: As for `LocalMethod`.

    Raises:
        ConfigError: An option has a value that means nothing.
    """

    def __init__(
        self,
        samples: int = 20,
        stdev: float = 0.1,
        norm: Norm | None = None,
        variant: Variant = "gradient",
        kind: Kind = "smoothgrad",
        **options: Any,
    ) -> None:
        for name, value, accepted in (
            ("variant", variant, get_args(Variant)),
            ("kind", kind, get_args(Kind)),
            ("norm", norm or "l2", get_args(Norm)),
        ):
            if value not in accepted:
                raise ConfigError(
                    f"the {name} of smooth-grad is {', '.join(accepted)}, not {value!r}."
                )
        self.norm: Norm = norm or ("l2" if variant == "gradient" else "sum")
        options["aggregation"] = options.get("aggregation") or UNIT_AGGREGATION[self.norm]
        super().__init__(**options)
        self.samples = check_samples("smooth-grad", samples)
        self.stdev = check_stdev("smooth-grad", stdev)
        self.variant, self.kind = variant, kind
        self.signed = self.norm == "sum" and kind == "smoothgrad"

    def attribute(self, view: View) -> TokenScores:
        """See `LocalMethod.attribute`."""
        start, generator = view.start(), view.generator()
        scale = self.stdev * noise_unit(view, start)

        def make(block: range) -> Tensor:
            return torch.stack([start + noise(view, start, scale, generator) for _ in block])

        mean: Tensor | None = None
        spread: Tensor | None = None
        seen = 0
        for piece in gradients_at(view, self.samples, start, make):
            maps = piece.gradients
            if self.variant == "input-x-gradient":
                maps = maps * piece.points.unsqueeze(1)
            for one in maps if self.kind != "smoothgrad-squared" else maps.square():
                seen += 1
                if mean is None or spread is None:
                    mean, spread = one.clone(), torch.zeros_like(one)
                    continue
                # Welford's recurrence: the difference of two large means would cancel.
                step = one - mean
                mean += step / seen
                spread += step * (one - mean)
        assert mean is not None and spread is not None  # noqa: S101, PT018 - there are samples
        rows = reduced(spread / seen if self.kind == "vargrad" else mean, self.norm)
        return TokenScores(
            rows=rows,
            details={
                "samples": self.samples,
                "stdev": self.stdev,
                "noise": scale,
                "norm": self.norm,
                "variant": self.variant,
                "kind": self.kind,
            },
        )


def noise_unit(view: View, start: Tensor) -> float:
    """Root mean square of the values of the units' tokens at a point ``(n_tokens, d)``."""
    used = torch.from_numpy(view.assignment.used).to(start.device)
    if not bool(used.any()):
        return 0.0
    return float(start[used].double().square().mean().sqrt())


def noise(view: View, like: Tensor, scale: float, generator: torch.Generator) -> Tensor:
    """Gaussian noise on the tokens of units, 0 elsewhere, ``(n_tokens, d)``.

    Drawn in double precision on the CPU: the same on every device and in every precision.
    """
    drawn = torch.randn(like.shape, generator=generator, dtype=torch.float64)
    drawn *= torch.from_numpy(view.assignment.used).double().unsqueeze(-1) * scale
    return drawn.to(like)


def check_samples(who: str, samples: Any) -> int:
    """A number of samples, checked.

    Raises:
        ConfigError: It is no whole number from 1 on.
    """
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
        raise ConfigError(f"samples of {who} is a whole number from 1 on, not {samples!r}.")
    return samples


def check_stdev(who: str, stdev: Any) -> float:
    """A standard deviation, checked.

    Raises:
        ConfigError: It is no finite number from 0 on.
    """
    number = isinstance(stdev, (int, float)) and not isinstance(stdev, bool)
    if not number or not 0 <= stdev < math.inf:
        raise ConfigError(f"stdev of {who} is a finite number from 0 on, not {stdev!r}.")
    return float(stdev)
