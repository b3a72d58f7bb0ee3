# SPDX-License-Identifier: Apache-2.0
"""The embedded model as a pizza backend: the model runs on a thread of this process."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pizza.abc import Backend, TokenTable
from pizza.capability import Capability
from pizza.completion import Completion, Reply, Request, Usage, pack_alternatives
from pizza.errors import (
    BackendError,
    BadRequestError,
    ConfigError,
    ContextTooLongError,
    UnknownNameError,
)
from pizza.limits import Price
from pizza.specs import BackendSettings
from pizza.worker import Worker
from pizza_embedded.inference import Inference, Job, Outcome, Token, printable
from pizza_embedded.runtime import ContextTooLong, Runtime

MODELS = ("default",)
BATCH_SIZE = 32


def open_backend(settings: BackendSettings) -> EmbeddedBackend:
    """Open the model that ships inside this distribution.

    Args:
        settings: ``model`` is ``"default"``. The only option is ``weights``, a folder with other
            weights for the same kind of network.

    Raises:
        UnknownNameError: No such model.
        ConfigError: A setting that means nothing here, or a folder without weights.
    """
    if settings.model not in MODELS:
        raise UnknownNameError("embedded model", settings.model, MODELS)
    if settings.base_url is not None:
        raise ConfigError(
            f"the embedded model runs in this process and has no base_url {settings.base_url!r}. "
            "For a server use the backend 'openai', e.g. model='openai:NAME'."
        )
    options = dict(settings.options)
    weights = options.pop("weights", None)
    if options:
        raise ConfigError(
            f"the backend 'embedded' has no option {', '.join(map(repr, sorted(options)))}; "
            "known: 'weights'."
        )
    folder = None if weights is None else Path(weights)
    try:
        runtime = Runtime.load(folder)
    except OSError as error:
        raise ConfigError(
            f"the embedded model's weights cannot be read: {error}. They are part of the "
            "distribution: pip install --force-reinstall pizza-embedded"
            if folder is None
            else f"the folder {str(folder)!r} holds no weights of the embedded model: {error}."
        ) from error
    return EmbeddedBackend(runtime, model=settings.model)


class EmbeddedBackend(Backend):
    """Completes and scores with the small model on one thread; costs nothing."""

    batch_size = BATCH_SIZE
    times_out = False
    deterministic = True

    def __init__(self, runtime: Runtime, *, model: str = "default") -> None:
        """Wrap a loaded model.

        Args:
            runtime: The model.
            model: What it is called.
        """
        self.runtime = runtime
        self._model = model
        self._inference = Inference(runtime)
        self._worker = Worker("pizza-embedded")
        self._tokenizer = EmbeddedTokenizer(runtime)
        self._table: TokenTable | None = None

    @property
    def name(self) -> str:
        """See `Backend.name`."""
        return f"embedded:{self._model}"

    @property
    def identity(self) -> str:
        """The weights' own hash: other weights are another model."""
        return f"embedded:{self.runtime.identity}"

    @property
    def capabilities(self) -> frozenset[Capability]:
        """See `Backend.capabilities`; all of them certain."""
        return frozenset(
            {
                Capability.COMPLETE,
                Capability.LOGPROBS,
                Capability.ALTERNATIVES,
                Capability.SCORE,
                Capability.TOKENIZE,
                Capability.EMBEDDINGS,
            }
        )

    @property
    def price(self) -> Price:
        """Nothing."""
        return Price(prompt=0.0, completion=0.0, source="runs in this process")

    async def answer(self, request: Request) -> Reply:
        """See `Backend.answer`."""
        (reply,) = await self._answers([request])
        if isinstance(reply, BackendError):
            raise reply
        return reply

    async def answer_batch(
        self, requests: Sequence[Request]
    ) -> AsyncGenerator[tuple[int, Reply | BackendError], None]:
        """See `Backend.answer_batch`. A cancelled call stops after the jobs being computed."""
        for position, result in enumerate(await self._answers(requests)):
            yield position, result

    async def _answers(self, requests: Sequence[Request]) -> Sequence[Reply | BackendError]:
        return await self._worker.run(lambda stop: self._answer(requests, stop))

    def count_tokens(self, request: Request) -> int:
        """Tokens of the templated prompt and the target, exactly."""
        try:
            return len(self._prompt(request)) + len(self._encode(request.target or ""))
        except BadRequestError:
            return super().count_tokens(request)

    @property
    def tokenizer(self) -> EmbeddedTokenizer:
        """The model's tokenizer."""
        return self._tokenizer

    @property
    def token_table(self) -> TokenTable:
        """Vocabulary and embeddings; pieces of characters count as special, not as text."""
        if self._table is None:
            tokenizer = self.runtime.tokenizer
            data = [tokenizer.token_bytes(token) for token in range(self.runtime.vocab_size)]
            special = set(self._inference.special)
            special.update(token for token, piece in enumerate(data) if not _is_text(piece))
            self._table = TokenTable(
                tokens=tuple(map(printable, data)),
                embeddings=self.runtime.embeddings,
                special=frozenset(special),
            )
        return self._table

    async def aclose(self) -> None:
        """End the thread."""
        await self._worker.aclose()

    def _answer(
        self, requests: Sequence[Request], stop: threading.Event
    ) -> list[Reply | BackendError]:
        results: list[Reply | BackendError | None] = [None] * len(requests)
        jobs: list[Job] = []
        places: list[int] = []
        for place, request in enumerate(requests):
            try:
                jobs.append(self._job(request))
                places.append(place)
            except BadRequestError as error:
                results[place] = error
        for place, job, outcome in zip(
            places, jobs, self._inference.answer(jobs, stop), strict=True
        ):
            if isinstance(outcome, ContextTooLong):
                results[place] = self._too_long(outcome)
            else:
                results[place] = Reply(completion=self._completion(requests[place], job, outcome))
        return [result for result in results if result is not None]

    def _job(self, request: Request) -> Job:
        generation = request.generation
        if generation.extra:
            raise BadRequestError(
                f"the embedded model takes no extra fields, not {', '.join(generation.extra)}: "
                "remove them from Generation.extra.",
                backend=self.name,
            )
        return Job(
            prompt=self._prompt(request),
            target=None if request.target is None else self._encode(request.target),
            max_tokens=generation.max_tokens,
            temperature=generation.temperature,
            # Repeats of a seeded request are other draws, and the same ones in every run.
            seed=None if generation.seed is None else generation.seed + request.sample,
            top=generation.top_logprobs if request.logprobs else 0,
            stop=generation.stop,
        )

    def _prompt(self, request: Request) -> list[int]:
        messages = [(message.role, message.text) for message in request.prompt.messages]
        try:
            ids, _ = self.runtime.apply_chat_template(messages, add_generation_prompt=True)
        except ValueError as error:
            raise BadRequestError(
                f"the embedded model cannot read this prompt: {error}.", backend=self.name
            ) from error
        return ids

    def _encode(self, text: str) -> list[int]:
        return self.runtime.tokenizer.encode(text)

    def _completion(self, request: Request, job: Job, outcome: Outcome) -> Completion:
        n_target = 0 if job.target is None else len(job.target)
        usage = Usage(
            prompt_tokens=len(job.prompt) + n_target,
            completion_tokens=0 if n_target else len(outcome.tokens),
        )
        texts = values = None
        if job.top:
            texts, values = pack_alternatives([_named(token) for token in outcome.tokens])
        return Completion(
            text=outcome.text,
            tokens=tuple(printable(token.data) for token in outcome.tokens),
            logprobs=_logprobs(outcome.tokens) if request.logprobs else None,
            alternative_tokens=texts,
            alternative_logprobs=values,
            finish_reason=outcome.finish_reason if job.target is None else None,
            usage=usage,
            model=self.identity,
        )

    def _too_long(self, error: ContextTooLong) -> ContextTooLongError:
        return ContextTooLongError(
            f"the prompt (with its target) has {error.got} tokens and {self.name} reads at most "
            f"{error.limit}: shorten the prompt.",
            backend=self.name,
            limit=error.limit,
            got=error.got,
        )


class EmbeddedTokenizer:
    """The model's tokenizer as pizza's segmenters use it."""

    def __init__(self, runtime: Runtime) -> None:
        self.name = "embedded"
        self.runtime = runtime

    def spans(self, text: str) -> Sequence[tuple[int, int]]:
        """Code-point spans that tile ``text``; pieces of one character are merged."""
        _, spans = self.runtime.tokenizer.encode_with_offsets(text)
        return [(start, end) for start, end in spans if end > start]

    def count(self, text: str) -> int:
        """Number of tokens of ``text``."""
        return len(self.runtime.tokenizer.encode(text))


def _logprobs(tokens: Sequence[Token]) -> NDArray[np.float64]:
    # A token after a template always has something before it, and so a log-probability.
    return np.array([token.logprob for token in tokens], dtype=np.float64)


def _named(token: Token) -> list[tuple[str, float]]:
    return [(printable(data), value) for _, data, value in token.top]


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
