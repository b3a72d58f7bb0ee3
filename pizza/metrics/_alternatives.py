# SPDX-License-Identifier: Apache-2.0
"""Alternatives of many completions as arrays: what rank and divergence metrics compute with.

Positions are aligned, and compared as far as the contexts are the same: up to and including the
first divergence (see `pizza.metrics._evidence`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pizza.errors import IncomparableError
from pizza.metrics._evidence import FLOOR, shared_length

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pizza.completion import Completion

UNKNOWN = -1
"""The id of a token that the reference lists nowhere, and of padding."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Listing:
    """What some output positions list; column 0 is the written token, then alternatives.

    Attributes:
        ids: ``(n_positions, n_columns)`` int, `UNKNOWN` where the reference lists no such token.
        logprobs: Same shape, at most 0, at least `FLOOR`; ``-inf`` = padding, a written token
            that is among the alternatives, or an alternative that is listed a second time.
        least: ``(n_positions,)`` log-probability of the least likely alternative; 0 for none.
        count: ``(n_positions,)`` number of alternatives.
    """

    ids: NDArray[np.intp]
    logprobs: NDArray[np.float64]
    least: NDArray[np.float64]
    count: NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pairs:
    """Positions of the reference beside the same positions of perturbed completions.

    Attributes:
        row: ``(n_pairs,)`` which perturbed completion.
        position: ``(n_pairs,)`` which position.
        perturbed: The perturbed completions' listings, ``n_pairs`` rows.
        ended: ``(n_ended, 2)`` int: rows and positions where a perturbed output ended (and was
            not cut off) although the reference goes on.
    """

    row: NDArray[np.intp]
    position: NDArray[np.intp]
    perturbed: Listing
    ended: NDArray[np.intp]


def token_ids(reference: Completion, metric: str) -> dict[str, int]:
    """Numbers for all tokens that the reference lists or wrote.

    Raises:
        IncomparableError: It has no alternatives.
    """
    texts, _ = _require(reference, "reference", metric)
    every = (token for row in (*texts, reference.tokens) for token in row)
    return {token: number for number, token in enumerate(dict.fromkeys(every))}


def listing(
    completion: Completion, ids: Mapping[str, int], stop: int, *, who: str, metric: str
) -> Listing:
    """The first ``stop`` positions of a completion.

    Raises:
        IncomparableError: It has no alternatives.
    """
    all_texts, all_values = _require(completion, who, metric)
    texts, written = all_texts[:stop], completion.tokens[:stop]
    width = all_values.shape[1]
    count = np.array([len(row) for row in texts], dtype=np.intp)
    numbers = np.full((len(texts), width + 1), UNKNOWN, dtype=np.intp)
    values = np.full(numbers.shape, -np.inf)
    padded = np.arange(width) >= count[:, None]
    listed = np.clip(np.nan_to_num(all_values[:stop], nan=FLOOR), FLOOR, 0.0)
    values[:, 1:] = np.where(padded, -np.inf, listed)
    least = np.where(padded, 0.0, listed).min(axis=1, initial=0.0)
    get = ids.get
    flat = [get(token, UNKNOWN) for row in texts for token in row]
    numbers[:, 1:][~padded] = flat
    numbers[:, 0] = [get(token, UNKNOWN) for token in written]
    if completion.logprobs is not None:
        own = np.clip(np.nan_to_num(completion.logprobs[:stop], nan=FLOOR), FLOOR, 0.0)
        fresh = [token not in row for token, row in zip(written, texts, strict=True)]
        values[:, 0] = np.where(fresh, own, -np.inf)
    for position, row in enumerate(texts):
        if len(set(row)) < len(row):
            repeats = [1 + at for at, token in enumerate(row) if token in row[:at]]
            values[position, repeats] = -np.inf
    return Listing(ids=numbers, logprobs=values, least=least, count=count)


def aligned_pairs(
    reference: Completion,
    perturbed: Sequence[Completion],
    ids: Mapping[str, int],
    metric: str,
) -> Pairs:
    """All positions that can be compared, of all perturbed completions.

    Raises:
        IncomparableError: A completion has no alternatives.
    """
    n = len(reference.tokens)
    parts: list[Listing] = []
    ended: list[tuple[int, int]] = []
    for row, completion in enumerate(perturbed):
        shared = shared_length(reference, completion)
        if shared < n and shared == len(completion.tokens) and completion.finish_reason != "length":
            ended.append((row, shared))
        stop = min(shared + 1, n, len(completion.tokens))
        parts.append(listing(completion, ids, stop, who="perturbed", metric=metric))
    sizes = [len(part.count) for part in parts]
    return Pairs(
        row=np.repeat(np.arange(len(parts)), sizes),
        position=np.concatenate([np.arange(0), *(np.arange(size) for size in sizes)]),
        perturbed=_stacked(parts),
        ended=np.array(ended, dtype=np.intp).reshape(-1, 2),
    )


def _stacked(parts: Sequence[Listing]) -> Listing:
    width = max((part.ids.shape[1] for part in parts), default=1)

    def wide(array: NDArray[np.generic], fill: float) -> NDArray[np.generic]:
        short = width - array.shape[1]
        return np.pad(array, ((0, 0), (0, short)), constant_values=fill) if short else array

    empty = np.empty((0, width))
    return Listing(
        ids=np.concatenate([empty.astype(np.intp), *(wide(p.ids, UNKNOWN) for p in parts)]),
        logprobs=np.concatenate([empty, *(wide(p.logprobs, -np.inf) for p in parts)]),
        least=np.concatenate([empty[:, 0], *(part.least for part in parts)]),
        count=np.concatenate([np.empty(0, np.intp), *(part.count for part in parts)]),
    )


def _require(
    completion: Completion, who: str, metric: str
) -> tuple[tuple[tuple[str, ...], ...], NDArray[np.float64]]:
    if completion.alternative_tokens is None or completion.alternative_logprobs is None:
        raise IncomparableError(
            f"{metric} needs the alternatives (top log-probabilities) of every output position, "
            f"and the {who} completion carries none. Ask for some (top_logprobs), use a backend "
            "that gives them, or a metric that needs none: logprob-diff, prob-diff, exact-match."
        )
    return completion.alternative_tokens, completion.alternative_logprobs
