# SPDX-License-Identifier: Apache-2.0
"""``/v1/files`` and ``/v1/batches``: which call of theirs a request is, and its answer."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec
from aiohttp import web

from pizza_embedded.server.batch_options import BatchOptions
from pizza_embedded.server.batches import Answer, Batches
from pizza_embedded.server.errors import unknown_path
from pizza_embedded.server.files import Files
from pizza_embedded.server.stats import Stats

_JSON = {"content-type": "application/json"}
_ROUTES = (
    ("POST", re.compile(r"/v1/files"), "upload"),
    ("GET", re.compile(r"/v1/files"), "list_files"),
    ("GET", re.compile(r"/v1/files/([\w-]+)"), "file"),
    ("DELETE", re.compile(r"/v1/files/([\w-]+)"), "delete"),
    ("GET", re.compile(r"/v1/files/([\w-]+)/content"), "content"),
    ("POST", re.compile(r"/v1/batches"), "create"),
    ("GET", re.compile(r"/v1/batches"), "list_batches"),
    ("GET", re.compile(r"/v1/batches/([\w-]+)"), "retrieve"),
    ("POST", re.compile(r"/v1/batches/([\w-]+)/cancel"), "cancel"),
)


class BatchApi:
    """The calls of the Files and Batches APIs.

    Args:
        options: How batches behave.
        answer: Runs one request.
        stats: Is told what happened.
        endpoints: Paths that batches may be for.
        models: The models that are served.
    """

    def __init__(
        self,
        options: BatchOptions,
        *,
        answer: Answer,
        stats: Stats,
        endpoints: Collection[str],
        models: Collection[str],
    ) -> None:
        self._files = Files(options.max_bytes)
        self._batches = Batches(
            options,
            files=self._files,
            answer=answer,
            stats=stats,
            endpoints=endpoints,
            models=models,
        )
        self._named: dict[str, Callable[[str], dict[str, Any]]] = {
            "file": lambda name: self._files.get(name).to_dict(),
            "delete": self._files.delete,
            "retrieve": self._batches.get,
            "cancel": self._batches.cancel,
        }
        self._stats = stats
        self._hangs = set(options.hang)

    async def aclose(self) -> None:
        """Stop all batches."""
        await self._batches.aclose()

    async def respond(
        self, request: web.BaseRequest, headers: Mapping[str, str]
    ) -> web.StreamResponse:
        """Answer a call.

        Raises:
            ApiError: It is refused.
        """
        call, name = _call(request)
        self._stats.batch_calls[call] += 1
        if call == "content":
            content = self._files.get(name).content
            return await self._send(request, call, content, {**headers, **_BYTES})
        value: dict[str, Any]
        if call == "upload":
            value = await self._files.upload(request)
        elif call == "create":
            value = self._batches.create(await request.read())
        elif call in ("list_files", "list_batches"):
            shown = self._files if call == "list_files" else self._batches
            value = shown.listed(request.query)
        else:
            value = self._named[call](name)
        return await self._send(request, call, msgspec.json.encode(value), headers)

    async def _send(
        self, request: web.BaseRequest, call: str, content: bytes, headers: Mapping[str, str]
    ) -> web.StreamResponse:
        if call not in self._hangs:
            return web.Response(body=content, headers=headers)
        self._hangs.discard(call)
        if call == "content":
            half = web.StreamResponse(headers={**headers, "content-length": str(len(content))})
            await half.prepare(request)
            await half.write(content[: len(content) // 2])
        self._stats.hung[call] += 1
        await asyncio.Event().wait()  # until the client leaves, which cancels this
        raise AssertionError("an event that nobody has was set")


_BYTES = {"content-type": "application/octet-stream"}


def _call(request: web.BaseRequest) -> tuple[str, str]:
    for method, pattern, call in _ROUTES:
        if method == request.method and (found := pattern.fullmatch(request.path)):
            return call, found[1] if found.groups() else ""
    raise unknown_path(request.method, request.path)
