# SPDX-License-Identifier: Apache-2.0
"""A stand-in for a model server, light enough never to be the bottleneck.

It speaks just enough HTTP/1.1 for ``POST .../chat/completions`` on a raw asyncio protocol and
answers with a prepared body. Latency and faults depend on the number that the prompt holds ("#123",
else on a checksum of the body) and on how often it was asked, so they are the same for every
client that is compared.

``python benchmarks/loopback.py --rule bucket-10 --requests-per-minute 600`` prints its port.
``GET /stats`` gives what it counted, as JSON: "abandoned" are requests whose client went away
before they were answered. ``GET /arrivals`` gives when each request came, in seconds.

Its limits are those of `rules`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import re
import signal
import sys
import time
import zlib
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from rules import RULES, Rule, Verdict, make_rule

# --- bodies and headers ------------------------------------------------------------------------


def body(size: str = "large", tokens: int = 16, seed: int = 0) -> bytes:
    """A chat completion: small (no alternatives), compact (20 of them) or large (indented)."""
    rng = random.Random(seed)
    words = ["the", "of", "and", "to", "in", "a", "is", "that", "for", "it", "as", "was", "with"]
    content = []
    for _ in range(tokens):
        ranked = sorted((-rng.expovariate(0.2) for _ in range(20)), reverse=True)
        top = [_token(" " + rng.choice(words), p) for i, p in enumerate(ranked)]
        content.append({**top[0], "top_logprobs": [] if size == "small" else top})
    answer = {
        "id": "chatcmpl-loopback",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "loopback",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "".join(str(c["token"]) for c in content),
                    "refusal": None,
                },
                "logprobs": {"content": content, "refusal": None},
                "finish_reason": "length",
            }
        ],
        "usage": {"prompt_tokens": 50, "completion_tokens": tokens, "total_tokens": 50 + tokens},
        "system_fingerprint": "fp_loopback",
    }
    if size == "large":
        return json.dumps(answer, indent=1).encode()
    return json.dumps(answer, separators=(",", ":")).encode()


def _token(text: str, logprob: float) -> dict[str, object]:
    return {"token": text, "logprob": round(logprob, 8), "bytes": list(text.encode())}


def duration(seconds: float) -> str:
    """A time as OpenAI writes it: ``12ms``, ``1.5s``, ``6m0s``."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}m{rest:.3f}s" if minutes else f"{rest:.3f}s"


# --- the server --------------------------------------------------------------------------------


@dataclass
class Settings:
    """What the server does."""

    rule: Rule = field(default_factory=lambda: Rule(None))
    latency_s: float = 0.0
    sigma: float = 0.0
    headers: bool = True
    retry_after: bool = True
    key: str = ""
    faults: dict[str, float] = field(default_factory=dict)
    slow_s: float = 10.0
    body: bytes = field(default_factory=body)


@dataclass
class Stats:
    """What the server saw."""

    requests: int = 0
    admitted: int = 0
    refused: int = 0
    unauthorized: int = 0
    faults: int = 0
    connections: int = 0
    abandoned: int = 0
    in_flight: int = 0
    max_in_flight: int = 0
    tokens: float = 0.0
    first: float | None = None
    last_admitted: float | None = None
    last_sent: float | None = None
    seen: Counter[int] = field(default_factory=Counter)
    delivered: Counter[int] = field(default_factory=Counter)
    arrivals: array[float] = field(default_factory=lambda: array("d"))

    def summary(self) -> dict[str, object]:
        """As plain JSON values; times are seconds since the first request."""
        first = self.first or 0.0
        plain: dict[str, object] = {
            k: v
            for k, v in vars(self).items()
            if k not in ("seen", "delivered", "arrivals", "first", "last_admitted", "last_sent")
        }
        plain["admitted_s"] = (self.last_admitted or first) - first
        plain["sent_s"] = (self.last_sent or first) - first
        plain["distinct"] = len(self.seen)
        plain["delivered"] = sum(self.delivered.values())
        plain["paid_twice"] = sum(n > 1 for n in self.delivered.values())
        usage = time.process_time()
        plain["server_cpu_s"] = usage
        return plain


