# SPDX-License-Identifier: Apache-2.0
"""`Completion` <-> bytes, for caches. Lossless: a cached answer scores exactly as a fresh one.

Layout: ``b"PZ1"``, CRC-32 of the rest, one byte that names the compression, length of the texts,
the texts (msgpack), then the numbers as they are: float32 where nothing is lost by it (most
servers compute in it), else float64. Compressing the numbers too would cost more time than it
saves space: their low bits are noise. Texts are compressed where there are many of them: for a
few kilobytes it would be the most expensive step of a request.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from pizza.completion import Completion, Usage

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MAGIC = b"PZ1"
_HEAD = struct.Struct("<3sI")
_FORM = struct.Struct("<cI")
_ZLIB = b"z"
_PLAIN = b"n"
_ZLIB_LEVEL = 1
_SHORT = 4096
"""Bytes of texts up to which they are not compressed: about 20 tokens with 20 alternatives."""


class DamagedError(ValueError):
    """These bytes are not a completion."""


class _Texts(msgspec.Struct, array_like=True, gc=False):
    text: str
    tokens: tuple[str, ...]
    alternatives: tuple[tuple[str, ...], ...] | None
    width: int
    logprobs: bool
    single: bool
    finish_reason: str | None
    prompt_tokens: int
    completion_tokens: int
    model: str
    token_ids: tuple[int, ...] | None = None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Texts)


def encode(completion: Completion) -> bytes:
    """The bytes of a completion."""
    logprobs, values = completion.logprobs, completion.alternative_logprobs
    numbers, single = _numbers(logprobs, values)
    texts = _encoder.encode(
        _Texts(
            text=completion.text,
            tokens=completion.tokens,
            alternatives=completion.alternative_tokens,
            width=0 if values is None else values.shape[1],
            logprobs=logprobs is not None,
            single=single,
            finish_reason=completion.finish_reason,
            prompt_tokens=completion.usage.prompt_tokens,
            completion_tokens=completion.usage.completion_tokens,
            model=completion.model,
            token_ids=completion.token_ids,
        )
    )
    kind, packed = _PLAIN, texts
    if len(texts) > _SHORT:
        # zlib, because every Python has it: one cache file serves environments with other packages.
        kind, packed = _ZLIB, zlib.compress(texts, _ZLIB_LEVEL)
    body = b"".join((_FORM.pack(kind, len(packed)), packed, numbers))
    return _HEAD.pack(_MAGIC, zlib.crc32(body)) + body


def _numbers(*arrays: NDArray[np.float64] | None) -> tuple[bytes, bool]:
    """The arrays' bytes, and whether they are float32."""
    there = [array.ravel() for array in arrays if array is not None]
    if not there:
        return b"", True
    wide = np.concatenate(there).astype("<f8", copy=False)
    # Out of range is infinite, and not the same bits any more.
    with np.errstate(over="ignore"):
        narrow = wide.astype("<f4")
    stored: bytes = wide.tobytes()
    if narrow.astype("<f8").tobytes() == stored:
        return narrow.tobytes(), True
    return stored, False


def decode(data: bytes) -> Completion:
    """The completion of these bytes.

    Raises:
        DamagedError: They are not what `encode` made.
    """
    if len(data) < _HEAD.size + _FORM.size:
        raise DamagedError("too short")
    magic, checksum = _HEAD.unpack_from(data)
    body = memoryview(data)[_HEAD.size :]
    if magic != _MAGIC or zlib.crc32(body) != checksum:
        raise DamagedError("the checksum is wrong")
    try:
        kind, length = _FORM.unpack_from(body)
        end = _FORM.size + length
        stored = _decoder.decode(_unpack(kind, bytes(body[_FORM.size : end])))
        return _completion(stored, body[end:])
    except (msgspec.DecodeError, zlib.error, ValueError) as error:
        raise DamagedError(str(error)) from error


def _unpack(kind: bytes, packed: bytes) -> bytes:
    if kind == _PLAIN:
        return packed
    if kind != _ZLIB:
        raise DamagedError(f"compressed by {kind!r}, which this version cannot read")
    return zlib.decompress(packed)


def _completion(stored: _Texts, numbers: memoryview) -> Completion:
    flat = np.frombuffer(numbers, dtype="<f4" if stored.single else "<f8").astype(np.float64)
    flat.setflags(write=False)
    n = len(stored.tokens)
    at = n if stored.logprobs else 0
    alternatives = stored.alternatives
    return Completion(
        text=stored.text,
        tokens=stored.tokens,
        logprobs=flat[:at] if stored.logprobs else None,
        alternative_tokens=alternatives,
        alternative_logprobs=(
            None if alternatives is None else flat[at:].reshape(len(alternatives), stored.width)
        ),
        finish_reason=stored.finish_reason,
        usage=Usage(prompt_tokens=stored.prompt_tokens, completion_tokens=stored.completion_tokens),
        model=stored.model,
        token_ids=stored.token_ids,
    )
