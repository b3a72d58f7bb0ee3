# SPDX-License-Identifier: Apache-2.0
"""Answers jobs with the model: the one way in which both the backend and the server ask it.

So a text has the same tokens and the same scores whichever way it was asked for. A `Job` is token
ids in, an `Outcome` is tokens with texts, log-probabilities and alternatives out.
"""

from __future__ import annotations

import itertools
import secrets
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from pizza_embedded.runtime import ContextTooLong, Runtime

Alternative = tuple[int, bytes, float]
"""Id, bytes and natural-log probability."""

MICRO_BATCH = 8
"""Jobs computed between two looks at whether anybody still wants the answers."""


class Stopped(Exception):  # noqa: N818 - not an error: nobody wants the answers any more
    """Raised by `Inference.answer` when it was told to stop."""


@dataclass(frozen=True, slots=True)
class Token:
    """One token where it stands.

    Attributes:
        id: Its id.
        data: Its bytes as they stand in the text: without the space that the tokenizer puts in
            front of every message.
        logprob: Natural-log probability, or ``None`` for a token with nothing before it.
        top: The most probable tokens in its place, best first.
    """

    id: int
    data: bytes
    logprob: float | None
    top: tuple[Alternative, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One thing to compute.

    Attributes:
        prompt: Ids of the prompt, template included.
        target: Ids to score after the prompt, or ``None`` to write an output.
        opens: Whether what follows the prompt opens a message (or a text), whose leading space
            then is the tokenizer's and not part of the output.
        max_tokens: Longest output, tokens; cut to what the context has room for.
        temperature: 0 = the most probable token, always.
        seed: Of the draws; ``None`` = a new one every time.
        top: Alternatives per token.
        stop: Strings that end the output and are not part of it.
        score_prompt: Whether the prompt's own tokens are scored too.
    """

    prompt: Sequence[int]
    target: Sequence[int] | None = None
    opens: bool = True
    max_tokens: int = 0
    temperature: float = 0.0
    seed: int | None = None
    top: int = 0
    stop: tuple[str, ...] = ()
    score_prompt: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The answer to a job.

    Attributes:
        tokens: What was written, or the target.
        text: Its text.
        finish_reason: ``"stop"`` or ``"length"``.
        prompt: The prompt's tokens with their scores, where they were asked for.
    """

    tokens: tuple[Token, ...] = ()
    text: str = ""
    finish_reason: str = "stop"
    prompt: tuple[Token, ...] = ()


def printable(data: bytes) -> str:
    r"""The text of a token; bytes that are not valid UTF-8 by themselves read ``\xf0\x9f``."""
    return data.decode("utf-8", "backslashreplace")


class Inference:
    """Computes jobs; blocking, meant for a thread of its own."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.special = frozenset(runtime.tokenizer.special.values())
        # A sampled template token ends the output as well: it is never part of a message.
        self._stops = sorted(self.special)

    def answer(
        self, jobs: Sequence[Job], stop: threading.Event | None = None
    ) -> list[Outcome | ContextTooLong]:
        """Compute jobs; those that do not fit the context are answered with the error.

        Raises:
            Stopped: ``stop`` was set before all jobs were done.
        """
        results: list[Outcome | ContextTooLong] = [Outcome() for _ in jobs]
        groups: dict[tuple[object, ...], list[int]] = {}
        for index, job in enumerate(jobs):
            if (error := self.too_long(job)) is not None:
                results[index] = error
            else:
                groups.setdefault(_group_key(job), []).append(index)
        for members in groups.values():
            for start in range(0, len(members), MICRO_BATCH):
                if stop is not None and stop.is_set():
                    raise Stopped
                chosen = members[start : start + MICRO_BATCH]
                made = self._compute([jobs[i] for i in chosen])
                for index, outcome in zip(chosen, made, strict=True):
                    results[index] = outcome
        return results

    def too_long(self, job: Job) -> ContextTooLong | None:
        """The error of a job that does not fit the context, or ``None``."""
        limit = self.runtime.context_length
        got = len(job.prompt) + len(job.target or ())
        if job.target is None and job.max_tokens > 0:
            got += 1  # room for one token at least
        return ContextTooLong(limit, got) if got > limit else None

    def _compute(self, jobs: Sequence[Job]) -> list[Outcome]:
        if jobs[0].target is not None:
            outcomes = self._score(jobs)
        elif jobs[0].max_tokens > 0:
            outcomes = self._write(jobs)
        else:
            outcomes = [Outcome(finish_reason="length") for _ in jobs]
        wanted = [index for index, job in enumerate(jobs) if job.score_prompt]
        scored = self._score_prompts([jobs[index] for index in wanted])
        for index, tokens in zip(wanted, scored, strict=True):
            outcomes[index] = replace(outcomes[index], prompt=tokens)
        return outcomes

    def _score_prompts(self, jobs: Sequence[Job]) -> list[tuple[Token, ...]]:
        """The prompts' own tokens with their scores; the first of each has none."""
        pairs = [(job.prompt[:1], job.prompt[1:]) for job in jobs if job.prompt]
        scores = iter(self.runtime.score(pairs, top_logprobs=jobs[0].top) if pairs else ())
        results: list[tuple[Token, ...]] = []
        for job in jobs:
            if not job.prompt:
                results.append(())
                continue
            scored = next(scores)
            tokens = [self._token(job.prompt[0], None, (), True)]
            rest = zip(itertools.pairwise(job.prompt), scored.logprobs, scored.top, strict=True)
            for (before, token), logprob, top in rest:
                tokens.append(self._token(token, logprob, top, before in self.special))
            results.append(tuple(tokens))
        return results

    def _score(self, jobs: Sequence[Job]) -> list[Outcome]:
        pairs = [(job.prompt, job.target or ()) for job in jobs]
        outcomes: list[Outcome] = []
        scores = self.runtime.score(pairs, top_logprobs=jobs[0].top)
        for job, scored in zip(jobs, scores, strict=True):
            tokens = self._tokens(job.target or (), scored.logprobs, scored.top, job.opens)
            outcomes.append(Outcome(tokens=tokens, text=_text(tokens)))
        return outcomes

    def _write(self, jobs: Sequence[Job]) -> list[Outcome]:
        seeds = [secrets.randbits(63) if job.seed is None else abs(job.seed) for job in jobs]
        written = self.runtime.generate(
            [job.prompt for job in jobs],
            max_new_tokens=jobs[0].max_tokens,
            temperature=jobs[0].temperature,
            seeds=seeds,
            top_logprobs=jobs[0].top,
            stop_ids=self._stops,
        )
        outcomes: list[Outcome] = []
        for job, made in zip(jobs, written, strict=True):
            tokens = self._tokens(made.token_ids, made.logprobs, made.top, job.opens)
            cut = _cut(tokens, job.stop)
            outcomes.append(
                Outcome(
                    tokens=tokens if cut is None else cut,
                    text=_text(tokens if cut is None else cut),
                    finish_reason=made.finish_reason if cut is None else "stop",
                )
            )
        return self._canonical(jobs, outcomes)

    def _canonical(self, jobs: Sequence[Job], outcomes: list[Outcome]) -> list[Outcome]:
        """Write each output in the tokens that its text is encoded to.

        A model may write a text in other tokens (and a stop string may cut one in two). Then a
        score of that text would not line up with it, so such an output is scored once more, in
        the tokens that everybody else who is given the text will use. Rare.
        """
        pending: list[int] = []
        scoring: list[Job] = []
        for index, (job, outcome) in enumerate(zip(jobs, outcomes, strict=True)):
            if not job.opens or not outcome.tokens or "�" in outcome.text:
                continue
            ids = self.runtime.tokenizer.encode(outcome.text)
            too_long = len(job.prompt) + len(ids) > self.runtime.context_length
            if ids != [token.id for token in outcome.tokens] and not too_long:
                pending.append(index)
                scoring.append(replace(job, target=ids))
        if scoring:
            for index, scored in zip(pending, self._score(scoring), strict=True):
                outcomes[index] = replace(outcomes[index], tokens=scored.tokens)
        return outcomes

    def _tokens(
        self,
        ids: Sequence[int],
        logprobs: Sequence[float | None],
        tops: Sequence[Iterable[tuple[int, float]]],
        opens: bool,
    ) -> tuple[Token, ...]:
        return tuple(
            self._token(token, logprobs[place], tops[place], opens and place == 0)
            for place, token in enumerate(ids)
        )

    def _token(
        self, token: int, logprob: float | None, top: Iterable[tuple[int, float]], opens: bool
    ) -> Token:
        alternatives = tuple((other, self._data(other, opens), value) for other, value in top)
        return Token(token, self._data(token, opens), logprob, alternatives)

    def _data(self, token: int, opens: bool) -> bytes:
        data = self.runtime.tokenizer.token_bytes(token)
        return data.removeprefix(b" ") if opens else data


def _group_key(job: Job) -> tuple[object, ...]:
    """Jobs with the same key are computed in one call of the runtime."""
    if job.target is not None:
        return ("score", job.top)
    return ("write", job.top, job.max_tokens, job.temperature)


def _text(tokens: Iterable[Token]) -> str:
    return b"".join(token.data for token in tokens).decode("utf-8", "replace")


def _cut(tokens: Sequence[Token], stops: Iterable[str]) -> tuple[Token, ...] | None:
    """The tokens before the first stop string, or ``None`` when there is none."""
    data = b"".join(token.data for token in tokens)
    places = [place for stop in stops if stop and (place := data.find(stop.encode())) >= 0]
    if not places:
        return None
    kept: list[Token] = []
    room = min(places)
    for token in tokens:
        if room <= 0:
            break
        kept.append(replace(token, data=token.data[:room]))
        room -= len(token.data)
    return tuple(kept)
