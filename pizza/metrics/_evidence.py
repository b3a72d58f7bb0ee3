# SPDX-License-Identifier: Apache-2.0
"""What two completions say about the probability of the reference's tokens.

A language model's probability of a token depends on the output before it. So the probability of
reference token t under the perturbed prompt can be read from a perturbed completion only while
that completion has written the reference's own tokens 0 .. t-1: up to and including the first
position where the two differ. At that position the perturbed model chose another token, and the
original one is found among the alternatives, or bounded. After it the contexts differ, and nothing
is known. A teacher-forced score of the reference's text holds the same tokens: it never differs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pizza.errors import IncomparableError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pizza.completion import Completion

FLOOR = -100.0
"""Smallest log-probability that is used, nats. Servers send ``-inf`` or ``-9999`` for "never"."""

RESIDUE = 1e-6
"""Least probability taken to be left beside the listed tokens: single-precision sums are not
exact beyond it."""

LOG_HALF = -math.log(2.0)


def logprobs_of(
    completion: Completion, who: str = "", metric: str = "this metric"
) -> NDArray[np.float64]:
    """The tokens' log-probabilities ``(n_tokens,)``, within ``[FLOOR, 0]``; NaN stays.

    Raises:
        IncomparableError: The completion has none.
    """
    if completion.logprobs is None:
        raise IncomparableError(
            f"{metric} needs the log-probabilities of the output tokens, and the {who or 'given'} "
            "completion carries none. Use a backend that gives them, or a metric of the text: "
            "exact-match, edit-distance, rouge-l, jaccard."
        )
    return np.clip(completion.logprobs, FLOOR, 0.0)


def shared_length(reference: Completion, perturbed: Completion) -> int:
    """Number of leading tokens that the two completions share."""
    ours, theirs = reference.tokens, perturbed.tokens
    if ours == theirs:
        return len(ours)
    for position, (one, other) in enumerate(zip(ours, theirs, strict=False)):
        if one != other:
            return position
    return min(len(ours), len(theirs))


def unlisted_bounds(completion: Completion, start: int, stop: int) -> NDArray[np.float64]:
    """Upper bounds of the log-probability of tokens that positions do not list, nats.

    Two things bound it: the least likely of the listed alternatives (they are the most likely
    tokens), and the probability that the listed tokens and the written one leave over.

    Args:
        completion: With log-probabilities.
        start: First position.
        stop: The position after the last.

    Returns:
        ``(stop - start,)``, within ``[FLOOR, 0]``.
    """
    left = np.ones(stop - start)
    least = np.zeros(stop - start)
    written = np.nan_to_num(np.exp(logprobs_of(completion)[start:stop]))
    if completion.alternative_tokens is None or completion.alternative_logprobs is None:
        left -= written
    else:
        texts = completion.alternative_tokens[start:stop]
        rows = np.nan_to_num(completion.alternative_logprobs[start:stop], nan=-np.inf)
        unlisted = [
            token not in row
            for token, row in zip(completion.tokens[start:stop], texts, strict=True)
        ]
        left -= np.exp(np.minimum(rows, 0.0)).sum(axis=1) + np.where(unlisted, written, 0.0)
        least = np.where(np.isfinite(rows), rows, np.inf).min(axis=1, initial=np.inf)
    bound = np.minimum(least, np.log(np.clip(left, RESIDUE, 1.0)))
    return np.clip(bound, FLOOR, 0.0)


def logprob_at_divergence(reference: Completion, perturbed: Completion, position: int) -> float:
    """Log-probability that the perturbed model gave the reference's token where the two differ.

    * Listed there: as listed.
    * Not listed: an upper bound (`unlisted_bounds`), but never above the reference's own
      value, so that missing evidence is never counted as an increase.
    * The perturbed output ended there: the end was chosen over the token, and its probability is
      not reported. Under greedy decoding the token had at most 1/2, and that bound is used.
    * It was cut off there (``finish_reason`` is ``"length"``): NaN, nothing is known.
    """
    own = float(logprobs_of(reference)[position])
    if position >= len(perturbed.tokens):
        return math.nan if perturbed.finish_reason == "length" else min(own, LOG_HALF)
    if perturbed.alternative_tokens is not None:
        listed = perturbed.distribution(position).get(reference.tokens[position])
        if listed is not None:
            return min(max(listed, FLOOR), 0.0)
    return min(own, float(unlisted_bounds(perturbed, position, position + 1)[0]))


def aligned_logprobs(
    reference: Completion, perturbed: Sequence[Completion], metric: str
) -> NDArray[np.float64]:
    """Log-probability of each reference token at its own position, ``(m, n_tokens)``.

    NaN where the contexts differ: after the first divergence.

    Raises:
        IncomparableError: A completion has no log-probabilities.
    """
    n = len(reference.tokens)
    result = np.full((len(perturbed), n), np.nan)
    for row, completion in zip(result, perturbed, strict=True):
        values = completion.logprobs
        if values is None:
            values = logprobs_of(completion, "perturbed", metric)
        shared = shared_length(reference, completion)
        row[:shared] = values[:shared]
        if shared < n:
            row[shared] = logprob_at_divergence(reference, completion, shared)
    return np.clip(result, FLOOR, 0.0, out=result)


def best_logprobs(reference: Completion, completion: Completion) -> NDArray[np.float64]:
    """Best log-probability of each reference token anywhere in an output, ``(n_tokens,)``.

    "Anywhere" is among the written tokens and their alternatives of all positions. NaN: the token
    stands nowhere.
    """
    ids = {token: number for number, token in enumerate(dict.fromkeys(reference.tokens))}
    best = np.full(len(ids) + 1, -np.inf)
    _raise_to(best, [ids.get(token, -1) for token in completion.tokens], logprobs_of(completion))
    texts, values = completion.alternative_tokens, completion.alternative_logprobs
    if texts is not None and values is not None:
        listed = [ids.get(token, -1) for row in texts for token in row]
        widths = np.array([len(row) for row in texts], dtype=np.intp)
        unpadded = np.arange(values.shape[1]) < widths[:, None]
        _raise_to(best, listed, values[unpadded])
    best[np.isneginf(best)] = np.nan
    columns = np.array([ids[token] for token in reference.tokens], dtype=np.intp)
    return best[columns]


def location_invariant_logprobs(
    reference: Completion, perturbed: Sequence[Completion], metric: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Best log-probabilities of the reference's tokens anywhere in each output.

    A token that stands nowhere in a perturbed output gets the largest of the positions' upper
    bounds (`RESIDUE` when there are no positions), but never more than the reference's value.

    Returns:
        Of the reference itself ``(n_tokens,)``, and of the perturbed ones ``(m, n_tokens)``.

    Raises:
        IncomparableError: A completion has no log-probabilities.
    """
    logprobs_of(reference, "reference", metric)
    ours = best_logprobs(reference, reference)
    result = np.empty((len(perturbed), len(reference.tokens)))
    for row, completion in zip(result, perturbed, strict=True):
        logprobs_of(completion, "perturbed", metric)
        row[:] = best_logprobs(reference, completion)
        missing = np.isnan(row)
        if missing.any():
            bounds = unlisted_bounds(completion, 0, len(completion.tokens))
            row[missing] = np.minimum(ours[missing], bounds.max(initial=math.log(RESIDUE)))
    return ours, result


def _raise_to(best: NDArray[np.float64], ids: list[int], values: NDArray[np.float64]) -> None:
    """``best[id] = max(best[id], value)``; the last element takes what is of no interest."""
    usable = ~np.isnan(values)
    clipped = np.clip(values[usable], FLOOR, 0.0)
    np.maximum.at(best, np.array(ids, dtype=np.intp)[usable], clipped)


def total(effects: NDArray[np.float64], same: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Sum of effects over the output, ``(m,)``: what is not defined counts as unchanged.

    NaN when nothing is defined, unless the outputs are the ``same`` ``(m,)``: then 0.
    """
    known = ~np.isnan(effects).all(axis=1) if effects.shape[1] else np.zeros(len(effects), bool)
    return np.where(known | same, np.nansum(effects, axis=1), np.nan)


def same_output(reference: Completion, perturbed: Sequence[Completion]) -> NDArray[np.bool_]:
    """Which completions say exactly what the reference says, ``(m,)``."""
    return np.array([reference.text == other.text for other in perturbed], dtype=bool)
