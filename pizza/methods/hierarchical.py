# SPDX-License-Identifier: Apache-2.0
"""Hierarchical: remove chunks, split the ones that matter."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from pizza.abc import Game, Method, Plan, Scores
from pizza.errors import ConfigError
from pizza.methods._designs.budget import require
from pizza.methods._designs.given import finite
from pizza.methods._fits import model_noise

Threshold = Literal["mid-range", "static", "quantile"]


@dataclass(frozen=True, slots=True)
class _Chunk:
    start: int
    stop: int

    @property
    def size(self) -> int:
        return self.stop - self.start


class Hierarchical(Method):
    """Removes chunks of neighbouring units; halves those whose score passes a threshold.

    The score of a chunk is the absolute effect of removing it, for the whole output. A unit's
    score is the effect of the smallest chunk removed that holds it, shared equally by the chunk's
    members. So units in chunks that never mattered share a small score, and the units of the
    chunks that did end up alone, with their leave-one-out effect. Every coalition is evaluated
    once; a chunk of one unit is never split.

    Standard errors are those of the model's noise, where it was measured; they know nothing of
    chunks that noise made strong enough to be split.

    Args:
        chunks: Chunks of the first level.
        threshold: ``"mid-range"``: at or above the middle between the level's smallest and largest
            score; ``"static"``: above ``value``; ``"quantile"``: at or above the level's ``value``
            quantile.
        value: For ``"static"`` a score, in the metric's unit; for ``"quantile"`` 0 to 1.
        max_depth: Levels in all, or ``None`` for as many as it takes.

    Cost: ``chunks`` calls, then two for every chunk that is split; at most about ``2 * n_units``.
    """

    def __init__(
        self,
        chunks: int = 4,
        threshold: Threshold = "mid-range",
        value: float | None = None,
        max_depth: int | None = None,
    ) -> None:
        if chunks < 1:
            raise ConfigError(f"chunks must be at least 1, not {chunks!r}.")
        if threshold not in ("mid-range", "static", "quantile"):
            raise ConfigError(
                f"the threshold is 'mid-range', 'static' or 'quantile', not {threshold!r}."
            )
        if threshold == "mid-range" and value is not None:
            raise ConfigError("the threshold 'mid-range' takes no value.")
        if threshold == "static" and value is None:
            raise ConfigError("the threshold 'static' needs value=... (a score).")
        if threshold == "quantile" and (value is None or not 0 <= value <= 1):
            raise ConfigError(f"the threshold 'quantile' needs value=0..1, not {value!r}.")
        if max_depth is not None and max_depth < 1:
            raise ConfigError(f"max_depth must be at least 1, not {max_depth!r}.")
        self.chunks = chunks
        self.threshold = threshold
        self.value = value
        self.max_depth = max_depth

    def calls(self, n_units: int) -> tuple[int, int]:
        """The first level at least; every chunk down to single units at most."""
        first = min(self.chunks, n_units)
        return first, first + 2 * (n_units - first)

    def plan(self, game: Game) -> Plan:
        """One round per level."""
        n = game.n_units
        level = _split(_Chunk(0, n), min(self.chunks, n))
        require(game, len(level), "hierarchical", advice="lower chunks, or use larger units.")
        scores = np.zeros((game.n_columns, n))
        sharing = np.ones(n)
        spent = 0
        depth = 0
        levels: list[dict[str, float | int | None]] = []
        while level:
            present = np.ones((len(level), n), dtype=bool)
            for row, chunk in zip(present, level, strict=True):
                row[chunk.start : chunk.stop] = False
            effects = -finite((yield present))
            spent += len(level)
            depth += 1
            for chunk, effect in zip(level, effects, strict=True):
                scores[:, chunk.start : chunk.stop] = effect[:, None] / chunk.size
                sharing[chunk.start : chunk.stop] = chunk.size
            chosen, limit = self._chosen(level, np.abs(effects[:, 0]))
            levels.append({"chunks": len(level), "split": len(chosen), "threshold": limit})
            if self.max_depth is not None and depth >= self.max_depth:
                break
            if game.max_calls is not None:
                # The strongest chunks come first, so that a short budget is spent where it tells.
                chosen = chosen[: max(0, (game.max_calls - spent) // 2)]
            level = [half for chunk in chosen for half in _split(chunk, 2)]
        errors = model_noise.errors(game, 1 / sharing**2, 1 / sharing, scores)
        return Scores(values=scores, standard_errors=errors, details={"levels": levels})

    def _chosen(
        self, level: list[_Chunk], strength: np.ndarray
    ) -> tuple[list[_Chunk], float | None]:
        """The chunks to split, strongest first, and the threshold that they passed."""
        known = strength[np.isfinite(strength)]
        if not known.size:
            return [], None
        if self.threshold == "static":
            limit = float(self.value or 0.0)
        elif self.threshold == "quantile":
            limit = float(np.quantile(known, self.value or 0.0))
        else:
            limit = float(known.min() + known.max()) / 2
        # A level of equal scores has no weak part: mid-range and quantile then take all of it,
        # unless nothing there has any effect.
        passed = strength > limit if self.threshold == "static" else strength >= limit
        passed &= strength > 0
        order = np.argsort(-np.nan_to_num(strength, nan=-1.0), kind="stable")
        return [level[i] for i in order if passed[i] and level[i].size > 1], limit


def _split(chunk: _Chunk, parts: int) -> list[_Chunk]:
    """Cut a chunk into ``parts`` (at most its size) of nearly equal size."""
    parts = min(parts, chunk.size)
    bounds = np.linspace(chunk.start, chunk.stop, parts + 1).round().astype(int).tolist()
    return [_Chunk(a, b) for a, b in pairwise(bounds)]
