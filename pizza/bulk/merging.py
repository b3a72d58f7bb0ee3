# SPDX-License-Identifier: Apache-2.0
"""`merge`: several run directories become one, for reading."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pizza.bulk.directory import RunDirectory, read_failures, read_manifest, write_whole
from pizza.bulk.parts import parts_in, read_parts
from pizza.bulk.rows import id_hash
from pizza.caches.sqlite import connect
from pizza.errors import ConfigError
from pizza.limits import Spent

_PART_ROWS = 4096
_PART_BYTES = 64 << 20


def merge(
    runs: Sequence[str | Path],
    into: str | Path,
    *,
    duplicates: str = "refuse",
    responses: bool = True,
) -> int:
    """Put runs over parts of an input together; the runs stay as they are.

    Args:
        runs: Run directories that differ in their inputs only.
        into: A new directory. It can be exported and merged again; no run goes on in it.
        duplicates: What becomes of an id that several runs have: ``"refuse"``, or ``"first"``: the
            run that is named first counts.
        responses: Whether the stored answers are put together, too.

    Returns:
        The number of results.

    Raises:
        ConfigError: The runs do not fit together, or the directory is not new.
        ResultFormatError: One of them cannot be read.
    """
    paths = [Path(run) for run in runs]
    target = Path(into)
    if duplicates not in ("refuse", "first"):
        raise ConfigError(f"duplicates is 'refuse' or 'first', not {duplicates!r}.")
    if not paths:
        raise ConfigError("name the runs to merge.")
    if (target / "manifest.json").exists():
        raise ConfigError(f"{target} holds a run already: name a new directory.")
    manifests = [read_manifest(path) for path in paths]
    for path, manifest in zip(paths[1:], manifests[1:], strict=True):
        _refuse_other(paths[0], manifests[0], path, manifest)
    if duplicates == "refuse":
        _refuse_same_ids(paths)
    with RunDirectory(target) as directory:
        try:
            done = _copy_results(paths, directory)
        except OSError as error:
            raise ConfigError(
                f"cannot write to {target}: {error.strerror or error}. Delete it, make room, and "
                "merge again."
            ) from error
        failures = [
            failure
            for path in paths
            for failure in read_failures(path)
            if failure.get("id") is None or id_hash(failure["id"]) not in done
        ]
        directory.keep_failures(failures)
        if responses:
            _copy_responses(paths, directory.responses)
        spent = [_spent(path) for path in paths]
        directory.tally.write(
            Spent(
                calls=sum(s.calls for s in spent),
                tokens=sum(s.tokens for s in spent),
                cost=sum(s.cost for s in spent),
            )
        )
        _write_manifest(target, paths, manifests)
    return len(done)


def _refuse_other(
    first: Path, expected: dict[str, Any], path: Path, manifest: dict[str, Any]
) -> None:
    def compared(of: dict[str, Any]) -> dict[str, Any]:
        kept = {k: v for k, v in of["configuration"].items() if k != "input"}
        return {**kept, "backend": of["backend"]}

    old, new = compared(expected), compared(manifest)
    differing = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
    if differing:
        lines = "\n".join(f"  {n}: {old.get(n)!r} -> {new.get(n)!r}" for n in differing)
        raise ConfigError(
            f"{path} was made with another configuration than {first}:\n{lines}\n"
            "Results of both in one table would not be comparable."
        )


def _refuse_same_ids(paths: Sequence[Path]) -> None:
    seen: dict[int, Path] = {}
    for path in paths:
        for batch in read_parts(parts_in(path / "results"), ["id"]):
            for name in batch.column(0).to_pylist():
                other = seen.setdefault(id_hash(name), path)
                if other is not path:
                    raise ConfigError(
                        f"{other} and {path} both have a result for the id {name!r}. Take that of "
                        "the run that is named first (--duplicates first), or make ids unique."
                    )


def _copy_results(paths: Sequence[Path], directory: RunDirectory) -> set[int]:
    done: set[int] = set()
    batches: list[Any] = []
    rows = size = 0
    for path in paths:
        for batch in read_parts(parts_in(path / "results")):
            hashes = [id_hash(name) for name in batch.column("id").to_pylist()]
            fresh = [i for i, value in enumerate(hashes) if value not in done]
            done.update(hashes)
            if not fresh:
                continue
            batches.append(batch if len(fresh) == len(hashes) else batch.take(_indices(fresh)))
            rows, size = rows + len(fresh), size + batch.nbytes
            if rows >= _PART_ROWS or size >= _PART_BYTES:
                directory.write(batches)
                batches, rows, size = [], 0, 0
    if batches:
        directory.write(batches)
    return done


def _indices(places: list[int]) -> Any:
    import pyarrow as pa

    return pa.array(places)


def _copy_responses(paths: Sequence[Path], target: Path) -> None:
    connection = connect(target)
    try:
        for path in paths:
            source = path / "responses.sqlite"
            if not source.exists():
                continue
            connection.execute("ATTACH DATABASE ? AS source", (str(source),))
            connection.execute(
                "INSERT OR IGNORE INTO answers (key, crc, value) "
                "SELECT key, crc, value FROM source.answers"
            )
            connection.execute("DETACH DATABASE source")
    except sqlite3.Error as error:
        raise ConfigError(f"the answers cannot be put together: {error}.") from error
    finally:
        connection.close()


def _spent(path: Path) -> Spent:
    from pizza.bulk.tally import TallyFile

    if not (path / "spent").exists():
        return Spent()
    tally = TallyFile(path / "spent")
    try:
        return tally.spent
    finally:
        tally.close()


def _write_manifest(
    target: Path, paths: Sequence[Path], manifests: Sequence[dict[str, Any]]
) -> None:
    merged = {
        **manifests[0],
        "configuration": {**manifests[0]["configuration"], "input": None},
        "runs": [run for manifest in manifests for run in manifest["runs"]],
        "merged": [
            {"path": path.name, "id": manifest["id"], "input": manifest["configuration"]["input"]}
            for path, manifest in zip(paths, manifests, strict=True)
        ],
    }
    write_whole(target / "manifest.json", json.dumps(merged, indent=2) + "\n")
