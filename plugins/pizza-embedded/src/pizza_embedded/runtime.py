# SPDX-License-Identifier: Apache-2.0
"""Runs the embedded model: chat template, generation and scoring of batches, without torch.

A :class:`Runtime` only reads its weights, so one may be shared by any number of threads. Every
log-probability is a natural logarithm of the model's own distribution (temperature 1).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from threadpoolctl import ThreadpoolController

from pizza_embedded.network import Floats, Ints, Network
from pizza_embedded.tokenizer import Tokenizer

WEIGHTS = Path(__file__).parent / "weights"

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
# Padded positions computed at once; above this, arrays leave the processor's cache.
_BATCH_POSITIONS = 512
# Positions added to a cache of keys and values at a time: most answers are a few tokens long.
_CACHE_ROOM = 16

Alternatives = tuple[tuple[int, float], ...]
Segment = tuple[int, int, int] | None


_Function = TypeVar("_Function", bound=Callable[..., Any])
_BLAS = ThreadpoolController()


def _one_thread(function: _Function) -> _Function:
    """Run with one BLAS thread.

    The matrices here are small: a BLAS that spreads them over all cores spends its time waiting
    for its own threads, tens of times longer than the work takes when the machine is busy.
    """
    return cast("_Function", _BLAS.wrap(limits=1, user_api="blas")(function))


class ContextTooLong(ValueError):  # noqa: N818 - says what is wrong, and others use the name
    """A sequence has more tokens than the model can read.

    Attributes:
        limit: Most tokens that are accepted.
        got: Tokens there were.
    """

    def __init__(self, limit: int, got: int) -> None:
        super().__init__(
            f"{got} tokens, the embedded model reads at most {limit}; shorten the text"
        )
        self.limit = limit
        self.got = got


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """A generated continuation.

    Attributes:
        token_ids: Its tokens, without the stop token.
        logprobs: Natural-log probability of each.
        top: The most probable ``(id, log-probability)`` at each position, best first; empty tuples
            when none were asked for.
        finish_reason: ``"stop"`` (the model ended it) or ``"length"``.
        stop_logprob: Log-probability of the stop token, None unless ``finish_reason`` is "stop".
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    top: tuple[Alternatives, ...]
    finish_reason: str
    stop_logprob: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """Teacher-forced log-probabilities of given tokens.

    Attributes:
        logprobs: One per token; None for a token that has nothing before it.
        top: The most probable ``(id, log-probability)`` in each token's place, best first.
    """

    logprobs: tuple[float | None, ...]
    top: tuple[Alternatives, ...]


