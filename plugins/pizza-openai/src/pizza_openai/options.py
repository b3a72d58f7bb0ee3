# SPDX-License-Identifier: Apache-2.0
"""The backend's options, checked once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from pizza.errors import ConfigError, UnknownNameError
from pizza.limits import Price

APIS = ("auto", "chat", "responses", "completions")
HTTP = ("aiohttp", "httpx")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What `BackendSettings.options` may hold for this backend.

    Attributes:
        api: Which endpoint to use; ``"auto"`` = chat, or completions for OpenAI's base models.
        organization: OpenAI's organization id.
        project: OpenAI's project id.
        default_headers: Sent with every request. Not shown: they may hold secrets.
        http: ``"aiohttp"`` (fast) or ``"httpx"`` (HTTP as the openai client does it by default).
        price: US dollars per million tokens: a `Price`, ``(prompt, completion)`` or
            ``"prompt/completion"``; default: the bundled table, for OpenAI's own service.
    """

    api: str = "auto"
    organization: str | None = None
    project: str | None = None
    default_headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    http: str = "aiohttp"
    price: Price | None = None

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Options:
        """Check the options.

        Raises:
            ConfigError: An option has a value that is not accepted.
            UnknownNameError: There is no such option.
        """
        known = {f.name for f in fields(cls)}
        for name in given:
            if name not in known:
                raise UnknownNameError("option of the backend openai", name, known)
        values = dict(given)
        for name, accepted in (("api", APIS), ("http", HTTP)):
            if name in values and values[name] not in accepted:
                raise ConfigError(
                    f"{name}={values[name]!r} is not one of {', '.join(map(repr, accepted))}."
                )
        headers = values.get("default_headers") or {}
        if not isinstance(headers, Mapping) or not all(
            isinstance(k, str) and isinstance(v, str) for k, v in headers.items()
        ):
            raise ConfigError("default_headers is a mapping of header names to str values.")
        values["default_headers"] = dict(headers)
        if values.get("price") is not None:
            values["price"] = _price(values["price"])
        return cls(**values)


def _price(value: Any) -> Price:
    if isinstance(value, Price):
        return value
    try:
        pair = value.split("/") if isinstance(value, str) else tuple(value)
        prompt, completion = (float(part) for part in pair)
    except (TypeError, ValueError):
        prompt = completion = -1.0
    if not (prompt >= 0 and completion >= 0):
        raise ConfigError(
            f"price={value!r} is not understood: give US dollars per million prompt and "
            "completion tokens, e.g. (0.15, 0.60) or '0.15/0.60'."
        )
    return Price(prompt=prompt, completion=completion, source="given by the user")
