# SPDX-License-Identifier: Apache-2.0
"""Where rows come from. A source reads its rows again on every pass and holds none of them."""

from __future__ import annotations

import csv
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


class JsonLines(Source):
    """A file with one JSON object per line, UTF-8."""

    def __init__(self, path: str | Path, columns: Columns | None = None) -> None:
        super().__init__(columns)
        self.path = Path(path)

    @property
    def name(self) -> str:
        """See `Source.name`."""
        return self.path.name

    def records(self) -> Iterator[tuple[str, Mapping[str, Any] | str]]:
        """See `Source.records`."""
        try:
            with self.path.open("rb") as file:
                for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES), b""), 1):
                    where = f"{self.path}:{number}"
                    if number == 1:
                        line = _without_mark(line, self.path)
                    if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
                        raise ConfigError(
                            f"{where}: the line is longer than {MAX_LINE_BYTES >> 20} MB. A JSONL "
                            "file has one JSON object per line."
                        )
                    if line.strip():
                        yield where, _object(line)
        except OSError as error:
            raise _unreadable(self.path, error) from error


class Csv(Source):
    """A CSV file with a header, UTF-8; fields are separated by tabs in files named ``.tsv``."""

    def __init__(self, path: str | Path, columns: Columns | None = None) -> None:
        super().__init__(columns)
        self.path = Path(path)

    @property
    def name(self) -> str:
        """See `Source.name`."""
        return self.path.name

    def records(self) -> Iterator[tuple[str, Mapping[str, Any] | str]]:
        """See `Source.records`."""
        csv.field_size_limit(MAX_LINE_BYTES)
        tabs = self.path.suffix.lower() == ".tsv"
        where = f"{self.path}:1"
        try:
            with self.path.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.reader(file, delimiter="\t" if tabs else ",", strict=True)
                header = next(reader, [])
                _check_header(header, where)
                where = f"{self.path}:{reader.line_num + 1}"
                for fields in reader:
                    if not fields:
                        continue
                    if len(fields) == len(header):
                        yield where, dict(zip(header, fields, strict=True))
                    else:
                        yield where, _wrong_number(fields, header)
                    where = f"{self.path}:{reader.line_num + 1}"
        except OSError as error:
            raise _unreadable(self.path, error) from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"{where}: {_not_utf8(self.path)}") from error
        except csv.Error as error:
            raise ConfigError(f"{where}: this is not CSV: {error}.") from error


class TextFiles(Source):
    """A directory of text files, UTF-8: a prompt each, named by its path in the directory.

    Args:
        path: The directory.
        pattern: Which files; those below it too, in the order of their paths.
    """

    def __init__(self, path: str | Path, pattern: str = "**/*.txt") -> None:
        super().__init__(Columns(prompt="prompt", id="id"))
        self.path = Path(path)
        self.pattern = pattern

    @property
    def name(self) -> str:
        """See `Source.name`."""
        return self.path.name

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
                yield str(path), _not_utf8(path)
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
            return f"this is not JSON: {error}. Expected an object per line."
    if not isinstance(value, dict):
        return f'expected an object like {{"id": ..., "prompt": ...}}, not {type(value).__name__}.'
    return value


def _without_mark(line: bytes, path: Path) -> bytes:
    if line.startswith(_WIDE):
        raise ConfigError(f"{path}:1: {_not_utf8(path)}")
    return line.removeprefix(_BOM)


def _check_header(header: list[str], where: str) -> None:
    if header and (len(set(header)) != len(header) or not all(name.strip() for name in header)):
        raise ConfigError(
            f"{where}: the first line names the columns, and {header!r} has a name twice or an "
            "empty one."
        )


def _wrong_number(fields: list[str], header: list[str]) -> str:
    return (
        f"there are {len(fields)} fields, and the header has {len(header)}. Commas and line ends "
        "inside of a field need quotes."
    )


def _not_utf8(path: Path) -> str:
    return f"this is not UTF-8 text. Convert it first, for example: iconv -t UTF-8 {path.name}"


def _unreadable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"cannot read {path}: {error.strerror or error}.")
