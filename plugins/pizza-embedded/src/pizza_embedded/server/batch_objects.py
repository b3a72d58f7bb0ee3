# SPDX-License-Identifier: Apache-2.0
"""What clients see of a batch, and what they send for one."""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection
from typing import Any

import msgspec

from pizza_embedded.server.batch_input import Line
from pizza_embedded.server.errors import invalid

WINDOW_S = 24 * 3600


class Batch(msgspec.Struct, kw_only=True):
    """The batch object of the API."""

    endpoint: str
    input_file_id: str
    metadata: dict[str, str] | None
    id: str = msgspec.field(default_factory=lambda: f"batch_{secrets.token_hex(12)}")
    object: str = "batch"
    completion_window: str = "24h"
    status: str = "validating"
    model: str | None = None
    errors: dict[str, Any] | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    created_at: int = msgspec.field(default_factory=lambda: int(time.time()))
    in_progress_at: int | None = None
    expires_at: int | None = None
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    request_counts: dict[str, int] = msgspec.field(
        default_factory=lambda: {"total": 0, "completed": 0, "failed": 0}
    )

    def __post_init__(self) -> None:
        self.expires_at = self.created_at + WINDOW_S

    def enter(self, status: str) -> None:
        """Change to a status and note when."""
        self.status = status
        setattr(self, f"{status}_at", int(time.time()))

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        made: dict[str, Any] = msgspec.to_builtins(self)
        return made


class Create(msgspec.Struct):
    """The body of the call that makes one."""

    input_file_id: str
    endpoint: str
    completion_window: str
    metadata: dict[str, str] | None = None


def read_create(body: bytes, endpoints: Collection[str]) -> Create:
    """What a client asks for.

    Args:
        body: The body of the call.
        endpoints: Paths that batches may be for.

    Raises:
        ApiError: It is refused.
    """
    try:
        given = msgspec.json.decode(body, type=Create)
    except msgspec.MsgspecError as error:
        raise invalid(f"We could not parse the JSON body of your request: {error}.") from error
    for name, value, accepted in (
        ("endpoint", given.endpoint, endpoints),
        ("completion_window", given.completion_window, ("24h",)),
    ):
        if value not in accepted:
            values = ", ".join(f"'{one}'" for one in accepted)
            raise invalid(
                f"Invalid value: '{value}'. Supported values are: {values}.", name, "invalid_value"
            )
    return given


def result_row(
    line: Line, *, status: int = 0, body: bytes = b"", error: dict[str, str] | None = None
) -> bytes:
    """A line of a result file: an answer with its status, or why there is none."""
    response = None
    if status:
        response = {
            "status_code": status,
            "request_id": secrets.token_hex(16),
            "body": msgspec.Raw(body),
        }
    return msgspec.json.encode(
        {
            "id": f"batch_req_{secrets.token_hex(12)}",
            "custom_id": line.custom_id,
            "response": response,
            "error": error,
        }
    )
