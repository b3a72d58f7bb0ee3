# SPDX-License-Identifier: Apache-2.0
"""`Csv`: rows of files whose columns are separated by a character."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pizza.bulk.sources import MAX_LINE_BYTES, PathSource, check_start, not_utf8, unreadable
from pizza.errors import ConfigError

_NO_BYTE = re.compile("[\udc80-\udcff]")
"""What ``surrogateescape`` makes of bytes that are not UTF-8."""


class Csv(PathSource):
    """A CSV file with a header, UTF-8; fields are separated by tabs in files named ``.tsv``."""

    def records(self) -> Iterator[tuple[str, Mapping[str, Any] | str]]:
        """See `Source.records`."""
        csv.field_size_limit(MAX_LINE_BYTES)
        delimiter = "\t" if self.path.suffix.lower() == ".tsv" else ","
        where = f"{self.path}:1"
        try:
            with self.path.open("rb") as file:
                check_start(file.read(4), self.path)
            # Bytes that are not UTF-8 spoil their own row and no other.
            with self.path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
                reader = csv.reader(text, delimiter=delimiter, strict=True)
                header = next(reader, [])
                _check_header(header, delimiter, self.path)
                where = f"{self.path}:{reader.line_num + 1}"
                for fields in reader:
                    if not fields:
                        continue
                    if len(fields) != len(header):
                        yield where, _wrong_number(fields, header)
                    elif any(_spoilt(field) for field in fields):
                        yield where, not_utf8(self.path)
                    else:
                        yield where, dict(zip(header, fields, strict=True))
                    where = f"{self.path}:{reader.line_num + 1}"
        except OSError as error:
            raise unreadable(self.path, error) from error
        except csv.Error as error:
            why = "a quote is opened and never closed" if "end of data" in str(error) else error
            raise ConfigError(f"{where}: this is not CSV: {why}.") from error


def _check_header(header: list[str], delimiter: str, path: Path) -> None:
    where = f"{path}:1"
    if any(_spoilt(name) for name in header):
        raise ConfigError(f"{where}: {not_utf8(path)}")
    if header and (len(set(header)) != len(header) or not all(name.strip() for name in header)):
        raise ConfigError(
            f"{where}: the first line names the columns, and {header!r} has a name twice or an "
            "empty one."
        )
    other = next((c for c in ";\t,|" if c != delimiter and c in "".join(header)), None)
    if len(header) == 1 and other is not None:
        raise ConfigError(
            f"{where}: the header is the one column {header[0]!r}. Columns are separated by "
            f"commas (by tabs in files named .tsv), not by {other!r}."
        )


def _wrong_number(fields: list[str], header: list[str]) -> str:
    return (
        f"there are {len(fields)} fields, and the header has {len(header)}. Commas and line ends "
        "inside of a field need quotes."
    )


def _spoilt(text: str) -> bool:
    return not text.isascii() and _NO_BYTE.search(text) is not None
