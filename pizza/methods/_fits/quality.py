# SPDX-License-Identifier: Apache-2.0
"""How well scores predict calls that they were not fitted to, and what to say when they do not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pizza.methods._fits.penalties import parts
from pizza.methods._fits.regression import plain

Floats = NDArray[np.float64]

TOO_SMALL = 0.2
NOT_ADDITIVE = 0.5
_RANKED = 6
"""A rank correlation of fewer values says nothing."""


def rank_correlation(a: Floats, b: Floats) -> float:
    """Spearman's rank correlation; NaN when one side is constant."""
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def _ranks(x: Floats) -> Floats:
    """Ranks from 1; equal values share the mean of theirs."""
    _, place, counts = np.unique(x, return_inverse=True, return_counts=True)
    result: Floats = (np.cumsum(counts) - (counts - 1) / 2)[place.reshape(-1)]
    return result


def warned(details: Mapping[str, Any]) -> tuple[str, ...]:
    """What a reader should know of a fit of this quality."""
    text = details["quality"]["warning"]
    return () if text is None else (str(text),)


def quality(held_out: Floats, values: Floats, cv_r2: float, *, paired: bool) -> dict[str, Any]:
    """Measures on held-out calls: each fifth is predicted by a fit to the other four.

    Args:
        held_out: ``(m,)`` predictions of the rows, or of the odd parts of pairs; NaN = none.
        values: ``(m,)`` values of the whole output; for pairs ``(2 * m,)``, the first members'
            and then their complements'.
        cv_r2: R2 of what was fitted.
        paired: Whether rows are pairs.

    Returns:
        ``lds``: rank correlation of predictions and values, mean over the parts (the linear
        datamodeling score of Park et al. 2023); ``r2``: ``1 - SSE / SST`` of the values;
        ``cv_r2``: the same of what was fitted (for pairs: without what is even); ``warning``.
    """
    pieces = np.split(values, 2) if paired else [values]
    known = np.isfinite(held_out) & np.isfinite(np.sum(pieces, axis=0))
    part = np.full(len(held_out), -1)
    part[known] = parts(int(known.sum())) if known.sum() > 1 else 0
    predicted, found, ranks = [], [], []
    for turn in range(part.max(initial=-1) + 1):
        test, train = part == turn, known & (part != turn)
        if paired:
            # Pairs are fitted by their odd part; the level that they share comes from the others.
            level = np.mean([piece[train] for piece in pieces]) if train.any() else 0.0
            guess = np.concatenate([level + held_out[test], level - held_out[test]])
        else:
            guess = held_out[test]
        truth = np.concatenate([piece[test] for piece in pieces])
        predicted.append(guess)
        found.append(truth)
        if len(truth) >= _RANKED:
            ranks.append(rank_correlation(guess, truth))
    r2 = float("nan")
    if found and np.ptp(truth := np.concatenate(found)) > 0:
        error = ((np.concatenate(predicted) - truth) ** 2).sum()
        r2 = float(1.0 - error / ((truth - truth.mean()) ** 2).sum())
    # Parts that are constant on one side have no rank correlation: no evidence of any is 0.
    lds = float(np.mean(np.nan_to_num(ranks))) if ranks and np.isfinite(r2) else float("nan")
    return {
        "lds": plain(lds),
        "r2": plain(r2),
        "cv_r2": plain(cv_r2),
        "warning": _warning(cv_r2, _error_of_r2(held_out, pieces), r2),
    }


def _error_of_r2(held_out: Floats, pieces: list[Floats]) -> float:
    """How uncertain the R2 of so few rows left out is: its standard error over rows."""
    target = pieces[0] if len(pieces) == 1 else (pieces[0] - pieces[1]) / 2
    known = np.isfinite(held_out) & np.isfinite(target)
    truth, guess = target[known], held_out[known]
    if len(truth) < 2 or np.ptp(truth) == 0:
        return 0.0
    # Of pairs the odd part is fitted, without a mean.
    total = (truth - (truth.mean() if len(pieces) == 1 else 0.0)) ** 2
    explained = total - (truth - guess) ** 2
    return float(explained.std(ddof=1) / np.sqrt(len(truth)) / total.mean())


def _warning(cv_r2: float, error: float, r2: float) -> str | None:
    # Few rows may be predicted well by chance: what counts is what they show for sure.
    if cv_r2 - error < TOO_SMALL:
        return (
            f"budget too small for this many units: coarsen to sentences, or raise the budget. "
            f"The scores predict {max(cv_r2, 0.0):.0%} of the variance of calls left out, give or "
            f"take {error:.0%}."
        )
    if r2 < NOT_ADDITIVE:
        return (
            f"the scores predict {max(r2, 0.0):.0%} of the variance of calls left out: units "
            "interact (see the method 'pairwise-interactions'), or the output is noisy."
        )
    return None
