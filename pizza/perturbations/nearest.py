# SPDX-License-Identifier: Apache-2.0
"""The n-th nearest token by embedding in the place of every token of an absent unit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pizza.abc import Resources, TokenTable
from pizza.capability import Capability
from pizza.errors import ConfigError
from pizza.perturbations._replacement import ReplacementStrategy
from pizza.perturbations._unit_tokens import pieces, tokenizer_or_none
from pizza.perturbations._vocabulary import Kind, Vocabulary
from pizza.prompt import Prompt, Unit

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CHUNK_ELEMENTS = 16_000_000
"""Similarities held at once: 64 MB in single precision."""


class NthNearest(ReplacementStrategy):
    """Every token of an absent unit is replaced by the n-th nearest one of the vocabulary.

    Nearness is the cosine similarity of token embeddings; equals are taken in the vocabulary's
    order. Candidates are ordinary tokens (no special ones, none of only white space or
    unprintable characters) of the same kind, start of a word or not, as far as the vocabulary
    tells the two apart. A token with the same text is no candidate, so an absent unit always
    reads differently. White space stays as it was. A token that is not in the table is taken to
    lie at the mean of the table.

    Args:
        n: 1 = the nearest, 2 = the second nearest, ...; -1 = the farthest, -2 = the one before.
        table: Vocabulary and embeddings to use instead of the backend's own.

    Cost: one similarity per distinct token of the prompt and token of the vocabulary.
    """

    def __init__(self, n: int = 1, table: TokenTable | None = None) -> None:
        if isinstance(n, bool) or not isinstance(n, int) or n == 0:
            raise ConfigError(
                f"n of nth-nearest is 1 for the nearest, -1 for the farthest, ..., not {n!r}."
            )
        self._n = n
        self._table = table
        needed = {Capability.EMBEDDINGS} if table is None else set[Capability]()
        self.requires = frozenset(needed)

    def replacements(
        self, prompt: Prompt, units: Sequence[Unit], resources: Resources
    ) -> Sequence[str]:
        """The neighbours of each unit's tokens, with the white space of the unit.

        Raises:
            CapabilityError: The backend offers no embeddings and no table was given.
            ConfigError: The vocabulary has fewer than n candidates.
        """
        vocabulary = Vocabulary(resources.token_table() if self._table is None else self._table)
        cut = [
            (vocabulary.known_pieces(found), tail)
            for found, tail in pieces(prompt, units, tokenizer_or_none(resources))
        ]
        distinct = list(dict.fromkeys((p.text, p.spaced) for found, _ in cut for p in found))
        chosen = dict(zip(distinct, self._neighbours(distinct, vocabulary), strict=True))
        return [
            "".join(p.before + chosen[p.text, p.spaced] for p in found) + tail
            for found, tail in cut
        ]

    def _neighbours(self, distinct: Sequence[Kind], vocabulary: Vocabulary) -> list[str]:
        step = max(1, _CHUNK_ELEMENTS // max(1, len(vocabulary.tokens)))
        result: list[str] = []
        for start in range(0, len(distinct), step):
            queries = distinct[start : start + step]
            similar = vocabulary.similarities(queries)
            for (text, spaced), row in zip(queries, similar, strict=True):
                allowed = vocabulary.candidates(text, spaced=spaced, at_least=abs(self._n))
                result.append(vocabulary.tokens[self._pick(row, allowed)])
        return result

    def _pick(self, similar: NDArray[np.floating[Any]], allowed: NDArray[np.bool_]) -> int:
        """The number of the n-th nearest allowed token; equals in the vocabulary's order."""
        rank = abs(self._n) - 1
        numbers = np.flatnonzero(allowed)
        if rank >= numbers.size:
            raise ConfigError(
                f"n={self._n} of nth-nearest is too far: the vocabulary has {numbers.size} "
                "candidates."
            )
        order = similar[numbers] if self._n < 0 else -similar[numbers]
        value = np.partition(order, rank)[rank]
        equals = np.flatnonzero(order == value)
        return int(numbers[equals[rank - int((order < value).sum())]])
