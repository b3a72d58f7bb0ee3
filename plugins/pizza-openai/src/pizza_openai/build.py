# SPDX-License-Identifier: Apache-2.0
"""Completions out of tokens, cheaply: one pass, one array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from pizza.completion import Completion, Usage
from pizza_openai import wire

Rows = tuple[tuple[tuple[str, ...], ...], NDArray[np.float64]]


def usage_of(usage: wire.Usage | None) -> Usage:
    """The token counts; 0 where the server gave none."""
    if usage is None:
        return Usage()
    prompt = usage.prompt_tokens if usage.prompt_tokens is not None else usage.input_tokens
    written = usage.completion_tokens
    if written is None:
        written = usage.output_tokens
    return Usage(prompt_tokens=int(prompt or 0), completion_tokens=int(written or 0))


def usage_in(content: bytes) -> Usage:
    """The token counts of an answer of which nothing else is used; it was read before."""
    return usage_of(wire.decode(wire.counted, content).usage)


def logprob_array(values: Sequence[float | None]) -> NDArray[np.float64]:
    """Read-only natural-log probabilities; NaN where there is none, never above 0."""
    array = np.array([np.nan if v is None else v for v in values], dtype=np.float64)
    np.minimum(array, 0.0, out=array)
    array.setflags(write=False)
    return array


def alternatives(tokens: Sequence[wire.Token]) -> Rows | None:
    """The alternatives of all positions, best first, or ``None`` when there are none."""
    texts: list[tuple[str, ...]] = []
    values: list[list[float]] = []
    for token in tokens:
        top = token.top_logprobs
        if isinstance(top, list):
            row = [a.logprob for a in top]
            if None in row:
                top = [a for a in top if a.logprob is not None]
                row = [a.logprob for a in top]
            texts.append(tuple([a.token for a in top]))
            values.append(cast("list[float]", row))
        elif top:
            pairs = [(text, value) for text, value in top.items() if value is not None]
            texts.append(tuple([text for text, _ in pairs]))
            values.append([value for _, value in pairs])
        else:
            texts.append(())
            values.append([])
    return pack(texts, values)


def pack(texts: list[tuple[str, ...]], values: list[list[float]]) -> Rows | None:
    """Rows of alternatives as the fields of `Completion`; sorts them when the server did not."""
    lengths = {len(row) for row in values}
    width = max(lengths, default=0)
    if width == 0:
        return None
    if len(lengths) == 1:
        array = np.array(values, dtype=np.float64)
    else:
        array = np.full((len(values), width), -np.inf)
        for position, row in enumerate(values):
            array[position, : len(row)] = row
    np.minimum(array, 0.0, out=array)
    if np.any(array[:, 1:] > array[:, :-1]):
        order = np.argsort(-array, axis=1, kind="stable")
        array = np.take_along_axis(array, order, axis=1)
        texts = [
            tuple(row[column] for column in columns if column < len(row))
            for row, columns in zip(texts, order.tolist(), strict=True)
        ]
    array.setflags(write=False)
    return tuple(texts), array


def from_tokens(
    text: str,
    tokens: Sequence[wire.Token],
    *,
    with_alternatives: bool,
    finish_reason: str | None,
    usage: Usage,
    model: str,
) -> Completion:
    """A completion with log-probabilities."""
    rows = alternatives(tokens) if with_alternatives else None
    return Completion(
        text=text,
        tokens=tuple([t.token for t in tokens]),
        logprobs=logprob_array([t.logprob for t in tokens]),
        alternative_tokens=None if rows is None else rows[0],
        alternative_logprobs=None if rows is None else rows[1],
        finish_reason=finish_reason,
        usage=usage,
        model=model,
    )
