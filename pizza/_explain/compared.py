# SPDX-License-Identifier: Apache-2.0
"""Effects by a metric from kept answers: what `Measurement` computes while answers come in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pizza._explain.sides import Explained, Side
from pizza._parts import Part
from pizza.completion import Completion
from pizza.errors import IncomparableError, PluginContractError

Floats = NDArray[np.float64]
Policy = Literal["raise", "skip"]

_GROUP = 64
_NAMED = 5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Effects:
    """What a metric says of kept answers.

    Attributes:
        values: ``(n, 1 + n_output_tokens)``; NaN for coalitions without an answer.
        further: The same of more answers to the unperturbed prompt, ``(m, 1 + n_output_tokens)``,
            or ``None`` when none were kept. A scored text is the same every time.
        warning: Which answers were left out, or ``""``.
    """

    values: Floats
    further: Floats | None = None
    warning: str = ""


def effects(
    metric: Part, wanted: Explained, coalitions: NDArray[np.bool_], on_incomparable: Policy
) -> Effects:
    """Compare all kept answers.

    Args:
        metric: Prepared.
        wanted: What is explained.
        coalitions: ``(n, n_units)``, whose answers were kept.
        on_incomparable: ``"raise"`` or ``"skip"``.

    Raises:
        IncomparableError: Answers lack what the metric needs, and are not to be skipped; or all.
    """
    sides = _sides(metric, wanted)
    n_rows = 1 + len(wanted.output.tokens)
    values = np.zeros((len(coalitions), n_rows))
    failed: dict[int, IncomparableError] = {}
    answered = np.zeros(len(coalitions), dtype=bool)
    for side in sides:
        for group in _groups(side, len(coalitions), failed):
            answered[[row for row, _ in group]] = True
            found = _compared(metric, side, group, failed)
            for row, effect in found.items():
                _add(values[row], effect, side, n_rows)
    values[~answered] = np.nan
    values[list(failed)] = np.nan
    warning = _told(metric, coalitions, failed, int(answered.sum()), on_incomparable)
    return Effects(values=values, further=_further(metric, sides, n_rows), warning=warning)


def _further(metric: Part, sides: Sequence[Side], n_rows: int) -> Floats | None:
    if not any(side.written for side in sides):
        return np.zeros((1, n_rows))
    if len(sides) > 1 or not sides[0].further:
        return None
    return _effects_of(metric, sides[0], sides[0].further)


def _sides(metric: Part, wanted: Explained) -> Sequence[Side]:
    if wanted.evidence is None:
        raise IncomparableError(
            f"{metric.label!r} cannot be computed: no answers were kept with this attribution. "
            "Explain the prompt again with this metric."
        )
    if metric.evidence == "tokens":
        return wanted.tokens
    if wanted.text is None or wanted.target.span or len(wanted.tokens) > 1:
        part = wanted.target.span or len(wanted.tokens) > 1
        what = "a contrast or a span of the output is explained" if part else "nothing was written"
        raise IncomparableError(
            f"{metric.label!r} compares whole texts that the model writes, and {what} here. Use "
            "logprob-diff or prob-diff, or explain the prompt again with this metric."
        )
    return (wanted.text,)


Row = tuple[int, Sequence[Completion]]


def _groups(side: Side, n: int, failed: dict[int, IncomparableError]) -> Iterator[list[Row]]:
    """Coalitions with their answers, unpacked a few at a time."""
    group: list[Row] = []
    for row in range(n):
        try:
            answers = side.answers(row)
        except IncomparableError as error:
            failed.setdefault(row, error)
            answers = ()
        if answers:
            group.append((row, answers))
        if len(group) >= _GROUP:
            yield group
            group = []
    if group:
        yield group


def _compared(
    metric: Part, side: Side, group: Sequence[Row], failed: dict[int, IncomparableError]
) -> dict[int, Floats]:
    """Effects per coalition, the mean of its answers; those that fail are found one by one."""
    sizes = [len(answers) for _, answers in group]
    try:
        found = _effects_of(metric, side, [a for _, answers in group for a in answers])
    except IncomparableError as error:
        if len(group) == 1:
            failed.setdefault(group[0][0], error)
            return {}
        result: dict[int, Floats] = {}
        for member in group:
            result |= _compared(metric, side, [member], failed)
        return result
    parts = np.split(found, np.cumsum(sizes)[:-1])
    return {row: _mean(part) for (row, _), part in zip(group, parts, strict=True)}


def _effects_of(metric: Part, side: Side, answers: Sequence[Completion]) -> Floats:
    found = np.asarray(metric.value.compare(side.reference, answers), dtype=float)
    expected = (len(answers), 1 + len(side.reference.tokens))
    if found.shape != expected:
        raise PluginContractError(
            f"{type(metric.value).__name__}.compare returned shape {found.shape}; expected "
            f"(perturbed, 1 + output tokens) = {expected}."
        )
    return found


def _mean(effects: Floats) -> Floats:
    """Of a coalition's answers, over those that are defined; of one, itself."""
    if len(effects) == 1:
        only: Floats = effects[0]
        return only
    known = ~np.isnan(effects)
    count = known.sum(axis=0)
    total = np.where(known, effects, 0.0).sum(axis=0)
    mean: Floats = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return mean


def _add(target: Floats, effect: Floats, side: Side, n_rows: int) -> None:
    target[0] += side.sign * effect[0]
    if side.sign > 0:
        start, stop = side.window or (0, n_rows - 1)
        if side.window:
            target[1:] = np.nan
        target[1 + start : 1 + stop] = effect[1:]


def _told(
    metric: Part,
    coalitions: NDArray[np.bool_],
    failed: dict[int, IncomparableError],
    answered: int,
    on_incomparable: Policy,
) -> str:
    if not failed:
        return ""
    rows = sorted(failed)
    named = ", ".join(str(np.flatnonzero(~coalitions[row]).tolist()) for row in rows[:_NAMED])
    more = f" and {len(rows) - _NAMED} more" if len(rows) > _NAMED else ""
    said = (
        f"{metric.label!r} cannot compare the answers for {len(rows)} of {len(coalitions)} "
        f"coalitions (without units {named}{more}): {failed[rows[0]]}"
    )
    if on_incomparable == "raise" or len(rows) >= answered:
        advice = (
            ""
            if len(rows) >= answered
            else " on_incomparable='skip' (--skip-incomparable) leaves these out."
        )
        raise IncomparableError(said + advice) from failed[rows[0]]
    return f"{said} They are left out."
