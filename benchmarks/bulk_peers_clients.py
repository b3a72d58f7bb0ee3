# SPDX-License-Identifier: Apache-2.0
"""What others do with the same prompts: each client is a process of its own.

``PYTHON bulk_peers_clients.py NAME WORK`` prints one line of JSON. PYTHON is an interpreter in
which the peer is installed; nothing of pizza is imported here, and nothing but the peer.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bulk_prompts import REQUESTS, prompt, texts
from bulk_used import used


@dataclass(frozen=True)
class Work:
    """What a client has to do: the fields of `bulk_peers.Job`, and where it may write."""

    n: int
    port: int
    folder: str
    rpm: float | None = None
    concurrency: int = 100

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self.port}/v1"

    def requests(self) -> Iterator[str]:
        """The text of every request, prompt after prompt."""
        for number in range(self.n):
            yield from texts(number)


_GENERATION = {"max_tokens": 16, "temperature": 0, "seed": 0, "logprobs": True, "top_logprobs": 20}


# --- the openai-cookbook's pattern ---------------------------------------------------------------


@dataclass
class _Buckets:
    """Requests and tokens of a minute: full at the start, refilled all the time."""

    rpm: float
    tpm: float
    requests: float = field(init=False)
    tokens: float = field(init=False)
    at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.requests, self.tokens = self.rpm, self.tpm

    def take(self, tokens: float) -> bool:
        """Refill both, and take one request if both have enough."""
        now = time.monotonic()
        self.requests = min(self.rpm, self.requests + (now - self.at) * self.rpm / 60)
        self.tokens = min(self.tpm, self.tokens + (now - self.at) * self.tpm / 60)
        self.at = now
        if self.requests < 1 or self.tokens < tokens:
            return False
        self.requests -= 1
        self.tokens -= tokens
        return True


async def cookbook(work: Work) -> dict[str, Any]:
    """One loop with a nap of 1 ms, a task per request, answers appended to a JSONL file.

    As published: five attempts, the next one at once; a pause of 15 s after an error of which the
    code says "429", which is not the code that OpenAI sends. No limit of what is in flight but
    that of aiohttp's pool (100). Nothing is looked up before it is sent.
    """
    import aiohttp

    buckets = _Buckets(work.rpm or 60_000.0, 1e9)
    retries: deque[tuple[str, int]] = deque()
    waiting = ((text, 5) for text in work.requests())
    results = Path(work.folder) / "results.jsonl"
    tasks: set[asyncio.Task[None]] = set()
    limited_at = -15.0

    def append(line: object) -> None:
        with results.open("a") as file:
            file.write(json.dumps(line) + "\n")

    async def call(text: str, attempts: int) -> None:
        nonlocal limited_at
        body = {"model": "m", "messages": [{"role": "user", "content": text}], **_GENERATION}
        try:
            async with session.post(f"{work.url}/chat/completions", json=body) as response:
                answer = await response.json()
        except Exception as error:
            answer = {"error": {"message": str(error)}}
        if "error" not in answer:
            append([body, answer])
            return
        if answer["error"].get("code") == "429":
            limited_at = time.monotonic()
        if attempts > 1:
            retries.append((text, attempts - 1))
        else:
            append([body, [answer]])

    item: tuple[str, int] | None = None
    async with aiohttp.ClientSession() as session:
        while True:
            if item is None:
                item = retries.popleft() if retries else next(waiting, None)
            if item is not None and buckets.take(len(item[0]) // 4 + 16):
                task = asyncio.create_task(call(*item))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                item = None
            elif item is None and not tasks and not retries:
                break
            await asyncio.sleep(0.001)
            if (pause := limited_at + 15 - time.monotonic()) > 0:
                await asyncio.sleep(pause)
    with results.open() as file:
        ok = {line.partition("}],")[0] for line in file if '"choices"' in line}
    return {"ok": len(ok), "version": "(the pattern)"}


# --- bespokelabs-curator -------------------------------------------------------------------------


def curator(work: Work) -> dict[str, Any]:
    """Its OpenAI backend with the limits that it is told.

    ``invalid_finish_reasons`` leaves out "length", its default, which would send every answer that
    ends at ``max_tokens`` eleven times. The limit of tokens is out of reach: it reserves 4,096 of
    them for each answer of a model that it does not know.
    """
    # Its tokenizer's table would be fetched from the web; a package that it needs ships the file.
    litellm = find_spec("litellm")
    assert litellm is not None
    assert litellm.origin is not None
    tables = Path(litellm.origin).parent / "litellm_core_utils" / "tokenizers"
    os.environ.setdefault("TIKTOKEN_CACHE_DIR", str(tables))
    from bespokelabs import curator as library

    logging.disable(logging.CRITICAL)
    model = library.LLM(
        model_name="m",
        backend="openai",
        generation_params=dict(_GENERATION),
        backend_params={
            "base_url": work.url,
            "api_key": "sk-x",
            "max_requests_per_minute": int(work.rpm or 60_000),
            "max_tokens_per_minute": 10**12,
            "max_concurrent_requests": work.concurrency,
            "invalid_finish_reasons": ["content_filter"],
            "require_all_responses": False,
        },
    )
    answers = model(list(work.requests()), working_dir=work.folder).dataset
    ok = sum(bool(text) for text in answers["response"])
    return {"ok": ok, "version": version("bespokelabs-curator")}


# --- mllm-shap -----------------------------------------------------------------------------------


async def mllm_shap(work: Work) -> dict[str, Any]:
    """Leave-one-out over words with its API backend; it explains one prompt per call.

    What surrounds it is what its user has to write: eight prompts at a time over one backend and
    one pool of connections, an archive per prompt, prompts whose archive is complete left out.
    10 retries instead of 3, because it has no limiter. A prompt takes 41 requests: it also asks
    for the empty one.
    """
    import mllm_shap as library
    from mllm_shap.backends.api import ApiBackend

    os.environ["MLLM_SHAP_API_KEY"] = "sk-x"
    logging.disable(logging.CRITICAL)
    config = library.ExplainConfig.model_validate(
        {
            "backend": {"kind": "api", "model_id": "m", "api_host": work.url, "max_retries": 10},
            "generation": {"max_new_tokens": 16},
            "explanation": {
                "estimator": "loo",
                "value_fn": "self_logprob",
                "budget": {"evaluations": REQUESTS + 1},
                "max_inflight": work.concurrency,
                "archive": {"path": work.folder + "/{run_id}"},
            },
        }
    )
    registry = library.default_registry()
    backend = ApiBackend(library.PluginContext(config=config, registry=registry))
    numbers = iter(range(work.n))
    ok = 0

    async def worker(runner: Any) -> None:
        nonlocal ok
        for number in numbers:
            message = library.Message(role=library.Role.USER, text=prompt(number))
            turn = library.Turn(messages=(message,))
            snapshot = library.ConversationSnapshot.from_turns((turn,))
            with contextlib.suppress(library.BackendUnavailableError):
                with contextlib.suppress(library.ArchiveExistsError):
                    await runner.explain(snapshot)
                ok += REQUESTS

    async with (
        library.ExplainRunner(config, registry, backend=backend) as runner,
        asyncio.TaskGroup() as group,
    ):
        for _ in range(8):
            group.create_task(worker(runner))
    return {"ok": ok, "version": version("mllm-shap")}


CLIENTS: dict[str, Callable[[Work], Any]] = {
    "curator": curator,
    "cookbook": cookbook,
    "mllm-shap": mllm_shap,
}


def main() -> None:
    """Do the work, print what it took."""
    client, work = CLIENTS[sys.argv[1]], Work(**json.loads(sys.argv[2]))
    Path(work.folder).mkdir(parents=True, exist_ok=True)
    out, sys.stdout = sys.stdout, sys.stderr
    wall = time.perf_counter()
    found = client(work)
    if asyncio.iscoroutine(found):
        found = asyncio.run(found)
    found |= {"wall_s": time.perf_counter() - wall, **used()}
    print(json.dumps(found), file=out)


if __name__ == "__main__":
    main()
