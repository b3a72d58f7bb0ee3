# SPDX-License-Identifier: Apache-2.0
"""Requests as lines of an input file, and lines of result files as replies."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from pizza.completion import Reply, Request
from pizza.errors import (
    BackendError,
    BackendUnavailableError,
    BadRequestError,
    MalformedResponseError,
    TransientError,
)
from pizza_openai import wire
from pizza_openai.build import usage_in
from pizza_openai.endpoint import Endpoint, ScoringEndpoint, declined
from pizza_openai.errors import Failure, Translator
from pizza_openai.learned import Learned


class _Response(msgspec.Struct):
    status_code: int = 0
    request_id: str | None = None
    body: msgspec.Raw = msgspec.Raw(b"null")


class _Failure(msgspec.Struct):
    code: str | None = None
    message: str | None = None


class Row(msgspec.Struct):
    """A line of a result file."""

    custom_id: str
    response: _Response | None = None
    error: _Failure | None = None


_STATUSES = (("model_not_found", 404), ("limit", 429), ("server_error", 500), ("internal", 500))
"""What the code of a batch that failed as a whole is like, as the status of a single request."""

_row = msgspec.json.Decoder(Row)


def read_row(line: bytes) -> Row | None:
    """A line, or ``None`` when it cannot be read."""
    try:
        return _row.decode(line)
    except (msgspec.MsgspecError, ValueError):
        return None


@dataclass(slots=True, kw_only=True)
class Ask:
    """A request that wants an answer, and how it is asked for now.

    Attributes:
        request: The request.
        positions: Where its answer is wanted.
        body: The JSON that is sent.
        key: Names body, server and sample: what the journal and the result files know it by.
        dialect: How a target is scored, or ``None`` for a completion.
        attempts: Batches that it was in.
    """

    request: Request
    positions: list[int]
    body: bytes = b""
    key: str = ""
    dialect: str | None = None
    attempts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """No answer yet, and the server has not run the request.

    Attributes:
        why: What to raise when it is not handed over again.
        free: Whether handing over again counts as no attempt.
    """

    why: BackendError
    free: bool = False


class Lines:
    """Writes and reads the lines of one backend.

    Args:
        identity: The backend's: server, kind of endpoint and model.
        endpoint: Makes bodies and reads answers.
        errors: Makes errors.
        learned: What the server taught us.
        path: Path of the endpoint, as lines name it.
    """

    def __init__(
        self,
        *,
        identity: str,
        endpoint: Endpoint,
        errors: Translator,
        learned: Learned,
        path: str,
    ) -> None:
        self.path = path
        self._identity = identity.encode()
        self._endpoint = endpoint
        self._errors = errors
        self._learned = learned

    # --- writing ------------------------------------------------------------------------------

    def prepare(self, ask: Ask) -> BackendError | None:
        """Settle body and key, by what is known of the server now; or say why there is none."""
        request, learned = ask.request, self._learned
        if request.kind == "complete":
            if request.logprobs and not learned.logprobs:
                return self._errors.no_logprobs("known from its name or from an earlier answer")
            body = self._endpoint.body(request)
        else:
            endpoint = self._endpoint
            if not learned.scores or not isinstance(endpoint, ScoringEndpoint):
                return self._errors.no_scoring("its server does not offer it")
            ask.dialect = learned.dialect(endpoint.dialects)
            if ask.dialect is None:
                return self._errors.no_scoring("; ".join(learned.declined.values()))
            body = endpoint.score_body(request, ask.dialect)
        ask.body = wire.encode(body)
        name = b"\0".join(
            (self._identity, self.path.encode(), str(request.sample).encode(), ask.body)
        )
        ask.key = hashlib.sha256(name).hexdigest()[:48]
        return None

    def line(self, ask: Ask) -> bytes:
        """The line of an input file; the body's bytes are those of a single request."""
        head = f'{{"custom_id":"{ask.key}","method":"POST","url":{json.dumps(self.path)},"body":'
        return head.encode() + ask.body + b"}\n"

    # --- reading ------------------------------------------------------------------------------

    def outcome(self, ask: Ask, row: Row) -> Reply | BackendError | Again:
        """What a line of a result file says to a request.

        A line that was run and holds no answer is an error, transient or not: the scheduler, who
        keeps the budget, decides whether to pay for another.
        """
        response = row.response
        try:
            if response is None or not response.status_code:
                return self._not_run(row.error)
            if response.status_code == 200:
                return self._answered(ask, bytes(response.body))
            return self._refused(ask, response)
        except BackendError as error:
            return error

    def _answered(self, ask: Ask, content: bytes) -> Reply | BackendError:
        endpoint, request = self._endpoint, ask.request
        if ask.dialect is None:
            return Reply(completion=endpoint.read(content, request))
        assert isinstance(endpoint, ScoringEndpoint)  # noqa: S101 - or there was no dialect
        completion = endpoint.read_score(content, request, ask.dialect)
        if completion is None:
            return declined(self._learned, endpoint, ask.dialect, usage=usage_in(content))
        self._learned.scoring = ask.dialect
        return Reply(completion=completion)

    def _refused(self, ask: Ask, response: _Response) -> BackendError:
        try:
            body = msgspec.json.decode(response.body)
        except (msgspec.MsgspecError, ValueError):
            body = None
        headers = {"x-request-id": response.request_id} if response.request_id else {}
        said = Failure(response.status_code, body, headers, self._errors.keys)
        error = self._errors.status_error(said)
        if isinstance(error, TransientError):
            return error
        asked: dict[str, Any] = msgspec.json.decode(ask.body)
        if self._learned.learn(said, asked, name=self._errors.name) and self._is_old(ask):
            return self._errors.ask_again(error)
        if ask.request.logprobs and ask.dialect is None and not self._learned.logprobs:
            return self._errors.no_logprobs(f"the server said: {said.message}")
        if said.is_unknown_model:
            return self._errors.unknown_model(
                said, model=self._endpoint.model, path=self._endpoint.path, offered=()
            )
        if ask.dialect is not None and isinstance(error, BadRequestError):
            assert isinstance(self._endpoint, ScoringEndpoint)  # noqa: S101 - it has dialects
            return declined(self._learned, self._endpoint, ask.dialect, refusal=error)
        return error

    def _is_old(self, ask: Ask) -> bool:
        """Whether the request would be written otherwise by now."""
        now = Ask(request=ask.request, positions=[])
        return self.prepare(now) is None and now.key != ask.key

    def _not_run(self, failure: _Failure | None) -> Again:
        code = (failure.code if failure else None) or "no response"
        message = self._errors.keys.scrub((failure.message if failure else None) or "")[:500]
        what = f"a batch ended without an answer: {code} {message}"
        return Again(why=self.unavailable(what.rstrip(" .")))

    # --- errors -------------------------------------------------------------------------------

    def missing(self, unreadable: int) -> BackendError | Again:
        """A batch has ended, and there is no line for a request."""
        if unreadable:
            return MalformedResponseError(
                f"{self._errors.name}: the results of a batch hold {unreadable} lines that "
                "cannot be read, and no answer to this request.",
                backend=self._errors.name,
            )
        return Again(why=self.unavailable("the results of a batch hold no answer to this request"))

    def unavailable(self, what: str) -> BackendUnavailableError:
        """There is no answer now."""
        return BackendUnavailableError(f"{self._errors.name}: {what}.", backend=self._errors.name)

    def rejected(self, errors: Iterable[Any]) -> BackendError:
        """A batch as a whole was not accepted.

        Args:
            errors: The batch's error objects.
        """
        first = next(iter(errors), None)
        code = str(getattr(first, "code", None) or "unknown")
        message = getattr(first, "message", None) or "the server does not say why"
        status = next((status for part, status in _STATUSES if part in code), 400)
        body = {"error": {"message": message, "code": code}}
        said = Failure(status, body, {}, self._errors.keys)
        if said.is_unknown_model:
            return self._errors.unknown_model(
                said, model=self._endpoint.model, path=self._endpoint.path, offered=()
            )
        return self._errors.status_error(said)


def portions(
    lines: Iterable[tuple[Ask, bytes]], *, max_requests: int, max_bytes: int
) -> Iterator[list[tuple[Ask, bytes]]]:
    """Lines in groups that the server takes as one file."""
    group: list[tuple[Ask, bytes]] = []
    size = 0
    for ask, line in lines:
        if group and (len(group) >= max_requests or size + len(line) > max_bytes):
            yield group
            group, size = [], 0
        group.append((ask, line))
        size += len(line)
    if group:
        yield group