def latency(checksum: int, median: float, sigma: float) -> float:
    """The latency of the request with this checksum, log-normal."""
    if not sigma:
        return median
    return median * math.exp(random.Random(checksum).gauss(0.0, sigma))


class Server(asyncio.Protocol):
    """One connection."""

    def __init__(self, settings: Settings, stats: Stats) -> None:
        self.settings = settings
        self.stats = stats
        self.data = b""
        self.unanswered = 0
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client connected."""
        self.transport = transport  # type: ignore[assignment]
        self.stats.connections += 1

    def connection_lost(self, exc: Exception | None) -> None:
        """A client went away."""
        self.transport = None
        self.stats.connections -= 1
        self.stats.abandoned += self.unanswered

    def data_received(self, data: bytes) -> None:
        """Part of a request, or more than one."""
        self.data += data
        while True:
            head, separator, rest = self.data.partition(b"\r\n\r\n")
            if not separator:
                return
            match = re.search(rb"(?i)content-length: *(\d+)", head)
            length = int(match.group(1)) if match else 0
            if len(rest) < length:
                return
            self.data = rest[length:]
            self._request(head, rest[:length])

    def _request(self, head: bytes, content: bytes) -> None:
        if head.startswith(b"GET /stats"):
            self._write(200, json.dumps(self.stats.summary()).encode())
            return
        if head.startswith(b"GET /arrivals"):
            self._write(200, json.dumps(self.stats.arrivals.tolist()).encode())
            return
        settings, stats = self.settings, self.stats
        now = time.monotonic()
        stats.requests += 1
        stats.arrivals.append(now)
        stats.first = stats.first or now
        # "#123" in the prompt names a request, whatever else a client puts around it.
        name = re.search(rb"#(\d+)", content)
        checksum = int(name.group(1)) if name else zlib.crc32(content)
        if settings.key and f"Bearer {settings.key}".encode() not in head:
            stats.unauthorized += 1
            self._write(401, b'{"error": {"message": "wrong key", "code": "invalid_api_key"}}')
            return
        cost = 0.0
        if settings.rule.tokens is not None:
            asked = json.loads(content)
            text = sum(len(m["content"]) for m in asked["messages"])
            cost = text // 4 + (asked.get("max_tokens") or asked.get("max_completion_tokens") or 0)
        verdict = settings.rule.ask(cost, now)
        if not verdict.admitted:
            stats.refused += 1
            said = b'{"error": {"message": "Rate limit reached", "code": "rate_limit_exceeded"}}'
            self._write(429, said, self._headers(verdict))
            return
        stats.admitted += 1
        stats.tokens += cost
        stats.last_admitted = now
        stats.in_flight += 1
        self.unanswered += 1
        stats.max_in_flight = max(stats.max_in_flight, stats.in_flight)
        seen = stats.seen[checksum]
        stats.seen[checksum] += 1
        fault = self._fault(checksum + 7919 * seen)
        wait = latency(checksum, settings.latency_s, settings.sigma)
        if fault == "slow":
            wait += settings.slow_s
        done = partial(self._answer, checksum, fault, self._headers(verdict))
        if wait > 0:
            asyncio.get_running_loop().call_later(wait, done)
        else:
            done()

    def _fault(self, checksum: int) -> str:
        at = random.Random(checksum).random()
        for name, share in self.settings.faults.items():
            if at < share:
                return name
            at -= share
        return ""

    def _answer(self, checksum: int, fault: str, headers: bytes) -> None:
        stats, text = self.stats, self.settings.body
        stats.in_flight -= 1
        self.unanswered -= 1
        stats.last_sent = time.monotonic()
        stats.faults += bool(fault)
        if self.transport is None:
            return
        if fault == "error":
            self._write(500, b'{"error": {"message": "server error"}}', headers)
        elif fault == "drop":
            self.transport.close()
        elif fault == "malformed":
            self._write(200, text[: len(text) // 2] + b"}{", headers)
        elif fault == "truncated":
            self._write(200, text, headers, cut=len(text) // 3)
        else:
            stats.delivered[checksum] += 1
            self._write(200, text, headers)

    def _headers(self, verdict: Verdict) -> bytes:
        parts = []
        if self.settings.headers:
            for kind, limit, remaining, reset in (
                ("requests", verdict.limit_requests, verdict.remaining_requests,
                 verdict.reset_requests_s),
                ("tokens", verdict.limit_tokens, verdict.remaining_tokens, verdict.reset_tokens_s),
            ):  # fmt: skip
                if limit is not None and remaining is not None and reset is not None:
                    parts.append(
                        f"x-ratelimit-limit-{kind}: {limit:.0f}\r\n"
                        f"x-ratelimit-remaining-{kind}: {remaining:.0f}\r\n"
                        f"x-ratelimit-reset-{kind}: {duration(reset)}\r\n"
                    )
        if self.settings.retry_after and not verdict.admitted:
            wait = verdict.retry_after_s
            parts.append(
                f"retry-after-ms: {math.ceil(wait * 1000)}\r\nretry-after: {math.ceil(wait)}\r\n"
            )
        return "".join(parts).encode()

    def _write(self, status: int, text: bytes, headers: bytes = b"", cut: int = 0) -> None:
        if self.transport is None:
            return
        head = (
            f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n"
            f"content-length: {len(text)}\r\n"
        ).encode()
        self.transport.write(head + headers + b"\r\n" + (text[:cut] if cut else text))
        if cut:
            self.transport.close()


async def serve(settings: Settings, port: int = 0) -> tuple[asyncio.Server, int, Stats]:
    """Start on loopback; returns the server, its port and what it counts."""
    stats = Stats()
    server = await asyncio.get_running_loop().create_server(
        lambda: Server(settings, stats), "127.0.0.1", port, backlog=4096
    )
    return server, server.sockets[0].getsockname()[1], stats


async def _main(options: argparse.Namespace, announce: Callable[[str], None]) -> None:
    faults = dict(part.split("=") for part in options.faults.split(",") if part)
    settings = Settings(
        rule=make_rule(
            options.rule,
            options.requests_per_minute,
            options.tokens_per_minute,
            options.tokens_burst,
        ),
        latency_s=options.latency,
        sigma=options.sigma,
        headers=not options.no_headers,
        retry_after=not options.no_retry_after,
        key=options.key,
        faults={name: float(share) for name, share in faults.items()},
        slow_s=options.slow,
        body=body(options.body),
    )
    server, port, _ = await serve(settings, options.port)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    announce(f"{port}\n")
    async with server:
        await stop.wait()


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description="stand-in model server")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--rule", choices=RULES, default="none")
    parser.add_argument("--requests-per-minute", type=float)
    parser.add_argument("--tokens-per-minute", type=float)
    parser.add_argument("--tokens-burst", type=float)
    parser.add_argument("--latency", type=float, default=0.0, help="median, seconds")
    parser.add_argument("--sigma", type=float, default=0.0, help="of the log-normal latency")
    parser.add_argument("--no-headers", action="store_true")
    parser.add_argument("--no-retry-after", action="store_true")
    parser.add_argument("--key", default="", help="the only key that is accepted")
    parser.add_argument("--faults", default="", help="error=0.01,drop=0.01,slow=0.01,...")
    parser.add_argument("--slow", type=float, default=10.0, help="seconds that 'slow' adds")
    parser.add_argument("--body", choices=("small", "compact", "large"), default="large")

    def announce(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    asyncio.run(_main(parser.parse_args(), announce))


if __name__ == "__main__":
    main()
