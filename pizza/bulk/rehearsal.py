# SPDX-License-Identifier: Apache-2.0
"""A backend that counts what a model would be asked, and makes the answers up."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING

import numpy as np

from pizza.abc import Backend, ResponseCache, Send, Tokenizer, TokenTable
from pizza.capability import Capability
from pizza.completion import Completion, Reply, Request, Usage
from pizza.errors import BadRequestError, PizzaError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pizza.limits import Price
    from pizza.prompt import FixedSpan, Prompt

_PIECE = re.compile(r"\s*\S+|\s+$")
_probing: ContextVar[bool] = ContextVar("pizza_probing", default=False)


class Rehearsal(Backend):
    """Stands in for a backend: counts with its tokenizer and sends nothing.

    Outputs are as long as they may become. Log-probabilities are drawn from a generator that is
    seeded by the request, so that methods that adapt see something to adapt to.

    Args:
        real: The backend; it stays the caller's to close.
    """

    times_out = False

    def __init__(self, real: Backend) -> None:
        self._real = real
        self.deterministic = real.deterministic

    @property
    def name(self) -> str:
        """See `Backend.name`."""
        return self._real.name

    @property
    def identity(self) -> str:
        """See `Backend.identity`; the same, so that cached answers are found."""
        return self._real.identity

    @property
    def samples(self) -> bool:
        """See `Backend.samples`."""
        return self._real.samples

    @property
    def capabilities(self) -> frozenset[Capability]:
        """See `Backend.capabilities`."""
        return self._real.capabilities - {Capability.GRADIENTS}

    @property
    def uncertain(self) -> frozenset[Capability]:
        """See `Backend.uncertain`."""
        return self._real.uncertain

    @property
    def price(self) -> Price | None:
        """See `Backend.price`."""
        return self._real.price

    @property
    def tokenizer(self) -> Tokenizer:
        """See `Backend.tokenizer`."""
        return self._real.tokenizer

    @property
    def token_table(self) -> TokenTable:
        """See `Backend.token_table`."""
        return self._real.token_table

    def special_spans(self, prompt: Prompt) -> Sequence[FixedSpan]:
        """See `Backend.special_spans`."""
        return self._real.special_spans(prompt)

    def decode(self, token_ids: Sequence[int]) -> str:
        """See `Backend.decode`."""
        return self._real.decode(token_ids)

    def count_tokens(self, request: Request) -> int:
        """See `Backend.count_tokens`."""
        return self._real.count_tokens(request)

    async def probe(self, send: Send, wanted: frozenset[Capability]) -> frozenset[Capability]:
        """What answers in the cache confirm.

        Without them a model is taken not to score, which costs more: it then writes every output.
        """
        token = _probing.set(True)
        try:
            return await self._real.probe(send, wanted)
        except PizzaError:
            return wanted - {Capability.SCORE}
        finally:
            _probing.reset(token)

    async def answer(self, request: Request) -> Reply:
        """A made-up answer.

        Cost: none.
        """
        if _probing.get():
            raise BadRequestError("a rehearsal sends nothing.", backend=self.name)
        counted = self._real.count_tokens(request)
        if request.kind == "score":
            tokens = tuple(_PIECE.findall(request.target or "")) or (request.target or " ",)
            written = 0
        else:
            written = request.generation.max_tokens
            # Prompts that differ have outputs that differ, as a rule: their scores are no repeats.
            bits = _digest(request)
            tokens = tuple(" a" if bits >> (i % 64) & 1 else " b" for i in range(written))
        return Reply(
            completion=Completion(
                text="".join(tokens),
                tokens=tokens,
                logprobs=_made_up(request, len(tokens)) if request.logprobs else None,
                finish_reason="length",
                usage=Usage(prompt_tokens=counted, completion_tokens=written),
                model=self.name,
            )
        )


class Lookup(ResponseCache):
    """Reads a cache and adds nothing to it.

    Args:
        cache: The cache, or ``None``: everything is a miss.
    """

    def __init__(self, cache: ResponseCache | None) -> None:
        self._cache = cache

    async def get(self, key: str) -> bytes | None:
        """See `ResponseCache.get`."""
        return None if self._cache is None else await self._cache.get(key)

    async def get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        """See `ResponseCache.get_many`."""
        return {} if self._cache is None else await self._cache.get_many(keys)

    async def put(self, key: str, value: bytes) -> None:
        """Nothing: made-up answers are not kept."""

    async def put_many(self, values: Mapping[str, bytes]) -> None:
        """Nothing, likewise."""

    async def aclose(self) -> None:
        """Close the cache."""
        if self._cache is not None:
            await self._cache.aclose()


def _digest(request: Request) -> int:
    text = "\0".join(message.text for message in request.prompt.messages)
    digest = hashlib.blake2b(text.encode(errors="replace"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _made_up(request: Request, n: int) -> NDArray[np.float64]:
    return -np.random.default_rng(_digest(request)).exponential(1.0, n)
