# SPDX-License-Identifier: Apache-2.0
"""The names under which the model is served, and the habits that go with each."""

from __future__ import annotations

from dataclasses import dataclass

from pizza_embedded.server.errors import invalid, unknown_model, unsupported


@dataclass(frozen=True, slots=True)
class Models:
    """The served models: one network under several names, each with its own habits.

    Attributes:
        name: The plain one.
    """

    name: str

    @property
    def reasoning(self) -> str:
        """Refuses log-probabilities, as reasoning models do."""
        return f"{self.name}-reasoning"

    @property
    def strict_reasoning(self) -> str:
        """Also refuses ``max_tokens``, ``stop`` and any temperature but 1."""
        return f"{self.name}-reasoning-strict"

    @property
    def no_echo(self) -> str:
        """Ignores ``echo`` and ``prompt_logprobs`` without a word."""
        return f"{self.name}-no-echo"

    @property
    def all(self) -> tuple[str, ...]:
        """All names."""
        return (self.name, self.reasoning, self.strict_reasoning, self.no_echo)

    def check(self, model: str) -> None:
        """Refuse a model that is not served."""
        if model not in self.all:
            raise unknown_model(model)

    def reasons(self, model: str) -> bool:
        """Whether a model behaves like a reasoning model."""
        return model in (self.reasoning, self.strict_reasoning)

    def check_habits(self, model: str, *, logprobs: str | None, strict: dict[str, bool]) -> None:
        """Refuse what a reasoning model refuses.

        Args:
            model: The model that was asked for.
            logprobs: The parameter by which log-probabilities were asked for, or ``None``.
            strict: Whether each parameter that only the strict one refuses was given.
        """
        if logprobs is not None and self.reasons(model):
            raise unsupported(logprobs)
        if model == self.strict_reasoning:
            for param, given in strict.items():
                if given and param == "temperature":
                    raise invalid(
                        "Unsupported value: 'temperature' does not support this value with this "
                        "model. Only the default (1) value is supported.",
                        param,
                        "unsupported_value",
                    )
                if given:
                    raise unsupported(param)
