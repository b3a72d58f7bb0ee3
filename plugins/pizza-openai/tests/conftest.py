# SPDX-License-Identifier: Apache-2.0
"""A scripted server on loopback: real HTTP for the real client, and everything a server may do."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from pizza_openai.backend import OpenAIBackend

from pizza.completion import Generation, Reply, Request
from pizza.errors import AskAgainError
from pizza.prompt import Prompt
from pizza.specs import BackendSettings

T = TypeVar("T")

MOST = 4
"""How often the scheduler asks again."""

DROP = b""
HANG = None


async def persisted(attempt: Callable[[], Awaitable[T]]) -> T:
    """What an attempt ends in, made again on `AskAgainError` as the scheduler does."""
    for _ in range(MOST):
        with contextlib.suppress(AskAgainError):
            return await attempt()
    try:
        return await attempt()
    except AskAgainError as error:
        raise error.__cause__ or error from None


class Persistent(OpenAIBackend):
    """A backend whose attempts are made again as the scheduler does, for tests without one."""

    async def answer(self, request: Request) -> Reply:
        return await persisted(lambda: OpenAIBackend.answer(self, request))


@dataclass
class Received:
    """One request as the server saw it."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class Stub:
    """Answers are given in turn; the last one is repeated.

    An answer is a mapping (JSON with status 200), ``(status, mapping or text, headers)``, bytes
    (sent as they are before the connection is closed), ``HANG``, or a function of the request
    that returns one of these.
    """

    url: str = ""
    answers: list[Any] = field(default_factory=list)
    requests: list[Received] = field(default_factory=list)
    connections: int = 0
    models: tuple[str, ...] = ()
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def bodies(self) -> list[Any]:
        return [r.body for r in self.requests if r.method == "POST"]

    def reply(self, *answers: Any) -> None:
        self.answers = list(answers)

    def next(self, request: Received) -> Any:
        if request.path.endswith("/models"):
            return {"data": [{"id": name} for name in self.models]}
        answer = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
        return answer(request) if callable(answer) else answer

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while (request := await _read(reader)) is not None:
                self.requests.append(request)
                self.arrived.set()
                answer = self.next(request)
                if answer is HANG:
                    await reader.read()  # until the client hangs up
                    break
                if isinstance(answer, bytes):
                    writer.write(answer)
                    await writer.drain()
                    break
                writer.write(_encode(answer))
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.connections -= 1
            writer.close()


async def _read(reader: asyncio.StreamReader) -> Received | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    line, *rest = head.strip().split("\r\n")
    method, path, _ = line.split(" ")
    headers = {k.lower(): v for k, v in (h.split(": ", 1) for h in rest)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Received(method, path, headers, json.loads(body) if body else None)


def _encode(answer: Any) -> bytes:
    status, body, headers = answer if isinstance(answer, tuple) else (200, answer, {})
    content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} X", f"content-length: {len(content)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


@pytest.fixture
async def stub() -> AsyncIterator[Stub]:
    made = Stub()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    yield made
    server.close()
    await server.wait_closed()


@pytest.fixture(autouse=True)
def no_key_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def backend(stub: Stub) -> Callable[..., Any]:
    """Opens a backend that talks to the stub: ``async with backend(model=..., api=...) as b``."""

    @asynccontextmanager
    async def opened(
        model: str = "some-model",
        *,
        api_key: Any = None,
        base_url: str | None = None,
        timeout_s: float = 20.0,
        max_concurrency: int = 50,
        **options: Any,
    ) -> AsyncIterator[OpenAIBackend]:
        made = Persistent(
            BackendSettings(
                model=model,
                base_url=base_url or stub.url,
                api_key=api_key,
                timeout_s=timeout_s,
                max_concurrency=max_concurrency,
                options=options,
            )
        )
        try:
            yield made
        finally:
            await made.aclose()

    return opened


@pytest.fixture
def ask() -> Callable[..., Request]:
    """Makes requests: ``ask("text", max_tokens=5)``, ``ask("text", target="...")``."""

    def made(
        prompt: Any = "How many?",
        *,
        target: str | None = None,
        logprobs: bool = True,
        sample: int = 0,
        **generation: Any,
    ) -> Request:
        return Request(
            prompt=Prompt.of(prompt),
            kind="complete" if target is None else "score",
            target=target,
            logprobs=logprobs,
            generation=Generation(**generation),
            sample=sample,
        )

    return made


@pytest.fixture
def chat() -> Callable[..., dict[str, Any]]:
    """A chat answer: ``chat(("5", -0.1, {"5": -0.1, "6": -2.5}), ...)``."""

    def made(
        *tokens: tuple[str, float | None, Any],
        text: str | None = None,
        usage: Any = (9, 2),
        finish_reason: str = "stop",
        **choice: Any,
    ) -> dict[str, Any]:
        written = "".join(t for t, _, _ in tokens) if text is None else text
        answer: dict[str, Any] = {
            "id": "x",
            "object": "chat.completion",
            "model": "some-model-001",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": written, "refusal": None},
                    "logprobs": {"content": [_token(*t) for t in tokens]} if tokens else None,
                    "finish_reason": finish_reason,
                    **choice,
                }
            ],
        }
        if usage is not None:
            answer["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
        return answer

    return made


def _token(text: str, logprob: float | None, top: Any) -> dict[str, Any]:
    if isinstance(top, dict):
        top = [{"token": t, "logprob": v, "bytes": list(t.encode())} for t, v in top.items()]
    elif isinstance(top, tuple):  # a dictionary, as llama-cpp-python sends it
        top = dict(top)
    return {"token": text, "logprob": logprob, "bytes": None, "top_logprobs": top}
