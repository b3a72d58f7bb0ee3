# SPDX-License-Identifier: Apache-2.0
"""`Target`: what is explained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pizza.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The output that is explained.

    Make one with `Target.completion`, `Target.given`, `Target.tokens`, `Target.contrast` or
    `Target.label`.

    Attributes:
        kind: ``"completion"`` (what the model writes), ``"text"``, ``"contrast"``, ``"label"``.
        text: The given text, the text that is preferred in a contrast, or the label.
        versus: The other text of a contrast.
        span: Half-open code-point span of the output that the whole-output score is limited to.
        token_ids: The given output as ids of the model's vocabulary, or ``None``.
    """

    kind: Literal["completion", "text", "contrast", "label"] = "completion"
    text: str | None = None
    versus: str | None = None
    span: tuple[int, int] | None = None
    token_ids: tuple[int, ...] | None = None

    @classmethod
    def completion(cls, *, span: tuple[int, int] | None = None) -> Target:
        """The model's own completion of the prompt, or a span of it."""
        return cls(span=_checked_span(span))

    @classmethod
    def given(cls, text: str, *, span: tuple[int, int] | None = None) -> Target:
        """A given text, or a span of it; needs a backend that can score."""
        if not text:
            raise ConfigError("the target text is empty: give the text whose support is asked for.")
        return cls(kind="text", text=text, span=_checked_span(span))

    @classmethod
    def tokens(cls, ids: Sequence[int], *, span: tuple[int, int] | None = None) -> Target:
        """A given output as token ids; needs a backend that knows the model's vocabulary."""
        if not ids:
            raise ConfigError("the target has no token ids: give at least one.")
        if bad := [i for i in ids if isinstance(i, bool) or not isinstance(i, int) or i < 0]:
            raise ConfigError(f"token ids are integers from 0 on, not {bad[0]!r}.")
        return cls(kind="text", token_ids=tuple(ids), span=_checked_span(span))

    @classmethod
    def contrast(cls, text: str, versus: str) -> Target:
        """Why ``text`` and not ``versus``; needs a backend that can score."""
        if not text or not versus or text == versus:
            raise ConfigError(f"a contrast needs two different texts, not {text!r} and {versus!r}.")
        return cls(kind="contrast", text=text, versus=versus)

    @classmethod
    def label(cls, label: str) -> Target:
        """A class label; needs a backend that classifies."""
        return cls(kind="label", text=label)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; the inverse of `from_dict`."""
        return {
            "kind": self.kind,
            "text": self.text,
            "versus": self.versus,
            "span": list(self.span) if self.span else None,
            "token_ids": list(self.token_ids) if self.token_ids else None,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Target:
        """The inverse of `to_dict`."""
        span, ids = data["span"], data.get("token_ids")
        return cls(
            kind=data["kind"],
            text=data["text"],
            versus=data["versus"],
            span=(span[0], span[1]) if span else None,
            token_ids=tuple(ids) if ids else None,
        )


def _checked_span(span: tuple[int, int] | None) -> tuple[int, int] | None:
    if span is not None and not 0 <= span[0] < span[1]:
        raise ConfigError(f"the target span {span!r} is empty or negative.")
    return span
