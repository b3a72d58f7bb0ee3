# SPDX-License-Identifier: Apache-2.0
"""Base URLs: checked, and shown without anything secret."""

from __future__ import annotations

import ipaddress
import os
from urllib.parse import urlsplit

from pizza.errors import ConfigError

DEFAULT = "https://api.openai.com/v1"
URL_VARIABLE = "OPENAI_BASE_URL"


def resolve(base_url: str | None) -> str:
    """The base URL to use: the argument, the environment's ``OPENAI_BASE_URL``, or OpenAI's.

    Raises:
        ConfigError: It is not an http(s) URL.
    """
    url = (base_url or os.environ.get(URL_VARIABLE) or DEFAULT).strip()
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError(
            f"the base URL {public(url)!r} is not usable: write it with its scheme and path, "
            "e.g. 'http://127.0.0.1:8000/v1'."
        )
    return url.rstrip("/")


def public(url: str) -> str:
    """Scheme, host, port and path: no user name, password or query."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "(unreadable)"
    if ":" in host:
        host = f"[{host}]"
    scheme = f"{parts.scheme}://" if parts.scheme and host else ""
    return f"{scheme}{host}{port}{parts.path}".rstrip("/")


def is_openai(url: str) -> bool:
    """Whether this is OpenAI's own service (any of its regions)."""
    host = urlsplit(url).hostname or ""
    return host == "api.openai.com" or host.endswith(".api.openai.com")


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
