# SPDX-License-Identifier: Apache-2.0
"""The HTTP client that is given to `openai.AsyncOpenAI`: aiohttp without detours.

The generic client merges headers, cookies, redirects and authentication for every request. Here
each request is complete when the openai client has built it, so it goes straight to aiohttp and
the whole body comes back at once. That is half of the client's CPU time. It also keeps the kinds
of failures apart, which a scheduler needs: a refused connection, a dropped one, a timeout and a
body that was cut off.
"""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import Sequence
from typing import Any

import aiohttp
import httpx2

from pizza_openai.urls import is_loopback

_CONNECT_S = 10.0
_LIMITS = b"x-ratelimit-"
_READ = frozenset(
    b"content-encoding content-type date location retry-after retry-after-ms x-request-id".split()
)
_READ_BUFFER = 1 << 20  # aiohttp's 64 KB pauses and resumes reading many times per large body


class BodyCutOffError(httpx2.RemoteProtocolError):
    """The answer began and its body did not end as announced."""


class DirectClient(httpx2.AsyncClient):
    """An `httpx2.AsyncClient` that sends complete requests over one aiohttp session.

    Redirects are not followed: a POST with a key goes where the user said, and nowhere else.

    Args:
        max_connections: Size of the pool.
        timeout_s: Seconds for a whole attempt.
    """

    def __init__(self, *, max_connections: int, timeout_s: float) -> None:
        self._direct = AiohttpTransport(max_connections=max_connections, timeout_s=timeout_s)
        self._urls: dict[str, httpx2.URL] = {}
        super().__init__(transport=self._direct, timeout=timeout_s, trust_env=False)

    def build_request(self, method: str, url: Any, **kwargs: Any) -> httpx2.Request:
        """A request from exactly what is given."""
        timeout = kwargs.get("timeout")
        known = self._urls.get(str(url))
        if known is None:  # parsing is slow, and there are only a handful of them
            known = self._urls[str(url)] = httpx2.URL(url)
        return httpx2.Request(
            method,
            known,
            params=kwargs.get("params"),
            headers=kwargs.get("headers"),
            content=kwargs.get("content"),
            extensions={"timeout": timeout} if isinstance(timeout, int | float) else {},
        )

    async def send(self, request: httpx2.Request, **_: Any) -> httpx2.Response:
        """Send and read the whole answer."""
        return await self._direct.handle_async_request(request)


class AiohttpTransport(httpx2.AsyncBaseTransport):
    """Requests over an aiohttp session that is opened on first use.

    Args:
        max_connections: Size of the pool.
        timeout_s: Seconds for a whole attempt.
    """

    def __init__(self, *, max_connections: int, timeout_s: float) -> None:
        self._max_connections = max_connections
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None
        self._closed = False
        self._proxies: dict[str, str | None] = {}
        self._timeouts: dict[float, aiohttp.ClientTimeout] = {}

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """One exchange; failures are `httpx2` exceptions, told apart by type."""
        url = request.url
        session = self._session or self._open(url.scheme)
        status = 0
        try:
            async with session.request(
                request.method,
                str(url),
                headers=_pairs(request),
                data=request.content or None,
                allow_redirects=False,
                proxy=self._proxy(url.scheme, url.host),
                timeout=self._timeout(request),
            ) as response:
                status = response.status
                try:
                    body = await response.read()
                except (aiohttp.ClientPayloadError, aiohttp.ClientConnectionError) as error:
                    if status < 400:
                        raise BodyCutOffError(str(error), request=request) from error
                    body = b""  # the status says enough
                return httpx2.Response(
                    status, headers=_wanted(response.raw_headers), content=body, request=request
                )
        except httpx2.HTTPError:
            raise
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _translated(error, request) from error
        except ValueError as error:
            # aiohttp's parser lets a few of these through, e.g. for a bad chunk size.
            raise httpx2.RemoteProtocolError(str(error), request=request) from error

    async def aclose(self) -> None:
        """Close all connections."""
        self._closed = True
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _open(self, scheme: str) -> aiohttp.ClientSession:
        if self._closed:
            raise RuntimeError("the client has been closed.")
        connector = aiohttp.TCPConnector(
            limit=self._max_connections,
            # Reading all certificates takes a while: only where they are used.
            ssl=httpx2.create_ssl_context() if scheme == "https" else True,
            ttl_dns_cache=60,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # httpx2 does it from the headers
            read_bufsize=_READ_BUFFER,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        )
        return self._session

    def _timeout(self, request: httpx2.Request) -> aiohttp.ClientTimeout:
        seconds = request.extensions.get("timeout") or self._timeout_s
        made = self._timeouts.get(seconds)
        if made is None:
            made = aiohttp.ClientTimeout(total=seconds, sock_connect=min(_CONNECT_S, seconds))
            self._timeouts[seconds] = made
        return made

    def _proxy(self, scheme: str, host: str) -> str | None:
        # Not aiohttp's trust_env: that reads ~/.netrc in a thread for every request, and refuses
        # requests that carry their own Authorization header.
        if host not in self._proxies:
            proxy = None
            if not is_loopback(host) and not urllib.request.proxy_bypass(host):
                known = urllib.request.getproxies()
                proxy = known.get(scheme) or known.get("all")
            self._proxies[host] = proxy if proxy and proxy.startswith("http") else None
        return self._proxies[host]


def _pairs(request: httpx2.Request) -> list[tuple[str, str]]:
    return [(k.decode("latin-1"), v.decode("latin-1")) for k, v in request.headers.raw]


def _wanted(headers: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    # Servers behind a content network send thirty headers, and every look-up walks all of them.
    return [
        pair for pair in headers if (name := pair[0].lower()) in _READ or name.startswith(_LIMITS)
    ]


def _translated(error: Exception, request: httpx2.Request) -> httpx2.TransportError:
    text = str(error) or type(error).__name__
    kind: type[httpx2.TransportError] = httpx2.NetworkError
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        kind = httpx2.ConnectTimeout
    elif isinstance(error, TimeoutError | asyncio.TimeoutError):
        kind = httpx2.ReadTimeout
    elif isinstance(error, aiohttp.ClientHttpProxyError | aiohttp.ClientProxyConnectionError):
        kind = httpx2.ProxyError
    elif isinstance(error, aiohttp.ClientConnectorError):
        kind = httpx2.ConnectError
    elif isinstance(error, aiohttp.InvalidURL):
        kind = httpx2.UnsupportedProtocol
    elif isinstance(error, aiohttp.ClientResponseError):
        kind = httpx2.RemoteProtocolError
    elif isinstance(error, aiohttp.ClientConnectionError | OSError):
        kind = httpx2.ReadError
    return kind(text, request=request)
