# SPDX-License-Identifier: Apache-2.0
"""A stand-in for a model server whose answers depend on the prompt, and that notes what it is sent.

``POST .../chat/completions`` is answered after ``latency`` seconds with tokens and
log-probabilities that are drawn from a generator seeded by the prompt: equal prompts have equal
answers on every machine. ``seen`` holds, for every request, when it came (monotonic seconds), a
digest of its body, and whether it was answered.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import re
import time
from typing import Any, Self

_WORDS = ["red", "blue", "four", "hats", "one", "box", "the", "a"]


class StandIn:
    """The server. Use as ``async with``.

    Args:
        latency: Seconds until it answers.
        key: The only key that it accepts; empty = any.
    """

    def __init__(self, latency: float = 0.05, key: str = "") -> None:
        self.latency = latency
        self.key = key
        self.seen: list[dict[str, Any]] = []
        self.port = 0
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(re.search(rb"(?i)content-length: *(\d+)", head)[1])
                content = await reader.readexactly(length)
                note = {
                    "at": time.monotonic(),
                    "body": hashlib.sha256(content).hexdigest()[:16],
                    "answered": False,
                }
                self.seen.append(note)
                await asyncio.sleep(self.latency)
                status, body = 200, answer(json.loads(content))
                if self.key and f"Bearer {self.key}".encode() not in head:
                    status, body = 401, b'{"error": {"message": "wrong key", "code": "invalid"}}'
                writer.write(
                    b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\n"
                    b"content-length: %d\r\n\r\n%s" % (status, len(body), body)
                )
                await writer.drain()
                note["answered"] = not writer.is_closing()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def answer(asked: dict[str, Any]) -> bytes:
    """The completion of a request."""
    text = json.dumps(asked["messages"])
    rng = random.Random(text)
    tokens = [" " + rng.choice(_WORDS) for _ in range(3)]
    content = []
    for token in tokens:
        ranked = sorted((-rng.expovariate(0.5) for _ in range(4)), reverse=True)
        names = [token, *(" " + word for word in _WORDS if " " + word != token)][:4]
        top = [
            {"token": name, "logprob": round(p, 6), "bytes": list(name.encode())}
            for name, p in zip(names, ranked, strict=True)
        ]
        content.append({**top[0], "top_logprobs": top})
    return json.dumps(
        {
            "id": "chatcmpl-standin",
            "object": "chat.completion",
            "created": 1_700_000_000,
            "model": asked["model"],
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "".join(tokens)},
                    "logprobs": {"content": content},
                    "finish_reason": "stop",
                }
            ],
            "usage": {"prompt_tokens": 20, "completion_tokens": 3, "total_tokens": 23},
        }
    ).encode()
