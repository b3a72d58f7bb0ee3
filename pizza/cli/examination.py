# SPDX-License-Identifier: Apache-2.0
"""What ``pizza doctor`` looks at. Reads files and variables; sends nothing, shows no secret."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pizza import __version__
from pizza.cli.connection import default_cache
from pizza.cli.consoles import out
from pizza.cli.plugins import inventory
from pizza.render.text import plural
from pizza.specs import BackendSpec

if TYPE_CHECKING:
    from pizza._plugins import Registry

_DISTRIBUTION = "pizza-attribution"
_EXTRA = re.compile(r"""extra\s*==\s*["']([^"']+)["']""")
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_ENCODINGS = ("o200k_base", "cl100k_base")


def examine() -> dict[str, Any]:
    """Everything that ``pizza doctor`` reports, as plain JSON values."""
    from pizza._plugins import Registry

    found = inventory(load=True)
    plugins = [_plugin(plugin) for plugin in found["plugins"]]
    cache = _cache()
    problems = [f"{p['origin']} is {p['status']}: {p['detail']}" for p in plugins if p["problem"]]
    problems += [
        f"the {c['kind']} {c['name']!r} is claimed by {' and by '.join(c['distributions'])}: "
        "uninstall one, or name one in PIZZA_DISABLE_PLUGINS"
        for c in found["conflicts"]
    ]
    if not cache["writable"]:
        problems.append(f"the cache {cache['path']} cannot be written: name another with --cache")
    return {
        "system": {
            "pizza": __version__,
            "python": platform.python_version(),
            "implementation": platform.python_implementation(),
            "platform": f"{platform.system()} {platform.machine()}",
        },
        "plugins": plugins,
        "packages": list(_packages()),
        "environment": list(_environment(Registry())),
        "tiktoken": [_encoding(name) for name in _ENCODINGS],
        "cache": cache,
        "terminal": _terminal(),
        "problems": problems,
    }


def _plugin(plugin: dict[str, Any]) -> dict[str, Any]:
    failing = [part for part in plugin["parts"] if part["loads"] is False]
    detail = plugin["error"] or "; ".join(f"{p['kind']} {p['name']}: {p['error']}" for p in failing)
    # A part whose optional package is missing is not broken: the packages' section says more.
    broken = bool(plugin["error"]) or any(not part["missing"] for part in failing)
    status = "broken" if broken and plugin["status"] == "ok" else plugin["status"]
    return {
        "origin": f"{plugin['distribution']} {plugin['version']}".strip() or plugin["name"],
        "name": plugin["name"],
        "status": status,
        "detail": detail or plural(len(plugin["parts"]), "part"),
        "problem": broken,
    }


def _packages() -> Iterator[dict[str, Any]]:
    """What the extras of the core would install, from its own metadata."""
    try:
        requirements = importlib.metadata.requires(_DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        requirements = []
    for requirement in requirements:
        extra = _EXTRA.search(requirement)
        name = _NAME.match(requirement)
        if extra is None or name is None or extra[1] == "all":
            continue
        wanted = requirement.partition(";")[0].strip()
        try:
            version = importlib.metadata.version(name[0])
        except importlib.metadata.PackageNotFoundError:
            version = ""
        yield {
            "name": name[0],
            "extra": extra[1],
            "version": version,
            "install": ""
            if version
            else f'{shlex.quote(sys.executable)} -m pip install "{wanted}"',
        }


def _environment(registry: Registry) -> Iterator[dict[str, Any]]:
    users: dict[str, set[str]] = {"OPENAI_API_KEY": {"openai"}}
    for spec in registry.specs("backend"):
        if isinstance(spec, BackendSpec) and spec.key_variable:
            users.setdefault(spec.key_variable, set()).add(spec.name)
    for name, backends in sorted(users.items()):
        there = bool(os.environ.get(name))
        purpose = f"key of {' and '.join(sorted(backends))}"
        yield _variable(name, "set" if there else "not set", purpose, there)
    url = os.environ.get("OPENAI_BASE_URL", "")
    yield _variable(
        "OPENAI_BASE_URL", _address(url) if url else "not set", "server of openai", bool(url)
    )
    for name in ("HTTPS_PROXY", "SSL_CERT_FILE", "PIZZA_CACHE", "PIZZA_DISABLE_PLUGINS"):
        if value := os.environ.get(name, ""):
            yield _variable(name, _address(value) if "://" in value else value, "", True)


def _variable(name: str, value: str, purpose: str, there: bool) -> dict[str, Any]:
    return {"name": name, "value": value, "purpose": purpose, "set": there}


def _address(url: str) -> str:
    """An address without user, password, query and fragment: these may be secrets."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "set, but not an address"
    if not parts.scheme or not host:
        return "set, but not an address"
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}{port}{parts.path}"


def _encoding(name: str) -> dict[str, Any]:
    from pizza import tokenizers

    present = tokenizers.is_cached(name)
    advice = "" if present else "fetched on first use; only token units need them"
    return {"encoding": name, "present": present, "advice": advice}


def _cache() -> dict[str, Any]:
    path = Path(os.environ.get("PIZZA_CACHE") or default_cache())
    exists = path.is_file()
    place = path if exists else next((p for p in path.parents if p.exists()), path)
    size = sum(p.stat().st_size for p in (path, path.with_name(f"{path.name}-wal")) if p.is_file())
    return {
        "path": str(path),
        "exists": exists,
        "bytes": size,
        "writable": os.access(place, os.W_OK) and (exists or place.is_dir()),
    }


def _terminal() -> dict[str, Any]:
    console = out()
    colors = console.color_system if console.is_terminal and not console.no_color else None
    said = f"{console.width} columns, {colors or 'no'} colours, {console.encoding}"
    if not console.is_terminal:
        said += ", not a terminal"
    return {
        "terminal": console.is_terminal,
        "columns": console.width,
        "colors": colors,
        "encoding": console.encoding,
        "said": said,
    }
