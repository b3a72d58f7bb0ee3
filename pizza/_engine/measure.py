# SPDX-License-Identifier: Apache-2.0
"""Measuring coalitions: renders prompts, sends requests, turns answers into effects.

A `Measurement` belongs to one attribution. It remembers every coalition that it has measured, so
that a method that asks twice is answered from memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pizza import coalition
from pizza._engine.asking import Account, Question
from pizza._engine.keeping import Keeper
from pizza.abc import Metric, PerturbationStrategy
from pizza.completion import Completion, Generation, Request
from pizza.errors import (
    BadRequestError,
    ContextTooLongError,
    IncomparableError,
    PizzaError,
    PluginContractError,
    RefusedError,
)
from pizza.evidence import Answers
from pizza.progress import Progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pizza._engine.allowance import Allowance
    from pizza._engine.scheduler import Answer, Scheduler
    from pizza._engine.sofar import SoFar
    from pizza.prompt import Prompt, Unit

# Answers are compared in groups: a few calls into a metric instead of one per answer, and no more
# than this many whole answers in memory.
_GROUP = 64
_WATCHED_GROUP = 8
"""Likewise for blocking metrics when somebody waits to see the effects."""

_NAMES = 5
_NAME = 24

_OF_ONE_PROMPT = (BadRequestError, ContextTooLongError, RefusedError, IncomparableError)


class Measurement:
    """Values of coalitions for one prompt, target and set of metrics.

    Args:
        scheduler: Sends the requests.
        prompt: The whole prompt.
        units: Its units.
        strategy: Renders coalitions; already prepared.
        questions: What is asked for every coalition.
        n_metrics: Metrics in all.
        n_rows: ``1 + n_output_tokens``.
        generation: How the model writes.
        account: Where spending is counted.
        in_thread: Runs a blocking function on the session's thread.
        floor: Effects of the unperturbed prompt's further answers, ``(n_metrics, n_rows)``, which
            are taken off all effects; ``None`` when it was answered once.
        allowance: The attribution's own budget, or ``None``. Coalitions that it does not pay for
            are not known: NaN.
        price: What a request that asks question ``number`` is expected to cost, in the budget's
            currency; ``None`` where only calls are counted.
        further: More answers to the unperturbed prompt, kept with the others.
        skip_failures: Whether a coalition whose request fails for good gets NaN instead of
            failing the attribution.
        on_progress: Called after every answer.
        so_far: Takes the effects as soon as they are known, for who watches.
    """

    def __init__(
        self,
        *,
        scheduler: Scheduler,
        prompt: Prompt,
        units: Sequence[Unit],
        strategy: PerturbationStrategy,
        questions: Sequence[Question],
        n_metrics: int,
        n_rows: int,
        generation: Generation,
        account: Account,
        in_thread: Callable[..., Any],
        floor: NDArray[np.float64] | None = None,
        allowance: Allowance | None = None,
        price: Callable[[int, Request], float] | None = None,
        further: Sequence[Completion] = (),
        skip_failures: bool = False,
        on_progress: Callable[[Progress], None] | None = None,
        so_far: SoFar | None = None,
    ) -> None:
        self._scheduler = scheduler
        self._prompt = prompt
        self._units = units
        self._strategy = strategy
        self._questions = tuple(questions)
        self._n_metrics = n_metrics
        self._n_rows = n_rows
        self._generation = generation
        self._account = account
        self.in_thread = in_thread
        self._floor = np.zeros((n_metrics, n_rows)) if floor is None else np.nan_to_num(floor)
        self._allowance = allowance
        self._price = price
        self._asked = [(n, s) for n, q in enumerate(self._questions) for s in range(q.repeats)]
        self._repeated: dict[tuple[int, int], list[NDArray[np.float64]]] = {}
        self._without_one: dict[int, list[Completion]] = {}
        self._skip = skip_failures
        self._on_progress = on_progress
        self._so_far = so_far
        self._compared: Counter[int] = Counter()
        self._row_of: dict[bytes, int] = {}
        self._measured: list[NDArray[np.bool_]] = []
        self._effects: list[NDArray[np.float64]] = []
        self._answers: list[str | None] = []
        self._keeper = Keeper(self._questions, further=further)
        self._done = 0
        self.warnings: list[str] = []

    @property
    def coalitions(self) -> NDArray[np.bool_]:
        """What was measured, ``(n, n_units)``, in the order of asking."""
        shape = (len(self._measured), len(self._units))
        return np.array(self._measured, dtype=bool).reshape(shape)

    @property
    def effects(self) -> NDArray[np.float64]:
        """Effects ``(n, n_metrics, n_rows)`` in the same order."""
        shape = (len(self._effects), self._n_metrics, self._n_rows)
        return np.array(self._effects, dtype=float).reshape(shape)

    @property
    def answers(self) -> Answers:
        """What the model wrote, in the same order; ``None`` where only a target was scored.

        With the evidence: all answers whole, packed when it is read.
        """
        return Answers(tuple(self._answers), self._keeper.later(len(self._answers)))

    async def values(self, coalitions: NDArray[np.bool_]) -> NDArray[np.float64]:
        """``v(S) = floor - effect(S)`` of coalitions ``(m, n_units)``; returns ``(m, n_columns)``.

        Cost: one request per question and coalition that was not measured before.
        """
        keys = coalition.keys(coalitions)
        whole: list[bool] = np.all(coalitions, axis=1).tolist()
        fresh: list[NDArray[np.bool_]] = []
        blank = np.zeros((self._n_metrics, self._n_rows))
        # One copy for all rows: the coalitions are the method's, which may change them.
        copied = coalitions.copy()
        copied.setflags(write=False)
        for key, row, full in zip(keys, copied, whole, strict=True):
            if full or key in self._row_of:
                continue
            self._row_of[key] = len(self._measured)
            self._measured.append(row)
            self._effects.append(blank.copy())
            self._answers.append(None)
            fresh.append(row)
        if fresh:
            await self._measure(len(self._measured) - len(fresh), fresh)
        # All units present is the reference itself: no effect, and no call.
        result = [
            blank if full else self._effects[self._row_of[key]] - self._floor
            for key, full in zip(keys, whole, strict=True)
        ]
        columns = self._n_metrics * self._n_rows
        return -np.array(result, dtype=float).reshape(len(keys), columns)

    # --- one round ----------------------------------------------------------------------------

    async def _measure(self, first: int, rows: Sequence[NDArray[np.bool_]]) -> None:
        waiting: dict[int, list[tuple[int, Completion]]] = {}
        asked: list[int] = []
        prices: list[list[float]] = []

        def requests() -> Iterator[Request]:
            # Rendered one by one as workers ask for them: a round of long prompts is never in
            # memory as a whole.
            for at, row in enumerate(rows):
                perturbed = self._strategy.render(self._prompt, self._units, row)
                of_row = [
                    self._questions[number].request(perturbed, self._generation, sample)
                    for number, sample in self._asked
                ]
                if (affordable := self._affords(of_row)) is None:
                    self._effects[first + at][:] = np.nan
                    continue
                asked.append(at)
                prices.append(affordable)
                yield from of_row

        async with self._scheduler.stream(requests()) as outcomes:
            async for outcome in outcomes:
                place, turn = divmod(outcome.index, len(self._asked))
                at, number = asked[place], self._asked[turn][0]
                self._settle(outcome.answer, prices[place][turn])
                if outcome.answer is None:
                    self._failed(first + at, outcome.error)
                    continue
                completion = outcome.answer.completion
                self._account.add(outcome.answer)
                self._keeper.keep(number, first + at, completion, outcome.answer.packed)
                group = waiting.setdefault(number, [])
                group.append((first + at, completion))
                if turn == len(self._asked) - 1:
                    self._done += 1
                if len(group) >= self._group_of(self._questions[number]):
                    await self._compare(self._questions[number], waiting.pop(number))
                self._report()
        for number, group in waiting.items():
            await self._compare(self._questions[number], group)
        if self._so_far is not None:
            self._so_far.report(self._progress())

    def _group_of(self, question: Question) -> int:
        """How many answers are compared together."""
        if self._so_far is None:
            return _GROUP
        blocking = any(metric.blocking for _, metric in question.metrics)
        return _WATCHED_GROUP if blocking else 1

    def _affords(self, requests: Sequence[Request]) -> list[float] | None:
        """What a coalition's requests are expected to cost each, or ``None``: too much."""
        if self._allowance is None:
            return [0.0] * len(requests)
        prices = [
            0.0 if self._price is None else self._price(number, request)
            for (number, _), request in zip(self._asked, requests, strict=True)
        ]
        return prices if self._allowance.reserve(len(requests), sum(prices)) else None

    def _settle(self, answer: Answer | None, price: float) -> None:
        """One of a coalition's requests is over."""
        if self._allowance is None:
            return
        if answer is None:
            self._allowance.release(calls=1, amount=price)
        else:
            self._allowance.settle(answer.completion.usage, calls=1, amount=price)

    async def _compare(self, question: Question, group: Sequence[tuple[int, Completion]]) -> None:
        if question.kind == "complete":
            for row, completion in group:
                self._answers[row] = self._answers[row] or completion.text
                if question.repeats > 1 and (~self._measured[row]).sum() == 1:
                    self._without_one.setdefault(row, []).append(completion)
        for number, metric in question.metrics:
            try:
                await self._apply(question, number, metric, group)
            except IncomparableError:
                # Which of them it was is found out one by one: the rest is used, or named.
                for member in group:
                    try:
                        await self._apply(question, number, metric, [member])
                    except IncomparableError as error:
                        if not self._skip:
                            raise self._named(member[0], error) from error
                        self._failed(member[0], error)
        if self._so_far is not None:
            self._tell(self._so_far, [row for row, _ in group])

    def _tell(self, so_far: SoFar, rows: Sequence[int]) -> None:
        """Hand on the effects of coalitions all of whose answers were compared."""
        for row in rows:
            self._compared[row] += 1
            if self._compared[row] == len(self._asked):
                effect = self._effects[row][0, 0] - self._floor[0, 0]
                so_far.add(self._measured[row], float(effect))

    def _named(self, row: int, error: IncomparableError) -> IncomparableError:
        absent = np.flatnonzero(~self._measured[row])
        names = ", ".join(repr(self._units[i].name[:_NAME]) for i in absent[:_NAMES])
        more = f" and {len(absent) - _NAMES} more units" if len(absent) > _NAMES else ""
        return IncomparableError(
            f"the answer without {names}{more} cannot be compared: {error} Answers so far are in "
            "the cache; skip_failures=True (--skip-failures) goes on without such coalitions."
        )

    async def _apply(
        self,
        question: Question,
        number: int,
        metric: Metric,
        group: Sequence[tuple[int, Completion]],
    ) -> None:
        answers = [completion for _, completion in group]
        reference = question.reference
        if question.window is not None:
            answers = [answer.window(*question.window) for answer in answers]
            reference = reference.window(*question.window)
        if metric.blocking:
            effects = await self.in_thread(metric.compare, reference, answers)
        else:
            effects = metric.compare(reference, answers)
        self._store(question, number, metric, group, np.asarray(effects, dtype=float))

    def _store(
        self,
        question: Question,
        number: int,
        metric: Metric,
        group: Sequence[tuple[int, Completion]],
        effects: NDArray[np.float64],
    ) -> None:
        start, stop = question.window or (0, len(question.reference.tokens))
        expected = (len(group), 1 + stop - start)
        if effects.shape != expected:
            raise PluginContractError(
                f"{type(metric).__name__}.compare returned shape {effects.shape}; expected "
                f"(perturbed, 1 + output tokens) = {expected}."
            )
        for (row, _), effect in zip(group, effects, strict=True):
            target = self._effects[row][number]
            if question.repeats > 1:
                target[:] = self._averaged(row, number, effect)
                continue
            if question.sign > 0:
                target[0] += effect[0]
                target[1:] = np.nan if question.window else target[1:]
                target[1 + start : 1 + stop] = effect[1:]
            else:
                target[0] -= effect[0]

    def _averaged(self, row: int, number: int, effect: NDArray[np.float64]) -> NDArray[np.float64]:
        """The mean of a coalition's effects so far, over those that are defined."""
        kept = self._repeated.setdefault((row, number), [])
        kept.append(effect)
        stacked = np.stack(kept)
        known = ~np.isnan(stacked)
        count = known.sum(axis=0)
        total = np.where(known, stacked, 0.0).sum(axis=0)
        result: NDArray[np.float64] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
        return result

    def without_one(self) -> Iterator[tuple[int, list[Completion]]]:
        """Units that some coalition lacked alone, with its answers; only of repeated questions."""
        for row, completions in self._without_one.items():
            yield int(np.flatnonzero(~self._measured[row])[0]), completions

    def _failed(self, row: int, error: PizzaError | None) -> None:
        failure = error or PizzaError("the request failed without an error")
        # Only what is wrong with this one prompt may be skipped: a wrong key or an empty budget
        # is wrong with all of them.
        if not (self._skip and isinstance(failure, _OF_ONE_PROMPT)):
            raise failure
        absent = np.flatnonzero(~self._measured[row]).tolist()
        self.warnings.append(f"no answer without units {absent}: {failure}")
        self._effects[row][:] = np.nan

    def _progress(self) -> Progress:
        return Progress(
            phase="coalitions",
            done=self._done,
            total=len(self._measured),
            calls=self._account.calls,
            cache_hits=self._account.cache_hits,
        )

    def _report(self) -> None:
        if self._on_progress is not None:
            self._on_progress(self._progress())
        if self._so_far is not None:
            self._so_far.report(self._progress())
