# SPDX-License-Identifier: Apache-2.0
"""The error tree: what the caller can do about a failure is its type.

::

    PizzaError
     +- ConfigError ........ the call is wrong: fix an argument
     |   +- UnknownNameError     no plugin offers this name
     |   +- CapabilityError      the backend cannot do what a metric, method or target needs
     |   +- BudgetTooSmallError  the method needs more calls than the budget allows
     |   +- EncodingUnavailableError  the tokenizer's ranks cannot be loaded on this machine
     +- PluginError ........ an installed plugin is at fault
     |   +- PluginLoadError, DuplicateNameError, PluginContractError
     +- BackendError ....... the model's side
     |   +- TransientError ..... worth another attempt: RateLimitedError, BackendTimeoutError,
     |   |                       BackendUnavailableError, MalformedResponseError, AskAgainError
     |   +- PermanentError ..... not worth another attempt: AuthError, BadRequestError,
     |                           ContextTooLongError, RefusedError, QuotaExhaustedError
     +- RetriesExhaustedError    every attempt failed; the cause is the last failure
     +- BudgetExceededError      a cap on calls, tokens or money was reached
     +- IncomparableError        a metric cannot compare these completions
     +- CacheError               the response cache cannot be used
     +- SessionClosedError       used before it was opened or after it was closed
     +- ResultFormatError        a saved attribution cannot be read

Messages say what failed, the value, what is accepted and what to do. Everything an error knows is
given when it is made. Keys never appear in a message.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pizza.completion import Usage
    from pizza.limits import RateStatus


class PizzaError(Exception):
    """Root of everything that pizza raises on purpose."""


# --- the call is wrong -----------------------------------------------------------------------


class ConfigError(PizzaError):
    """An argument, option or combination of them is not usable."""


class UnknownNameError(ConfigError):
    """No installed plugin offers this name.

    Attributes:
        kind: What was looked for: ``"metric"``, ``"method"``, ``"backend"``, ...
        name: The name that was asked for.
        known: All names of that kind, sorted.
        suggestions: The nearest known names, best first; may be empty.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], *, hint: str = "") -> None:
        self.kind = kind
        self.name = name
        self.known = tuple(sorted(known))
        self.suggestions = tuple(difflib.get_close_matches(name, self.known, n=3, cutoff=0.5))
        text = f"no {kind} is called {name!r}."
        if self.suggestions:
            text += f" Did you mean {' or '.join(repr(s) for s in self.suggestions)}?"
        text += f" Known: {', '.join(self.known) if self.known else 'none'}."
        super().__init__(f"{text} {hint}".rstrip())


class CapabilityError(ConfigError):
    """The backend cannot do what was asked of it, and something else can.

    Attributes:
        needed: The missing capability's name.
        backend: The backend (and model) that lacks it.
        alternatives: Names that do work with this backend, best first.
    """

    def __init__(
        self, message: str, *, needed: str, backend: str, alternatives: Sequence[str] = ()
    ) -> None:
        self.needed = needed
        self.backend = backend
        self.alternatives = tuple(alternatives)
        super().__init__(message)


class BudgetTooSmallError(ConfigError):
    """The method cannot run within the budget; nothing was sent.

    Attributes:
        needed: Calls that the method needs at least.
        allowed: Calls that the budget allows.
    """

    def __init__(self, message: str, *, needed: int, allowed: int) -> None:
        self.needed = needed
        self.allowed = allowed
        super().__init__(message)


class EncodingUnavailableError(ConfigError):
    """The tokenizer's data is not on this machine and cannot be fetched."""


# --- an installed plugin is at fault ---------------------------------------------------------


class PluginError(PizzaError):
    """An installed plugin is at fault."""


class PluginLoadError(PluginError):
    """A plugin could not be imported or set up; the cause is the original exception.

    Attributes:
        plugin: The entry point's or spec's name.
        distribution: The distribution that it comes from, ``"name version"``, or ``None``.
    """

    def __init__(self, message: str, *, plugin: str, distribution: str | None = None) -> None:
        self.plugin = plugin
        self.distribution = distribution
        super().__init__(message)


class DuplicateNameError(PluginError):
    """Two distributions claim one name.

    Attributes:
        kind: The kind of part, e.g. ``"metric"``.
        name: The contested name.
        distributions: All claimants, as ``"name version"``.
    """

    def __init__(self, kind: str, name: str, distributions: Sequence[str]) -> None:
        self.kind = kind
        self.name = name
        self.distributions = tuple(distributions)
        super().__init__(
            f"the {kind} {name!r} is claimed by {' and by '.join(self.distributions)}. "
            "Uninstall one of them, or name one in PIZZA_DISABLE_PLUGINS."
        )


