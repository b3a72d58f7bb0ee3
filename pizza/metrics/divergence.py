# SPDX-License-Identifier: Apache-2.0
"""How far the perturbed model's distribution over next tokens moved: KL and Jensen-Shannon.

APIs list only the most likely tokens of a position. Both distributions are therefore written over
the union of the two lists and a bucket "other" for the rest of the vocabulary:

* a token that both list has the two listed probabilities;
* the mass that a list leaves over (at least 1e-6: single-precision sums are no more exact) is
  shared equally by the tokens that only the other list names and by "other"; but no such token
  gets more than the least likely one that is listed, since the list holds the most likely.

The two are proper distributions, so the usual bounds hold: both divergences are 0 or more and 0
for equal lists, Jensen-Shannon is at most ln 2, and Kullback-Leibler is finite (at most 100 nats,
as no log-probability is taken to be below -100). With the whole vocabulary listed they are exact;
else splitting "other" further could only raise them (data-processing inequality), up to the
choice of shares above.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from pizza.abc import Metric
from pizza.metrics._alternatives import UNKNOWN, Listing, aligned_pairs, listing, token_ids
from pizza.metrics._evidence import RESIDUE, same_output, total

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pizza.completion import Completion

_CHUNK = 4096
"""Positions computed at once: some megabytes of intermediate arrays."""


class _DivergenceMetric(Metric):
    """Position by position, aligned: up to and including the first divergence of the outputs.

    Where the perturbed output ended although the reference goes on, only this much is known: the
    original token had at most 1/2 (greedy decoding). There the divergence of (p, 1 - p) from
    (1/2, 1/2) stands, with p the token's original probability, or 0 when p is below 1/2.
    """

    name: ClassVar[str]

    def compare(
        self, reference: Completion, perturbed: Sequence[Completion]
    ) -> NDArray[np.float64]:
        """Effects ``(m, 1 + n_tokens)``, nats; never negative.

        Raises:
            IncomparableError: A completion has no alternatives.
        """
        ids = token_ids(reference, self.name)
        n = len(reference.tokens)
        own = listing(reference, ids, n, who="reference", metric=self.name)
        pairs = aligned_pairs(reference, perturbed, ids, self.name)
        effects = np.full((len(perturbed), n), np.nan)
        values = np.empty(len(pairs.row))
        for start in range(0, len(values), _CHUNK):
            part = slice(start, start + _CHUNK)
            before = _rows(own, pairs.position[part])
            p, q = _on_union(before, _rows(pairs.perturbed, part))
            values[part] = np.maximum(_row_sums(self._terms(p, q)), 0.0)
        effects[pairs.row, pairs.position] = values
        rows, positions = pairs.ended.T
        effects[rows, positions] = self._when_ended(reference, own, positions)
        return np.column_stack([self._whole(effects, same_output(reference, perturbed)), effects])

    def _when_ended(
        self, reference: Completion, own: Listing, positions: NDArray[np.intp]
    ) -> NDArray[np.float64]:
        wanted = np.array([own.ids[at, 0] for at in positions], dtype=np.intp)
        found = own.ids[positions] == wanted[:, None]
        values = np.where(found, own.logprobs[positions], -np.inf)
        p = np.exp(values.max(axis=1, initial=-np.inf))
        q = np.minimum(p, 0.5)
        pairs = np.stack([p, 1.0 - p], axis=1), np.stack([q, 1.0 - q], axis=1)
        result: NDArray[np.float64] = np.maximum(_row_sums(self._terms(*pairs)), 0.0)
        return result

    @abstractmethod
    def _terms(self, p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
        """The summands of the divergence, elementwise; 0 where p and q are 0."""

    @abstractmethod
    def _whole(self, effects: NDArray[np.float64], same: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Column 0, ``(m,)``, from the positions' values ``(m, n_tokens)``."""


class KLDivergence(_DivergenceMetric):
    """``KL(original || perturbed)`` of the next-token distributions, nats.

    Column 0 is the sum over positions: by the chain rule, the divergence of the distributions over
    whole outputs along the original one. What is not defined counts as unchanged.
    """

    name = "kl-divergence"

    def _terms(self, p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
        return _relative(p, q)

    def _whole(self, effects: NDArray[np.float64], same: NDArray[np.bool_]) -> NDArray[np.float64]:
        return total(effects, same)


class JSDivergence(_DivergenceMetric):
    """Jensen-Shannon divergence of the next-token distributions, nats, at most ln 2.

    Lin (1991), "Divergence measures based on the Shannon entropy", eq. 3.1 with equal weights.
    Column 0 is the mean over the output's tokens, what is not defined counted as unchanged.
    """

    name = "js-divergence"

    def _terms(self, p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
        middle = (p + q) / 2.0
        result: NDArray[np.float64] = (_relative(p, middle) + _relative(q, middle)) / 2.0
        return result

    def _whole(self, effects: NDArray[np.float64], same: NDArray[np.bool_]) -> NDArray[np.float64]:
        mean: NDArray[np.float64] = total(effects, same) / max(1, effects.shape[1])
        return mean


def _relative(p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
    """``p ln(p / q)``, 0 where p is 0."""
    ratio = np.divide(p, q, out=np.ones_like(p), where=p > 0.0)
    result: NDArray[np.float64] = p * np.log(ratio)
    return result


def _rows(listed: Listing, which: slice | NDArray[np.intp]) -> Listing:
    return Listing(
        ids=listed.ids[which],
        logprobs=listed.logprobs[which],
        least=listed.least[which],
        count=listed.count[which],
    )


def _on_union(before: Listing, after: Listing) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The two distributions over (first list, second list, other), ``(n, n_columns)`` each.

    Rows sum to 1. The second block holds the tokens that only the second list names.
    """
    p, q = np.exp(before.logprobs), np.exp(after.logprobs)
    match = before.ids[:, :, None] == after.ids[:, None, :]
    match &= ((before.ids != UNKNOWN) & (p > 0.0))[:, :, None] & (q > 0.0)[:, None, :]
    in_both, of_both = match.any(axis=2), match.any(axis=1)
    q_there = np.take_along_axis(q, match.argmax(axis=2), axis=1)
    only_p, only_q = (p > 0.0) & ~in_both, (q > 0.0) & ~of_both
    fill_p, other_p = _shares(p, before.least, only_q.sum(axis=1))
    fill_q, other_q = _shares(q, after.least, only_p.sum(axis=1))
    first_q = np.where(in_both, q_there, np.where(only_p, fill_q[:, None], 0.0))
    second_p = np.where(only_q, fill_p[:, None], 0.0)
    ours = np.concatenate([p, second_p, other_p[:, None]], axis=1)
    theirs = np.concatenate([first_q, np.where(only_q, q, 0.0), other_q[:, None]], axis=1)
    return _normalised(ours), _normalised(theirs)


def _shares(
    listed: NDArray[np.float64], least: NDArray[np.float64], unlisted: NDArray[np.intp]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What each unlisted token and what "other" gets of the mass that is left, ``(n,)`` each."""
    left = np.maximum(1.0 - _row_sums(listed), RESIDUE)
    fill = np.minimum(np.exp(least), left / (unlisted + 1))
    return fill, left - unlisted * fill


def _normalised(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = rows / _row_sums(rows)[:, None]
    return result


def _row_sums(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums of rows, added from left to right.

    `numpy.sum` adds in an order that depends on the width, which depends on the other rows'
    padding: the last bit of a row must not.
    """
    result: NDArray[np.float64] = rows.cumsum(axis=1)[:, -1]
    return result
