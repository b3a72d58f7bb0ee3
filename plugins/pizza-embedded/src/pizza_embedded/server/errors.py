# SPDX-License-Identifier: Apache-2.0
"""Refusals in the shape and words of OpenAI's API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from pizza_embedded.ratelimit import Decision, format_duration
from pizza_embedded.runtime import ContextTooLong


class ApiError(Exception):
    """A request is answered with an error.

    Attributes:
        status: HTTP status.
        body: The JSON body.
        headers: Further headers.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})
        error: dict[str, Any] = {"message": message, "type": kind, "param": param, "code": code}
        self.body = msgspec.json.encode({"error": error})


def wrong_key() -> ApiError:
    """401; the key is not repeated, not even in part."""
    return ApiError(
        401,
        "Incorrect API key provided. The key is the one that the server was started with.",
        code="invalid_api_key",
    )


def unknown_model(model: str) -> ApiError:
    """404."""
    return ApiError(
        404,
        f"The model `{model}` does not exist or you do not have access to it.",
        param="model",
        code="model_not_found",
    )


def unknown_path(method: str, path: str) -> ApiError:
    """404, as OpenAI words it."""
    return ApiError(404, f"Invalid URL ({method} {path})")


def invalid(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """400."""
    return ApiError(400, message, param=param, code=code)


def unsupported(param: str) -> ApiError:
    """400: a reasoning model is asked for what it does not do."""
    return invalid(
        f"Unsupported parameter: '{param}' is not supported with this model.",
        param,
        "unsupported_parameter",
    )


def context_exceeded(error: ContextTooLong, param: str) -> ApiError:
    """400."""
    return invalid(
        f"This model's maximum context length is {error.limit} tokens. However, your messages "
        f"resulted in {error.got} tokens. Please reduce the length of the messages.",
        param,
        "context_length_exceeded",
    )


def rate_limited(decision: Decision, model: str, *, limit: float, requested: float) -> ApiError:
    """429, naming the limit that was hit."""
    kind = decision.limited_by or "requests"
    short = "RPM" if kind == "requests" else "TPM"
    start = f"for {model} on {kind} per min ({short}): Limit {limit:.0f}, "
    if decision.retry_after_s == float("inf"):
        message = (
            f"Request too large {start}Requested {requested:.0f}. "
            "The input or output tokens must be reduced in order to run successfully."
        )
    else:
        wait = format_duration(decision.retry_after_s)
        message = (
            f"Rate limit reached {start}Requested {requested:.0f}. Please try again in {wait}."
        )
    return ApiError(429, message, kind=kind, code="rate_limit_exceeded", headers=decision.headers)


def internal(status: int, headers: Mapping[str, str]) -> ApiError:
    """5xx."""
    return ApiError(
        status,
        "The server had an error while processing your request. Sorry about that!",
        kind="server_error",
        headers=headers,
    )
