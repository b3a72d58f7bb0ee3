# SPDX-License-Identifier: Apache-2.0
"""What a server taught us about itself: fields that it refuses, limits that it has.

Servers that call themselves OpenAI-compatible differ in which request fields they accept, and say
so with a 400 that costs nothing. The lesson is kept for as long as the backend is open, and whoever
keeps budget and rates is told to ask again (`AskAgainError`).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pizza_openai.errors import Failure

_log = logging.getLogger("pizza.openai")

_NOT_ACCEPTED = (
    r"unsupported|not (?:yet )?support|does ?n.t support|unrecogni[sz]ed|unknown|unexpected|"
    r"extra (?:inputs|fields)|not (?:permitted|allowed)|not available|cannot be used|"
    r"incompatible|refuse"
)
_AT_MOST = re.compile(
    r"(?:max(?:imum)?(?: (?:allowed|value))?(?: is| of)?|<=|≤|at most|"
    r"less than or equal to|no more than|between 0 and)\D{0,10}(\d+)",
    re.IGNORECASE,
)
_OPTIONAL = ("temperature", "seed")


@dataclass(slots=True)
class Learned:
    """Lessons about one model at one server.

    Attributes:
        max_tokens_field: What the server calls the longest output.
        omitted: Optional fields that it refuses.
        logprobs: ``False`` once it is known to give no log-probabilities.
        alternatives: ``False`` once it is known to give none.
        top: Most alternatives that it gives.
        scoring: How it scores a given target, once that has worked.
        scores: ``False`` once it is known that it cannot.
        suffix: What the chat template puts after a scored target.
        declined: Ways to score that were tried in vain, and what came of them.
        max_tokens_refused: Whether it refused a request for ``max_tokens``.
    """

    max_tokens_field: str = "max_completion_tokens"
    omitted: set[str] = field(default_factory=set)
    logprobs: bool = True
    alternatives: bool = True
    top: int = 20
    scoring: str | None = None
    scores: bool = True
    suffix: str | None = None
    declined: dict[str, str] = field(default_factory=dict)
    max_tokens_refused: bool = False

    def dialect(self, dialects: Sequence[str]) -> str | None:
        """How to ask for the scores of a given target now; ``None`` when every way was in vain."""
        if self.scoring in dialects:
            return self.scoring
        return next((one for one in dialects if one not in self.declined), None)

    def decline(self, dialect: str, dialects: Sequence[str], why: str) -> bool:
        """Learn that asking in this way gave no scores.

        Args:
            dialect: How it was asked.
            dialects: All ways to ask, in the order in which they are tried.
            why: What came of it.

        Returns:
            Whether asking in another way may give scores.
        """
        if self.scoring in dialects:
            return self.scoring != dialect  # what works for others fails for this request
        self.declined[dialect] = why
        if self.dialect(dialects) is not None:
            return True
        if self.scoring is None:
            self.scores = False
        else:
            self.declined.clear()  # it is known to score: it was this request
        return False

    def learn(self, failure: Failure, body: dict[str, Any], *, name: str) -> bool:
        """Learn from a refused request.

        Args:
            failure: The server's answer.
            body: What it refused.
            name: The backend's name, for the log.

        Returns:
            Whether another request may succeed where ``body`` failed.
        """
        if failure.status not in (400, 422):
            return False
        if failure.mentions(r"logprobs|\binclude\b") and self._learn_logprobs(failure, body):
            return True
        if not failure.mentions(_NOT_ACCEPTED):
            return False
        other = self._other_length_field(failure, body)
        if other:
            self.max_tokens_refused |= other == "max_completion_tokens"
            self.max_tokens_field = other
            return True
        for optional in _OPTIONAL:
            if optional in body and failure.mentions(rf"\b{optional}\b"):
                if optional not in self.omitted:
                    self.omitted.add(optional)
                    _log.warning(
                        "%s refuses %r: it is left out, so repeated answers may differ.",
                        name,
                        optional,
                    )
                return True
        return False

    def _learn_logprobs(self, failure: Failure, body: dict[str, Any]) -> bool:
        asked = [body[k] for k in ("top_logprobs", "logprobs", "prompt_logprobs") if k in body]
        most = max((a for a in asked if isinstance(a, int) and a is not True), default=0)
        found = _AT_MOST.search(failure.message)
        if found and int(found[1]) < most:
            self.top = min(self.top, int(found[1]))
            return True
        # A refused prompt_logprobs says nothing about the log-probabilities of outputs.
        of_output = "prompt_logprobs" not in body and not body.get("echo")
        if of_output and (asked or "include" in body) and failure.mentions(_NOT_ACCEPTED):
            self.logprobs = False
        return False

    @staticmethod
    def _other_length_field(failure: Failure, body: dict[str, Any]) -> str | None:
        for own, other in (
            ("max_completion_tokens", "max_tokens"),
            ("max_tokens", "max_completion_tokens"),
        ):
            if own in body and failure.mentions(rf"\b{own}\b"):
                return other
        return None
