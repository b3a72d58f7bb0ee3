# SPDX-License-Identifier: Apache-2.0
"""Finds a given target's tokens among the tokens of the whole prompt.

The server tokenizes prompt and target as one text, so the boundary between them may fall inside
of a token. Such a token belongs to the target: its text is cut at the boundary, its
log-probability is the whole token's, and alternatives are kept as far as they begin with the same
characters. It is cut the same way for every perturbed prompt, so differences stay comparable.

Tokens that hold only part of a character are shown by servers as U+FFFD or as nothing. They are
merged into one token whose log-probability is the sum, which is exact.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from pizza.completion import Completion, Usage
from pizza_openai import wire
from pizza_openai.build import logprob_array, pack

_BROKEN = "\ufffd"
_LONGEST_SUFFIX = 16  # tokens of a chat template after the last message

# What chat templates put after a message: an end mark, then at most the opening of another turn.
_SUFFIX = re.compile(
    r"(?:<\|?[\w /\-|▁]{1,40}\|?>|\[/?[A-Z_]{1,20}\])"
    r"(?:<\|?[\w /\-|▁]{1,40}\|?>|\[/?[A-Z_]{1,20}\]|assistant|model|\s)*"
)


@dataclass(frozen=True, slots=True)
class Step:
    """One token of a scored text.

    Attributes:
        text: Its text.
        logprob: Natural-log probability, ``None`` for the first token of all.
        alternatives: Most likely tokens at this position, with log-probabilities.
    """

    text: str
    logprob: float | None
    alternatives: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """The target's tokens, whose texts joined are the target, and what followed them."""

    steps: list[Step]
    suffix: str = ""


def prompt_steps(entries: wire.PromptLogprobs) -> list[Step]:
    """The steps in ``prompt_logprobs``: each entry lists the prompt's own token first."""
    steps: list[Step] = []
    for entry in entries:
        if not entry:
            # The very first token has no probability and no text: nothing can match it.
            steps.append(Step(text="\ufdd0", logprob=None))
            continue
        own = next(iter(entry.values()))
        others = tuple(
            (t.decoded_token, t.logprob)
            for t in entry.values()
            if t.logprob is not None and t.decoded_token is not None
        )
        steps.append(Step(text=own.decoded_token or "", logprob=own.logprob, alternatives=others))
    return steps


def echo_steps(logprobs: wire.TextLogprobs) -> list[Step]:
    """The steps of an echoed completion."""
    tokens = logprobs.tokens or []
    values = logprobs.token_logprobs or []
    rows = logprobs.top_logprobs or []
    return [
        Step(
            text=token,
            logprob=values[index] if index < len(values) else None,
            alternatives=tuple(
                (text, value)
                for text, value in ((rows[index] if index < len(rows) else None) or {}).items()
                if value is not None
            ),
        )
        for index, token in enumerate(tokens)
    ]


def align_tail(steps: Sequence[Step], target: str, *, suffix: str | None = None) -> Found | None:
    """The target at the end of the steps, before whatever the chat template adds.

    Args:
        steps: The tokens of prompt, target and template.
        target: What to find. Templates trim messages, so it may be found without its outer
            white space.
        suffix: What followed earlier targets, when that is known.

    Returns:
        The tokens, or ``None`` when the steps do not end with the target.
    """
    texts = [step.text for step in steps]
    for wanted in dict.fromkeys((target, target.rstrip(), target.strip())):
        if not wanted:
            continue
        tail = ""
        for count in range(min(_LONGEST_SUFFIX, len(texts)) + 1):
            if count:
                tail = texts[-count] + tail
            usable = tail == suffix if suffix is not None else not tail or _SUFFIX.fullmatch(tail)
            if not usable:
                continue
            end = len(texts) - count
            groups = _match(texts[:end], wanted)
            if groups is not None:
                return Found([_joined(steps, *group) for group in groups], tail)
    return None


def align_echo(
    steps: Sequence[Step], offsets: Sequence[int], prompt: str, target: str, text: str
) -> Found | None:
    """The target in an echoed text ``prompt + target + ...``.

    Args:
        steps: The tokens of all of it.
        offsets: Where the server says that each token starts, characters; may be empty.
        prompt: What stands before the target.
        target: What to find.
        text: The echoed text.
    """
    start, end = len(prompt), len(prompt) + len(target)
    joined = "".join(step.text for step in steps)
    if joined.startswith(prompt + target):
        offsets, text = _running(steps), joined
    elif len(offsets) != len(steps) or not text.startswith(prompt + target):
        return None
    bounds = [*offsets, len(text)]
    if any(a > b for a, b in itertools.pairwise(bounds)):
        return None
    found: list[Step] = []
    first = 0
    for index in range(len(steps)):
        a, b = bounds[first], bounds[index + 1]
        if b == a and index + 1 < len(steps):
            continue  # part of a character: belongs to the tokens that complete it
        if b > start and a < end:
            found.append(_joined(steps, first, index, text[max(a, start) : min(b, end)]))
        first = index + 1
    return Found(found) if "".join(s.text for s in found) == target else None


