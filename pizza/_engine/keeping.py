# SPDX-License-Identifier: Apache-2.0
"""Keeps the answers of an attribution, packed, within a bound."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from pizza._engine import codec
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


@dataclass(slots=True)
class _Sheet:
    """The answers to one question, by coalition: as the cache holds them, whole, or packed."""

    kind: Literal["complete", "score"]
    reference: Completion
    target: str | None
    target_ids: tuple[int, ...] | None
    sign: int
    further: tuple[Completion, ...]
    answers: dict[int, list[bytes | Completion | Packed]] = field(default_factory=dict)
    number: dict[str, int] = field(default_factory=dict)
    alternatives: int = 0

    def pack(self, *, alternatives: bool) -> None:
        """Pack what is not packed yet."""
        for row in sorted(self.answers):
            self.answers[row] = [
                self.packed(answer, alternatives=alternatives) for answer in self.answers[row]
            ]

    def packed(self, answer: bytes | Completion | Packed, *, alternatives: bool) -> Packed:
        """One of them packed."""
        if isinstance(answer, Packed):
            return answer
        whole = codec.decode(answer) if isinstance(answer, bytes) else answer
        return pack(whole, self.reference, self.number, alternatives=alternatives)


class Keeper:
    """Takes answers in as they come.

    Most evidence is never looked at: the answers of a bulk run are in its store. So answers are
    kept as the cache holds them, in the same bytes, and are packed when somebody reads them.

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
        self._most = most_alternatives() if most is None else most
        self._seen = 0
        self._sheets = tuple(
            _Sheet(
                kind=question.kind,
                reference=question.reference,
                target=question.target,
                target_ids=question.target_ids,
                sign=question.sign,
                further=tuple(further) if question.kind == "complete" else (),
            )
            for question in questions
        )

    def keep(
        self, question: int, row: int, answer: Completion, packed: bytes | None = None
    ) -> None:
        """Take in one answer.

        Args:
            question: Which of the questions.
            row: Which coalition, in the order of asking.
            answer: The answer.
            packed: The same as the cache holds it, if it does.
        """
        sheet = self._sheets[question]
        had_room = self._has_room
        if answer.alternative_tokens:
            listed = sum(map(len, answer.alternative_tokens))
            sheet.alternatives += listed
            self._seen += listed
        if had_room and not self._has_room:
            for each in self._sheets:
                each.pack(alternatives=False)
        kept = packed or answer
        sheet.answers.setdefault(row, []).append(
            kept if self._has_room else sheet.packed(kept, alternatives=False)
        )

    def evidence(self, n: int) -> tuple[Evidence, ...]:
        """What was kept of the first ``n`` coalitions, per question."""
        return _evidence(self._sheets, n, kept=self._has_room)

    def later(self, n: int) -> Callable[[], tuple[Evidence, ...]]:
        """The same, packed when it is called; what is kept after this call is not in it."""
        sheets = tuple(
            replace(
                sheet,
                answers={row: list(answers) for row, answers in sheet.answers.items()},
                number=dict(sheet.number),
            )
            for sheet in self._sheets
        )
        return functools.partial(_evidence, sheets, n, kept=self._has_room)

    @property
    def _has_room(self) -> bool:
        return self._seen <= self._most


def _evidence(sheets: Sequence[_Sheet], n: int, *, kept: bool) -> tuple[Evidence, ...]:
    for sheet in sheets:
        sheet.pack(alternatives=kept)
    return tuple(
        Evidence(
            kind=sheet.kind,
            reference=sheet.reference,
            answers=tuple(
                tuple(answer for answer in sheet.answers.get(row, ()) if isinstance(answer, Packed))
                for row in range(n)
            ),
            vocabulary=tuple(sheet.number),
            target=sheet.target,
            target_ids=sheet.target_ids,
            sign=sheet.sign,
            further=sheet.further,
            dropped=0 if kept else sheet.alternatives,
        )
        for sheet in sheets
    )
