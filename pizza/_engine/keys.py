# SPDX-License-Identifier: Apache-2.0
"""The canonical hash of a request: what a cache stores its answer under.

Two requests have one key exactly when a backend would be asked the same thing: the messages, what
is wanted of them, and who is asked. Parts of a prompt that are only for people and for perturbing
(fixed spans, slots, labels) are not in it.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import msgspec

from pizza.errors import ConfigError

if TYPE_CHECKING:
    from pizza.completion import Generation, Request

VERSION = "pizza-key-1"
"""Raised when the same request has to be asked again although nothing in it changed."""

_encode = msgspec.msgpack.Encoder().encode


class KeyMaker:
    """Makes the keys of one backend.

    Args:
        identity: `Backend.identity`.
    """

    __slots__ = ("_identity", "_prefix", "_seen")

    def __init__(self, identity: str) -> None:
        self._identity = identity
        self._seen: tuple[Generation, str, bool] | None = None
        self._prefix = hashlib.sha256()

    def key(self, request: Request) -> str:
        """64 lower-case hexadecimal digits.

        Raises:
            ConfigError: ``generation.extra`` holds something that JSON cannot express.
        """
        seen = self._seen
        # All requests of one attribution share their Generation: its part is hashed once.
        if (
            seen is None
            or seen[0] is not request.generation
            or seen[1] != request.kind
            or seen[2] != request.logprobs
        ):
            self._prefix = hashlib.sha256(self._shared(request))
            self._seen = (request.generation, request.kind, request.logprobs)
        prompt = request.prompt
        # Length-prefixed fields: no two lists of texts have the same bytes.
        fields: tuple[object, ...] = (
            "chat" if prompt.kind == "chat" else "text",
            [(m.role, m.text) for m in prompt.messages],
            request.target,
            request.sample,
        )
        if request.target_ids is not None:
            fields = (*fields, request.target_ids)
        body = _encode(fields)
        digest = self._prefix.copy()
        digest.update(body)
        return digest.hexdigest()

    def _shared(self, request: Request) -> bytes:
        generation = request.generation
        try:
            extra = json.dumps(dict(generation.extra), sort_keys=True, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"generation.extra={dict(generation.extra)!r} cannot be sent as JSON: {error}."
            ) from error
        writing: tuple[object, ...] = ()
        if request.kind == "complete":
            writing = (
                generation.max_tokens,
                float(generation.temperature),
                generation.seed,
                list(generation.stop),
            )
        return _encode(
            (
                VERSION,
                self._identity,
                request.kind,
                request.logprobs,
                generation.top_logprobs if request.logprobs else 0,
                writing,
                extra,
            )
        )
