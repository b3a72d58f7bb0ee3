# SPDX-License-Identifier: Apache-2.0
"""What went wrong, in pizza's terms: each vendor exception and HTTP status gets its type here."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from typing import Any

import httpx2
import openai

from pizza.completion import Usage
from pizza.errors import (
    AskAgainError,
    AuthError,
    BackendError,
    BackendTimeoutError,
    BackendUnavailableError,
    BadRequestError,
    CapabilityError,
    ContextTooLongError,
    MalformedResponseError,
    QuotaExhaustedError,
    RateLimitedError,
    RefusedError,
)
from pizza_openai.headers import rate_status, retry_after
from pizza_openai.keys import KeyRing

TEXT_METRICS = ("exact-match", "edit-distance", "rouge-l", "jaccard", "cosine")
"""Metrics that compare texts and need no log-probabilities."""

KNOWN: dict[type[Exception], type[BackendError]] = {
    openai.APITimeoutError: BackendTimeoutError,
    openai.APIConnectionError: BackendUnavailableError,
    openai.BadRequestError: BadRequestError,
    openai.AuthenticationError: AuthError,
    openai.OAuthError: AuthError,
    openai.PermissionDeniedError: AuthError,
    openai.NotFoundError: BadRequestError,
    openai.ConflictError: BackendUnavailableError,
    openai.UnprocessableEntityError: BadRequestError,
    openai.RateLimitError: RateLimitedError,
    openai.InternalServerError: BackendUnavailableError,
    openai.APIStatusError: BadRequestError,
    openai.APIResponseValidationError: MalformedResponseError,
    openai.APIError: BackendUnavailableError,
    openai.LengthFinishReasonError: BadRequestError,
    openai.ContentFilterFinishReasonError: RefusedError,
    openai.InvalidWebhookSignatureError: BadRequestError,
    openai.WebSocketConnectionClosedError: BackendUnavailableError,
    openai.WebSocketQueueFullError: BackendUnavailableError,
    openai.OpenAIError: BadRequestError,
    httpx2.TimeoutException: BackendTimeoutError,
    httpx2.DecodingError: MalformedResponseError,
    httpx2.HTTPError: BackendUnavailableError,
    httpx2.InvalidURL: BadRequestError,
    json.JSONDecodeError: MalformedResponseError,
    OSError: BackendUnavailableError,
    ValueError: BadRequestError,
}
"""The type for each vendor exception that carries no status; subclasses count as their base."""

_CONTEXT = re.compile(
    r"context[_ ](?:length|window|size)|exceed_context|string_above_max_length|"
    r"prompt is too long|too many tokens|input (?:tokens|length) .{0,40}exceed",
    re.IGNORECASE,
)
_LIMIT = (
    r"(?:context|model)[\w ]{0,40}?(?:length|window|size|len)[^\d]{0,20}?(\d+)",
    r"n_ctx\D{0,4}(\d+)",
)
_GOT = (
    r"resulted in (\d+) tokens",
    r"requested (?:tokens \()?(\d+)",
    r"(?:request|prompt|input)[\w ]{0,40}? (?:has|contains|is) (\d+)",
    r"n_prompt_tokens\D{0,4}(\d+)",
    r"request \((\d+) tokens\)",
)
_QUOTA = re.compile(
    r"insufficient_quota|billing_hard_limit|exceeded your current quota|"
    r"insufficient (?:credit|balance)",
    re.IGNORECASE,
)
_FILTER = re.compile(
    r"content_filter|content_policy|content management policy|invalid_prompt", re.IGNORECASE
)
_NO_MODEL = (
    r"model_not_found|(?:unknown|no such|invalid) model|model .{0,100}(?:not found|not exist)"
)
_LONGEST = 500  # characters of a vendor's message that are shown
_LONGEST_READ = 10_000
_LONGEST_ID = 100


class LacksCapabilityError(BadRequestError, CapabilityError):
    """The server answered, and showed that it cannot do this.

    A `CapabilityError`, because something else works; a permanent `BackendError`, because another
    attempt would end the same way.
    """

    def __init__(self, message: str, *, needed: str, backend: str) -> None:
        # Not super(): the two bases take different arguments.
        Exception.__init__(self, message)
        self.needed = needed
        self.alternatives = TEXT_METRICS
        self.backend = backend
        self.request_id = None


class UnknownModelError(BadRequestError):
    """The server has no such model (or the base URL is not that of its API)."""


class ServerFaultError(BackendUnavailableError):
    """The server answered 5xx: it is there, and it failed at this request."""


class Failure:
    """The readable part of an error answer.

    Attributes:
        status: The HTTP status.
        message: The vendor's message, keys removed, shortened.
        code: Its code or type, or ``""``.
        param: The request field that it is about, or ``""``.
        raw: All of the body as text, keys removed, for matching.
        headers: The answer's headers.
        request_id: The server's id of the request, or ``None``.
    """

    __slots__ = ("code", "headers", "message", "param", "raw", "request_id", "status")

    def __init__(self, status: int, body: object, headers: Mapping[str, str], keys: KeyRing):
        self.status = status
        self.headers = headers
        name = headers.get("x-request-id")
        self.request_id = keys.scrub(name[:_LONGEST_ID]) if name and name.isprintable() else None
        inner = body
        if isinstance(body, list) and body:
            inner = body[0]
        if isinstance(inner, Mapping):
            inner = inner.get("error", inner)
        message: Any = inner
        self.code = self.param = ""
        if isinstance(inner, Mapping):
            message = inner.get("message") or inner.get("detail") or inner
            self.code = " ".join(
                str(inner[k]) for k in ("code", "type") if inner.get(k) is not None
            )
            self.param = str(inner.get("param") or "")[:_LONGEST]
        if not isinstance(message, str):
            message = "" if message is None else json.dumps(message, default=str)
        self.code = keys.scrub(self.code[:_LONGEST])
        message = keys.scrub(" ".join(message[:_LONGEST_READ].split()))
        self.message = message if len(message) <= _LONGEST else message[:_LONGEST] + "..."
        text = body if isinstance(body, str) else json.dumps(body, default=str)
        self.raw = keys.scrub(text[:_LONGEST_READ])

    @property
    def said(self) -> str:
        """Status, the server's id of the request, and its message."""
        name = f" (request {self.request_id})" if self.request_id else ""
        return f"HTTP {self.status}{name}: {self.message or 'no message'}"

    @property
    def is_unknown_model(self) -> bool:
        """Whether the server says that there is no such model (or no such path)."""
        return self.status == 404 or (self.status == 400 and self.mentions(_NO_MODEL))

    def mentions(self, pattern: str) -> bool:
        """Whether the message, code or field matches, letter case ignored."""
        return bool(re.search(pattern, f"{self.message} {self.code} {self.param}", re.IGNORECASE))


