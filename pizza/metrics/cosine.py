# SPDX-License-Identifier: Apache-2.0
"""How far the output moved in the space of token embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pizza.abc import Metric, Resources, TokenTable
from pizza.capability import Capability
from pizza.errors import IncomparableError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pizza.completion import Completion

_UNKNOWN = -1


class Cosine(Metric):
    """1 minus the cosine similarity of token embeddings, 0 (same direction) to 2 (opposite).

    Token columns compare the tokens that the two outputs have at the same position, also after
    they diverged; NaN where the perturbed output has no such position or a token has no
    embedding. Column 0 compares the mean embeddings of the two outputs; an output without any
    known token is taken to be unrelated: 1.

    Args:
        table: Vocabulary and embeddings to use instead of the backend's own.
    """

    def __init__(self, table: TokenTable | None = None) -> None:
        self._given = table
        needed = {Capability.EMBEDDINGS} if table is None else set[Capability]()
        self.requires = frozenset(needed)
        self._table: TokenTable | None = table
        self._ids: dict[str, int] = {} if table is None else _numbered(table)

    def prepare(self, resources: Resources) -> None:
        """Take the backend's token table, unless one was given.

        Raises:
            CapabilityError: There is none.
        """
        if self._given is None:
            self._table = resources.token_table()
            self._ids = _numbered(self._table)

    def compare(
        self, reference: Completion, perturbed: Sequence[Completion]
    ) -> NDArray[np.float64]:
        """Effects ``(m, 1 + n_tokens)``; positive = the output moved away.

        Raises:
            IncomparableError: A completion has no tokens, or the metric has no embeddings.
        """
        if self._table is None:
            raise IncomparableError(
                "cosine has no embeddings: call prepare(resources) first, or give it table=."
            )
        ours = self._vectors(reference)
        our_mean = _mean(ours)
        n = len(reference.tokens)
        result = np.full((len(perturbed), 1 + n), np.nan)
        for row, completion in zip(result, perturbed, strict=True):
            theirs = self._vectors(completion)
            both = min(n, len(completion.tokens))
            row[1 : 1 + both] = _distance(ours[:both], theirs[:both])
            pairs = zip(reference.tokens, completion.tokens, strict=False)
            row[1 : 1 + both][[one == other for one, other in pairs]] = 0.0
            if completion.text == reference.text:
                row[0] = 0.0
            else:
                row[0] = np.nan_to_num(_distance(our_mean, _mean(theirs)), nan=1.0)[0]
        return result

    def _vectors(self, completion: Completion) -> NDArray[np.float64]:
        """``(n_tokens, n_dimensions)``, NaN for tokens that are not in the table."""
        if completion.text and not completion.tokens:
            raise IncomparableError(
                "cosine compares the embeddings of output tokens, and this backend gives no "
                "output tokens. Use a metric of the text: edit-distance, rouge-l, jaccard."
            )
        assert self._table is not None  # noqa: S101 - compare has checked
        ids = np.array([self._find(token) for token in completion.tokens], dtype=np.intp)
        vectors = self._table.embeddings[ids].astype(np.float64)
        vectors[ids == _UNKNOWN] = np.nan
        return vectors

    def _find(self, token: str) -> int:
        """A token's row; with or without its leading blank when the table knows only one."""
        other = token[1:] if token.startswith(" ") else f" {token}"
        return self._ids.get(token, self._ids.get(other, _UNKNOWN))


def _numbered(table: TokenTable) -> dict[str, int]:
    ids: dict[str, int] = {}
    for number, token in enumerate(table.tokens):
        if token and number not in table.special:
            ids.setdefault(token, number)
    return ids


def _mean(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of the known vectors, ``(1, n_dimensions)``; NaN when none is known."""
    known = vectors[~np.isnan(vectors).any(axis=1)]
    if not len(known):
        return np.full((1, vectors.shape[1]), np.nan)
    result: NDArray[np.float64] = known.mean(axis=0, keepdims=True)
    return result


def _distance(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 - cosine, row by row, ``(n,)``; NaN for a vector that is NaN or 0."""
    dots = (first * second).sum(axis=1)
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    cosines = np.divide(dots, norms, out=np.full_like(dots, np.nan), where=norms > 0.0)
    result: NDArray[np.float64] = 1.0 - np.clip(cosines, -1.0, 1.0)
    return result
