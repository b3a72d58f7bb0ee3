# SPDX-License-Identifier: Apache-2.0
"""`estimate`: what a run would send and cost, before anything is paid for."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pizza import _observe as observe
from pizza._parts import Part, resolve
from pizza.abc import Method
from pizza.bulk.api import Given
from pizza.bulk.census import Census, contains, take_census
from pizza.bulk.directory import done_in
from pizza.bulk.rehearsal import Lookup, Rehearsal
from pizza.bulk.rows import Columns, Row, item_of
from pizza.bulk.sources import Source
from pizza.bulk.tables import source_of
from pizza.errors import ConfigError
from pizza.limits import Budget, Limits, Price
from pizza.session import Item, Outcome, Session

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LARGEST = 5
_SUMMED = ("requests", "cached", "fewest", "prompt_tokens", "output_tokens")
"""What the plans of all rows add up to, scaled up."""
_WORKERS = 8


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class RowPlan:
    """What one prompt would take.

    Attributes:
        requests: Requests that would be sent.
        id: The row's id.
        units: Its units.
        cached: Answers that are there already.
        fewest: Fewest requests that the method can do with, references included.
        most: Most that it may send.
        prompt_tokens: Tokens of the prompts that would be sent.
        output_tokens: Longest outputs, tokens.
        cost: US dollars at most, or ``None``: the price is not known.
        minutes: How long that takes at the limits, or ``None`` when none were given.
    """

    requests: int
    id: str
    units: int
    cached: int
    fewest: int
    most: int | None
    prompt_tokens: int
    output_tokens: int
    cost: float | None = None
    minutes: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run would take.

    Attributes:
        method: The method.
        rows: Rows to explain; those with a result in the directory are not counted.
        rehearsed: Rows that were counted; the figures are scaled up to all of them.
        unusable: Rows that would fail without a request, and why the first one would.
        requests: Requests that would be sent.
        cached: Answers that are there already.
        fewest: Fewest requests that the method can do with.
        most: Most that it may send; ``None`` = more than anybody would pay for.
        prompt_tokens: Tokens of the prompts.
        output_tokens: Tokens of the outputs, if all become as long as they may.
        price: What tokens cost, or ``None``: not known.
        minutes: How long that takes at the limits, or ``None`` when none were given, and where
            answers come in batches: their limits are others.
        largest: The prompts that take most.
        batch_window_s: Seconds that each round may take where answers come in batches, else
            ``None``.
    """

    method: str
    rows: int
    rehearsed: int
    unusable: tuple[int, str]
    requests: int
    cached: int
    fewest: int
    most: int | None
    prompt_tokens: int
    output_tokens: int
    price: Price | None
    minutes: float | None
    largest: tuple[RowPlan, ...]
    batch_window_s: float | None = None

    @property
    def cost(self) -> float | None:
        """US dollars at most, or ``None`` when the price is not known."""
        return (
            None if self.price is None else self.price.cost(self.prompt_tokens, self.output_tokens)
        )


async def estimate(
    rows: Given,
    *,
    model: Any = "embedded",
    options: Mapping[str, Any] | None = None,
    methods: Sequence[Any] = (),
    columns: Columns | None = None,
    split: str | None = None,
    directory: str | Path | None = None,
    sample: int | None = None,
    skip_bad_rows: bool = False,
    on_row: Callable[[str, RowPlan], None] | None = None,
    **session: Any,
) -> tuple[Plan, ...]:
    """Rehearse a run: everything is done but sending.

    Prompts are segmented, perturbed and counted by the parts and the tokenizer that the run would
    use, and looked up in its answers. Exact for methods whose requests do not depend on answers.
    For the others `Plan.fewest` and `Plan.most` are the range.

    Args:
        rows: As for `run`.
        model: As for `Session`.
        options: As for `run`.
        methods: Methods to compare; by default the one of the options.
        columns: As for `run`.
        split: As for `run`.
        directory: A run directory: its results are not computed again, its answers not paid for.
        sample: Rows to rehearse, evenly spread; by default all.
        skip_bad_rows: As for `run`.
        on_row: Called with the method and the plan of every row that was rehearsed, in the order
            in which they are ready: plans of all rows together are kept nowhere.
        **session: Options of `Session`.

    Returns:
        A plan per method.

    Raises:
        ConfigError: Something does not fit.

    Cost: no request; about 1 ms per request that would be sent.
    """
    if sample is not None and sample < 1:
        raise ConfigError(f"sample is at least 1 row, not {sample!r}.")
    source = await asyncio.to_thread(source_of, rows, columns, split=split)
    census = await asyncio.to_thread(take_census, source, skip_faults=skip_bad_rows)
    folder = None if directory is None else Path(directory)
    done = await asyncio.to_thread(_done, folder)
    budget: Budget | None = session.pop("budget", None)
    limits = session.pop("limits", None) or Limits()
    if budget is not None and budget.max_cost is not None:
        # The caps of a run do not matter here, but one that cannot be kept is an error.
        session["budget"] = Budget(max_cost=budget.max_cost)
    path = session.pop("cache", None) or (folder and folder / "responses.sqlite")
    wanted = dict(options or {})
    plugins: dict[str, Any] = {k: session[k] for k in ("plugins", "discover") if k in session}
    tell = on_row or (lambda method, plan: None)
    async with Session(model, **session) as real:
        if real.backend.batch_window_s is not None:
            limits = Limits()
        asked = _Asked(source, census, done, sample, plugins, limits, tell)
        found = [
            await _rehearsed(real, asked, {**wanted, "method": method}, path)
            for method in methods or (wanted.get("method"),)
        ]
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Asked:
    """Rows to rehearse."""

    source: Source
    census: Census
    done: NDArray[np.uint64]
    sample: int | None
    plugins: Mapping[str, Any]
    limits: Limits
    tell: Callable[[str, RowPlan], None]

    @property
    def open(self) -> int:
        """Rows without a result."""
        return self.census.rows - int(np.isin(self.census.hashes, self.done).sum())

    def items(self) -> Iterator[Item]:
        """The rows, or as many of them as the sample has, evenly spread."""
        n = max(1, self.open)
        sample = n if self.sample is None else min(n, self.sample)
        place = 0
        for row in self.source.rows():
            if not isinstance(row, Row) or contains(self.done, row.hash):
                continue
            if (place + 1) * sample // n > place * sample // n:
                yield item_of(row)
            place += 1


