# SPDX-License-Identifier: Apache-2.0
"""`Session`: owns plugins, model, limiter, budget and cache, from entering to leaving it."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import warnings
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, cast

from pizza import _observe as observe
from pizza._engine.asking import Account
from pizza._engine.clock import Clock, SystemClock
from pizza._engine.latest import latest
from pizza._engine.scheduler import Scheduler, SchedulerStatistics
from pizza._engine.workers import work
from pizza._explain import USUAL_METRICS, Job, Meter, explain
from pizza._parts import resolve, resolve_metrics, resolve_units
from pizza._plugins import Registry
from pizza.abc import Backend, ResponseCache
from pizza.attribution import Attribution, Target
from pizza.capability import Capability
from pizza.completion import Completion, Generation, Request
from pizza.errors import (
    ConfigError,
    PizzaError,
    PluginContractError,
    PluginError,
    SessionClosedError,
)
from pizza.events import RowEvent, RowFailed, RowFinished, RowStarted
from pizza.gate import Gate
from pizza.limits import DEFAULT_CONCURRENCY, Budget, Limits, RetryPolicy, Tally
from pizza.progress import Partial, Progress
from pizza.prompt import Prompt, PromptLike
from pizza.specs import BackendSettings, BackendSpec, Choice

if TYPE_CHECKING:
    from typing import Self

    from pizza.evaluation.result import Evaluation

_P = ParamSpec("_P")
_T = TypeVar("_T")

Evidence = Literal["auto", "score", "complete"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A prompt with a name and options of its own, for `Session.attribute_many`.

    Attributes:
        prompt: The prompt.
        id: Its name in outcomes and events, or ``None``.
        options: Options of `Session.attribute` that go before those of all prompts.
    """

    prompt: PromptLike
    id: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one prompt of `Session.attribute_many`: an attribution or an error.

    Attributes:
        index: The prompt's position in the input, from 0.
        prompt: The prompt as it was given.
        attribution: The result, or ``None``.
        error: Why there is none, or ``None``.
        id: The name that the prompt was given with, or ``None``.
    """

    index: int
    prompt: PromptLike
    attribution: Attribution | None = None
    error: PizzaError | None = None
    id: str | None = None


class Session:
    """An asynchronous context manager that explains prompts for one model.

    Example::

        async with pizza.Session("openai:gpt-4o-mini") as session:
            attribution = await session.attribute("The clock shows 9:47 PM. How late is it?")

    Several attributions may run at the same time; they share limits, budget and cache. Cancelling
    one cancels exactly its requests. A session cannot be entered twice.

    Args:
        model: ``"backend:model"``, a backend's name for its default model, or a `Backend` object
            (which the session then closes).
        limits: Rates and concurrency.
        retry: Attempts and waits.
        budget: Hard caps over the whole session.
        cache: A path to a SQLite file, a `ResponseCache` object (which stays the caller's to
            close), or ``None``: answers are remembered in memory while the session is open.
        base_url: Where the server is, for backends that talk to one.
        api_key: The key or a function that returns it; by default the environment's.
        backend_options: Further options of the backend.
        plugins: Modules or objects with hook implementations, used besides installed ones.
        discover: Whether installed plugins are used.
        clock: Time, for tests.
        tally: What was spent before this session, which counts towards its budget, and where
            what it spends is noted, attempt by attempt.
        gate: Who gives leave to send, for sessions that share limits and budget (`pizza.gate`).
            Rates, ``budget`` and ``tally`` are the gate's then, and closing it is its owner's.
    """

    def __init__(
        self,
        model: str | Backend = "embedded",
        *,
        limits: Limits | None = None,
        retry: RetryPolicy | None = None,
        budget: Budget | None = None,
        cache: ResponseCache | str | Path | None = None,
        base_url: str | None = None,
        api_key: str | Callable[[], Any] | None = None,
        backend_options: Mapping[str, Any] | None = None,
        plugins: Sequence[Any] = (),
        discover: bool = True,
        clock: Clock | None = None,
        tally: Tally | None = None,
        gate: Gate | None = None,
    ) -> None:
        if not isinstance(model, (str, Backend)):
            raise ConfigError(
                f"model is 'backend:model' or a Backend object, not {type(model).__name__}."
            )
        self._model = model
        self._limits = limits or Limits()
        self._retry = retry or RetryPolicy()
        self._budget = budget or Budget()
        self._cache_choice = cache
        self._base_url = base_url
        self._api_key = api_key
        self._backend_options = dict(backend_options or {})
        self._plugin_choice = tuple(plugins)
        self._discover = discover
        self._clock = clock or SystemClock()
        self._tally = tally
        self._gate = gate
        self._state: Literal["unopened", "open", "closed"] = "unopened"
        self._stack = AsyncExitStack()
        self._registry: Registry | None = None
        self._backend: Backend | None = None
        self._scheduler: Scheduler | None = None
        self._executor: ThreadPoolExecutor | None = None
        self._origin = ("", "", "")
        self._confirmed: dict[Capability, bool] = {}
        self._probing = asyncio.Lock()
        self._meter = Meter()

    def __repr__(self) -> str:
        model = self._model if isinstance(self._model, str) else self._model.name
        return f"<pizza.Session {model!r} {self._state}>"

    # --- life ---------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._state != "unopened":
            raise SessionClosedError(
                f"this session is {self._state}; a session is entered once. Make a new one."
            )
        try:
            await self._open()
        except BaseException:
            self._state = "closed"
            await self._stack.aclose()
            raise
        self._state = "open"
        self._tell_closed = observe.session_opened(self.backend.name, self._clock.now)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._state = "closed"
        try:
            await self._stack.__aexit__(kind, error, trace)
        finally:
            self._tell_closed(self.statistics)

    def __del__(self) -> None:
        if getattr(self, "_state", "closed") == "open":
            warnings.warn(f"{self!r} was never closed", ResourceWarning, stacklevel=2)

    async def _open(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pizza")
        # A thread that hangs in foreign code must not keep the loop from closing the session.
        self._stack.callback(self._executor.shutdown, wait=True, cancel_futures=True)
        # Entry points may import anything, and slowly: not on the loop.
        self._registry = await self._in_thread(
            Registry, self._plugin_choice, discover=self._discover
        )
        cache = self._open_cache()
        self._backend = await self._open_backend(self._registry)
        self._stack.push_async_callback(self._backend.aclose)
        # The first count may load a vocabulary, which takes a second: not on the loop.
        await self._in_thread(self._backend.count_tokens, Request(prompt=Prompt.of("warm")))
        self._scheduler = await self._stack.enter_async_context(
            Scheduler(
                self._backend,
                limits=self._limits,
                retry=self._retry,
                budget=self._budget,
                cache=cache,
                clock=self._clock,
                tally=self._tally,
                gate=self._gate,
            )
        )

    def _open_cache(self) -> ResponseCache:
        choice = self._cache_choice
        if isinstance(choice, ResponseCache):
            return choice
        cache: ResponseCache
        if choice is None:
            from pizza.caches.memory import MemoryCache

            cache = MemoryCache()
        else:
            from pizza.caches.sqlite import SqliteCache

            cache = SqliteCache(choice)
        self._stack.push_async_callback(cache.aclose)
        return cache

    async def _open_backend(self, registry: Registry) -> Backend:
        if isinstance(self._model, Backend):
            return self._model
        name, _, model = self._model.partition(":")
        spec = registry.spec("backend", name)
        assert isinstance(spec, BackendSpec)  # noqa: S101 - the registry checks it
        info = registry.owner("backend", name)
        self._origin = (info.name, info.distribution, info.version)
        model = model or spec.default_model
        if not model:
            raise ConfigError(f"name a model after the backend: '{name}:MODEL'.")
        factory = await self._in_thread(registry.load, "backend", name)
        made = factory(
            BackendSettings(
                model=model,
                base_url=self._base_url,
                api_key=self._api_key,
                max_concurrency=self._limits.max_concurrency or DEFAULT_CONCURRENCY,
                timeout_s=self._retry.attempt_timeout_s,
                options=self._backend_options,
            )
        )
        backend = await made if inspect.isawaitable(made) else made
        if not isinstance(backend, Backend):
            raise PluginContractError(
                f"the backend {name!r} of {info.origin} opened as "
                f"{type(backend).__name__}, which is not a pizza.abc.Backend."
            )
        return backend

    # --- what it owns -------------------------------------------------------------------------

    @property
    def plugins(self) -> Registry:
        """All parts that can be named."""
        self._check_open()
        return cast("Registry", self._registry)

    @property
    def backend(self) -> Backend:
        """The model."""
        self._check_open()
        return cast("Backend", self._backend)

    @property
    def statistics(self) -> SchedulerStatistics:
        """What was sent, saved and spent so far; still readable after closing."""
        if self._scheduler is None:
            raise SessionClosedError("this session was never opened: use 'async with'.")
        return self._scheduler.statistics

    def _check_open(self) -> None:
        if self._state != "open":
            raise SessionClosedError(
                f"this session is {self._state}: use it inside of 'async with pizza.Session(...)'."
            )

    # --- what it does -------------------------------------------------------------------------

    async def submit(self, request: Request) -> Completion:
        """Send one request through cache, budget, limiter and retries.

        Cost: one request, unless the cache has the answer.
        """
        self._check_open()
        return (await cast("Scheduler", self._scheduler).submit(request)).completion

    async def attribute(
        self,
        prompt: PromptLike,
        *,
        units: Any = "word",
        method: Any = None,
        perturbation: Any = "delete",
        metrics: Any = None,
        target: Target | str | None = None,
        generation: Generation | None = None,
        evidence: Evidence = "auto",
        budget: Budget | int | str | None = None,
        repeats: int | None = None,
        seed: int = 0,
        skip_failures: bool = False,
        on_progress: Callable[[Progress], None] | None = None,
        on_partial: Callable[[Partial], None] | None = None,
    ) -> Attribution:
        """Explain one prompt.

        Parts are given by name, as ``"name:option=value"``, as a `Choice` or as an object.

        Args:
            prompt: A text, chat messages or a `Prompt`.
            units: A segmenter, or a list of spans.
            method: Which coalitions to ask for and how to score. By default ``auto`` where a budget
                is given, else ``leave-one-out``.
            perturbation: What stands in for absent units.
            metrics: One metric or several; they are computed from the same requests, and the
                first one steers methods that adapt. By default ``logprob-diff``, or
                ``edit-distance`` where the model gives no log-probabilities.
            target: What to explain: the model's own completion, a text, or a `Target`.
            generation: How the model writes; the same for every perturbed prompt.
            evidence: What log-probability metrics compare. ``"score"``: the teacher-forced
                log-probabilities of the reference output. ``"complete"``: what the model writes
                for the perturbed prompt. ``"auto"``: score where the backend can.
            budget: What this attribution may take, its reference included: calls (``128``), tokens
                (``"20k tokens"``) or dollars (``"$0.50"``). Answers count as if none came from the
                cache, so that results do not depend on it. What is not needed is not spent.
            repeats: Answers to every prompt, perturbed or not, where the model writes them; their
                effects are averaged, and units that were removed alone are tested for a shift of
                the answers. By default 1, and 4 of the unperturbed prompt when the model samples,
                which tell its noise.
            seed: Seed of everything random on our side.
            skip_failures: Give NaN to coalitions that the model refuses, instead of failing.
            on_progress: Called after every answer.
            on_partial: Called with what was measured so far: when the units are known and nothing
                was sent yet, when the reference is known, and after every answer. Answers are
                compared one by one then, which takes more time of this process. Whoever has an
                event loop to answer on reads `attribute_streaming` instead.

        Returns:
            The attribution; scores ``(1 + n_output_tokens, n_units)``.

        Raises:
            ConfigError: Something does not fit; nothing was sent.
            PizzaError: A request failed for good; answers so far are in the cache.

        Cost: one or two requests for the reference, 3 more when the model samples, then what the
            method needs.
        """
        self._check_open()
        registry = self.plugins
        target = Target.given(target) if isinstance(target, str) else target or Target()
        allowed = None if budget is None else Budget.of(budget)
        if method is None:
            method = "leave-one-out" if allowed is None else "auto"
        if repeats is not None and (isinstance(repeats, bool) or repeats < 1):
            raise ConfigError(f"repeats is 1 or more answers per prompt, not {repeats!r}.")

        def named() -> Job:
            if metrics is None:
                # What is used then is settled later; it is imported here, too.
                for usual in USUAL_METRICS:
                    registry.load("metric", usual)
            return Job(
                prompt=Prompt.of(prompt),
                units=resolve_units(registry, units),
                method=resolve(registry, "method", method),
                perturbation=resolve(registry, "perturbation", perturbation),
                metrics=None if metrics is None else resolve_metrics(registry, metrics),
                target=target,
                generation=generation or Generation(),
                evidence=evidence,
                seed=seed,
                skip_failures=skip_failures,
                budget=allowed,
                repeats=repeats,
                on_progress=on_progress,
                on_partial=on_partial,
            )

        with observe.attribution(self.backend.name, self._clock.now) as told:
            # Parts are imported when they are first named, and some import much: not on the loop.
            job = await self._in_thread(named)
            made = await explain(job, started=self._clock.time(), **self._owned())
            told.ended(made)
        return made

    @asynccontextmanager
    async def attribute_streaming(
        self, prompt: PromptLike, *, every_s: float = 0.0, **options: Any
    ) -> AsyncIterator[AsyncIterator[Partial | Attribution]]:
        """Explain one prompt and watch it: what was measured so far, then the attribution.

        A context manager on purpose: leaving it early cancels exactly its own requests. ::

            async with session.attribute_streaming(prompt) as steps:
                async for step in steps:
                    ...  # pizza.Partial, again and again; at last a pizza.Attribution

        Every `Partial` holds all that the ones before it held, and only the newest waits to be
        read: a slow reader misses some and slows nobody down. The first one comes when everything
        that can be found wrong without paying was checked. Errors are raised by the iteration.

        Args:
            prompt: A text, chat messages or a `Prompt`.
            every_s: Shortest time between two `Partial` steps, seconds. The attribution and
                errors do not wait for it.
            **options: As for `attribute`.

        Cost: as `attribute`, until the block is left.
        """
        self._check_open()

        async def run(report: Callable[[Partial], None]) -> Attribution:
            return await self.attribute(prompt, on_partial=report, **options)

        async with latest(run, self._clock, every_s) as steps:
            yield steps

    async def evaluate(
        self,
        attribution: Attribution,
        *,
        measures: Any = None,
        budget: Budget | int | str | None = None,
        metric: Any = None,
        perturbation: Any = None,
        output_token: int | None = None,
        seed: int = 0,
        skip_failures: bool = False,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Evaluation:
        """Measure how faithful an attribution is to this session's model.

        The prompt, its units, the output, the perturbation, the metric and the way of generating
        are the attribution's. The model may be another one: then the attribution's output is scored
        where the model can score, and what was compared is in the warnings.

        Args:
            attribution: By any method, of any model.
            measures: Names of measures, with options as ``"lds:p=0.9"``. By default all that the
                budget and the number of units allow.
            budget: What this evaluation may take, its reference included: calls (``300``), tokens
                (``"20k tokens"``) or dollars (``"$0.50"``). By default 256 coalitions. Those that
                the attribution's own values are known of cost nothing.
            metric: What is measured of a coalition; by default the attribution's first. Where the
                attribution has scores of that metric, they are evaluated. For methods that look
                inside the model: ``logprob-diff``, where the model gives log-probabilities.
            perturbation: What stands in for absent units; by default as in the attribution, and
                ``delete`` for methods that look inside the model.
            output_token: Evaluate the scores of this output token, counted from 0, and not of the
                whole output.
            seed: Of the coalitions and orders that are drawn.
            skip_failures: Leave out coalitions that the model refuses, instead of failing.
            on_progress: Called after every answer.

        Returns:
            A figure per measure; where orders count, beside that of random orders.

        Raises:
            ConfigError: Something does not fit; nothing was sent.
            BudgetTooSmallError: The measures need more; it names the least and what fits.
            PizzaError: A request failed for good; answers so far are in the cache.

        Cost: one or two requests for the reference, then up to the budget; measures share what
            they can.
        """
        self._check_open()
        registry = self.plugins
        allowed = None if budget is None else Budget.of(budget)
        # Imported here: whoever only attributes does without.
        work = await self._in_thread(importlib.import_module, "pizza._explain.evaluate")
        wanted = await self._in_thread(
            work.resolved,
            registry,
            attribution,
            measures=measures,
            metric=metric,
            perturbation=perturbation,
            budget=allowed,
            output_token=output_token,
            seed=seed,
            skip_failures=skip_failures,
            on_progress=on_progress,
        )
        with observe.attribution(self.backend.name, self._clock.now, "evaluation"):
            found: Evaluation = await work.evaluate(
                wanted, started=self._clock.time(), **self._owned()
            )
        return found

    @asynccontextmanager
    async def attribute_many(
        self,
        prompts: Iterable[PromptLike | Item] | AsyncIterable[PromptLike | Item],
        *,
        concurrency: int = 8,
        on_event: Callable[[RowEvent], None] | None = None,
        **options: Any,
    ) -> AsyncIterator[AsyncIterator[Outcome]]:
        """Explain many prompts; outcomes come as they are ready, a failure is a value.

        A context manager on purpose: leaving it early cancels exactly its own requests. Memory
        does not grow with the number of prompts.

        Args:
            prompts: Any iterable; it is read as workers become free. An `Item` has a name and
                options of its own.
            concurrency: Prompts that are worked on at the same time.
            on_event: Called when a prompt is begun, explained or given up.
            **options: As for `attribute`.
        """
        self._check_open()
        if concurrency < 1:
            raise ConfigError(f"concurrency must be at least 1, not {concurrency!r}.")
        listen = on_event or (lambda event: None)

        async def one(index: int, given: PromptLike | Item) -> Outcome:
            item = given if isinstance(given, Item) else Item(prompt=given)
            began = self._clock.now()
            listen(RowStarted(at=self._clock.time(), id=item.id, index=index))
            outcome = Outcome(index=index, prompt=item.prompt, id=item.id)
            try:
                with observe.row(item.id or str(index)):
                    made = await self.attribute(item.prompt, **{**options, **item.options})
            except PizzaError as error:
                outcome = replace(outcome, error=error)
            except Exception as error:  # a bug that one prompt meets must not end all others
                outcome = replace(outcome, error=_bug(error))
            else:
                outcome = replace(outcome, attribution=made)
            listen(_event_of(outcome, at=self._clock.time(), seconds=self._clock.now() - began))
            return outcome

        async with work(one, prompts, workers=concurrency) as outcomes:
            yield outcomes

    # --- helpers ------------------------------------------------------------------------------

    def _owned(self) -> dict[str, Any]:
        """What the steps of an attribution or an evaluation borrow."""
        return {
            "registry": self.plugins,
            "backend": self.backend,
            "scheduler": cast("Scheduler", self._scheduler),
            "budget": self._budget,
            "origin": self._origin,
            "in_thread": self._in_thread,
            "confirm": self._confirm,
            "meter": self._meter,
            "probed": frozenset(self._confirmed),
        }

    async def _in_thread(
        self, function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs
    ) -> _T:
        """Run a blocking function on the session's own thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, lambda: function(*args, **kwargs))

    async def _confirm(
        self, wanted: frozenset[Capability], account: Account
    ) -> frozenset[Capability]:
        """The backend's capabilities, after probing the wanted ones that are uncertain."""
        backend = self.backend

        async def send(request: Request) -> Completion:
            answer = await cast("Scheduler", self._scheduler).submit(request)
            account.add(answer)
            return answer.completion

        certain = backend.capabilities - backend.uncertain
        async with self._probing:
            unknown = (wanted & backend.uncertain) - self._confirmed.keys()
            if unknown:
                found = await backend.probe(send, frozenset(unknown))
                self._confirmed.update({c: c in found for c in unknown})
        return certain | {c for c, there in self._confirmed.items() if there}


def _bug(error: Exception) -> PluginError:
    found = PluginError(
        f"explaining it failed with {type(error).__name__}: {error}. This is a bug in pizza or in "
        "a plugin: explain this prompt alone to see where."
    )
    found.__cause__ = error
    return found


def _event_of(outcome: Outcome, *, at: float, seconds: float) -> RowEvent:
    made, error = outcome.attribution, outcome.error
    if error is not None:
        return RowFailed(at=at, id=outcome.id, index=outcome.index, error=error, seconds=seconds)
    found = cast("Attribution", made)
    return RowFinished(
        at=at,
        id=outcome.id,
        index=outcome.index,
        calls=found.calls,
        cache_hits=found.cache_hits,
        unanswered=found.evaluations.unanswered,
        seconds=seconds,
    )


__all__ = ["Choice", "Evidence", "Item", "Outcome", "Partial", "Progress", "Session"]
