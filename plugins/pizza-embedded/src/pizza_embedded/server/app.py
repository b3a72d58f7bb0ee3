# SPDX-License-Identifier: Apache-2.0
"""The server: what happens to a request between its arrival and its answer."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from aiohttp import web

from pizza_embedded.faults import Fault
from pizza_embedded.inference import Inference, Outcome
from pizza_embedded.ratelimit import Clock, Decision, Quota, RateLimit, make_quota
from pizza_embedded.runtime import ContextTooLong, Runtime
from pizza_embedded.server import chat, completions, responses
from pizza_embedded.server.batch_api import BatchApi
from pizza_embedded.server.batching import Batcher
from pizza_embedded.server.cache import AnswerCache, Rendered
from pizza_embedded.server.errors import (
    ApiError,
    context_exceeded,
    internal,
    rate_limited,
    unknown_model,
    unknown_path,
    wrong_key,
)
from pizza_embedded.server.models import Models
from pizza_embedded.server.options import ServerOptions
from pizza_embedded.server.plan import Plan
from pizza_embedded.server.stats import Stats

Planner = Callable[[bytes, Runtime, Models], Plan]

_PLANNERS: Mapping[str, Planner] = {
    chat.PATH: chat.plan,
    responses.PATH: responses.plan,
    completions.PATH: completions.plan,
}
_JSON = {"content-type": "application/json"}
_NOT_JSON = b"<html><body><h1>502 Bad Gateway</h1></body></html>"
# Long enough for a cancelled handler to unwind, short enough to count as "at once".
_SHUTDOWN_S = 0.1
# What nginx calls a client that left before its answer.
_CLIENT_LEFT = 499


class Server:
    """An OpenAI-compatible server of the embedded model.

    Use `start` and `aclose` from one event loop. `stats` may be read at any time.
    """

    def __init__(
        self,
        options: ServerOptions,
        runtime: Runtime | None = None,
        *,
        clock: Clock = time.monotonic,
    ) -> None:
        """Prepare a server; nothing listens yet.

        Args:
            options: How it behaves.
            runtime: The model, when it is loaded already.
            clock: The time for the rate limits, seconds.
        """
        self.options = options
        self.runtime = runtime or Runtime.load(options.weights)
        self.stats = Stats(time.monotonic)
        self.base_url = ""
        self._models = Models(options.model_name)
        self._inference = Inference(self.runtime)
        self._batcher = Batcher(self._inference)
        self._cache = AnswerCache(options.cache_bytes)
        self._limit = _rate_limit(options, clock)
        self._batch_api = BatchApi(
            options.batches,
            answer=self._answer_line,
            stats=self.stats,
            endpoints=tuple(_PLANNERS),
            models=self._models.all,
        )
        self._runner: web.ServerRunner | None = None
        self._mark = secrets.token_hex(12)
        self._fixed = {
            "/health": lambda: {"status": "ok"},
            "/pizza/stats": self.stats.to_dict,
            "/v1/models": self._list_models,
        }

    async def start(self) -> str:
        """Listen; returns the base URL, ending in ``/v1``.

        Raises:
            OSError: The address cannot be listened on.
        """
        self._batcher.start()
        # A client that leaves takes its request with it: no model time for nobody.
        server = web.Server(self._handle, handler_cancellation=True, access_log=None)
        self._runner = web.ServerRunner(server, shutdown_timeout=_SHUTDOWN_S)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.options.host, self.options.port, backlog=1024)
        try:
            await site.start()
        except OSError:
            await self.aclose()
            raise
        host, port = self._runner.addresses[0][:2]
        self.base_url = f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"
        return self.base_url

    async def aclose(self) -> None:
        """Stop at once: requests in flight are cut off."""
        await self._batch_api.aclose()
        await self._batcher.aclose()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    # --- one request ----------------------------------------------------------------------------

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        status = _CLIENT_LEFT
        try:
            response = await self._respond(request)
            status = 0 if request.transport is None else response.status
        except ApiError as error:
            response = self._refusal(error)
            status = response.status
        except web.HTTPRequestEntityTooLarge:
            response = self._refusal(ApiError(413, "The request is larger than this server reads."))
            status = response.status
        finally:
            self.stats.statuses[status] += 1
        return response

    async def _respond(self, request: web.BaseRequest) -> web.StreamResponse:
        method, path = request.method, request.path
        planner = _PLANNERS.get(path) if method == "POST" else None
        if path.startswith(("/v1/files", "/v1/batches")):
            self._authenticate(request)
            return await self._batch_api.respond(request, _headers({}))
        known = planner is not None or path in self._fixed or path.startswith("/v1/models/")
        self.stats.requests[path if known else "other"] += 1
        if path.startswith("/v1/"):
            self._authenticate(request)
        if planner is not None:
            self.stats.in_flight += 1
            self.stats.max_in_flight = max(self.stats.max_in_flight, self.stats.in_flight)
            try:
                return await self._complete(request, planner)
            finally:
                self.stats.in_flight -= 1
        if method == "GET" and path in self._fixed:
            return self._json(self._fixed[path]())
        if method == "GET" and path.startswith("/v1/models/"):
            return self._json(self._model(path.removeprefix("/v1/models/")))
        raise unknown_path(method, path)

    def _authenticate(self, request: web.BaseRequest) -> None:
        if self.options.api_key is not None:
            given = request.headers.get("authorization", "").removeprefix("Bearer ")
            if not hmac.compare_digest(given.encode(), self.options.api_key.encode()):
                raise wrong_key()

    async def _complete(self, request: web.BaseRequest, planner: Planner) -> web.StreamResponse:
        started = time.monotonic()
        body = await request.read()
        key = _key(request.path, body)
        self.stats.arrived(key)
        todo: Plan | Rendered = self._cache.get(key) or self._plan(body, planner)
        decision = self._admit(todo.reserved_tokens)
        attempt = self.stats.attempt(key)
        ready = started + self.options.latency.seconds(key, attempt)
        fault = self.options.faults.choose(key, attempt)
        if fault is not None:
            self.stats.faults[fault.name] += 1
            ready += fault.seconds
            if fault.kind in ("status", "drop"):
                await _until(ready)
                return _fail(request, fault, decision)
        answer = todo if isinstance(todo, Rendered) else await self._answer(key, todo)
        await _until(ready)
        if self.options.refund_tokens:
            used = answer.prompt_tokens + answer.completion_tokens
            self._limit.give_back(answer.reserved_tokens - used)
        headers = _headers(decision.headers, int(1000 * (time.monotonic() - started)))
        content = answer.with_id(secrets.token_hex(12))
        if fault is not None and fault.kind == "malformed":
            return web.Response(body=_NOT_JSON, headers=headers)
        if fault is not None and fault.kind == "truncate":
            return await _truncated(request, content, headers)
        self.stats.answered(key, answer.prompt_tokens, answer.completion_tokens)
        return web.Response(body=content, headers=headers)

    async def _answer_line(self, path: str, body: bytes) -> bytes:
        """The answer to one request of a batch: no limit, latency or fault of single requests."""
        key = _key(path, body)
        self.stats.arrived(key)
        todo: Plan | Rendered = self._cache.get(key) or self._plan(body, _PLANNERS[path])
        self.stats.attempt(key)
        answer = todo if isinstance(todo, Rendered) else await self._answer(key, todo)
        self.stats.answered(key, answer.prompt_tokens, answer.completion_tokens)
        return answer.with_id(secrets.token_hex(12))

    def _plan(self, body: bytes, planner: Planner) -> Plan:
        plan = planner(body, self.runtime, self._models)
        for job in plan.jobs:
            if (error := self._inference.too_long(job)) is not None:
                raise context_exceeded(error, plan.param)
        return plan

    def _admit(self, tokens: int) -> Decision:
        decision = self._limit.admit(tokens)
        if decision.limited_by is not None:
            self.stats.rate_limited[decision.limited_by] += 1
            by_requests = decision.limited_by == "requests"
            raise rate_limited(
                decision,
                self.options.model_name,
                limit=(self.options.rpm if by_requests else self.options.tpm) or 0,
                requested=1 if by_requests else tokens,
            )
        return decision

    async def _answer(self, key: str, plan: Plan) -> Rendered:
        self.stats.model_jobs += len(plan.jobs)
        outcomes: list[Outcome] = []
        for outcome in await self._batcher.answer(plan.jobs):
            if isinstance(outcome, ContextTooLong):
                raise context_exceeded(outcome, plan.param)
            outcomes.append(outcome)
        rendered = Rendered(
            body=msgspec.json.encode(plan.render(outcomes, plan.prefix + self._mark)),
            mark=self._mark.encode(),
            prompt_tokens=plan.prompt_tokens,
            completion_tokens=sum(len(outcome.tokens) for outcome in outcomes),
            reserved_tokens=plan.reserved_tokens,
        )
        if plan.repeatable:
            self._cache.put(key, rendered)
        return rendered

    # --- small answers --------------------------------------------------------------------------

    def _refusal(self, error: ApiError) -> web.Response:
        return web.Response(status=error.status, body=error.body, headers=_headers(error.headers))

    def _json(self, value: Any) -> web.Response:
        return web.Response(body=msgspec.json.encode(value), headers=_JSON)

    def _list_models(self) -> dict[str, Any]:
        return {"object": "list", "data": [self._model(name) for name in self._models.all]}

    def _model(self, name: str) -> dict[str, Any]:
        if name not in self._models.all:
            raise unknown_model(name)
        return {
            "id": name,
            "object": "model",
            "created": 1_700_000_000,
            "owned_by": "pizza",
            "max_model_len": self.runtime.context_length,
        }


def _rate_limit(options: ServerOptions, clock: Clock) -> RateLimit:
    def quota(per_minute: float | None) -> Quota | None:
        if per_minute is None:
            return None
        return make_quota(options.rate_style, per_minute, clock=clock, burst_s=options.rate_burst_s)

    return RateLimit(
        requests=quota(options.rpm), tokens=quota(options.tpm), announce=options.rate_headers
    )


def _key(path: str, body: bytes) -> str:
    return hashlib.blake2b(path.encode() + b" " + body, digest_size=16).hexdigest()


def _headers(more: Mapping[str, str], elapsed_ms: int = 0) -> dict[str, str]:
    return {
        **_JSON,
        "x-request-id": f"req_{secrets.token_hex(16)}",
        "openai-processing-ms": str(elapsed_ms),
        **more,
    }


def _fail(request: web.BaseRequest, fault: Fault, decision: Decision) -> web.StreamResponse:
    """Answer with an error status, or cut the connection without an answer."""
    if fault.kind == "status":
        raise internal(fault.status, decision.headers)
    if request.transport is not None:
        request.transport.abort()
    # Never sent: the connection is gone.
    return web.Response(status=500)


async def _until(moment: float) -> None:
    """Wait until a moment of the monotonic clock."""
    left_s = moment - time.monotonic()
    if left_s > 0:
        await asyncio.sleep(left_s)


async def _truncated(
    request: web.BaseRequest, content: bytes, headers: Mapping[str, str]
) -> web.StreamResponse:
    """Half of a body that says it is whole, then the end of the connection."""
    response = web.StreamResponse(headers={**headers, "content-length": str(len(content))})
    await response.prepare(request)
    await response.write(content[: len(content) // 2])
    if request.transport is not None:
        request.transport.close()
    return response