class Runtime:
    """The model, ready to answer; immutable and safe to share between threads.

    Attributes:
        tokenizer: Text to ids and back.
        vocab_size: Number of token ids.
        context_length: Most tokens of a prompt and its continuation together.
        eos_id: Id of ``<|end|>``, which ends a message.
        identity: Short hash of weights and tokenizer: same identity, same answers.
        embeddings: ``(vocab_size, width)`` token embeddings, read-only.
    """

    def __init__(self, network: Network, tokenizer: Tokenizer, identity: str) -> None:
        self.tokenizer = tokenizer
        self.vocab_size = tokenizer.vocab_size
        self.context_length = network.context_length
        self.eos_id = tokenizer.special["<|end|>"]
        self.identity = identity
        self.embeddings: Floats = network.embeddings
        self._network = network

    @classmethod
    def load(cls, path: Path | None = None) -> Runtime:
        """Read a model; by default the one that is part of this package."""
        folder = WEIGHTS if path is None else path
        digest = hashlib.sha256()
        for name in ("config.json", "model.safetensors", "tokenizer.json"):
            digest.update((folder / name).read_bytes())
        tokenizer = Tokenizer.load(folder / "tokenizer.json")
        return cls(Network.load(folder), tokenizer, digest.hexdigest()[:16])

    def apply_chat_template(
        self, messages: Sequence[tuple[str, str]], add_generation_prompt: bool = True
    ) -> tuple[list[int], list[Segment]]:
        """Write messages the way the model was trained to read them.

        Args:
            messages: ``(role, text)``; roles are system, developer (read as system), user and
                assistant. Names of special tokens in a text are ordinary text.
            add_generation_prompt: End with the mark after which the model answers.

        Returns:
            The ids, and for each the message it comes from with its code-point span there
            ``(message, start, end)``, or None for tokens of the template.

        Raises:
            ValueError: A role is unknown.
        """
        ids: list[int] = []
        segments: list[Segment] = []
        for index, (role, text) in enumerate(messages):
            if role not in _ROLES:
                raise ValueError(f"unknown role {role!r}; one of {', '.join(_ROLES)}")
            inner, spans = self.tokenizer.encode_with_offsets(text)
            ids += [self.tokenizer.special[f"<|{_ROLES[role]}|>"], *inner, self.eos_id]
            segments += [None, *((index, start, end) for start, end in spans), None]
        if add_generation_prompt:
            ids.append(self.tokenizer.special["<|assistant|>"])
            segments.append(None)
        return ids, segments

    @_one_thread
    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        seeds: Sequence[int] | None = None,
        top_logprobs: int = 0,
        stop_ids: Sequence[int] | None = None,
    ) -> list[Generated]:
        """Continue prompts. A result does not depend on what else is in the batch.

        Args:
            prompts: Token ids of each prompt; an empty one counts as a lone ``<|end|>``.
            max_new_tokens: Most tokens to generate; a full context ends a text earlier.
            temperature: 0 takes the most probable token, otherwise tokens are drawn.
            seeds: One per prompt; None draws them from the operating system.
            top_logprobs: How many alternatives to return per token.
            stop_ids: Tokens that end a text; ``eos_id`` when None.

        Returns:
            One continuation per prompt, in order.

        Raises:
            ContextTooLong: A prompt leaves no room for a token.
        """
        stops = frozenset([self.eos_id] if stop_ids is None else stop_ids)
        rows = [list(prompt) or [self.eos_id] for prompt in prompts]
        self._check(rows, self.context_length - 1)
        draws: list[np.random.Generator | None] = [None] * len(rows)
        if temperature > 0:
            known = seeds if seeds is not None else [None] * len(rows)
            draws = [np.random.default_rng(seed) for seed in known]
        drafts = [
            _Draft(len(row), draw, temperature, top_logprobs, stops)
            for row, draw in zip(rows, draws, strict=True)
        ]
        if max_new_tokens > 0:
            for group in _groups(rows):
                self._generate_group(
                    [rows[i] for i in group], [drafts[i] for i in group], max_new_tokens
                )
        return [draft.result() for draft in drafts]

    @_one_thread
    def score(
        self,
        pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
        *,
        top_logprobs: int = 0,
    ) -> list[Scored]:
        """Return how probable given continuations are.

        Args:
            pairs: ``(prompt ids, target ids)``; an empty prompt counts as a lone ``<|end|>``.
            top_logprobs: How many alternatives to return per token.

        Returns:
            One per pair, in order, with one log-probability per target token.

        Raises:
            ContextTooLong: A prompt and its target together are too long.
        """
        prompts = [list(prompt) or [self.eos_id] for prompt, _ in pairs]
        targets = [list(target) for _, target in pairs]
        rows = [prompt + target for prompt, target in zip(prompts, targets, strict=True)]
        self._check(rows, self.context_length)
        results = [Scored(logprobs=(), top=())] * len(rows)
        for group in _groups(rows):
            longest = max(len(targets[i]) for i in group)
            if longest == 0:
                continue
            starts = np.array([len(prompts[i]) - 1 for i in group])
            last = np.array([len(rows[i]) - 1 for i in group])
            wanted = np.minimum(starts[:, None] + np.arange(longest), last[:, None])
            hidden, _ = self._network.prefill(_padded([rows[i] for i in group]), wanted)
            logprobs = self._network.log_probs(hidden)
            for place, i in enumerate(group):
                results[i] = _scored(logprobs[place, : len(targets[i])], targets[i], top_logprobs)
        return results

    def score_all(self, ids: Sequence[int], top_logprobs: int = 0) -> Scored:
        """Return how probable every token of a sequence is; the first has no log-probability."""
        if not ids:
            return Scored(logprobs=(), top=())
        (rest,) = self.score([(ids[:1], ids[1:])], top_logprobs=top_logprobs)
        return Scored(logprobs=(None, *rest.logprobs), top=((), *rest.top))

    def _check(self, rows: Sequence[Sequence[int]], limit: int) -> None:
        longest = max(map(len, rows), default=0)
        if longest > limit:
            raise ContextTooLong(limit, longest)

    def _generate_group(
        self, rows: list[list[int]], drafts: list[_Draft], max_new_tokens: int
    ) -> None:
        ids = _padded(rows)
        last = np.array([len(row) - 1 for row in rows])
        hidden, cache = self._network.prefill(ids, last[:, None], extra=_CACHE_ROOM)
        current = hidden[:, 0]
        active = np.arange(len(rows))
        while True:
            logprobs = self._network.log_probs(current)
            going = [
                place
                for place, index in enumerate(active)
                if drafts[index].take(logprobs[place])
                and len(drafts[index].token_ids) < max_new_tokens
                and drafts[index].position + 1 < self.context_length
            ]
            if not going:
                return
            if len(going) < len(active):
                active = active[going]
                cache.keys = [keys[going] for keys in cache.keys]
                cache.values = [values[going] for values in cache.values]
            tokens = np.array([drafts[index].token_ids[-1] for index in active])
            positions = np.array([drafts[index].position for index in active])
            if positions.max() >= cache.capacity:
                cache.grow(_CACHE_ROOM)
            current = self._network.step(tokens, positions, cache)


