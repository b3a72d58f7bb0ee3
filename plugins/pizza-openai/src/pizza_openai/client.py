# SPDX-License-Identifier: Apache-2.0
"""The real openai client, set up for many concurrent requests that somebody else retries."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

import httpx2
import openai

from pizza_openai import urls
from pizza_openai.keys import KeyRing


class Client(openai.AsyncOpenAI):
    """`openai.AsyncOpenAI` without the headers that describe this machine.

    They are sent with every request, and merging them costs a tenth of the client's CPU time.
    """

    def platform_headers(self) -> dict[str, str]:
        """None."""
        return {}


def make_client(
    keys: KeyRing,
    *,
    base_url: str,
    http: str,
    max_concurrency: int,
    timeout_s: float,
    organization: str | None = None,
    project: str | None = None,
    default_headers: Mapping[str, str] | None = None,
) -> Client:
    """A client whose pool holds ``max_concurrency`` connections and which never retries.

    Args:
        keys: Asked for the key before each request.
        base_url: Where the server is.
        http: ``"aiohttp"`` or ``"httpx"``. Without aiohttp installed it is ``"httpx"``.
        max_concurrency: Connections.
        timeout_s: Seconds for an attempt.
        organization: OpenAI's organization id.
        project: OpenAI's project id.
        default_headers: Sent with every request.
    """
    http_client: httpx2.AsyncClient
    if http == "aiohttp" and importlib.util.find_spec("aiohttp") is not None:
        from pizza_openai.transport import DirectClient

        http_client = DirectClient(max_connections=max_concurrency, timeout_s=timeout_s)
    else:
        http_client = openai.DefaultAsyncHttpxClient(
            limits=httpx2.Limits(
                max_connections=max_concurrency, max_keepalive_connections=max_concurrency
            ),
            timeout=httpx2.Timeout(timeout_s, connect=min(10.0, timeout_s)),
            follow_redirects=False,
        )
    headers: dict[str, Any] = {"Accept-Encoding": _encodings(base_url), **(default_headers or {})}
    client = Client(
        api_key=keys.fixed or keys.get,
        base_url=base_url,
        organization=organization,
        project=project,
        default_headers=headers,
        max_retries=0,
        timeout=timeout_s,
        http_client=http_client,
    )
    # Otherwise the first request starts a thread that finds out the operating system's name.
    client._platform = "Unknown"
    return client


def _encodings(base_url: str) -> str:
    # Compressing for a loopback connection costs both sides time and saves nothing.
    return "identity" if urls.is_loopback(httpx2.URL(base_url).host) else "gzip, deflate"
