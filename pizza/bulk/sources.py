# SPDX-License-Identifier: Apache-2.0
"""Where rows come from. A source reads its rows again on every pass and holds none of them."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from pizza.bulk.rows import Columns, Fault, Row
from pizza.errors import ConfigError

MAX_LINE_BYTES = 64 << 20
"""Longest line of a file: nothing honest is longer, and nothing may fill the memory."""

_BOM = b"\xef\xbb\xbf"
_WIDE = (b"\xff\xfe", b"\xfe\xff")
_PACKED = {
    b"\x1f\x8b": "gunzip",
    b"(\xb5/\xfd": "unzstd",
    b"BZh": "bunzip2",
    b"PK\x03\x04": "unzip",
}


class Source(ABC):
    """An input. Reading takes memory for one record, whatever the size of the input.

    Args:
        columns: Which columns mean what.
    """

    def __init__(self, columns: Columns | None = None) -> None:
        self.columns = columns or Columns()

    @property
    @abstractmethod
    def name(self) -> str:
        """What it is called in messages and in the manifest."""

    @property
    def empty(self) -> str:
        """What to say when there is nothing in it."""
        return f"{self.name} holds no rows: there is nothing to explain."

    @abstractmethod
    def records(self) -> Iterator[tuple[str, Mapping[str, Any] | str]]:
        """Where each record stands, and the record, or what is wrong with it.

        Raises:
            ConfigError: The rest cannot be read at all.
        """

    def rows(self) -> Iterator[Row | Fault]:
        """Every row, or what is wrong with it, in order.

        Raises:
            ConfigError: The rest cannot be read at all.
        """
        for number, (where, record) in enumerate(self.records(), 1):
            if isinstance(record, str):
                yield Fault(where=where, message=record)
            else:
                yield self.columns.row(record, number=number, where=where)


class PathSource(Source):
    """An input that stands at a path, and is called by the last part of it.

    Args:
        path: The path.
        columns: Which columns mean what.
    """

    def __init__(self, path: str | Path, columns: Columns | None = None) -> None:
        super().__init__(columns)
        self.path = Path(path)

    @property
    def name(self) -> str:
        """See `Source.name`."""
        return self.path.name


class JsonLines(PathSource):
    """A file with one JSON object per line, UTF-8."""

    def records(self) -> Iterator[tuple[str, Mapping[str, Any] | str]]:
        """See `Source.records`."""
        try:
            with self.path.open("rb") as file:
                for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES), b""), 1):
                    where = f"{self.path}:{number}"
                    if number == 1:
                        check_start(line, self.path)
                        line = line.removeprefix(_BOM)
                    if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
                        raise ConfigError(
                            f"{where}: the line is longer than {MAX_LINE_BYTES >> 20} MB. A JSONL "
                            "file has one JSON object per line."
                        )
                    if line.strip():
                        yield where, _object(line)
        except OSError as error:
            raise unreadable(self.path, error) from error


class TextFiles(PathSource):
    """A directory of text files, UTF-8: a prompt each, named by its path in the directory.

    Args:
        path: The directory.
        pattern: Which files; those below it too, in the order of their paths.
    """

    def __init__(self, path: str | Path, pattern: str = "**/*.txt") -> None:
        super().__init__(path, Columns(prompt="prompt", id="id"))
        self.pattern = pattern

    @property
    def empty(self) -> str:
        """See `Source.empty`."""
        return f"{self.name} holds no files like {self.pattern}: there is nothing to explain."

    def records(self) -> Iterator[tuple[str, Mapping[str, Any] | str]]:
        """See `Source.records`."""
        for path in sorted(p for p in self.path.glob(self.pattern) if p.is_file()):
            name = path.relative_to(self.path).as_posix()
            try:
                if path.stat().st_size > MAX_LINE_BYTES:
                    yield str(path), f"the file is larger than {MAX_LINE_BYTES >> 20} MB."
                    continue
                text = path.read_bytes().decode("utf-8-sig")
            except UnicodeDecodeError:
                yield str(path), not_utf8(path)
            except OSError as error:
                yield str(path), f"cannot be read: {error.strerror or error}."
            else:
                # A line end before the end of a file belongs to the file, not to the prompt.
                yield str(path), {"id": name, "prompt": text.rstrip("\r\n") or text}


class Records(Source):
    """Mappings that are there already: a list of dicts, a dataset. Read once per pass.

    Args:
        records: Anything that can be iterated again and again.
        columns: Which columns mean what.
        name: What it is called.
    """

    def __init__(
        self,
        records: Iterable[Mapping[str, Any]],
        columns: Columns | None = None,
        *,
        name: str = "records",
    ) -> None:
        super().__init__(columns)
        if iter(records) is records:
            raise ConfigError(
                "these rows can be read only once (a generator, an open file), and a run reads "
                "them twice: to check them before anything is paid for, and to explain them. Give "
                "a list, a dataset or a file."
            )
        self._records = records
        self._name = name

    @property
    def name(self) -> str:
        """See `Source.name`."""
        return self._name

    def records(self) -> Iterator[tuple[str, Mapping[str, Any] | str]]:
        """See `Source.records`."""
        for number, record in enumerate(self._records, 1):
            where = f"{self._name}:{number}"
            if isinstance(record, Mapping):
                yield where, record
            else:
                yield where, f"a row is a mapping, not {type(record).__name__}."


def _object(line: bytes) -> Mapping[str, Any] | str:
    try:
        value = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Slower, with messages that help more, and for half characters, which are legal JSON.
        try:
            value = json.loads(line.decode())
        except UnicodeDecodeError as error:
            return (
                f"this is not UTF-8 text (byte {error.start} of the line). Convert the file first, "
                "for example: iconv -f LATIN1 -t UTF-8 FILE"
            )
        except (ValueError, RecursionError) as error:
            return _not_json(line, error)
    if not isinstance(value, dict):
        return f'expected an object like {{"id": ..., "prompt": ...}}, not {type(value).__name__}.'
    return value


def _not_json(line: bytes, error: Exception) -> str:
    why = str(error)
    if isinstance(error, json.JSONDecodeError):
        why = f"{error.msg} at character {error.pos + 1}"
    elif isinstance(error, RecursionError):
        why = "values are nested too deeply"
    if b"\0" in line:
        more = "It holds zero bytes, as UTF-16 does: iconv -f UTF-16LE -t UTF-8 FILE"
    elif line.strip() in (b"[", b"{"):
        more = "A document over several lines becomes one with: jq -c '.[]' FILE (an object: jq -c)"
    else:
        more = "Expected an object per line."
    return f"this is not JSON: {why}. {more}"


def check_start(data: bytes, path: Path) -> None:
    """Refuse what cannot be a text in UTF-8, by its first bytes.

    Raises:
        ConfigError: It is UTF-16, or compressed.
    """
    if data.startswith(_WIDE):
        raise ConfigError(
            f"{path}:1: this is UTF-16. Convert it first, for example: iconv -f UTF-16 -t UTF-8 "
            f"{path.name}"
        )
    for mark, program in _PACKED.items():
        if data.startswith(mark):
            raise ConfigError(f"{path}:1: this file is compressed. First: {program} {path.name}")


def not_utf8(path: Path) -> str:
    """What to say of a text that is in another encoding."""
    return (
        "this is not UTF-8 text. Convert the file first, for example: iconv -f LATIN1 -t UTF-8 "
        f"{path.name}"
    )


def unreadable(path: Path, error: OSError) -> ConfigError:
    """What to say of a file that cannot be read."""
    return ConfigError(f"cannot read {path}: {error.strerror or error}.")
