# SPDX-License-Identifier: Apache-2.0
"""A token table as a source of replacements: which of its tokens can stand in a text."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pizza.abc import TokenTable
from pizza.errors import ConfigError
from pizza.perturbations._unit_tokens import Piece

if TYPE_CHECKING:
    from numpy.typing import NDArray

Kind = tuple[str, bool]
"""A token's text without surrounding blanks, and whether it is the start of a word."""

_LONGEST = 64
"""Longest token that is looked for in a text, characters."""

_BLOCK_ELEMENTS = 4_000_000
"""Embedding values that are converted at once: 16 MB in single precision."""


class Vocabulary:
    """The ordinary tokens of a table: printable text, not special, not only white space.

    Attributes:
        tokens: The ordinary tokens' texts, without surrounding blanks.
        rows: ``(n_ordinary,)`` their rows in the table.
        spaced: ``(n_ordinary,)`` whether they start with a blank (are the start of a word).
    """

    def __init__(self, table: TokenTable) -> None:
        if len(table.tokens) != len(table.embeddings):
            raise ConfigError(
                f"the token table has {len(table.tokens)} tokens and embeddings of shape "
                f"{table.embeddings.shape}."
            )
        rows = [
            row
            for row, text in enumerate(table.tokens)
            if row not in table.special and is_ordinary(text)
        ]
        self.table = table
        self.tokens = tuple(table.tokens[row].strip() for row in rows)
        self.rows: NDArray[np.intp] = np.array(rows, dtype=np.intp)
        self.spaced: NDArray[np.bool_] = np.array(
            [table.tokens[row][0].isspace() for row in rows], dtype=bool
        )

    @functools.cached_property
    def _by_text(self) -> dict[Kind, int]:
        found: dict[Kind, int] = {}
        for number, kind in enumerate(zip(self.tokens, self.spaced.tolist(), strict=True)):
            found.setdefault(kind, number)
        return found

    @functools.cached_property
    def _same_text(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for number, text in enumerate(self.tokens):
            found.setdefault(text, []).append(number)
        return found

    @functools.cached_property
    def _longest(self) -> int:
        return min(_LONGEST, max((len(text) for text in self.tokens), default=0))

    def find(self, text: str, *, spaced: bool) -> int | None:
        """The number of an ordinary token, of the given kind if there is one, or ``None``."""
        exact = self._by_text.get((text, spaced))
        return self._by_text.get((text, not spaced)) if exact is None else exact

    def of_kind(self, *, spaced: bool, at_least: int = 1) -> NDArray[np.bool_]:
        """Which tokens are of a kind, ``(n_ordinary,)``; all of them when too few are."""
        same = self.spaced == spaced
        return same if same.sum() >= at_least else np.ones_like(same)

    def candidates(self, text: str, *, spaced: bool, at_least: int) -> NDArray[np.bool_]:
        """Which tokens may stand in for another, ``(n_ordinary,)``: same kind, other text."""
        other = np.ones(len(self.tokens), dtype=bool)
        other[self._same_text.get(text, [])] = False
        same = other & (self.spaced == spaced)
        return same if same.sum() >= at_least else other

    def known_pieces(self, found: Sequence[Piece]) -> list[Piece]:
        """Pieces that are not tokens of this vocabulary cut into ones that are, longest first.

        What is in no token stays together as it is.
        """
        result: list[Piece] = []
        for piece in found:
            if self.find(piece.text, spaced=piece.spaced) is not None:
                result.append(piece)
            else:
                result += self._munch(piece)
        return result

    def _munch(self, piece: Piece) -> list[Piece]:
        texts: list[tuple[str, bool]] = []
        at = 0
        while at < len(piece.text):
            for length in range(min(self._longest, len(piece.text) - at), 0, -1):
                part = piece.text[at : at + length]
                if self.find(part, spaced=piece.spaced and at == 0) is not None:
                    texts.append((part, True))
                    break
            else:
                length = 1
                part = piece.text[at]
                if texts and not texts[-1][1]:
                    texts[-1] = (texts[-1][0] + part, False)
                else:
                    texts.append((part, False))
            at += length
        return [
            Piece(
                before=piece.before if number == 0 else "",
                text=text,
                spaced=piece.spaced and number == 0,
            )
            for number, (text, _) in enumerate(texts)
        ]

    def similarities(self, queries: Sequence[Kind]) -> NDArray[np.floating[Any]]:
        """Cosine similarity of tokens (text, kind) with all ordinary ones, ``(n, n_ordinary)``.

        A token that is not in the vocabulary is taken to lie at the mean of it. A vector of
        length 0 is similar to nothing (0).
        """
        numbers = [self.find(text, spaced=spaced) for text, spaced in queries]
        vectors = np.stack(
            [self._mean if number is None else self._vectors(number) for number in numbers]
        )
        vectors = _unit_length(vectors)
        result = np.empty((len(queries), len(self.tokens)), dtype=vectors.dtype)
        step = max(1, _BLOCK_ELEMENTS // max(1, vectors.shape[1]))
        for start in range(0, len(self.tokens), step):
            block = slice(start, start + step)
            result[:, block] = vectors @ _unit_length(self._vectors(block)).T
        return result

    @functools.cached_property
    def _mean(self) -> NDArray[np.floating[Any]]:
        if not self.tokens:
            raise ConfigError("the token table has no ordinary tokens to choose from.")
        mean = self.table.embeddings[self.rows].mean(axis=0, dtype=np.float64)
        result: NDArray[np.floating[Any]] = mean.astype(self._dtype)
        return result

    def _vectors(self, numbers: int | slice) -> NDArray[np.floating[Any]]:
        return self.table.embeddings[self.rows[numbers]].astype(self._dtype)

    @property
    def _dtype(self) -> np.dtype[Any]:
        return np.result_type(self.table.embeddings.dtype, np.float32)


def is_ordinary(text: str) -> bool:
    """Whether a token's text is something that a person could have typed in the line."""
    # str.isprintable is True for blanks but no other white space, so only they may surround it.
    return bool(text.strip()) and text.isprintable() and "\N{REPLACEMENT CHARACTER}" not in text


def _unit_length(vectors: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    result: NDArray[np.floating[Any]] = np.divide(
        vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0
    )
    return result
