# SPDX-License-Identifier: Apache-2.0
"""`LocalBackend`: a torch model of this process as a pizza backend."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pizza.abc import Backend, Findings, Inspection, InternalsMethod, TokenTable
from pizza.capability import Capability
from pizza.completion import Reply, Request
from pizza.errors import BackendError, CapabilityError, PizzaError, SessionClosedError
from pizza.limits import Price
from pizza.prompt import FixedSpan, Prompt
from pizza.worker import Worker
from pizza_local.chunks import is_out_of_memory
from pizza_local.model import LocalModel
from pizza_local.preparing import prepare

if TYPE_CHECKING:
    from pizza_local.counts import Counts

_log = logging.getLogger("pizza.local")


class LocalBackend(Backend):
    """Completes, scores and differentiates with a torch model, on a thread of its own.

    The model is used as it is: it stays where it is, keeps its precision, and belongs to the
    caller. While the backend is open nobody else may use it.

    Example::

        async with pizza.Session(LocalBackend(model, tokenizer)) as session:
            attribution = await session.attribute("...", method="saliency")

    Args:
        model: A model of transformers: a causal language model, an encoder-decoder, a sequence
            classifier, or a masked language model.
        tokenizer: Its (fast) tokenizer.
        name: What to call it; by default the model's own name.
        chat: Whether prompts go through the tokenizer's chat template; ``None`` = where it has one.
        stacked: False: never use the fast gradients of GPT-2 and Llama shapes.

    Raises:
        ConfigError: The tokenizer is another model's, or gives no offsets.
        CapabilityError: A kind of model that is not known.
    """

    batch_size = 4096
    times_out = False
    deterministic = True

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        *,
        name: str = "",
        chat: bool | None = None,
        stacked: bool = True,
    ) -> None:
        self._start(prepare(model, tokenizer, name=name, chat=chat, stacked=stacked))

    @classmethod
    def _of(cls, model: LocalModel) -> LocalBackend:
        """A backend of a model that is prepared already."""
        made = cls.__new__(cls)
        made._start(model)
        return made

    @classmethod
    def from_features(
        cls,
        module: nn.Module,
        vocabulary: Mapping[str, int] | Callable[[str], Sequence[tuple[int, int, int]]],
        labels: Sequence[str],
        *,
        n_features: int | None = None,
        name: str = "module",
    ) -> LocalBackend:
        """A classifier over a plain feature vector, for example a bag of words.

        Args:
            module: ``(b, n_features)`` float counts to logits ``(b, n_labels)``.
            vocabulary: The feature of each (lower-case) word, or a function that gives
                ``(start, end, feature)`` for each occurrence in a text, in order.
            labels: Names of the labels, in the order of the logits.
            n_features: Length of the feature vector, where a function does not tell.
            name: What to call it.
        """
        from pizza_local.modules import feature_model

        return cls._of(feature_model(module, vocabulary, labels, n_features, name))

    @classmethod
    def from_embeddings(
        cls,
        module: nn.Module,
        embedding: nn.Embedding,
        tokenizer: Any,
        labels: Sequence[str],
        *,
        name: str = "module",
    ) -> LocalBackend:
        """A classifier over token embeddings.

        Args:
            module: ``(b, n_tokens, d)`` embeddings to logits ``(b, n_labels)``.
            embedding: Embeds token ids.
            tokenizer: A fast tokenizer of transformers.
            labels: Names of the labels, in the order of the logits.
            name: What to call it.
        """
        from pizza_local.modules import embedding_model

        return cls._of(embedding_model(module, embedding, tokenizer, labels, name))

    def _start(self, model: LocalModel) -> None:
        self._model: LocalModel | None = model
        self._name = model.network.name
        self._identity = f"local:{model.identity()}"
        self._worker = Worker("pizza-local")
        self._table: TokenTable | None = None
        self._last: list[Callable[[], None]] = []
        # A model in training mode drops units at random: no two passes would agree.
        self._training = [m for m in model.network.model.modules() if m.training]
        if self._training:
            _log.warning(
                "%s was in training mode; it is in evaluation mode until closed.", self._name
            )
            model.network.model.eval()

    # --- what it is ---------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """See `Backend.name`."""
        return f"local:{self._name}"

    @property
    def identity(self) -> str:
        """A hash of configuration, weights and tokenizer."""
        return self._identity

    @property
    def capabilities(self) -> frozenset[Capability]:
        """See `Backend.capabilities`; all of them certain."""
        return self._open.kind.offers

    @property
    def price(self) -> Price:
        """Nothing."""
        return Price(prompt=0.0, completion=0.0, source="runs in this process")

    @property
    def counts(self) -> Counts:
        """Passes and tokens of all answers since the model was opened."""
        return self._open.counts

    @property
    def work(self) -> Mapping[str, int]:
        """See `Backend.work`. Methods that look inside count their own, in their details."""
        return self.counts.to_dict()

    @property
    def _open(self) -> LocalModel:
        if self._model is None:
            raise SessionClosedError(f"{self.name} is closed: open it again.")
        return self._model

    # --- answers ------------------------------------------------------------------------------

    async def answer(self, request: Request) -> Reply:
        """See `Backend.answer`."""
        async for _, result in self.answer_batch([request]):
            if isinstance(result, BackendError):
                raise result
            return result
        raise BackendError(f"{self.name} gave no answer.", backend=self.name)

    async def answer_batch(
        self, requests: Sequence[Request]
    ) -> AsyncGenerator[tuple[int, Reply | BackendError], None]:
        """See `Backend.answer_batch`. A cancelled call ends after the chunk being computed."""
        model = self._open

        def work(
            stop: threading.Event, emit: Callable[[tuple[int, Reply | BackendError]], None]
        ) -> None:
            model.answer(requests, stop, emit)

        stream = self._worker.stream(work)
        try:
            async for item in stream:
                yield item
        except (RuntimeError, MemoryError) as error:
            raise self._translated(error) from error
        finally:
            await stream.aclose()

    async def inspect(self, inspection: Inspection, method: InternalsMethod) -> Findings:
        """See `Backend.inspect`."""
        model = self._open
        try:
            return await self._worker.run(lambda stop: model.inspect(inspection, method, stop))
        except (PizzaError, asyncio.CancelledError):
            raise
        except (RuntimeError, MemoryError) as error:
            raise self._translated(error) from error

    def _translated(self, error: BaseException) -> PizzaError:
        if is_out_of_memory(error):
            return BackendError(
                f"{self.name} ran out of memory with a single prompt: {error}. Use a shorter "
                "prompt, a lower precision (dtype=bfloat16), or another device.",
                backend=self.name,
            )
        if isinstance(error, NotImplementedError):
            return CapabilityError(
                f"{self.name} cannot do this: {error}", needed="gradients", backend=self.name
            )
        return BackendError(f"{self.name} failed: {error}", backend=self.name)

    # --- texts and tokens ---------------------------------------------------------------------

    def special_spans(self, prompt: Prompt) -> Sequence[FixedSpan]:
        """See `Backend.special_spans`."""
        return self._open.encoder.special_spans(prompt)

    def decode(self, token_ids: Sequence[int]) -> str:
        """See `Backend.decode`."""
        return self._open.kind.text(token_ids)

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer, as segmenters use it."""
        return self._open.encoder

    @property
    def token_table(self) -> TokenTable:
        """Vocabulary and input embeddings; pieces of characters count as special, not as text."""
        if self._table is None:
            model = self._open
            size = model.network.vocabulary
            texts = model.encoder.vocabulary(size)
            special = set(model.encoder.special)
            special.update(index for index, text in enumerate(texts) if text is None)
            self._table = TokenTable(
                tokens=tuple(text or "" for text in texts),
                embeddings=model.network.table.to("cpu", torch.float32).numpy(),
                special=frozenset(special),
            )
        return self._table

    def on_close(self, action: Callable[[], None]) -> None:
        """Have something done when the backend is closed, once."""
        self._last.append(action)

    async def aclose(self) -> None:
        """End the thread, let go of the model and free what was cached for it."""
        model, self._model, self._table = self._model, None, None
        if model is None:
            return
        await self._worker.aclose()
        while self._last:
            self._last.pop()()
        if self._training:
            # Module by module: some of them may have been in evaluation mode on purpose.
            for module in self._training:
                module.training = True
            self._training = []
            _log.info("%s is in training mode again.", self._name)
        config = getattr(model.network.model, "config", None)
        if config is not None and getattr(config, "pad_token_id", None) == -1:
            # `prepare` set it.
            config.pad_token_id = None
        chunks = model.chunks
        # Nothing here refers to itself: the memory is free at once, without a collection of all
        # that the process holds, which would stall the loop.
        del model
        chunks.release()
