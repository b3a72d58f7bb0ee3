# SPDX-License-Identifier: Apache-2.0
"""The contracts that plugins implement. Everything shipped implements the same ones.

Backends are asynchronous. Metrics, methods, perturbation strategies and segmenters are not: they
compute, and the driver does all input and output.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from pizza.capability import Capability
from pizza.errors import BackendError, CapabilityError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pizza.attribution import Target
    from pizza.completion import Completion, Reply, Request
    from pizza.limits import Price
    from pizza.prompt import FixedSpan, Prompt, Unit

Send = Callable[["Request"], Awaitable["Completion"]]
"""Sends one request through the scheduler: cached, limited, counted."""


class Tokenizer(Protocol):
    """Splits texts into a model's tokens."""

    name: str

    def spans(self, text: str) -> Sequence[tuple[int, int]]:
        """Half-open code-point spans of the tokens: ordered, disjoint, covering all of ``text``.

        Tokens that cut a character are merged with their neighbours.
        """
        ...

    def count(self, text: str) -> int:
        """Number of tokens of ``text``."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TokenTable:
    """A vocabulary with embeddings.

    Attributes:
        tokens: The tokens' texts, ``n_tokens`` of them, leading white space included.
        embeddings: ``(n_tokens, n_dimensions)`` float array, read-only.
        special: Indices of tokens that are not text (end of text, padding, ...).
    """

    tokens: tuple[str, ...]
    embeddings: NDArray[np.floating[Any]]
    special: frozenset[int] = frozenset()


class Backend(ABC):
    """A model: completes prompts, and whatever else its capabilities say.

    Opened by a session, used from one event loop, closed by the session. Vendor errors are
    translated into `BackendError` types here, once, with the original as the cause. Backends
    do not retry, limit or cache: the scheduler does, and it must see every attempt.
    """

    batch_size: int = 1
    """Requests that are answered together. Above 1 the scheduler calls `answer_batch`."""

    batch_wait_s: float = 0.0
    """Seconds without a new request after which a batch that is not full is sent. Above 0 where
    an answer takes so long that it is worth waiting for the next prompt's requests."""

    batches_at_once: int = 1
    """Batches that may be under way at the same time. 1 for a model in this process, which could
    not compute a second one any sooner."""

    batch_window_s: float | None = None
    """Seconds that a batch may take where it is handed over for later; every round of a method is
    one such wait. ``None``: answers come as soon as they can."""

    times_out: bool = True
    """Whether an attempt is given up after `RetryPolicy.attempt_timeout_s`. False for models that
    compute in this process: nobody is on the other side, and giving up would throw work away."""

    deterministic: bool = False
    """Whether one request at temperature 0 always gets one answer, as models that compute in this
    process promise. What does not promise it is checked when a budget leaves room for it."""

    @property
    def samples(self) -> bool:
        """Whether answers are known to vary even at temperature 0 (reasoning models)."""
        return False

    @property
    @abstractmethod
    def name(self) -> str:
        """The backend and model for people, e.g. ``"openai:gpt-4o-mini"``."""

    @property
    @abstractmethod
    def identity(self) -> str:
        """What answers depend on besides the request: part of every cache key. No secrets."""

    @property
    @abstractmethod
    def capabilities(self) -> frozenset[Capability]:
        """What this model can do, as far as is known; `probe` finds out the rest."""

    @property
    def uncertain(self) -> frozenset[Capability]:
        """Capabilities that only a `probe` can confirm."""
        return frozenset()

    async def probe(self, send: Send, wanted: frozenset[Capability]) -> frozenset[Capability]:
        """Find out which of the ``wanted`` uncertain capabilities exist, by sending requests.

        Returns:
            The capabilities of ``wanted`` that were confirmed. An endpoint that accepts a request
            and silently ignores it has not confirmed anything.

        Cost: at most one short request per capability, cached like any other.
        """
        return frozenset()

    @abstractmethod
    async def answer(self, request: Request) -> Reply:
        """One attempt. With ``kind="score"`` the completion holds the target's tokens.

        It sends at most one request that a server may count: budget and rates were reserved for
        one. Where another would succeed at once, raise `AskAgainError`.

        Raises:
            BackendError: The attempt failed; the type says whether another may succeed.
        """

    async def answer_batch(
        self, requests: Sequence[Request]
    ) -> AsyncGenerator[tuple[int, Reply | BackendError], None]:
        """One attempt at several requests.

        Yields:
            The position of a request and its reply, or its failure as a value: each position
            once, in any order, as soon as it is known. What was yielded is kept when the rest is
            cancelled.
        """
        for position, request in enumerate(requests):
            try:
                yield position, await self.answer(request)
            except BackendError as error:
                yield position, error

    async def inspect(self, inspection: Inspection, method: InternalsMethod) -> Findings:
        """Let a method look inside the model (capability ``gradients``).

        The method runs where the model is, off the event loop; cancelling stops it at its next
        chunk of work and frees what it holds.

        Raises:
            CapabilityError: This model, or this kind of model, does not allow what the method does.
        """
        raise _lacks(self, Capability.GRADIENTS)

    def special_spans(self, prompt: Prompt) -> Sequence[FixedSpan]:
        """Spans of a prompt that the model reads as special tokens, and not as text.

        They are held fixed: a mask token that is to be filled, an end-of-text mark.
        """
        return ()

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of token ids (capability ``tokenize``)."""
        raise _lacks(self, Capability.TOKENIZE)

    def count_tokens(self, request: Request) -> int:
        """Prompt tokens of a request, for limits and estimates; may be an estimate."""
        text = "".join(m.text for m in request.prompt.messages) + (request.target or "")
        return len(text.encode()) // 4 + 4 * len(request.prompt.messages)

    @property
    def work(self) -> Mapping[str, int]:
        """Running totals of what was computed, e.g. passes and tokens; empty = not counted.

        The provenance of an attribution has what was added while it ran.
        """
        return {}

    @property
    def price(self) -> Price | None:
        """Price per token, or ``None`` when it is not known."""
        return None

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer (capability ``tokenize``)."""
        raise _lacks(self, Capability.TOKENIZE)

    @property
    def token_table(self) -> TokenTable:
        """Vocabulary and embeddings (capability ``embeddings``)."""
        raise _lacks(self, Capability.EMBEDDINGS)

    async def aclose(self) -> None:  # noqa: B027 - closing nothing is a valid implementation
        """Free connections, threads and memory. Called once."""


