# SPDX-License-Identifier: Apache-2.0
"""Random tokens in the place of every token of an absent unit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pizza.abc import Resources, Tokenizer, TokenTable
from pizza.errors import CapabilityError, ConfigError
from pizza.perturbations._replacement import ReplacementStrategy
from pizza.perturbations._seeds import generator
from pizza.perturbations._unit_tokens import Piece, pieces, tokenizer_or_none
from pizza.perturbations._vocabulary import Vocabulary
from pizza.prompt import Prompt, Unit

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TRIES = 8
"""Draws per unit in search of one that the tokenizer reads as the same number of tokens."""

# For backends that show no vocabulary: everyday words, each one token of cl100k and of o200k
# (with the blank before them), from many fields and of several parts of speech.
_EVERYDAY_TEXT = """
time year people way day man thing woman life child world school state family student group
country problem hand part place case week company system program question work government number
night point home water room mother area money story fact month lot right study book eye job word
business issue side kind head house service friend father power hour game line end member law
car city community name president team minute idea body information back parent face others
level office door health person art war history party result change morning reason research girl
guy moment air teacher force education foot boy age policy music market sense nation plan
college interest death experience effect use class control field development role effort rate
heart drug show leader light voice wife police mind price report decision son view relationship
town road arm difference value building action season society tax director position player
record paper space ground form event official matter center couple site project base make know
take see come think look want give find tell ask seem feel try leave call good new first last
long great little own other old big high small large next early young important few public bad
same able
"""
_EVERYDAY = tuple(_EVERYDAY_TEXT.split())


class RandomToken(ReplacementStrategy):
    """Every token of an absent unit is replaced by a random ordinary one.

    A unit's replacement depends on the seed and on where the unit stands, never on what else is
    absent. It has as many tokens as the unit (up to how the tokenizer reads tokens that never
    stood together: a few draws are tried for an exact fit), of the same kind (start of a word or
    not), each with another text than the one it replaces. White space stays as it was.

    Tokens come from ``table``, else from the backend's token table; a backend that shows none
    gets everyday English words. Without a tokenizer a unit's words stand for its tokens.

    Args:
        seed: Instead of the attribution's seed.
        table: Vocabulary to draw from instead of the backend's own.
    """

    def __init__(self, seed: int | None = None, table: TokenTable | None = None) -> None:
        self._seed = seed
        self._table = table

    def replacements(
        self, prompt: Prompt, units: Sequence[Unit], resources: Resources
    ) -> Sequence[str]:
        """The drawn text of each unit.

        Raises:
            ConfigError: The vocabulary has fewer than two ordinary tokens.
        """
        seed = resources.seed if self._seed is None else self._seed
        tokenizer = tokenizer_or_none(resources)
        draw = self._drawer(resources)
        result = []
        for unit, (found, tail) in zip(units, pieces(prompt, units, tokenizer), strict=True):
            random = generator(seed, unit.message, unit.start, unit.end)
            result.append(_fitting(found, draw, random, tokenizer) + tail)
        return result

    def _drawer(self, resources: Resources) -> _Draw:
        table = self._table
        if table is None:
            try:
                table = resources.token_table()
            except CapabilityError:
                return _draw_words
        vocabulary = Vocabulary(table)
        if len(set(vocabulary.tokens)) < 2:
            raise ConfigError("random-token needs at least two ordinary tokens to choose from.")
        numbers = {
            kind: np.flatnonzero(vocabulary.of_kind(spaced=kind, at_least=2))
            for kind in (True, False)
        }

        def draw(found: Sequence[Piece], random: np.random.Generator) -> str:
            return "".join(
                piece.before + _other(piece.text, vocabulary.tokens, numbers[piece.spaced], random)
                for piece in found
            )

        return draw


_Draw = Callable[[Sequence[Piece], np.random.Generator], str]


def _draw_words(found: Sequence[Piece], random: np.random.Generator) -> str:
    """One word per piece; a blank parts two that had none between them."""
    parts: list[str] = []
    every = np.arange(len(_EVERYDAY))
    for number, piece in enumerate(found):
        parts.append(piece.before or (" " if number else ""))
        parts.append(_other(piece.text, _EVERYDAY, every, random))
    return "".join(parts)


def _other(
    text: str, tokens: Sequence[str], numbers: NDArray[np.intp], random: np.random.Generator
) -> str:
    """A random token of another text; the next one in line after some unlucky draws."""
    at = int(random.integers(len(numbers)))
    for _ in range(len(numbers)):
        if tokens[int(numbers[at])] != text:
            break
        at = (at + 1) % len(numbers)
    return tokens[int(numbers[at])]


def _fitting(
    found: Sequence[Piece], draw: _Draw, random: np.random.Generator, tokenizer: Tokenizer | None
) -> str:
    """The first draw with the right number of tokens, else the one that comes nearest."""
    if tokenizer is None or not found:
        return draw(found, random)
    lead = " " if found[0].spaced else ""
    best, miss = "", -1
    for _ in range(_TRIES):
        text = draw(found, random)
        off = abs(tokenizer.count(lead + text) - len(found))
        if miss < 0 or off < miss:
            best, miss = text, off
        if not miss:
            break
    return best