class _Draft:
    """One continuation as it grows."""

    def __init__(
        self,
        n_prompt: int,
        draw: np.random.Generator | None,
        temperature: float,
        top_logprobs: int,
        stops: frozenset[int],
    ) -> None:
        self.token_ids: list[int] = []
        self.logprobs: list[float] = []
        self.top: list[Alternatives] = []
        self.stop_logprob: float | None = None
        self.position = n_prompt - 1
        self._draw = draw
        self._temperature = temperature
        self._n_top = top_logprobs
        self._stops = stops

    def take(self, logprobs: Floats) -> bool:
        """Choose the next token; False when it ends the text."""
        token = int(logprobs.argmax())
        if self._draw is not None:
            weights = np.exp(logprobs.astype(np.float64) / self._temperature)
            total = np.cumsum(weights)
            token = int(np.searchsorted(total, self._draw.random() * total[-1], side="right"))
            token = min(token, len(logprobs) - 1)
        if token in self._stops:
            self.stop_logprob = float(logprobs[token])
            return False
        self.token_ids.append(token)
        self.logprobs.append(float(logprobs[token]))
        self.top.append(_best(logprobs, self._n_top))
        self.position += 1
        return True

    def result(self) -> Generated:
        """Return what there is."""
        return Generated(
            token_ids=tuple(self.token_ids),
            logprobs=tuple(self.logprobs),
            top=tuple(self.top),
            finish_reason="length" if self.stop_logprob is None else "stop",
            stop_logprob=self.stop_logprob,
        )


def _groups(rows: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Yield indices of rows of like length that are computed together."""
    group: list[int] = []
    for index in sorted(range(len(rows)), key=lambda i: len(rows[i])):
        if group and len(rows[index]) * (len(group) + 1) > _BATCH_POSITIONS:
            yield group
            group = []
        group.append(index)
    if group:
        yield group


def _padded(rows: Sequence[Sequence[int]]) -> Ints:
    ids = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
    return ids


def _best(logprobs: Floats, count: int) -> Alternatives:
    """Return the ``count`` most probable tokens, best first, ties by id."""
    if count <= 0:
        return ()
    count = min(count, len(logprobs))
    chosen = np.argpartition(logprobs, -count)[-count:]
    pairs = sorted((-float(logprobs[i]), int(i)) for i in chosen)
    return tuple((i, -negative) for negative, i in pairs)


def _scored(logprobs: Floats, targets: Sequence[int], n_top: int) -> Scored:
    values = logprobs[np.arange(len(targets)), targets] if targets else ()
    return Scored(
        logprobs=tuple(float(value) for value in values),
        top=tuple(_best(row, n_top) for row in logprobs),
    )