async def _rehearsed(real: Session, asked: _Asked, options: dict[str, Any], path: Any) -> Plan:
    named = options["method"] or ("auto" if options.get("budget") is not None else "leave-one-out")
    part = resolve(real.plugins, "method", named)
    if not isinstance(part.value, Method):
        raise ConfigError(f"{part.name!r} looks inside the model: it sends no requests to count.")
    cap = None if options.get("budget") is None else Budget.of(options["budget"]).max_calls
    options = {"skip_failures": True, **options}
    rows: list[RowPlan] = []
    totals: Counter[str] = Counter()
    most: int | None = 0
    unusable, why, n = 0, "", 0
    async with contextlib.AsyncExitStack() as stack:
        # Nothing is sent: nobody is to read of requests.
        stack.enter_context(observe.unheard())
        cache = Lookup(_cache(path))
        stack.push_async_callback(cache.aclose)
        session = await stack.enter_async_context(
            Session(
                Rehearsal(real.backend),
                cache=cache,
                **asked.plugins,
            )
        )
        async with session.attribute_many(
            asked.items(), concurrency=_WORKERS, **options
        ) as outcomes:
            async for outcome in outcomes:
                n += 1
                if outcome.attribution is None:
                    unusable, why = unusable + 1, why or f"{outcome.id}: {outcome.error}"
                    continue
                plan = _of_row(outcome, part, cap, asked.limits, real.backend.price)
                asked.tell(part.label, plan)
                totals.update({name: getattr(plan, name) for name in _SUMMED})
                most = None if most is None or plan.most is None else most + plan.most
                (heapq.heappush if len(rows) < _LARGEST else heapq.heappushpop)(rows, plan)
    scale = asked.open / n if n else 0.0
    summed = {name: round(totals[name] * scale) for name in _SUMMED}
    tokens = summed["prompt_tokens"] + summed["output_tokens"]
    return Plan(
        method=part.label,
        rows=asked.open,
        rehearsed=n,
        unusable=(round(unusable * scale), why),
        **summed,
        most=None if most is None else round(most * scale),
        price=real.backend.price,
        minutes=_minutes(summed["requests"], tokens, asked.limits),
        largest=tuple(sorted(rows, reverse=True)),
        batch_window_s=real.backend.batch_window_s,
    )


def _of_row(
    outcome: Outcome, part: Part, cap: int | None, limits: Limits, price: Price | None
) -> RowPlan:
    made = outcome.attribution
    assert made is not None  # noqa: S101 - the caller looked
    used = made.usage
    asked = made.calls + made.cache_hits
    about = sum(len(a) for evidence in made.evaluations.evidence for a in evidence.answers)
    references = asked - about
    per = max(1, round(about / max(1, len(made.evaluations))))
    least, most = part.value.calls(len(made.units))
    limit = most * per + references
    if cap is not None:
        limit = min(limit, cap)
    return RowPlan(
        requests=made.calls,
        id=outcome.id or str(outcome.index),
        units=len(made.units),
        cached=made.cache_hits,
        fewest=min(least * per + references, limit),
        # What nobody would pay for is no figure to show.
        most=limit if limit < 10**9 else None,
        prompt_tokens=used.prompt_tokens,
        output_tokens=used.completion_tokens,
        cost=None if price is None else price.cost(used.prompt_tokens, used.completion_tokens),
        minutes=_minutes(made.calls, used.total_tokens, limits),
    )


def _minutes(requests: int, tokens: int, limits: Limits) -> float | None:
    found = []
    if limits.requests_per_minute is not None:
        found.append(requests / limits.requests_per_minute)
    if limits.tokens_per_minute is not None:
        found.append(tokens / limits.tokens_per_minute)
    return max(found, default=None)


def _cache(path: Any) -> Any:
    if path is None or not Path(path).exists():
        return None
    from pizza.caches.sqlite import SqliteCache

    return SqliteCache(path)


def _done(folder: Path | None) -> NDArray[np.uint64]:
    return np.array([], dtype=np.uint64) if folder is None else done_in(folder / "results")
