# SPDX-License-Identifier: Apache-2.0
"""Prompts as occurrences of features: words of a bag of words, or whatever a function finds."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from pizza.errors import BadRequestError, ConfigError
from pizza.prompt import FixedSpan, Prompt
from pizza_local.encoding import Encoding, InputToken

Occurrence = tuple[int, int, int]
"""Half-open code-point span and feature."""

_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")


class FeatureEncoder:
    """Prompts to features and back; stands where models have an `Encoder`.

    Words are runs of letters and digits, with apostrophes inside of them, or single other
    characters. What is in no feature is not read: it is no token.

    Args:
        vocabulary: The feature of each word, in lower case, or a function that gives the
            occurrences in a text.
        size: Number of features.
        who: The model's name, for messages.

    Raises:
        ConfigError: A word that no text can hold, or a feature that is out of range.
    """

    def __init__(
        self,
        vocabulary: Mapping[str, int] | Callable[[str], Sequence[Occurrence]],
        size: int,
        *,
        who: str,
    ) -> None:
        self.name = who
        self.special: frozenset[int] = frozenset()
        self.tokenizer = None
        self._size = size
        self._words: dict[str, int] | None = None
        self._find: Callable[[str], Sequence[Occurrence]] = self._look_up
        if isinstance(vocabulary, Mapping):
            self._words = self._checked(vocabulary)
        else:
            self._find = vocabulary
        # Functions cannot be compared: what was answered with one is not used for another.
        self._unique = "" if self._words is not None else uuid.uuid4().hex

    def _checked(self, vocabulary: Mapping[str, int]) -> dict[str, int]:
        for word, feature in vocabulary.items():
            if word != word.lower() or not _WORD.fullmatch(word):
                raise ConfigError(
                    f"the vocabulary of {self.name} has {word!r}, which is no single lower-case "
                    "word and would never be found. Give a function that finds the occurrences."
                )
            if isinstance(feature, bool) or not 0 <= feature < self._size:
                raise ConfigError(
                    f"{word!r} is feature {feature!r} of {self.name}, which has features 0 to "
                    f"{self._size - 1}."
                )
        return {word: int(feature) for word, feature in vocabulary.items()}

    def _look_up(self, text: str) -> list[Occurrence]:
        words = self._words or {}
        return [
            (found.start(), found.end(), words[found.group().lower()])
            for found in _WORD.finditer(text)
            if found.group().lower() in words
        ]

    def _occurrences(self, text: str) -> Sequence[Occurrence]:
        found = [(int(start), int(end), int(feature)) for start, end, feature in self._find(text)]
        for start, end, feature in found:
            if not (0 <= start < end <= len(text) and 0 <= feature < self._size):
                raise ConfigError(
                    f"the function that finds the features of {self.name} gave {(start, end)} of "
                    f"feature {feature} for a text of {len(text)} characters and {self._size} "
                    "features."
                )
        if any(after[0] < before[1] for before, after in pairwise(found)):
            raise ConfigError(
                f"the function that finds the features of {self.name} gave occurrences that "
                "overlap or are out of order."
            )
        return found

    # --- prompts ------------------------------------------------------------------------------

    def encode(self, prompt: Prompt) -> Encoding:
        """The features of all messages of a prompt; there may be none."""
        tokens = [
            InputToken(
                id=feature,
                text=message.text[start:end],
                origin="prompt",
                message=number,
                start=start,
                end=end,
            )
            for number, message in enumerate(prompt.messages)
            for start, end, feature in self._occurrences(message.text)
        ]
        return Encoding(ids=tuple(token.id for token in tokens), find=lambda: tokens)

    def special_spans(self, prompt: Prompt) -> list[FixedSpan]:
        """No text is anything but text."""
        return []

    # --- texts --------------------------------------------------------------------------------

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Code-point spans of the words that tile ``text``; white space goes to what follows."""
        if self._words is None:
            ends = [end for _, end, _ in self._occurrences(text)]
        else:
            ends = [found.end() for found in _WORD.finditer(text)]
        if not text:
            return []
        cuts = [0, *ends[:-1], len(text)]
        return list(pairwise(cuts))

    def count(self, text: str) -> int:
        """Number of occurrences in a text."""
        return len(self._occurrences(text))

    def vocabulary(self, size: int) -> list[str | None]:
        """The word of each feature; ``None`` where no single word stands for it."""
        texts: list[str | None] = [None] * size
        for word, feature in (self._words or {}).items():
            if feature < size:
                texts[feature] = word if texts[feature] is None else texts[feature]
        return texts

    def fingerprint(self) -> str:
        """What the encoder's work depends on, as a text."""
        return f"{self._size}{sorted((self._words or {}).items())}{self._unique}"

    # --- outputs ------------------------------------------------------------------------------

    def target(self, text: str) -> tuple[int, ...]:
        """Features are read, not written.

        Raises:
            BadRequestError: Always.
        """
        raise BadRequestError(
            f"{self.name} writes labels, not text like {text!r}.", backend=self.name
        )
