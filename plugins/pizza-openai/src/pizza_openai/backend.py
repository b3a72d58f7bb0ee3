# SPDX-License-Identifier: Apache-2.0
"""The backend ``openai``: one model at one OpenAI-compatible server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import httpx2
import numpy as np
import openai

from pizza.abc import Backend, Send, Tokenizer
from pizza.capability import Capability
from pizza.completion import Completion, Generation, Reply, Request, Usage
from pizza.errors import (
    AskAgainError,
    BackendError,
    BadRequestError,
    ContextTooLongError,
    EncodingUnavailableError,
    MalformedResponseError,
    RefusedError,
    RetriesExhaustedError,
)
from pizza.limits import Price, RateStatus
from pizza.prompt import Prompt
from pizza.specs import BackendSettings
from pizza.tokenizers import encoding_for, estimate_tokens, is_cached, is_known
from pizza_openai import models, urls, wire
from pizza_openai.build import usage_in
from pizza_openai.chat import ChatEndpoint
from pizza_openai.client import make_client
from pizza_openai.completions import CompletionsEndpoint
from pizza_openai.endpoint import Endpoint, ScoringEndpoint, declined
from pizza_openai.errors import ServerFaultError, Translator, UnknownModelError
from pizza_openai.headers import rate_status
from pizza_openai.keys import KeyRing
from pizza_openai.learned import Learned
from pizza_openai.options import Options
from pizza_openai.responses import ResponsesEndpoint

_log = logging.getLogger("pizza.openai")

_ENDPOINTS: dict[str, type[Endpoint]] = {
    "chat": ChatEndpoint,
    "responses": ResponsesEndpoint,
    "completions": CompletionsEndpoint,
}
_EXCEPTIONS = (openai.OpenAIError, httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError)
_NEAR_NAMES_TIMEOUT_S = 5.0
_LONGEST_ID = 100

# Unlikely in any template or prompt, so that finding it in an answer proves something.
_PROBE_PROMPT = "Zebras graze at"
_PROBE_TARGET = " dawn and also at dusk"


class OpenAIBackend(Backend):
    """A model behind an OpenAI-compatible API.

    Args:
        settings: Model, base URL, key, concurrency, timeout; options as in
            `pizza_openai.options.Options`.

    Raises:
        ConfigError: A setting is not usable. A missing key is reported by the first request, so
            that estimates need none.
    """

    def __init__(self, settings: BackendSettings) -> None:
        self._model = settings.model
        self._options = Options.of(settings.options)
        base_url = urls.resolve(settings.base_url)
        self._url = urls.public(base_url)
        self._official = urls.is_openai(base_url)
        self._keys = KeyRing(settings.api_key, placeholder=not self._official)
        self._errors = Translator(name=self.name, url=self._url, keys=self._keys)
        self._learned = Learned(
            logprobs=not (self._official and models.is_reasoning(self._model)),
            alternatives=not (self._official and models.is_reasoning(self._model)),
        )
        if not self._learned.logprobs:
            self._learned.omitted.add("temperature")
        kind = self._options.api
        if kind == "auto":
            base = self._official and models.is_base(self._model)
            kind = "completions" if base else "chat"
        if kind == "completions" and self._official:
            self._learned.top = 5  # the most that OpenAI's legacy endpoint gives
        self._endpoint = _ENDPOINTS[kind](
            model=self._model, translator=self._errors, learned=self._learned
        )
        # OpenAI offers no scoring for chat models; everywhere else only a request can tell.
        can_score = isinstance(self._endpoint, ScoringEndpoint)
        if not can_score or (self._official and kind == "chat"):
            self._learned.scores = False
        self._client = make_client(
            self._keys,
            base_url=base_url,
            http=self._options.http,
            max_concurrency=settings.max_concurrency,
            timeout_s=settings.timeout_s,
            organization=self._options.organization,
            project=self._options.project,
            default_headers=self._options.default_headers,
        )
        # Absolute: the client would otherwise join it with its base URL for every request.
        path = self._endpoint.path
        self._target = path if "?" in base_url else base_url + path
        self._offered: tuple[str, ...] | None = None
        self._asking_for_names = asyncio.Lock()
        self._count: Callable[[str], int] | None = None

    def __repr__(self) -> str:
        return f"OpenAIBackend({self._model!r}, {self._url!r}, api={self._endpoint.kind!r})"

    # --- what it is ---------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """``"openai:MODEL"``."""
        return f"openai:{self._model}"

    @property
    def samples(self) -> bool:
        """Whether the server takes no temperature, so that its model writes as it likes."""
        return "temperature" in self._learned.omitted

    @property
    def identity(self) -> str:
        """Base URL without secrets, kind of endpoint, model."""
        return f"openai {self._url} {self._endpoint.kind} {self._model}"

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What is known so far; grows with `probe`, shrinks when the server refuses something."""
        learned = self._learned
        found = {Capability.COMPLETE}
        if learned.logprobs:
            found.add(Capability.LOGPROBS)
            if learned.alternatives:
                found.add(Capability.ALTERNATIVES)
        if learned.scores and learned.scoring is not None:
            found.add(Capability.SCORE)
        if is_known(self._model) and is_cached(self._model):
            found.add(Capability.TOKENIZE)
        return frozenset(found)

    @property
    def uncertain(self) -> frozenset[Capability]:
        """Scoring, until it worked or failed; the tokenizer, while its data is not here."""
        found = set()
        if self._learned.scores and self._learned.scoring is None:
            found.add(Capability.SCORE)
        if is_known(self._model) and not is_cached(self._model):
            found.add(Capability.TOKENIZE)
        return frozenset(found)

    async def probe(self, send: Send, wanted: frozenset[Capability]) -> frozenset[Capability]:
        """Find out whether the server scores a given target, and whether the tokenizer loads.

        Cost: one short request for scoring; none for the tokenizer.
        """
        confirmed = set()
        if Capability.SCORE in wanted & self.uncertain and await self._scores(send):
            confirmed.add(Capability.SCORE)
        if Capability.TOKENIZE in wanted & self.uncertain and await self._fetch_encoding():
            confirmed.add(Capability.TOKENIZE)
        return frozenset(confirmed)

    async def _fetch_encoding(self) -> bool:
        executor = ThreadPoolExecutor(1, thread_name_prefix="pizza-openai")
        try:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(executor, encoding_for, self._model)
        except EncodingUnavailableError as error:
            _log.info("%s", error)
            return False
        finally:
            executor.shutdown(wait=False)
        return True

    async def _scores(self, send: Send) -> bool:
        request = Request(
            prompt=Prompt.from_text(_PROBE_PROMPT),
            kind="score",
            target=_PROBE_TARGET,
            generation=Generation(max_tokens=1),
        )
        try:
            answer = await send(request)
        except UnknownModelError:
            raise
        except (BadRequestError, ContextTooLongError, RefusedError) as error:
            _log.info("%s cannot score a given text: %s", self.name, error)
            return False
        except RetriesExhaustedError as error:
            # A server that falls over this kind of request may well answer others.
            if not isinstance(error.__cause__, MalformedResponseError | ServerFaultError):
                raise
            _log.warning("%s failed at scoring a given text: %s", self.name, error)
            return False
        values = answer.logprobs
        honest = (
            values is not None
            and len(values) > 1
            and bool(np.isfinite(values).all())
            and bool((values < 0).any())
            and answer.text.strip() == _PROBE_TARGET.strip()
        )
        if honest and self._learned.scoring is None:
            # The answer came from a cache: which dialect gave it is found out by the next one.
            self._learned.scoring = "unknown"
        return honest

    # --- answering ----------------------------------------------------------------------------

    async def answer(self, request: Request) -> Reply:
        """One attempt: at most one request for the model, over HTTP.

        Raises:
            AskAgainError: The server refused a field, or did not understand one. It is known now,
                and another attempt asks otherwise; that happens a few times per server.
            BackendError: As in `Backend.answer`.
        """
        if request.kind == "score":
            return await self._score(request)
        if request.logprobs and not self._learned.logprobs:
            raise self._errors.no_logprobs("known from its name or from an earlier answer")
        body = partial(self._endpoint.body, request)
        sent, response = await self._post(body, request.logprobs)
        try:
            completion = self._endpoint.read(response.content, request)
        except BackendError as error:
            error.request_id = error.request_id or _id(response)
            raise
        self._check_length(completion, sent, request)
        return _reply(completion, response)

    async def _score(self, request: Request) -> Reply:
        learned, endpoint = self._learned, self._endpoint
        if not learned.scores or not isinstance(endpoint, ScoringEndpoint):
            raise self._errors.no_scoring("its server does not offer it")
        dialect = learned.dialect(endpoint.dialects)
        if dialect is None:
            raise self._errors.no_scoring("; ".join(learned.declined.values()))
        refusal: BackendError | None = None
        usage: Usage | None = None
        try:
            body = partial(endpoint.score_body, request, dialect)
            _, response = await self._post(body, with_logprobs=False)
        except UnknownModelError:
            raise
        except BadRequestError as error:
            refusal = error
        else:
            completion = endpoint.read_score(response.content, request, dialect)
            if completion is not None:
                learned.scoring = dialect
                return _reply(completion, response)
            usage = usage_in(response.content)
        raise declined(learned, endpoint, dialect, refusal=refusal, usage=usage)

    async def _post(
        self, make: Callable[[], dict[str, Any]], with_logprobs: bool
    ) -> tuple[dict[str, Any], httpx2.Response]:
        """Send a body; also gives back what was sent.

        Args:
            make: Makes the body by what is known of the server now.
            with_logprobs: Whether it asks for log-probabilities of the output.
        """
        if not self._keys.present and self._official:
            await self._keys.get()  # raises
        body = make()
        failure: Exception
        try:
            response = await self._client.post(
                self._target,
                cast_to=httpx2.Response,
                content=wire.encode(body),
                options={"security": {"bearer_auth": True}},
            )
        except _EXCEPTIONS as error:
            failure = error
        else:
            return body, response
        # Outside of the handler: an exception raised here has no context that could show a key.
        if isinstance(failure, openai.APIStatusError):
            said = self._errors.failure(failure)
            if self._learned.learn(said, body, name=self.name) and make() != body:
                raise self._errors.ask_again(self._errors.status_error(said))
            if with_logprobs and not self._learned.logprobs:
                raise self._errors.no_logprobs(f"the server said: {said.message}")
            if said.is_unknown_model:
                raise self._errors.unknown_model(
                    said,
                    model=self._model,
                    path=self._endpoint.path,
                    offered=await self._model_names(),
                )
        raise self._errors.error(failure) from self._errors.clean(failure)

    def _check_length(self, completion: Completion, body: dict[str, Any], request: Request) -> None:
        """Raise when the server did not know ``max_completion_tokens`` and wrote on and on."""
        learned, longest = self._learned, request.generation.max_tokens
        if self._official or learned.max_tokens_refused or "max_completion_tokens" not in body:
            return
        usage = completion.usage
        written = max(usage.completion_tokens, len(completion.tokens))
        if written <= longest:
            return
        what = f"{self.name} ignores max_completion_tokens (asked for {longest}, got {written})"
        if learned.max_tokens_field != "max_tokens":
            learned.max_tokens_field = "max_tokens"
            _log.warning("%s: using max_tokens.", what)
        raise AskAgainError(
            f"{what}: max_tokens is tried next.",
            backend=self.name,
            usage=Usage(
                prompt_tokens=usage.prompt_tokens or self.count_tokens(request),
                completion_tokens=written,
            ),
        )

    async def _model_names(self) -> tuple[str, ...]:
        """The server's models, asked for once: a hint for people, which costs nothing."""
        async with self._asking_for_names:
            if self._offered is None:
                self._offered = await self._fetch_names()
        return self._offered

    async def _fetch_names(self) -> tuple[str, ...]:
        try:
            response = await self._client.get(
                "/models",
                cast_to=httpx2.Response,
                options={"timeout": _NEAR_NAMES_TIMEOUT_S, "security": {"bearer_auth": True}},
            )
            listed = wire.models.decode(response.content).data or []
        except Exception:  # only a hint is lost
            return ()
        return tuple(model.id for model in listed)

    # --- counting and paying ------------------------------------------------------------------

    def count_tokens(self, request: Request) -> int:
        """Prompt tokens: exact for OpenAI's models when their encoding is on this machine.

        Three tokens frame each message, one names its role, and three open the answer.
        """
        texts = [m.text for m in request.prompt.messages]
        if request.target:
            texts.append(request.target)
        overhead = 4 * len(texts) + 3 if self._endpoint.kind != "completions" else 0
        count = self._counter()
        return overhead + sum(count(text) for text in texts)

    def _counter(self) -> Callable[[str], int]:
        if self._count is not None:
            return self._count
        if not is_cached(self._model):
            return estimate_tokens  # for now: a probe may fetch the encoding
        try:
            self._count = encoding_for(self._model).count
        except EncodingUnavailableError:
            self._count = estimate_tokens
        return self._count

    @property
    def price(self) -> Price | None:
        """The user's price, or the bundled list price at OpenAI's own service."""
        if self._options.price is not None:
            return self._options.price
        return models.price_of(self._model) if self._official else None

    @property
    def tokenizer(self) -> Tokenizer:
        """Tiktoken's encoding of the model."""
        if not is_known(self._model):
            return super().tokenizer
        return encoding_for(self._model)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.close()


def _reply(completion: Completion, response: httpx2.Response) -> Reply:
    return Reply(completion=completion, rate=_rate(response), request_id=_id(response))


def _id(response: httpx2.Response) -> str | None:
    for name, value in response.headers.raw:
        if name.lower() == b"x-request-id":
            return value.decode("latin-1")[:_LONGEST_ID]
    return None


def _rate(response: httpx2.Response) -> RateStatus | None:
    headers = {
        name.decode("latin-1").lower(): value.decode("latin-1")
        for name, value in response.headers.raw
        if name[:12].lower() == b"x-ratelimit-"
    }
    return rate_status(headers) if headers else None
