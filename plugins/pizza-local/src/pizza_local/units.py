# SPDX-License-Identifier: Apache-2.0
"""From scores of tokens to scores of units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from pizza.errors import ConfigError
from pizza.prompt import Unit
from pizza_local.encoding import InputToken

Aggregation = Literal["sum", "mean", "norm", "max"]
AGGREGATIONS: tuple[str, ...] = get_args(Aggregation)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Assignment:
    """Which tokens make up which unit.

    Attributes:
        share: ``(n_units, n_tokens)``: how much of a token's characters lie in a unit, of those
            that lie in any. Columns sum to 1, or to 0 for tokens outside of all units.
        used: ``(n_tokens,)`` bool: the token lies in a unit.
    """

    share: NDArray[np.float64]
    used: NDArray[np.bool_]

    def members(self, unit: int) -> NDArray[np.int64]:
        """Positions of the tokens that lie in a unit, wholly or in part."""
        return np.flatnonzero(self.share[unit])


def shares(tokens: Sequence[InputToken], units: Sequence[Unit]) -> Assignment:
    """Assign tokens to units by the characters that they share.

    A token that reaches into two units is divided between them in proportion. White space between
    units counts for nothing: a token of a word with the space before it belongs to the word.
    """
    inside = [token.origin == "prompt" for token in tokens]
    where = np.array([(t.message, t.start, t.end) for t in tokens]).reshape(-1, 3)
    wanted = np.array([(u.message, u.start, u.end) for u in units]).reshape(-1, 3)
    ends = np.minimum(wanted[:, None, 2], where[None, :, 2])
    overlap = np.maximum(0, ends - np.maximum(wanted[:, None, 1], where[None, :, 1]))
    same = (wanted[:, None, 0] == where[None, :, 0]) & np.array(inside, dtype=bool)
    share = np.where(same, overlap, 0).astype(float)
    total = share.sum(axis=0)
    used = total > 0
    share[:, used] /= total[used]
    share.setflags(write=False)
    return Assignment(share=share, used=used)


def check_aggregation(name: Any) -> Aggregation:
    """An aggregation's name, checked.

    Raises:
        ConfigError: There is none of that name.
    """
    if name not in AGGREGATIONS:
        raise ConfigError(
            f"token scores are aggregated to units by {', '.join(AGGREGATIONS)}, not {name!r}."
        )
    return name  # type: ignore[no-any-return]


def aggregate(
    scores: NDArray[np.float64], assignment: Assignment, how: Aggregation
) -> NDArray[np.float64]:
    """Scores of units ``(r, n_units)`` from scores of tokens ``(r, n_tokens)``.

    ``"sum"`` keeps totals. ``"mean"`` does not favour units of many tokens. ``"norm"`` is the
    square root of the sum of squares: of token norms, the norm of the unit's whole gradient.
    ``"max"`` is the score of largest absolute value, with its sign. A unit without tokens scores 0.
    """
    share = assignment.share
    if how == "sum":
        return scores @ share.T
    if how == "mean":
        size = share.sum(axis=1)
        return (scores @ share.T) / np.where(size > 0, size, 1.0)
    if how == "norm":
        return np.sqrt((scores**2) @ (share**2).T)
    result = np.zeros((len(scores), len(share)))
    for unit, weights in enumerate(share):
        members = np.flatnonzero(weights)
        if members.size:
            own = scores[:, members] * weights[members]
            at = np.abs(own).argmax(axis=1)
            result[:, unit] = own[np.arange(len(own)), at]
    return result