def _lacks(backend: Backend, capability: Capability) -> CapabilityError:
    return CapabilityError(
        f"{backend.name} does not offer the capability {capability.value!r}.",
        needed=capability.value,
        backend=backend.name,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Resources:
    """What the session lends to segmenters, perturbation strategies and metrics.

    Attributes:
        tokenizer: Returns the tokenizer in use. Raises `EncodingUnavailableError` or
            `CapabilityError` when there is none.
        token_table: Returns vocabulary and embeddings. Raises `CapabilityError` when the backend
            offers none.
        seed: Seed of everything random in this attribution.
    """

    tokenizer: Callable[[], Tokenizer]
    token_table: Callable[[], TokenTable]
    seed: int = 0


class Segmenter(ABC):
    """Cuts a prompt into units that cover what may be perturbed exactly once, in order.

    White space between units belongs to none. Fixed parts of the prompt are in no unit.
    """

    @abstractmethod
    def segment(self, prompt: Prompt, resources: Resources) -> Sequence[Unit]:
        """The units of ``prompt``: ordered, disjoint, non-empty, outside of its fixed spans."""


class PerturbationStrategy(ABC):
    """Renders the prompt for a coalition: says what stands in for absent units."""

    def prepare(  # noqa: B027 - nothing to prepare is a valid implementation
        self, prompt: Prompt, units: Sequence[Unit], resources: Resources
    ) -> None:
        """Called once before the first `render` of an attribution, on a fresh object."""

    @abstractmethod
    def render(self, prompt: Prompt, units: Sequence[Unit], present: NDArray[np.bool_]) -> Prompt:
        """The prompt with each absent unit replaced where it stands.

        Depends on nothing but the arguments and what `prepare` set. All units present gives a
        prompt with the same messages. Coalitions need not be contiguous.

        Args:
            prompt: The whole prompt.
            units: Its units.
            present: ``(n_units,)``, True = kept.
        """


class Metric(ABC):
    """Reference and perturbed completion -> effect.

    An effect is "how much less like the reference the output became": 0 = unchanged, positive =
    the absent units supported the output, negative = they worked against it.
    """

    blocking: ClassVar[bool] = False
    """True when `compare` takes long enough to stall an event loop: then it runs on a thread."""

    def prepare(self, resources: Resources) -> None:  # noqa: B027
        """Called once before the first `compare` of an attribution, on a fresh object."""

    @abstractmethod
    def compare(
        self, reference: Completion, perturbed: Sequence[Completion]
    ) -> NDArray[np.float64]:
        """Effects ``(len(perturbed), 1 + n_output_tokens)``.

        Column 0 is the whole output; column ``1 + t`` is the reference's token ``t``. NaN = not
        defined (for example after the texts diverged). A row does not depend on the other rows.

        Raises:
            IncomparableError: These completions lack what the metric needs.
        """


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tariff:
    """What coalitions cost, where a budget is counted in tokens or dollars.

    Attributes:
        currency: ``"tokens"`` or ``"dollars"``.
        call: Cost of a coalition without any unit, outputs included.
        units: What each present unit adds, ``(n_units,)``. Read-only.
        limit: What all coalitions together may cost.
        max_calls: Coalitions that may be evaluated besides, or ``None``.
    """

    currency: str
    call: float
    units: NDArray[np.float64]
    limit: float
    max_calls: int | None = None

    def of(self, coalitions: NDArray[np.bool_]) -> NDArray[np.float64]:
        """The cost of each coalition of ``(m, n_units)``."""
        result: NDArray[np.float64] = self.call + coalitions @ self.units
        return result

    def calls(self, share: float) -> int:
        """Coalitions that the limit pays for when they hold that share of the units."""
        affordable = int(self.limit // (self.call + share * float(self.units.sum())))
        return affordable if self.max_calls is None else min(affordable, self.max_calls)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Game:
    """What a method may know before it asks for values.

    Attributes:
        n_units: Number of units, at least 1.
        n_columns: Columns of the values. Column 0 is the whole output of the first metric, and
            decides for methods that adapt; further columns are its tokens, then the columns of
            further metrics. Columns are otherwise treated alike.
        groups: Per unit, its (message, paragraph, sentence) numbers, ``(n_units, 3)`` int.
        lengths: Characters of each unit, ``(n_units,)`` int.
        seed: Seed of everything random.
        max_calls: Coalitions that may be evaluated, or ``None``. Safe for any coalitions: where
            the budget is counted in tokens or dollars, each is taken to hold every unit.
        tariff: What coalitions cost, for methods that get more out of such a budget; or ``None``.
        noise: Standard deviation of each column's values, ``(n_columns,)``, that comes from a
            model that answers one prompt in several ways; ``None`` = not measured, or none.
        noise_all: The same for the value of all units, which other values are relative to.
    """

    n_units: int
    n_columns: int
    groups: NDArray[np.int64]
    lengths: NDArray[np.int64]
    seed: int = 0
    max_calls: int | None = None
    tariff: Tariff | None = None
    noise: NDArray[np.float64] | None = None
    noise_all: NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scores:
    """What a method concludes.

    Attributes:
        values: ``(n_columns, n_units)``.
        standard_errors: Same shape, or ``None`` when the method has none.
        details: Plain JSON values worth keeping (levels, thresholds, ...).
        warnings: What a reader of the scores should know.
    """

    values: NDArray[np.float64]
    standard_errors: NDArray[np.float64] | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Inspection:
    """What a method is to find out by looking inside the model.

    Attributes:
        prompt: The whole prompt.
        units: Its units.
        target: What is explained.
        output: What the model wrote, when the target is its own completion; else ``None``.
        seed: Seed of everything random.
    """

    prompt: Prompt
    units: tuple[Unit, ...]
    target: Target
    output: Completion | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Findings:
    """What a look inside the model found.

    Attributes:
        output: The output that was explained, with its tokens.
        function: The scalar that was explained, e.g. ``"logprob"``.
        scores: Values ``(1 + n_output_tokens, n_units)``; row 0 = whole output, NaN = not asked
            for. Positive = the unit supports the output. Details say which passes were run.
        signed: Whether scores have a direction. Norms say only how strongly the output reacts.
        warnings: What a reader of the scores should know.
    """

    output: Completion
    function: str
    scores: Scores
    signed: bool = True
    warnings: tuple[str, ...] = ()


Plan = Generator["NDArray[np.bool_]", "NDArray[np.float64]", Scores]
"""Yields coalitions ``(m, n_units)``, receives values ``(m, n_columns)``, returns scores."""


class Method(ABC):
    """Chooses coalitions and turns measured values into scores; does no input or output.

    Values are ``v(S) = -effect(S)``, so ``v(all units) = 0``. A coalition that is yielded twice is
    evaluated once.
    """

    def calls(self, n_units: int) -> tuple[int, int]:
        """Fewest and most distinct coalitions (the full one not counted) for so many units."""
        return 1, 2**n_units

    @abstractmethod
    def plan(self, game: Game) -> Plan:
        """The generator that the driver runs.

        Raises:
            BudgetTooSmallError: ``game.max_calls`` is below the method's minimum.
        """


class Estimator(Method):
    """A method that can also conclude from coalitions that it did not choose.

    So it can be applied again to what another method has measured.
    """

    @abstractmethod
    def estimate(
        self, game: Game, coalitions: NDArray[np.bool_], values: NDArray[np.float64]
    ) -> Scores:
        """What the method concludes from these values.

        Args:
            game: As for `plan`; its budget counts for nothing.
            coalitions: ``(m, n_units)``, distinct; that of all units may be among them.
            values: ``(m, n_columns)``; NaN = not known.

        Raises:
            ConfigError: The estimator does not suit coalitions like these, or they are too few.
        """


class InternalsMethod(ABC):
    """Looks inside the model instead of perturbing the prompt: gradients, attention, ...

    Registered like any method, by a `MethodSpec` that requires ``gradients``. It does no input or
    output either; the backend calls it on the thread of its model.
    """

    requires: ClassVar[frozenset[Capability]] = frozenset({Capability.GRADIENTS})

    @abstractmethod
    def inspect(self, view: Any) -> Findings:
        """Compute.

        Args:
            view: The prompt, the output and the model as this backend shows them. Its type is the
                backend's: a method is written for the backends whose view it understands.
        """


class ResponseCache(ABC):
    """Stores answers under the canonical hash of their request. Values are opaque bytes.

    `get` and `put` are enough. A class that overrides one of them alone has `get_many` or
    `put_many` built on it, whatever its parents do: no value passes by what it does to values.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for one, many in (("get", "get_many"), ("put", "put_many")):
            if one in cls.__dict__ and many not in cls.__dict__:
                setattr(cls, many, getattr(ResponseCache, many))

    @abstractmethod
    async def get(self, key: str) -> bytes | None:
        """The stored value, or ``None``. A damaged entry is a miss with a warning."""

    @abstractmethod
    async def put(self, key: str, value: bytes) -> None:
        """Store; returns when a crash of the process can no longer lose the value."""

    async def get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        """The stored values of those of the keys that have one.

        By default as many `get` at the same time. A cache that can look many keys up at once
        should do so: the requests of a round are looked up together.
        """
        found: dict[str, bytes | None] = {}

        async def find(key: str) -> None:
            found[key] = await self.get(key)

        await _all_of([find(key) for key in keys])
        return {key: value for key, value in found.items() if value is not None}

    async def put_many(self, values: Mapping[str, bytes]) -> None:
        """Store all; returns when a crash of the process can no longer lose any of them.

        By default as many `put` at the same time. Where it fails, each value is tried alone with
        `put`.
        """
        await _all_of([self.put(key, value) for key, value in values.items()])

    async def aclose(self) -> None:  # noqa: B027 - closing nothing is a valid implementation
        """Write what is pending and free resources. Called once."""


async def _all_of(work: Sequence[Coroutine[Any, Any, None]]) -> None:
    if len(work) == 1:
        await work[0]
        return
    async with asyncio.TaskGroup() as group:
        for one in work:
            group.create_task(one)
