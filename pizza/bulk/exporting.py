# SPDX-License-Identifier: Apache-2.0
"""`export` and `to_pandas`: results in the form that another program reads."""

from __future__ import annotations

import csv
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pizza.bulk.directory import read_manifest
from pizza.bulk.parts import parts_in, read_parts, schema
from pizza.bulk.tables import arrow
from pizza.errors import ConfigError, PizzaError

if TYPE_CHECKING:
    import pandas as pd

FORMATS = ("jsonl", "csv", "parquet")
_CHUNK = 2000
_LEFT_OUT = ("attribution", "columns")
LONG_COLUMNS = (
    "id",
    "metric",
    "output_index",
    "output_token",
    "unit_index",
    "unit",
    "message",
    "start",
    "end",
    "score",
    "standard_error",
)
"""Columns of the long form, the user's own columns after them."""


def export(run: str | Path, to: str | Path, *, form: str | None = None, long: bool = False) -> int:
    """Write the results of a run to one file, whole or not at all; memory for one part.

    Args:
        run: The run directory, which may be in use.
        to: The file.
        form: ``"jsonl"``, ``"csv"`` or ``"parquet"``; by default what the file's name ends in.
        long: One row per metric, output token (-1 = the whole output) and unit, instead of one
            per prompt.

    Returns:
        The number of rows written.

    Raises:
        ConfigError: The form is none of these.
        ResultFormatError: The run cannot be read.
    """
    target = Path(to)
    form = form or target.suffix.lower().removeprefix(".")
    if form not in FORMATS:
        raise ConfigError(f"the form is one of {', '.join(FORMATS)}, not {form!r}.")
    rows = long_rows(run) if long else wide_rows(run)
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        written = _WRITERS[form](temporary, rows, long)
        temporary.replace(target)
    except OSError as error:
        raise PizzaError(f"cannot write {target}: {error.strerror or error}.") from error
    finally:
        temporary.unlink(missing_ok=True)
    return written


def to_pandas(run: str | Path, *, long: bool = True) -> pd.DataFrame:
    """The results of a run as one frame, by default in the long form.

    Args:
        run: The run directory.
        long: As for `export`.

    Raises:
        ConfigError: pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise ConfigError(
            "to_pandas needs pandas: pip install 'pizza-attribution[pandas]'."
        ) from error
    rows = list(long_rows(run) if long else wide_rows(run))
    return pd.DataFrame(rows, columns=list(LONG_COLUMNS) if not rows and long else None)


def wide_rows(run: str | Path) -> Iterator[dict[str, Any]]:
    """One mapping per prompt, the user's columns among them; nested values are lists."""
    for row in _rows(run):
        own = row["columns"]
        yield {
            **{k: v for k, v in row.items() if k not in _LEFT_OUT},
            # A user's column that has a name of ours keeps its value under another one.
            **{f"user_{k}" if k in row else k: v for k, v in own.items()},
        }


def long_rows(run: str | Path) -> Iterator[dict[str, Any]]:
    """One mapping per prompt, metric, output token and unit."""
    for row in _rows(run):
        own = {f"user_{k}" if k in LONG_COLUMNS else k: v for k, v in row["columns"].items()}
        first = {name: row[name] for name in ("metric", "scores", "standard_errors")}
        for result in (first, *(row["further"] or ())):
            for index, scores in enumerate(result["scores"]):
                errors = result["standard_errors"]
                for place, (unit, score) in enumerate(zip(row["units"], scores, strict=True)):
                    yield {
                        "id": row["id"],
                        "metric": result["metric"],
                        "output_index": index - 1,
                        "output_token": row["output_tokens"][index - 1] if index else None,
                        "unit_index": place,
                        "unit": unit["text"],
                        "message": unit["message"],
                        "start": unit["start"],
                        "end": unit["end"],
                        "score": score,
                        "standard_error": None if errors is None else errors[index][place],
                        **own,
                    }


def _rows(run: str | Path) -> Iterator[dict[str, Any]]:
    path = Path(run)
    read_manifest(path)
    for batch in read_parts(parts_in(path / "results")):
        for row in batch.to_pylist():
            row["columns"] = json.loads(row["columns"])
            yield row


def _jsonl(path: Path, rows: Iterator[dict[str, Any]], long: bool) -> int:
    written = 0
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(_finite(row), allow_nan=False, ensure_ascii=False) + "\n")
            written += 1
    return written


def _csv(path: Path, rows: Iterator[dict[str, Any]], long: bool) -> int:
    written = 0
    header: list[str] = []
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        for row in rows:
            if not header:
                header = list(row)
                writer.writerow(header)
            if extra := sorted(row.keys() - set(header)):
                raise ConfigError(
                    f"the row {row['id']!r} has columns that the first one has not "
                    f"({', '.join(extra)}), and a CSV file has one header. Export to JSONL."
                )
            writer.writerow([_cell(row.get(name)) for name in header])
            written += 1
    return written


def _parquet(path: Path, rows: Iterator[dict[str, Any]], long: bool) -> int:
    pa, parquet = arrow()
    written = 0
    writer = None
    try:
        while chunk := list(itertools.islice(rows, _CHUNK)):
            if writer is None:
                form = _form(chunk, long)
                writer = parquet.ParquetWriter(path, form, compression="zstd")
            writer.write_table(pa.Table.from_pylist(chunk, schema=writer.schema))
            written += len(chunk)
    except pa.ArrowException as error:
        raise ConfigError(
            f"a column of the input holds values of several types, and a Parquet column has one: "
            f"{error}. Export to JSONL."
        ) from error
    finally:
        if writer is not None:
            writer.close()
    if writer is None:
        parquet.write_table(_form([], long).empty_table(), path)
    return written


def _form(chunk: list[dict[str, Any]], long: bool) -> Any:
    """The schema of an export: our columns' own types; the user's are those of the first rows."""
    pa, _ = arrow()
    if long:
        kinds = {"output_index": pa.int64(), "unit_index": pa.int64(), "message": pa.int64()}
        kinds |= {"start": pa.int64(), "end": pa.int64()}
        kinds |= {"score": pa.float64(), "standard_error": pa.float64()}
        ours = [pa.field(name, kinds.get(name, pa.string())) for name in LONG_COLUMNS]
    else:
        ours = [field for field in schema() if field.name not in _LEFT_OUT]
    known = {field.name for field in ours}
    names = dict.fromkeys(name for row in chunk for name in row if name not in known)
    for name in names:
        kind = pa.array([row.get(name) for row in chunk]).type
        ours.append(pa.field(name, pa.string() if pa.types.is_null(kind) else kind))
    return pa.schema(ours)


_WRITERS = {"jsonl": _jsonl, "csv": _csv, "parquet": _parquet}


def _cell(value: Any) -> Any:
    """Nested values as JSON texts."""
    if isinstance(value, (list, dict)):
        return json.dumps(_finite(value), allow_nan=False, ensure_ascii=False)
    return value


def _finite(value: Any) -> Any:
    """JSON has no NaN: null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [_finite(v) for v in value]
    if isinstance(value, Mapping):
        return {k: _finite(v) for k, v in value.items()}
    return value
