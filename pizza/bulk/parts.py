# SPDX-License-Identifier: Apache-2.0
"""Results as Parquet parts: one row per prompt, one schema for every part of every run.

`docs/run-directory.md` documents the columns; raise `SCHEMA_VERSION` when one changes.
"""

from __future__ import annotations

import functools
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pizza._jsonable import plain
from pizza.bulk.rows import Row, to_json
from pizza.bulk.tables import arrow
from pizza.errors import ResultFormatError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pizza.attribution import Attribution

SCHEMA = "pizza.results"
SCHEMA_VERSION = 1
_PATTERN = "part-*.parquet"
_GRIDS = ("scores", "standard_errors")


@functools.cache
def schema() -> Any:
    """The schema of every part."""
    pa, _ = arrow()
    text = pa.string()
    grid = pa.list_(pa.list_(pa.float64()))
    unit = pa.struct(
        [
            ("message", pa.int32()),
            ("start", pa.int32()),
            ("end", pa.int32()),
            ("text", text),
            ("label", text),
        ]
    )
    further = pa.struct([("metric", text), ("scores", grid), ("standard_errors", grid)])
    return pa.schema(
        [
            pa.field("id", text, nullable=False),
            pa.field("row", pa.int64(), nullable=False),
            pa.field("columns", text),
            ("prompt", text),
            ("target", text),
            ("output", text),
            ("output_tokens", pa.list_(text)),
            ("units", pa.list_(unit)),
            ("metric", text),
            ("scores", grid),
            ("standard_errors", grid),
            ("further", pa.list_(further)),
            ("unanswered", pa.int32()),
            ("calls", pa.int64()),
            ("cache_hits", pa.int64()),
            ("prompt_tokens", pa.int64()),
            ("completion_tokens", pa.int64()),
            ("cost", pa.float64()),
            ("warnings", pa.list_(text)),
            ("provenance", text),
            ("attribution", pa.large_binary()),
        ],
        metadata={"pizza.schema": SCHEMA, "pizza.schema_version": str(SCHEMA_VERSION)},
    )


def batch_of(row: Row, index: int, made: Attribution, *, full: bool) -> Any:
    """One result as a record batch of one row.

    Args:
        row: What was asked for.
        index: Its position in the input, from 0.
        made: What came of it.
        full: Whether the whole attribution is kept, with all answers.
    """
    pa, _ = arrow()
    form = schema()
    target = made.target.to_dict()
    first = made.results[0]
    values: dict[str, Any] = {
        "id": row.id,
        "row": index,
        "columns": to_json(dict(row.columns)).decode(),
        "prompt": made.prompt.text,
        "target": None if target.get("kind") == "completion" else json.dumps(target),
        "output": made.output.text,
        "output_tokens": list(made.output.tokens),
        "units": [
            {"message": u.message, "start": u.start, "end": u.end, "text": u.text, "label": u.label}
            for u in made.units
        ],
        "metric": first.metric,
        "further": [
            {
                "metric": other.metric,
                "scores": other.scores.tolist(),
                "standard_errors": (
                    None if other.standard_errors is None else other.standard_errors.tolist()
                ),
            }
            for other in made.results[1:]
        ],
        "unanswered": made.evaluations.unanswered,
        "calls": made.calls,
        "cache_hits": made.cache_hits,
        "prompt_tokens": made.usage.prompt_tokens,
        "completion_tokens": made.usage.completion_tokens,
        "cost": made.cost,
        "warnings": list(made.warnings),
        "provenance": _provenance(made),
        "attribution": _packed(made) if full else None,
    }
    # One conversion for all columns but the grids: most of what one takes is spent on starting it.
    scalars = _scalars()
    found = dict(zip(scalars.names, pa.array([values], type=scalars).flatten(), strict=True))
    for name, grid in (("scores", first.scores), ("standard_errors", first.standard_errors)):
        found[name] = _grid(grid, form.field(name).type)
    return pa.record_batch([found[name] for name in form.names], schema=form)


@functools.cache
def _scalars() -> Any:
    """The columns that are no grids, as one struct."""
    pa, _ = arrow()
    return pa.struct([field for field in schema() if field.name not in _GRIDS])


def attribution_of(packed: bytes) -> Attribution:
    """The whole attribution of a row, where the run kept it.

    Raises:
        ResultFormatError: It is damaged.
    """
    from pizza.attribution import Attribution

    try:
        document = json.loads(zlib.decompress(packed))
    except (zlib.error, ValueError, RecursionError) as error:
        raise ResultFormatError(f"the attribution is damaged: {error}.") from error
    return Attribution.from_dict(document)


def write_part(path: Path, batches: list[Any]) -> None:
    """Write a part, whole or not at all.

    Raises:
        OSError: It cannot be written; nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        write_unnamed(temporary, batches)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_unnamed(path: Path, batches: list[Any]) -> None:
    """Write a part that somebody else gives its name to, whole and synced or not at all.

    Args:
        path: A name that is no part's: ``.part-*.tmp`` is deleted when the run is opened again.
        batches: The results.

    Raises:
        OSError: It cannot be written; nothing is left behind.
    """
    pa, parquet = arrow()
    try:
        with path.open("wb") as file:
            table = pa.Table.from_batches(batches, schema=schema())
            parquet.write_table(table.combine_chunks(), file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def parts_in(folder: Path) -> list[Path]:
    """The parts in the results folder of a run, in the order of their names."""
    return sorted(folder.glob(_PATTERN))


def read_parts(paths: list[Path], columns: list[str] | None = None) -> Iterator[Any]:
    """Record batches of parts, one after the other, in memory for one of them.

    Raises:
        ResultFormatError: A part is damaged or of a later version.
    """
    pa, parquet = arrow()
    for path in paths:
        try:
            with parquet.ParquetFile(path) as file:
                _check_version(file.schema_arrow.metadata or {}, path)
                yield from file.iter_batches(batch_size=128, columns=columns)
        except (OSError, pa.ArrowException) as error:
            raise ResultFormatError(
                f"{path} cannot be read: {error}. Delete it: its rows are computed again by the "
                "same pizza run, from the answers that are stored."
            ) from error


def _check_version(metadata: dict[bytes, bytes], path: Path) -> None:
    version = metadata.get(b"pizza.schema_version", b"")
    if metadata.get(b"pizza.schema") != SCHEMA.encode() or version != b"%d" % SCHEMA_VERSION:
        raise ResultFormatError(
            f"{path} is not a part that this pizza reads: schema version "
            f"{version.decode(errors='replace') or 'none'}, expected {SCHEMA_VERSION}."
        )


def _grid(values: NDArray[np.float64] | None, form: Any) -> Any:
    """A list of lists of floats, without a Python object per number."""
    pa, _ = arrow()
    if values is None:
        return pa.nulls(1, form)
    n_rows, n_units = values.shape
    flat = pa.array(np.ascontiguousarray(values).ravel())
    inner = pa.ListArray.from_arrays(np.arange(n_rows + 1, dtype=np.int32) * n_units, flat)
    return pa.ListArray.from_arrays(np.array([0, n_rows], dtype=np.int32), inner)


def _provenance(made: Attribution) -> str:
    # What the method knew can be as large as the scores; it is in the whole attribution.
    kept = {k: v for k, v in made.provenance.items() if k != "game"}
    return json.dumps(plain(kept), allow_nan=False)


def _packed(made: Attribution) -> bytes:
    return zlib.compress(json.dumps(made.to_dict(), allow_nan=False).encode(), 6)
