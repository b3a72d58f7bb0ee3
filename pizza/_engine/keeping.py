# SPDX-License-Identifier: Apache-2.0
"""Keeps the answers of an attribution, packed, within a bound."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pizza.completion import Completion
from pizza.errors import ConfigError
from pizza.evidence import ALTERNATIVES_VARIABLE, MAX_ALTERNATIVES, Evidence, Packed, pack

if TYPE_CHECKING:
    from pizza._engine.asking import Question


def most_alternatives() -> int:
    """Alternatives that one attribution keeps: what the environment says, or the usual number.

    Raises:
        ConfigError: The variable is no number.
    """
    said = os.environ.get(ALTERNATIVES_VARIABLE, "").strip()
    if not said:
        return MAX_ALTERNATIVES
    if not said.isdecimal():
        raise ConfigError(f"{ALTERNATIVES_VARIABLE} is a number of alternatives, not {said!r}.")
    return int(said)


class Keeper:
    """Takes answers in as they come.

    Alternatives are kept for all coalitions or for none: which answers came first must not decide
    what can be computed from them later.

    Args:
        questions: What is asked about every coalition.
        further: More answers to the unperturbed prompt, to the question that is written.
        most: Alternatives to keep; by default what `most_alternatives` says.
    """

    def __init__(
        self,
        questions: Sequence[Question],
        *,
        further: Sequence[Completion] = (),
        most: int | None = None,
    ) -> None:
        self._questions = tuple(questions)
        self._further = tuple(further)
        self._most = most_alternatives() if most is None else most
        self._kept: list[dict[int, list[Packed]]] = [{} for _ in self._questions]
        self._numbers: list[dict[str, int]] = [{} for _ in self._questions]
        self._seen = [0] * len(self._questions)

    def keep(self, question: int, row: int, answer: Completion) -> None:
        """Take in one answer.

        Args:
            question: Which of the questions.
            row: Which coalition, in the order of asking.
            answer: The answer.
        """
        had_room = self._has_room
        listed = answer.alternative_tokens or ()
        self._seen[question] += sum(len(texts) for texts in listed)
        if had_room and not self._has_room:
            self._drop()
        packed = pack(
            answer,
            self._questions[question].reference,
            self._numbers[question],
            alternatives=self._has_room,
        )
        self._kept[question].setdefault(row, []).append(packed)

    def evidence(self, n: int) -> tuple[Evidence, ...]:
        """What was kept of the first ``n`` coalitions, per question."""
        return tuple(
            Evidence(
                kind=question.kind,
                reference=question.reference,
                answers=tuple(tuple(kept.get(row, ())) for row in range(n)),
                vocabulary=tuple(numbers),
                target=question.target,
                target_ids=question.target_ids,
                sign=question.sign,
                further=self._further if question.kind == "complete" else (),
                dropped=0 if self._has_room else seen,
            )
            for question, kept, numbers, seen in zip(
                self._questions, self._kept, self._numbers, self._seen, strict=True
            )
        )

    @property
    def _has_room(self) -> bool:
        return sum(self._seen) <= self._most

    def _drop(self) -> None:
        for number, kept in enumerate(self._kept):
            words = list(self._numbers[number])
            # Numbered anew: most of the vocabulary were texts of alternatives.
            fresh: dict[str, int] = {}
            self._numbers[number] = fresh
            for row, answers in kept.items():
                kept[row] = [_without_alternatives(packed, words, fresh) for packed in answers]


def _without_alternatives(packed: Packed, words: list[str], number: dict[str, int]) -> Packed:
    tokens = packed.tokens
    if tokens is not None:
        tokens = tokens.copy()
        tokens[:] = [number.setdefault(words[i], len(number)) for i in tokens.tolist()]
        tokens.setflags(write=False)
    return replace(packed, tokens=tokens, counts=None, alternatives=None, alternative_logprobs=None)
