# SPDX-License-Identifier: Apache-2.0
"""`Row`: one prompt of an input with its id, and how a record of a file becomes one."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from pizza.errors import ConfigError
from pizza.prompt import Prompt, PromptLike
from pizza.session import Item

PROMPT_COLUMNS = ("prompt", "messages", "text", "question", "input")
"""Where the prompt is looked for when nobody says where it is; the first that is there."""

_MAX_ID = 1000
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One prompt of an input.

    Attributes:
        id: The user's id, or the row's number from 1; unique in its input.
        prompt: A text, chat messages or a `Prompt`.
        target: The output that is explained, or ``None``: the model's own.
        columns: The user's other columns, JSON values.
        where: Where it stands, for messages: ``"prompts.jsonl:12"``.
    """

    id: str
    prompt: PromptLike
    target: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)
    where: str = ""

    @property
    def hash(self) -> int:
        """64 bits of the id."""
        return id_hash(self.id)

    def content(self) -> bytes:
        """Everything that the row says, as bytes: equal for equal rows of any file format."""
        prompt: Any = self.prompt
        if isinstance(prompt, Prompt):
            prompt = prompt.to_dict()
        return to_json([self.id, prompt, self.target, sorted(self.columns.items())])


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A record that is no row.

    Attributes:
        where: Where it stands.
        message: What is wrong with it and what is accepted.
    """

    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Which columns of an input mean what; all others are kept as they are.

    Attributes:
        prompt: The prompt: a text or chat messages. By default the first of `PROMPT_COLUMNS`
            that a record has.
        id: The row's id. By default ``id`` where a record has it, else the record's number.
        target: The output to explain, or ``None``: every row's own completion.
    """

    prompt: str | None = None
    id: str | None = None
    target: str | None = None

    def row(self, record: Mapping[str, Any], *, number: int, where: str) -> Row | Fault:
        """The row that a record is, or what is wrong with it.

        Args:
            record: Column names and values.
            number: The record's number, from 1.
            where: Where it stands.
        """
        try:
            return self._row(record, number, where)
        except ConfigError as error:
            return Fault(where=where, message=str(error))

    def _row(self, record: Mapping[str, Any], number: int, where: str) -> Row:
        prompt_name = self._prompt_column(record)
        id_name = self.id or ("id" if "id" in record else None)
        if id_name is not None and id_name not in record:
            raise ConfigError(_no_column("id", id_name, record))
        target = None
        if self.target is not None:
            if self.target not in record:
                raise ConfigError(_no_column("target", self.target, record))
            target = record[self.target]
            if target is not None and (not isinstance(target, str) or not target):
                raise ConfigError(
                    f"the target in column {self.target!r} is {_shown(target)}; it is a text, or "
                    "null for the model's own output."
                )
        special = {prompt_name, id_name, self.target}
        return Row(
            id=str(number) if id_name is None else _id(record[id_name], id_name),
            prompt=_prompt(record[prompt_name], prompt_name),
            target=target,
            columns={k: v for k, v in record.items() if k not in special},
            where=where,
        )

    def _prompt_column(self, record: Mapping[str, Any]) -> str:
        if self.prompt is not None:
            if self.prompt not in record:
                raise ConfigError(_no_column("prompt", self.prompt, record))
            return self.prompt
        for name in PROMPT_COLUMNS:
            if name in record:
                return name
        raise ConfigError(
            f"there is no prompt: the columns are {_names(record)}, and none of them is "
            f"{', '.join(PROMPT_COLUMNS)}. Name the one that holds it (--prompt-column)."
        )

    def to_dict(self) -> dict[str, str | None]:
        """Plain JSON values."""
        return {"prompt": self.prompt, "id": self.id, "target": self.target}


def item_of(row: Row) -> Item:
    """A row as `Session.attribute_many` takes it."""
    own = {} if row.target is None else {"target": row.target}
    return Item(prompt=row.prompt, id=row.id, options=own)


def id_hash(name: str) -> int:
    """64 bits that stand for an id."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def to_json(value: Any) -> bytes:
    """JSON of whatever a column may hold: dates and bytes become texts, NaN becomes null."""
    try:
        return msgspec.json.encode(value, enc_hook=_plain)
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError):
        return json.dumps(value, default=_plain).encode()


def _plain(value: Any) -> Any:
    """Of something that JSON has no form for: what is the same in every process."""
    if hasattr(value, "tolist"):  # an array or a number of numpy, whose texts leave values out
        return value.tolist()
    text = str(value)
    kind = type(value)
    return f"{kind.__module__}.{kind.__qualname__}" if _ADDRESS.search(text) else text


def _prompt(value: Any, column: str) -> PromptLike:
    if isinstance(value, str) and column == "messages":
        # CSV files have chats as JSON texts.
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"the column 'messages' is not JSON: {error}.") from error
    if not isinstance(value, (str, list, tuple, Prompt)):
        raise ConfigError(
            f"the prompt in column {column!r} is {_shown(value)}; it is a text, or a list of "
            "messages with role and content."
        )
    # Only checked here: looking for template marks takes most of the time of making a prompt.
    if isinstance(value, str):
        Prompt.from_text(value, keep_marks_fixed=False)
    elif not isinstance(value, Prompt):
        Prompt.chat(value, keep_marks_fixed=False)
    return value


def _id(value: Any, column: str) -> str:
    usable = isinstance(value, (str, int)) and not isinstance(value, bool)
    text = str(value) if usable else ""
    if not text.strip() or len(text) > _MAX_ID or not text.isprintable():
        raise ConfigError(
            f"the id in column {column!r} is {_shown(value)}; it is a whole number or a printable "
            f"text of at most {_MAX_ID} characters."
        )
    return text


def _no_column(what: str, name: str, record: Mapping[str, Any]) -> str:
    return f"there is no column {name!r} (--{what}-column); there are: {_names(record)}."


def _names(record: Mapping[str, Any]) -> str:
    return ", ".join(repr(name) for name in list(record)[:20]) or "none"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
