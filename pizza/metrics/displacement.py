# SPDX-License-Identifier: Apache-2.0
"""How far the original token fell in the list of alternatives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pizza.abc import Metric
from pizza.errors import ConfigError
from pizza.metrics._alternatives import Listing, aligned_pairs, listing, token_ids
from pizza.metrics._evidence import same_output, total
from pizza.metrics.probability import Alignment

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pizza.completion import Completion

_NAME = "token-displacement"


class TokenDisplacement(Metric):
    """Places that the original token lost among the alternatives, by log-probability.

    Its rank in the perturbed alternatives (0 = still first; equals share a rank) minus its rank in
    the reference's own, which is 0 for greedy outputs. A token that is not listed has the rank
    "number of alternatives at that position" (20 for most APIs): the largest there is. Where the
    perturbed output ended instead, the rank is 1: the end, at least, came before the token.
    Column 0 is the mean over the output's tokens, what is not defined counted as unchanged.

    Args:
        alignment: ``"aligned"`` (the default): at the token's own position; NaN after the first
            divergence. ``"location-invariant"``: best rank anywhere in the output.
    """

    def __init__(self, alignment: Alignment = "aligned") -> None:
        if alignment not in ("aligned", "location-invariant"):
            raise ConfigError(
                f"the alignment of {_NAME} is 'aligned' or 'location-invariant', not {alignment!r}."
            )
        self._alignment = alignment

    def compare(
        self, reference: Completion, perturbed: Sequence[Completion]
    ) -> NDArray[np.float64]:
        """Effects ``(m, 1 + n_tokens)``, places; positive = the token fell.

        Raises:
            IncomparableError: A completion has no alternatives.
        """
        ids = token_ids(reference, _NAME)
        wanted = np.array([ids[token] for token in reference.tokens], dtype=np.intp)
        if self._alignment == "aligned":
            effects = _aligned(reference, perturbed, ids, wanted)
        else:
            effects = _anywhere(reference, perturbed, ids, wanted)
        whole = total(effects, same_output(reference, perturbed)) / max(1, wanted.size)
        return np.column_stack([whole, effects])


def _aligned(
    reference: Completion,
    perturbed: Sequence[Completion],
    ids: Mapping[str, int],
    wanted: NDArray[np.intp],
) -> NDArray[np.float64]:
    own = listing(reference, ids, wanted.size, who="reference", metric=_NAME)
    before = _ranks(own, wanted)
    pairs = aligned_pairs(reference, perturbed, ids, _NAME)
    effects = np.full((len(perturbed), wanted.size), np.nan)
    after = _ranks(pairs.perturbed, wanted[pairs.position])
    effects[pairs.row, pairs.position] = after - before[pairs.position]
    rows, positions = pairs.ended.T
    effects[rows, positions] = np.maximum(1.0, before[positions]) - before[positions]
    return effects


def _ranks(listed: Listing, wanted: NDArray[np.intp]) -> NDArray[np.float64]:
    """Rank of one token per position, ``(n_positions,)``: alternatives that are more likely."""
    found = (listed.ids == wanted[:, None]) & np.isfinite(listed.logprobs)
    value = np.where(found, listed.logprobs, -np.inf).max(axis=1, initial=-np.inf)
    above = (listed.logprobs[:, 1:] > value[:, None]).sum(axis=1)
    return np.where(found.any(axis=1), above, listed.count).astype(np.float64)


def _anywhere(
    reference: Completion,
    perturbed: Sequence[Completion],
    ids: Mapping[str, int],
    wanted: NDArray[np.intp],
) -> NDArray[np.float64]:
    before = _best_ranks(reference, ids, "reference")
    most = before[1]
    effects = np.empty((len(perturbed), wanted.size))
    for row, completion in zip(effects, perturbed, strict=True):
        best, last = _best_ranks(completion, ids, "perturbed")
        # An empty output lists nothing: then the reference's own list says what "last" is.
        after = np.where(np.isinf(best), last if completion.tokens else most, best)
        row[:] = after[wanted] - before[0][wanted]
    return effects


def _best_ranks(
    completion: Completion, ids: Mapping[str, int], who: str
) -> tuple[NDArray[np.float64], int]:
    """Best rank of each id in any position (inf = nowhere), and the largest rank there is."""
    listed = listing(completion, ids, len(completion.tokens), who=who, metric=_NAME)
    values = listed.logprobs
    above = (values[:, None, 1:] > values[:, :, None]).sum(axis=2)
    best = np.full(len(ids), np.inf)
    known = (listed.ids >= 0) & np.isfinite(values)
    np.minimum.at(best, listed.ids[known], above[known].astype(np.float64))
    return best, int(listed.count.max(initial=0))
