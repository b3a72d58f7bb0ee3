# SPDX-License-Identifier: Apache-2.0
"""A backend whose attributions are known exactly: every word has a weight.

The log-probability of each output token is ``-sum of the weights of the words that are missing``
(shared out over the tokens), so leave-one-out with logprob-diff must return the weights.
"""

from __future__ import annotations

import math

import numpy as np

from pizza.abc import Backend
from pizza.capability import Capability
from pizza.completion import Completion, Reply, Usage

ALL = frozenset(
    {Capability.COMPLETE, Capability.LOGPROBS, Capability.ALTERNATIVES, Capability.SCORE}
)


class WordGame(Backend):
    """Answers ``answer``; its certainty falls by a word's weight when the word is missing."""

    def __init__(
        self,
        weights: dict[str, float],
        *,
        answer: tuple[str, ...] = ("it", " is", " so"),
        capabilities: frozenset[Capability] = ALL,
        uncertain: frozenset[Capability] = frozenset(),
        confirmed: frozenset[Capability] = frozenset(),
        changes: dict[str, str] | None = None,
        failures: dict[str, Exception] | None = None,
    ) -> None:
        self.weights = weights
        self.tokens = answer
        self._capabilities = capabilities
        self._uncertain = uncertain
        self._confirmed = confirmed
        self.changes = changes or {}
        self.failures = failures or {}
        self.requests: list = []
        self.probes: list = []
        self.closed = 0
        self.before = None

    name = "game:words"
    identity = "game"

    @property
    def capabilities(self):
        return self._capabilities

    @property
    def uncertain(self):
        return self._uncertain

    async def probe(self, send, wanted):
        self.probes.append(wanted)
        return self._confirmed & wanted

    async def answer(self, request):
        self.requests.append(request)
        if self.before is not None:
            await self.before(request)
        present = set(request.prompt.text.split())
        for word, failure in self.failures.items():
            if word not in present:
                raise failure
        loss = sum(weight for word, weight in self.weights.items() if word not in present)
        tokens = self.tokens
        for word, text in self.changes.items():
            if word not in present:
                tokens = (text,)
        n = len(tokens)
        logprobs = np.full(n, -1.0 - loss / n) if request.logprobs else None
        rest = None if logprobs is None else [math.log(max(1e-9, -math.expm1(x))) for x in logprobs]
        return Reply(
            completion=Completion(
                text="".join(tokens),
                tokens=tokens,
                logprobs=logprobs,
                alternative_tokens=(
                    None if logprobs is None else tuple((t, "other") for t in tokens)
                ),
                alternative_logprobs=(None if rest is None else np.column_stack([logprobs, rest])),
                finish_reason="stop",
                usage=Usage(prompt_tokens=len(present), completion_tokens=n),
                model="words",
            )
        )

    async def aclose(self):
        self.closed += 1
