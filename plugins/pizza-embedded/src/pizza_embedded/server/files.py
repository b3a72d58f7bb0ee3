# SPDX-License-Identifier: Apache-2.0
"""The files of the Files API: kept in memory, shown in OpenAI's shape."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import BodyPartReader, web

from pizza_embedded.server.errors import ApiError, invalid

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """One file.

    Attributes:
        id: Its name in requests.
        filename: What its owner called it.
        purpose: ``"batch"`` for what was uploaded, ``"batch_output"`` for results.
        content: What is in it.
        created_at: Seconds since the epoch.
    """

    filename: str
    purpose: str
    content: bytes = field(repr=False)
    id: str = field(default_factory=lambda: f"file-{secrets.token_hex(12)}")
    created_at: int = field(default_factory=lambda: int(time.time()))

    def to_dict(self) -> dict[str, Any]:
        """The file object of the API."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": len(self.content),
            "created_at": self.created_at,
            "expires_at": None,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
            "status_details": None,
        }


class Files:
    """All files of a server."""

    def __init__(self, max_bytes: int) -> None:
        """Make an empty store.

        Args:
            max_bytes: Largest file that may be uploaded.
        """
        self._max_bytes = max_bytes
        self._files: dict[str, StoredFile] = {}

    def __len__(self) -> int:
        return len(self._files)

    def add(self, file: StoredFile) -> StoredFile:
        """Keep a file."""
        self._files[file.id] = file
        return file

    def get(self, file_id: str) -> StoredFile:
        """A file.

        Raises:
            ApiError: 404, there is none of that name.
        """
        if (found := self._files.get(file_id)) is None:
            raise ApiError(404, f"No such File object: {file_id}", param="id")
        return found

    def delete(self, file_id: str) -> dict[str, Any]:
        """Forget a file."""
        self.get(file_id)
        del self._files[file_id]
        return {"id": file_id, "object": "file", "deleted": True}

    def listed(self, query: Mapping[str, str]) -> dict[str, Any]:
        """One page of files, newest first, perhaps of one purpose."""
        found = [
            file.to_dict()
            for file in self._files.values()
            if query.get("purpose") in (None, file.purpose)
        ]
        newest_first = query.get("order", "desc") == "desc"
        return page(found[::-1] if newest_first else found, query, default=10_000, most=10_000)

    async def upload(self, request: web.BaseRequest) -> dict[str, Any]:
        """Take a file from a form with the fields ``purpose`` and ``file``.

        Raises:
            ApiError: The form is not of that shape, or the file is too large.
        """
        if not request.content_type.startswith("multipart/"):
            raise invalid("Invalid request: send the file as multipart/form-data.", "file")
        fields: dict[str, tuple[str, bytes]] = {}
        try:
            reader = await request.multipart()
            while (part := await reader.next()) is not None:
                if isinstance(part, BodyPartReader) and part.name in ("purpose", "file"):
                    fields[part.name] = (part.filename or "", await self._read(part))
        except ValueError as error:
            raise invalid(f"We could not parse the form: {error}.", "file") from error
        for name in ("purpose", "file"):
            if name not in fields:
                raise invalid(
                    f"Missing required parameter: '{name}'.", name, "missing_required_parameter"
                )
        purpose = fields["purpose"][1].decode(errors="replace")
        if purpose != "batch":
            raise invalid(
                f"'{purpose}' is not one of ['batch'] - 'purpose'", "purpose", "invalid_value"
            )
        filename, content = fields["file"]
        return self.add(
            StoredFile(filename=filename or "upload", purpose=purpose, content=content)
        ).to_dict()

    async def _read(self, part: BodyPartReader) -> bytes:
        content = bytearray()
        while chunk := await part.read_chunk(_CHUNK):
            content += chunk
            if len(content) > self._max_bytes:
                raise ApiError(
                    413,
                    f"The file is larger than the limit of {self._max_bytes} bytes.",
                    param="file",
                )
        return bytes(content)


def page(
    items: Sequence[dict[str, Any]], query: Mapping[str, str], *, default: int, most: int
) -> dict[str, Any]:
    """One page of a list.

    Args:
        items: All of them, in order.
        query: ``limit`` and ``after``, as in OpenAI's API.
        default: Items of a page when no limit is given.
        most: The largest limit.

    Raises:
        ApiError: The limit is no number from 1 to ``most``.
    """
    text = query.get("limit", str(default))
    if not text.isdigit() or not 1 <= int(text) <= most:
        raise invalid(f"Invalid 'limit': expected a number from 1 to {most}.", "limit")
    ids = [item["id"] for item in items]
    after = query.get("after")
    if after is not None and after not in ids:
        raise invalid(f"Invalid 'after': there is no {after}.", "after")
    start = 0 if after is None else ids.index(after) + 1
    shown = list(items[start : start + int(text)])
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": start + len(shown) < len(items),
    }
