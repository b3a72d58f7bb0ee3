# SPDX-License-Identifier: Apache-2.0
"""The backend: a program that answers like a language model does, with probabilities."""

from __future__ import annotations

import math
import re

from pizza.abc import Backend
from pizza.capability import Capability
from pizza.completion import Completion, Reply, Request, Usage, pack_alternatives
from pizza.errors import BadRequestError
from pizza.specs import BackendSettings

RULES = {
    "billing": {"refund": 3.0, "charged": 2.0, "invoice": 2.0, "twice": 1.0},
    "shipping": {"parcel": 3.0, "delivery": 2.0, "arrived": 1.0, "late": 1.0},
    "support": {"broken": 2.0, "crash": 3.0, "help": 0.5},
}


class Triage(Backend):
    """Adds up the weights of the words that it knows; a desk's score is its logit.

    Args:
        settings: The model is the version of the rules; there is only ``"rules"``.
    """

    def __init__(self, settings: BackendSettings) -> None:
        self._model = settings.model

    @property
    def name(self) -> str:
        """For people."""
        return f"triage:{self._model}"

    @property
    def identity(self) -> str:
        """The rules' version: answers change with it, so cached ones must too."""
        return f"pizza-triage/1/{self._model}"

    @property
    def capabilities(self) -> frozenset[Capability]:
        """It writes one word and says how likely each desk was."""
        return frozenset({Capability.COMPLETE, Capability.LOGPROBS, Capability.ALTERNATIVES})

    async def answer(self, request: Request) -> Reply:
        """The desk for a ticket."""
        if self._model != "rules":
            raise BadRequestError(
                f"triage has no model {self._model!r}; it has 'rules'.", backend=self.name
            )
        words = re.findall(r"\w+", request.prompt.text.lower())
        scores = {d: sum(weights.get(w, 0.0) for w in words) for d, weights in RULES.items()}
        total = math.log(sum(math.exp(score) for score in scores.values()))
        ranked = sorted(((d, s - total) for d, s in scores.items()), key=lambda pair: -pair[1])
        tokens, logprobs = pack_alternatives([ranked])
        best = ranked[0][0]
        return Reply(
            completion=Completion(
                text=best,
                tokens=(best,),
                logprobs=logprobs[0, :1] if request.logprobs else None,
                alternative_tokens=tokens if request.logprobs else None,
                alternative_logprobs=logprobs if request.logprobs else None,
                finish_reason="stop",
                usage=Usage(prompt_tokens=len(words), completion_tokens=1),
                model=self._model,
            )
        )