class PluginContractError(PluginError):
    """A plugin broke its contract: a wrong shape, type or return value."""


# --- the model's side ------------------------------------------------------------------------


class BackendError(PizzaError):
    """The model's side failed.

    Attributes:
        backend: Which backend and model.
        request_id: The server's id of the failed request, or ``None``; its support asks for it.
        status: The HTTP status of its answer, or ``None``; set by whoever raises the error.
    """

    status: int | None = None

    def __init__(self, message: str, *, backend: str = "", request_id: str | None = None) -> None:
        self.backend = backend
        self.request_id = request_id
        super().__init__(message)


class TransientError(BackendError):
    """Another attempt may succeed."""


class RateLimitedError(TransientError):
    """The server said 429 (or its equivalent).

    Attributes:
        retry_after_s: Seconds that the server asked to wait, or ``None``.
        rate: What the server said of its limits in the same answer, or ``None``.
    """

    def __init__(
        self,
        message: str,
        *,
        backend: str = "",
        request_id: str | None = None,
        retry_after_s: float | None = None,
        rate: RateStatus | None = None,
    ) -> None:
        self.retry_after_s = retry_after_s
        self.rate = rate
        super().__init__(message, backend=backend, request_id=request_id)


class BackendTimeoutError(TransientError):
    """No answer in time."""


class BackendUnavailableError(TransientError):
    """The server could not be reached, dropped the connection, or answered 5xx."""


class MalformedResponseError(TransientError):
    """The server answered 200 with a body that cannot be read (cut off, not JSON, no choices)."""


class AskAgainError(TransientError):
    """The request was refused or misread for its form; asked in another way it may succeed at once.

    Backends raise it instead of sending a second request in one attempt: every request is then
    counted, and kept within budget and rates. The scheduler makes the next attempt without a wait,
    and does not count this one as failed. After a few in a row it raises the ``__cause__`` where
    that is a `PermanentError`, and else a `RetriesExhaustedError`.

    Attributes:
        usage: Tokens of an answer that had to be thrown away, or ``None``: it cost none.
    """

    def __init__(
        self,
        message: str,
        *,
        backend: str = "",
        request_id: str | None = None,
        usage: Usage | None = None,
    ) -> None:
        self.usage = usage
        super().__init__(message, backend=backend, request_id=request_id)


class PermanentError(BackendError):
    """Another attempt of the same request would fail the same way."""


class AuthError(PermanentError):
    """The key is missing, wrong, or not allowed to use this model."""


class BadRequestError(PermanentError):
    """The server refused the request as such (400, 404, 422)."""


class ContextTooLongError(PermanentError):
    """The prompt (with the target) does not fit the model's context.

    Attributes:
        limit: The context length, tokens, or ``None`` when the server did not say.
        got: Tokens of the request, or ``None``.
    """

    def __init__(
        self,
        message: str,
        *,
        backend: str = "",
        request_id: str | None = None,
        limit: int | None = None,
        got: int | None = None,
    ) -> None:
        self.limit = limit
        self.got = got
        super().__init__(message, backend=backend, request_id=request_id)


class RefusedError(PermanentError):
    """The model or its content filter declined to answer."""


class NonFiniteError(PermanentError):
    """The model computed NaN or infinity where a number was expected; asking again is no help."""


class QuotaExhaustedError(PermanentError):
    """The account has no quota or credit left (429 ``insufficient_quota``): waiting is no use."""


class RetriesExhaustedError(PizzaError):
    """Every attempt failed; ``__cause__`` is the last failure.

    Attributes:
        attempts: Attempts that were made.
        waited_s: Seconds from the first attempt to giving up.
    """

    def __init__(self, message: str, *, attempts: int, waited_s: float) -> None:
        self.attempts = attempts
        self.waited_s = waited_s
        super().__init__(message)


# --- the rest --------------------------------------------------------------------------------


class BudgetExceededError(PizzaError):
    """A cap was reached; what was paid for is in the cache and is used by the next run.

    Attributes:
        kind: ``"calls"``, ``"tokens"`` or ``"cost"``.
        limit: The cap.
        spent: What was spent or reserved when the request was refused.
    """

    def __init__(self, message: str, *, kind: str, limit: float, spent: float) -> None:
        self.kind = kind
        self.limit = limit
        self.spent = spent
        super().__init__(message)


class IncomparableError(PizzaError):
    """A metric cannot compare these completions (for example: no log-probabilities)."""


class CacheError(PizzaError):
    """The response cache cannot be opened or written."""


class SessionClosedError(PizzaError):
    """The session is not open: used outside of ``async with``, or after it ended."""


class ResultFormatError(PizzaError):
    """A saved attribution cannot be read: wrong schema, damaged, or hostile."""