class Translator:
    """Makes pizza's errors out of vendor exceptions, for one backend.

    Args:
        name: The backend's name.
        url: The base URL, without secrets.
        keys: What must not appear in messages.
    """

    def __init__(self, *, name: str, url: str, keys: KeyRing) -> None:
        self.name = name
        self.url = url
        self.keys = keys

    def failure(self, error: openai.APIStatusError) -> Failure:
        """The readable part of a status error."""
        return Failure(error.status_code, error.body, error.response.headers, self.keys)

    def error(self, error: Exception) -> BackendError:
        """The pizza error for any exception of the HTTP stack."""
        if isinstance(error, openai.APIStatusError):
            return self.status_error(self.failure(error))
        if isinstance(error, openai.APIConnectionError | httpx2.HTTPError):
            return self._connection(error)
        kind = self._kind(error)
        text = self.keys.scrub(str(error))[:_LONGEST]
        return kind(f"{self.name}: {type(error).__name__}: {text}", backend=self.name)

    def _kind(self, error: Exception) -> type[BackendError]:
        for base in type(error).__mro__:
            if base in KNOWN:
                return KNOWN[base]
        return BackendUnavailableError

    def _connection(self, error: Exception) -> BackendError:
        cause = error
        if isinstance(error, openai.APIConnectionError) and isinstance(error.__cause__, Exception):
            cause = error.__cause__
        detail = self.keys.scrub(str(cause) or type(cause).__name__)[:_LONGEST]
        kind = self._kind(error)
        if isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.ProxyError):
            what = f"could not connect to {self.url} ({detail})"
            what += ": check the base URL, that the server runs, and the proxy or firewall"
            if isinstance(cause, httpx2.ConnectError):
                kind = BackendUnavailableError
        elif isinstance(cause, httpx2.TimeoutException):
            kind = BackendTimeoutError
            what = f"no answer from {self.url} in time"
        elif isinstance(cause, httpx2.DecodingError) or _cut_off(cause):
            kind = MalformedResponseError
            what = f"the answer from {self.url} was cut off or damaged ({detail})"
        else:
            what = f"the connection to {self.url} broke ({detail})"
        return kind(f"{self.name}: {what}.", backend=self.name)

    def status_error(self, failure: Failure) -> BackendError:
        """The pizza error for an error answer."""
        found = self._of_status(failure)
        found.status = failure.status
        return found

    def _of_status(self, failure: Failure) -> BackendError:
        status = failure.status
        text = f"{self.name}: {failure.said}"
        common: dict[str, Any] = {"backend": self.name, "request_id": failure.request_id}
        if status == 402 or (status in (403, 429) and _QUOTA.search(failure.raw)):
            return QuotaExhaustedError(
                f"{text} (no quota or credit is left: check the account's billing)", **common
            )
        if status in (401, 403):
            return AuthError(
                f"{text} (check the key in OPENAI_API_KEY or api_key=, and that it may use the "
                "model)",
                **common,
            )
        if status == 429:
            return RateLimitedError(
                text,
                retry_after_s=retry_after(failure.headers, failure.message),
                rate=rate_status(failure.headers),
                **common,
            )
        if status >= 500:
            return ServerFaultError(text, **common)
        if status in (408, 409, 425):
            return BackendUnavailableError(text, **common)
        if _CONTEXT.search(failure.raw):
            return ContextTooLongError(
                f"{text} (shorten the prompt, or lower max_tokens)",
                limit=_number(_LIMIT, f"{failure.message} {failure.raw}"),
                got=_number(_GOT, f"{failure.message} {failure.raw}"),
                **common,
            )
        if _FILTER.search(f"{failure.code} {failure.message}"):
            return RefusedError(text, **common)
        if 300 <= status < 400:
            text += f" (redirected to {failure.headers.get('location', '?')}: use that as base URL)"
        return BadRequestError(text, **common)

    def unknown_model(
        self, failure: Failure, *, model: str, path: str, offered: tuple[str, ...]
    ) -> UnknownModelError:
        """There is no such model; ``offered`` are those that the server lists."""
        if offered and model not in offered:
            near = difflib.get_close_matches(model, offered, n=3, cutoff=0.4)
            hint = f"there is no model {model!r}."
            if near:
                hint += f" Did you mean {' or '.join(map(repr, near))}?"
            hint += f" The server offers: {', '.join(sorted(offered)[:20])}"
            hint += ", ..." if len(offered) > 20 else "."
        else:
            hint = (
                f"check the model's name {model!r}, and that the base URL {self.url} ends in the "
                f"API's root (usually /v1): {path} is appended to it."
            )
        found = UnknownModelError(
            f"{self.name}: {failure.said} ({hint})",
            backend=self.name,
            request_id=failure.request_id,
        )
        found.status = failure.status
        return found

    def malformed(self, why: str) -> MalformedResponseError:
        """A 200 answer that cannot be used."""
        return MalformedResponseError(
            f"{self.name}: {self.url} answered with a body that cannot be read: "
            f"{self.keys.scrub(why)[:_LONGEST]}.",
            backend=self.name,
        )

    def refused(self, why: str) -> RefusedError:
        """The model or a filter declined."""
        return RefusedError(
            f"{self.name} declined to answer: {self.keys.scrub(why)[:_LONGEST]}",
            backend=self.name,
        )

    def no_logprobs(self, why: str) -> LacksCapabilityError:
        """The model gives no log-probabilities."""
        return LacksCapabilityError(
            f"{self.name} gives no log-probabilities ({why}). Metrics that work with it: "
            f"{', '.join(TEXT_METRICS)}.",
            needed="logprobs",
            backend=self.name,
        )

    def no_scoring(self, why: str) -> LacksCapabilityError:
        """The server does not return log-probabilities of a given text."""
        return LacksCapabilityError(
            f"{self.name} cannot score a given text: {why}. Metrics that compare what the model "
            "writes still work.",
            needed="score",
            backend=self.name,
        )

    def ask_again(self, error: BackendError, *, usage: Usage | None = None) -> AskAgainError:
        """Another way to ask is known.

        Args:
            error: What there is to say when it is not tried.
            usage: What an answer cost that cannot be used.
        """
        found = AskAgainError(
            f"{error} (asked again in another way)",
            backend=self.name,
            request_id=error.request_id,
            usage=usage,
        )
        found.status = error.status
        found.__cause__ = error
        return found

    def clean(self, error: Exception) -> Exception | None:
        """The exception as it may be kept as a cause, or ``None`` when it would show a key."""
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            return None  # these echo parts of the key, in the message, the body and the response
        return error if self.keys.scrub(str(error)) == str(error) else None


def _cut_off(cause: Exception) -> bool:
    if not isinstance(cause, httpx2.RemoteProtocolError):
        return False
    return type(cause).__name__ == "BodyCutOffError" or "complete message body" in str(cause)


def _number(patterns: tuple[str, ...], text: str) -> int | None:
    for pattern in patterns:
        if match := re.search(pattern, text, re.IGNORECASE):
            return int(match[1])
    return None