def _running(steps: Sequence[Step]) -> list[int]:
    offsets, at = [], 0
    for step in steps:
        offsets.append(at)
        at += len(step.text)
    return offsets


Groups = list[tuple[int, int, str]]
"""Consecutive tokens ``(first, last, text)``: their numbers, and the text that they stand for."""


def _match(texts: Sequence[str], target: str) -> Groups | None:
    """The tokens at the end of ``texts`` that make up ``target``."""
    return _back(texts, target, len(texts) - 1, len(target), set())


def _back(
    texts: Sequence[str], target: str, index: int, at: int, failed: set[tuple[int, int]]
) -> Groups | None:
    """Match ``target[:at]`` against the tokens up to ``index``, from behind."""
    groups: Groups = []
    last = index
    while at > 0:
        if index < 0:
            return None
        text = texts[index]
        begin = at - len(text)
        if text == "":
            index -= 1  # shown as nothing: goes with the token before it
            continue
        if _BROKEN in text:
            before = _broken_run(texts, target, last, at, failed)
            return None if before is None else before + groups[::-1]
        if begin >= 0 and target.startswith(text, begin):
            groups.append((index, last, text))
        elif begin < 0 and text.endswith(target[:at]):
            begin = 0  # the boundary falls inside of this token
            groups.append((index, last, target[:at]))
        else:
            return None
        at, index = begin, index - 1
        last = index
    return groups[::-1]


def _broken_run(
    texts: Sequence[str], target: str, last: int, at: int, failed: set[tuple[int, int]]
) -> Groups | None:
    """Tokens with parts of characters, up to ``last``; how many characters they are is tried.

    Args:
        texts: The tokens.
        target: What they should make up.
        last: The last token of the run.
        at: Where the run ends in the target.
        failed: What was tried before in vain; keeps the time polynomial.
    """
    if (last, at) in failed:
        return None
    first = last
    while first > 0 and (_BROKEN in texts[first - 1] or not texts[first - 1]):
        first -= 1
    shown = "".join(texts[first : last + 1])
    literals = re.split(f"{_BROKEN}+", shown)
    gaps = [len(gap) for gap in re.findall(f"{_BROKEN}+", shown)]
    pattern = re.escape(literals[0])
    for gap, literal in zip(gaps, literals[1:], strict=True):
        # Every character takes at least one mark, and only those beyond ASCII can be cut.
        pattern += f"[^\\x00-\\x7f]{{1,{gap}}}{re.escape(literal)}"
    whole = re.compile(pattern)
    shortest = len(gaps) + sum(map(len, literals))
    for begin in range(at - shortest, max(0, at - len(shown)) - 1, -1):
        if whole.fullmatch(target, begin, at):
            before = _back(texts, target, first - 1, begin, failed)
            if before is not None:
                return [*before, (first, last, target[begin:at])]
    if at <= len(shown) and target.endswith(literals[-1][-at:], 0, at):
        return [(first, last, target[:at])]  # the boundary falls inside of the run
    failed.add((last, at))
    return None


def _joined(steps: Sequence[Step], first: int, last: int, text: str) -> Step:
    if first == last:
        step = steps[first]
        cut = len(step.text) - len(text)
        if cut <= 0 or _BROKEN in step.text:
            return Step(text=text, logprob=step.logprob, alternatives=step.alternatives)
        before = step.text[:cut]
        kept = tuple((t[cut:], v) for t, v in step.alternatives if t.startswith(before))
        return Step(text=text, logprob=step.logprob, alternatives=kept)
    values = [step.logprob for step in steps[first : last + 1]]
    total = None if any(v is None for v in values) else sum(v for v in values if v is not None)
    return Step(text=text, logprob=total)


def scored(steps: Sequence[Step], *, top: int, usage: Usage, model: str) -> Completion:
    """The scored target as a completion."""
    rows = None
    if top > 0:
        best = [sorted(s.alternatives, key=lambda pair: -pair[1])[:top] for s in steps]
        rows = pack(
            [tuple(text for text, _ in row) for row in best],
            [[value for _, value in row] for row in best],
        )
    return Completion(
        text="".join(step.text for step in steps),
        tokens=tuple(step.text for step in steps),
        logprobs=logprob_array([step.logprob for step in steps]),
        alternative_tokens=None if rows is None else rows[0],
        alternative_logprobs=None if rows is None else rows[1],
        finish_reason="stop",
        usage=usage,
        model=model,
    )
