# SPDX-License-Identifier: Apache-2.0
"""The input file of a batch: read and checked as a whole before anything is run."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import msgspec

_MOST_ERRORS = 100


class Line(msgspec.Struct):
    """One request. The body is kept as it was written: its bytes name the request."""

    custom_id: str
    method: str
    url: str
    body: msgspec.Raw


class _Model(msgspec.Struct):
    model: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What is in an input file.

    Attributes:
        lines: The requests, when there are no errors.
        errors: What is wrong with it, as the API's error objects.
        model: The model that all requests name.
    """

    lines: tuple[Line, ...] = ()
    errors: tuple[dict[str, Any], ...] = ()
    model: str = ""


_line = msgspec.json.Decoder(Line)
_model = msgspec.json.Decoder(_Model)


def check(content: bytes, endpoint: str, *, max_requests: int, models: Collection[str]) -> Checked:
    """Read an input file.

    Args:
        content: The file.
        endpoint: The batch's; every line must have it as its url.
        max_requests: Most lines.
        models: The models that are served.
    """
    rows = [(n, row) for n, row in enumerate(content.split(b"\n"), 1) if row.strip()]
    if not rows:
        return _wrong("empty_file", "The batch input file is empty.")
    if len(rows) > max_requests:
        return _wrong(
            "too_many_tasks",
            f"The batch input file contains too many requests. The limit is {max_requests}.",
        )
    lines: list[Line] = []
    errors: list[dict[str, Any]] = []
    names: set[str] = set()
    models_named: set[str] = set()
    for number, row in rows:
        try:
            line = _line.decode(row)
            models_named.add(_model.decode(line.body).model)
        except msgspec.MsgspecError:
            errors.append(_error("invalid_json_line", _NOT_JSON, number))
            continue
        if line.custom_id in names:
            errors.append(
                _error("duplicate_custom_id", _TWICE.format(line.custom_id), number, "custom_id")
            )
        elif line.url != endpoint or line.method != "POST":
            errors.append(
                _error("invalid_url", f"Expected POST {endpoint} in every line.", number, "url")
            )
        names.add(line.custom_id)
        lines.append(line)
    if not errors and len(models_named) > 1:
        return _wrong("mismatched_model", "All requests of a batch name one model.")
    for model in models_named - set(models) if not errors else ():
        return _wrong("model_not_found", f"The provided model '{model}' is not supported.")
    if errors:
        return Checked(errors=tuple(errors[:_MOST_ERRORS]))
    return Checked(lines=tuple(lines), model=next(iter(models_named)))


_NOT_JSON = "This line is not parseable as valid JSON with a custom_id, method, url and body."
_TWICE = "The custom_id '{}' for this request is a duplicate of another request."


def _wrong(code: str, message: str) -> Checked:
    return Checked(errors=(_error(code, message),))


def _error(
    code: str, message: str, line: int | None = None, param: str | None = None
) -> dict[str, Any]:
    return {"code": code, "message": message, "param": param, "line": line}
