# SPDX-License-Identifier: Apache-2.0
"""Log-probabilities in the shapes of OpenAI's and vLLM's answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pizza_embedded.inference import Token, printable

# JSON has no infinity; this is what servers write for "impossible".
_LEAST = -9999.0


def replaced(data: bytes) -> str:
    """The text of a token where there is no field for its bytes: U+FFFD for pieces of characters.

    So vLLM and the legacy endpoint do it. In Chat Completions such a piece is spelled out.
    """
    return data.decode("utf-8", "replace")


def clamp(logprob: float | None) -> float:
    """A log-probability that JSON can hold."""
    return _LEAST if logprob is None else max(logprob, _LEAST)


def chat_logprob(token: Token, top: int) -> dict[str, Any]:
    """One entry of ``logprobs.content`` with ``top`` alternatives; in Responses it is the same."""
    entry: dict[str, Any] = _entry(token.data, token.logprob)
    entry["top_logprobs"] = [_entry(data, value) for _, data, value in token.top[:top]]
    return entry


def _entry(data: bytes, logprob: float | None) -> dict[str, Any]:
    return {"token": printable(data), "logprob": clamp(logprob), "bytes": list(data)}


def prompt_logprobs(tokens: Sequence[Token], top: int) -> list[dict[str, Any] | None]:
    """Write ``prompt_logprobs`` as vLLM does: per token, ids to log-probability, rank and text.

    The prompt's own token comes first, then the most probable ones in its place. The first token
    of a prompt has nothing before it and so no entry.
    """
    result: list[dict[str, Any] | None] = []
    for token in tokens:
        if token.logprob is None:
            result.append(None)
            continue
        ranks = {other: rank for rank, (other, _, _) in enumerate(token.top[:top], start=1)}
        # Below the alternatives the rank is not known exactly; vLLM counts, a test need not.
        rows = {str(token.id): _ranked(token.data, token.logprob, ranks.get(token.id))}
        for rank, (other, data, value) in enumerate(token.top[:top], start=1):
            rows.setdefault(str(other), _ranked(data, value, rank))
        result.append(rows)
    return result


def _ranked(data: bytes, logprob: float, rank: int | None) -> dict[str, Any]:
    return {"logprob": clamp(logprob), "rank": rank, "decoded_token": replaced(data)}
