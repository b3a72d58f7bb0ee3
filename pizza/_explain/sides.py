# SPDX-License-Identifier: Apache-2.0
"""Which of the kept answers a target is explained by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pizza.attribution import Attribution, Target
from pizza.completion import Completion
from pizza.errors import ConfigError, IncomparableError
from pizza.evidence import Evidence

_SHOWN = 12


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Side:
    """One output whose support is computed.

    Attributes:
        reference: The answer to the unperturbed prompt, as far as it counts.
        answers: Coalition -> its answers, as far as they count; none where the model gave none.
            Raises `IncomparableError` where these say nothing about the output.
        further: More answers to the unperturbed prompt.
        written: Whether the model wrote the answers, which may vary.
        sign: 1, or -1 for what a contrast is against.
        window: Half-open range of the output's tokens that counts, or ``None`` for all.
    """

    reference: Completion
    answers: Callable[[int], Sequence[Completion]]
    further: tuple[Completion, ...] = ()
    written: bool = False
    sign: int = 1
    window: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Explained:
    """A target and what it is explained by.

    Attributes:
        target: The target.
        output: The reference output; its tokens are the rows of the scores from 1 on.
        tokens: What metrics of log-probabilities compare: one side, or two of a contrast.
        text: What metrics of whole texts compare, or ``None`` when nothing was written.
        evidence: ``"score"``, ``"complete"`` or ``"alternatives"``; ``None``: nothing was kept.
        position: The output's token that a contrast of two tokens is about, or ``None``.
        same: Whether it is what the attribution explained already.
    """

    target: Target
    output: Completion
    tokens: tuple[Side, ...] = ()
    text: Side | None = None
    evidence: str | None = None
    position: int | None = None
    same: bool = False


def explained(
    attribution: Attribution, target: Target | str | None, span: tuple[int, int] | None
) -> Explained:
    """What a target is explained by.

    Raises:
        ConfigError: It was not measured; the message says what was.
    """
    told = attribution.provenance.get("reanalysis", {})
    asked_for: Target = Target.from_dict(told["of"]["target"]) if told else attribution.target
    wanted = Target.given(target) if isinstance(target, str) else target or attribution.target
    if not isinstance(wanted, Target):
        raise ConfigError(f"the target is a text or a pizza.Target, not {target!r}.")
    if span is not None:
        wanted = replace(wanted, span=Target.completion(span=(span[0], span[1])).span)
    same = wanted == attribution.target
    evidence = attribution.evaluations.evidence
    if same and not evidence:
        return Explained(target=wanted, output=attribution.output, same=True)
    scored = [e for e in evidence if e.kind == "score"]
    written = next((e for e in evidence if e.kind == "complete"), None)
    if wanted.kind == "contrast":
        found = _contrast(wanted, scored, written, told.get("position") if same else None)
        return replace(found, same=same)
    chosen = _chosen(wanted, asked_for, scored, written)
    if chosen is None:
        raise ConfigError(
            f"{_named(wanted)} was not measured. This attribution holds answers for: "
            f"{', '.join(_outputs(asked_for, scored)) or 'nothing'}. Explain it with "
            "session.attribute(target=...)."
        )
    if wanted.span and chosen.kind != "score":
        raise ConfigError(
            f"the span {wanted.span} of the output cannot be explained by what the model wrote: "
            "answers that differ before the span say nothing about it. It takes scored evidence: "
            "run it again with evidence='score'."
        )
    reference = chosen.reference
    shown = attribution.output if attribution.output.tokens == reference.tokens else reference
    window = reference.token_window(wanted.span) if wanted.span else None
    side = Side(
        reference=reference.window(*window) if window else reference,
        answers=lambda coalition: chosen.completions(coalition, window),
        further=chosen.further,
        written=chosen.kind == "complete",
        window=window,
    )
    return Explained(
        target=wanted,
        output=shown,
        tokens=(side,),
        text=None if written is None or chosen.sign < 0 else _side(written),
        evidence="score" if chosen.kind == "score" else "complete",
        same=same,
    )


def _side(evidence: Evidence, sign: int = 1) -> Side:
    return Side(
        reference=evidence.reference,
        answers=evidence.completions,
        further=evidence.further,
        written=evidence.kind == "complete",
        sign=sign,
    )


def _chosen(
    wanted: Target, asked_for: Target, scored: Sequence[Evidence], written: Evidence | None
) -> Evidence | None:
    first = scored[0] if scored else written
    if wanted.kind == "completion":
        return first if asked_for.kind == "completion" else None
    if wanted.kind != "text":
        return None
    for evidence in scored:
        if wanted.token_ids is not None:
            if wanted.token_ids in (evidence.target_ids, evidence.reference.token_ids):
                return evidence
        elif wanted.text in (evidence.target, evidence.reference.text):
            return evidence
    if replace(wanted, span=None) == replace(asked_for, span=None):
        return first
    return None


def _contrast(
    wanted: Target,
    scored: Sequence[Evidence],
    written: Evidence | None,
    position: int | None,
) -> Explained:
    sides = {e.target: e for e in scored}
    if wanted.text not in sides or wanted.versus not in sides:
        return _of_tokens(wanted, scored[0] if scored else written, position)
    if wanted.span is not None:
        raise ConfigError(
            f"the span {wanted.span} limits one output, and a contrast has two. Explain one of "
            "them: target=pizza.Target.given(TEXT, span=...)."
        )
    first, second = sides[wanted.text], sides[wanted.versus]
    return Explained(
        target=wanted,
        output=first.reference,
        tokens=(_side(first), _side(second, -1)),
        evidence="score",
    )


# --- two tokens at one position ---------------------------------------------------------------


def _of_tokens(wanted: Target, evidence: Evidence | None, position: int | None) -> Explained:
    """The contrast of two tokens, as if each had been scored by itself after what is before it."""
    text, versus = str(wanted.text), str(wanted.versus)
    if evidence is None or evidence.reference.alternative_tokens is None:
        raise ConfigError(
            f"the contrast of {text!r} and {versus!r} was not measured, and there are no "
            "alternatives (top log-probabilities) to read it from. Explain it with "
            "session.attribute(target=pizza.Target.contrast(...))."
        )
    reference = evidence.reference
    place = _position(reference, wanted) if position is None else position
    pair = tuple(_found(reference.distribution(place), t) for t in (text, versus))

    def side(token: str, sign: int) -> Side:
        def answers(coalition: int) -> Sequence[Completion]:
            return [
                _one_token(completion, reference, place, pair, token)
                for completion in evidence.completions(coalition)
            ]

        own = _one_token(reference, reference, place, pair, token)
        written = evidence.kind == "complete"
        return Side(reference=own, answers=answers, written=written, sign=sign)

    sides = (side(str(pair[0]), 1), side(str(pair[1]), -1))
    return Explained(
        target=replace(wanted, span=None),
        output=sides[0].reference,
        tokens=sides,
        evidence="alternatives",
        position=place,
    )


def _position(reference: Completion, wanted: Target) -> int:
    text, versus = str(wanted.text), str(wanted.versus)
    places = range(len(reference.tokens))
    if wanted.span is not None:
        first, stop = reference.token_window(wanted.span)
        if stop - first != 1:
            raise ConfigError(
                f"the span {wanted.span} touches {stop - first} tokens; a contrast of two tokens "
                "is about one position."
            )
        places = range(first, stop)
    found = [
        place
        for place in places
        if all(_found(reference.distribution(place), t) is not None for t in (text, versus))
    ]
    written = [p for p in found if reference.tokens[p].strip() in (text.strip(), versus.strip())]
    if len(written or found) == 1:
        return (written or found)[0]
    if found:
        starts = {p: sum(map(len, reference.tokens[:p])) for p in written or found}
        named = ", ".join(f"{at}:{at + len(reference.tokens[p])}" for p, at in starts.items())
        raise ConfigError(
            f"{text!r} and {versus!r} are both listed at {len(written or found)} positions of the "
            f"output. Say which one with span= (--span): {named}."
        )
    listed = sorted({t for place in places for t in reference.distribution(place)})
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    raise ConfigError(
        f"no position of the output lists both {text!r} and {versus!r}. Listed are: "
        f"{', '.join(map(repr, listed[:_SHOWN]))}{more}. Any two texts can be compared by "
        "session.attribute(target=pizza.Target.contrast(...))."
    )


def _found(distribution: dict[str, float], text: str) -> str | None:
    """The listed token that is a text; with or without its leading blank if only one is there."""
    other = text[1:] if text.startswith(" ") else f" {text}"
    return next((token for token in (text, other) if token in distribution), None)


def _one_token(
    completion: Completion,
    reference: Completion,
    position: int,
    pair: Sequence[Any],
    token: str,
) -> Completion:
    """A completion that consists of one of the tokens listed at a position."""
    if completion.tokens[:position] != reference.tokens[:position]:
        raise IncomparableError(f"the answer differs before token {position} of the output.")
    if len(completion.tokens) <= position:
        raise IncomparableError(f"the answer ended before token {position} of the output.")
    listed = completion.distribution(position)
    if lacking := [t for t in pair if t not in listed]:
        raise IncomparableError(
            f"{lacking[0]!r} is not among the {len(listed)} tokens listed at position {position}."
        )
    return Completion(text=token, tokens=(token,), logprobs=[listed[token]])  # type: ignore[arg-type]


# --- messages ---------------------------------------------------------------------------------


def _named(target: Target) -> str:
    if target.kind == "completion":
        return "the model's own completion"
    return f"{'the label' if target.kind == 'label' else 'the output'} {target.text!r}"


def _outputs(asked_for: Target, scored: Sequence[Evidence]) -> list[str]:
    own = ["the model's own completion"] if asked_for.kind == "completion" else []
    texts = [repr(e.target) for e in scored if e.target is not None]
    return own + (texts or ([repr(asked_for.text)] if asked_for.kind == "text" else []))
