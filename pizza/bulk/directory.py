# SPDX-License-Identifier: Apache-2.0
"""`RunDirectory`: what a run leaves on disk, and the lock that keeps others out."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import socket
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from pizza import __version__
from pizza.bulk.configuration import refuse_difference
from pizza.bulk.parts import parts_in, read_parts, write_part
from pizza.bulk.rows import id_hash
from pizza.bulk.tally import TallyFile
from pizza.errors import ConfigError, ResultFormatError
from pizza.limits import Spent

if TYPE_CHECKING:
    from numpy.typing import NDArray

SCHEMA = "pizza.run"
SCHEMA_VERSION = 1


class RunDirectory:
    """One run on disk, open in one process.

    Attributes:
        path: The directory.
        tally: What was spent in it.

    Args:
        path: The directory; made when it is not there.
        create: Whether a directory without a run is used for a new one.

    Raises:
        ConfigError: Another process has it open, it cannot be written to, or it is no run.
    """

    def __init__(self, path: str | os.PathLike[str], *, create: bool = True) -> None:
        self.path = Path(path)
        manifest = self.path / "manifest.json"
        if not create and not manifest.is_file():
            raise ConfigError(f"there is no run in {self.path} to go on with (no manifest.json).")
        _check_empty_or_run(self.path)
        with contextlib.ExitStack() as stack:
            try:
                self.results.mkdir(parents=True, exist_ok=True)
                self._lock = _locked(self.path / "lock")
                stack.callback(os.close, self._lock)
                self.tally = TallyFile(self.path / "spent")
                stack.callback(self.tally.close)
                self._events = stack.enter_context(
                    (self.path / "events.jsonl").open("a", encoding="utf-8", buffering=1)
                )
                for left in self.results.glob(".part-*.tmp"):
                    left.unlink()
            except OSError as error:
                raise ConfigError(
                    f"cannot write to {self.path}: {error.strerror or error}. Name another "
                    "directory, or grant access."
                ) from error
            self._manifest: dict[str, Any] = read_manifest(self.path) if manifest.exists() else {}
            self._next = max((_number(p) for p in parts_in(self.results)), default=0) + 1
            self._stack = stack.pop_all()

    @property
    def results(self) -> Path:
        """Where the parts are."""
        return self.path / "results"

    @property
    def responses(self) -> Path:
        """The store of answers."""
        return self.path / "responses.sqlite"

    @property
    def manifest(self) -> Mapping[str, Any]:
        """The manifest; empty before `settle`."""
        return self._manifest

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close everything and let others in."""
        # What the log of events still holds may not fit on the disk.
        with contextlib.suppress(OSError):
            self._stack.close()

    # --- manifest -----------------------------------------------------------------------------

    def settle(self, configuration: Mapping[str, Any]) -> None:
        """Write the manifest of a new run, or hold the configuration against that of an old one.

        A run that has sent nothing and found nothing, because of a misspelt name for example, is
        new.

        Raises:
            ConfigError: It differs.
        """
        untouched = self.tally.spent == Spent() and not parts_in(self.results)
        if not self._manifest or (untouched and "merged" not in self._manifest):
            self._manifest = {
                "schema": SCHEMA,
                "schema_version": SCHEMA_VERSION,
                "id": uuid.uuid4().hex,
                "created_at": _now(),
                "configuration": dict(configuration),
                "backend": None,
                "plugins": [],
                "runs": list(self._manifest.get("runs", ())),
            }
        elif "merged" in self._manifest:
            raise ConfigError(f"{self.path} was put together by pizza merge: nothing goes on here.")
        refuse_difference(self._manifest["configuration"], configuration, str(self.path))
        self._manifest["runs"].append(
            {
                "started_at": _now(),
                "pizza_version": __version__,
                "pid": os.getpid(),
                "host": socket.gethostname(),
            }
        )
        self._write_manifest()

    def note_model(self, identity: str, plugins: Sequence[Mapping[str, str]]) -> list[str]:
        """Note who answers, and with which plugins; returns what of the plugins has changed.

        Raises:
            ConfigError: Another model answers than before.
        """
        before = self._manifest["backend"]
        if before is not None and before != identity:
            refuse_difference({"backend": before}, {"backend": identity}, str(self.path))
        old = {p["name"]: p["version"] for p in self._manifest["plugins"]}
        changed = [
            f"{p['name']} {old[p['name']]} -> {p['version']}"
            for p in plugins
            if p["name"] in old and old[p["name"]] != p["version"]
        ]
        self._manifest.update(backend=identity, plugins=[dict(p) for p in plugins])
        self._manifest["runs"][-1]["plugins_changed"] = changed
        self._write_manifest()
        return changed

    def _write_manifest(self) -> None:
        text = json.dumps(self._manifest, indent=2, allow_nan=False) + "\n"
        write_whole(self.path / "manifest.json", text)

    # --- results ------------------------------------------------------------------------------

    def done(self) -> NDArray[np.uint64]:
        """64 bits of the id of every row that has a result, sorted.

        Raises:
            ResultFormatError: A part cannot be read.
        """
        return done_in(self.results)

    def write(self, batches: list[Any]) -> Path:
        """Write results as the next part.

        Raises:
            OSError: There is no room, for example.
        """
        path = self.results / f"part-{self._next:06d}.parquet"
        write_part(path, batches)
        self._next += 1
        return path

    def adopt(self, written: Path) -> Path:
        """Give a part that another process wrote its name; from then on it counts.

        Args:
            written: By `pizza.bulk.parts.write_unnamed`, in `results`.

        Raises:
            OSError: It is not there.
        """
        path = self.results / f"part-{self._next:06d}.parquet"
        written.replace(path)
        self._next += 1
        return path

    # --- journals -----------------------------------------------------------------------------

    def failures(self) -> list[dict[str, Any]]:
        """Rows that failed, as they were noted; the last word on each id."""
        return list(read_failures(self.path))

    def keep_failures(self, failures: Sequence[Mapping[str, Any]]) -> None:
        """Replace the list of failures."""
        text = "".join(json.dumps(failure) + "\n" for failure in failures)
        write_whole(self.path / "failures.jsonl", text)

    def note_failure(self, failure: Mapping[str, Any]) -> None:
        """Add a failure."""
        with (self.path / "failures.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(failure) + "\n")

    def log(self, event: Mapping[str, Any]) -> None:
        """Add a line to the log of events."""
        self._events.write(json.dumps(event, default=str) + "\n")


def done_in(results: Path) -> NDArray[np.uint64]:
    """64 bits of the id of every row that has a result in a folder of parts, sorted.

    Raises:
        ResultFormatError: A part cannot be read.
    """
    found: list[int] = []
    for batch in read_parts(parts_in(results), ["id"]):
        found += [id_hash(name) for name in batch.column(0).to_pylist()]
    return np.sort(np.array(found, dtype=np.uint64))


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a run directory, which may be in use.

    Raises:
        ResultFormatError: It is none, damaged, or of a later version.
    """
    file = path / "manifest.json"
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ResultFormatError(f"{path} is not a run: {error.strerror}: {file}.") from error
    except (ValueError, RecursionError) as error:
        raise ResultFormatError(f"{file} is damaged: {error}.") from error
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise ResultFormatError(f"{file} is not the manifest of a run.")
    if found.get("schema_version") != SCHEMA_VERSION:
        raise ResultFormatError(
            f"{file} has schema version {found.get('schema_version')!r}; this pizza reads "
            f"{SCHEMA_VERSION}. Upgrade: pip install -U pizza-attribution."
        )
    return found


def read_failures(path: Path) -> Sequence[dict[str, Any]]:
    """The failures of a run directory: the last word on each id. A line cut off is left out."""
    file = path / "failures.jsonl"
    found: dict[Any, dict[str, Any]] = {}
    if not file.exists():
        return ()
    with file.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                failure = json.loads(line)
                found[failure["id"] or failure["where"]] = failure
            except (ValueError, KeyError, TypeError):
                continue
    return tuple(found.values())


def _check_empty_or_run(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise ConfigError(f"{path} is a file; a run needs a directory.")
    ours = {"lock", "spent", "events.jsonl", "results"}
    if path.is_dir() and not (path / "manifest.json").exists():
        if parts_in(path / "results"):
            raise ConfigError(
                f"{path} holds results, and no manifest.json that says how they were made. Name a "
                "new directory."
            )
        others = sorted({entry.name for entry in path.iterdir()} - ours)
        if others:
            raise ConfigError(
                f"{path} is not a run, and not empty ({', '.join(others[:3])}). Name a new "
                "directory."
            )


def _locked(path: Path) -> int:
    """Take the lock; it goes with the process, however that ends."""
    try:
        import fcntl
    except ImportError as error:
        raise ConfigError("run directories need file locks, which this system lacks.") from error
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(file, 200, 0).decode(errors="replace").strip() or "another process"
            raise ConfigError(
                f"{path.parent} is in use: {holder} runs there. Wait until it has ended, or name "
                "another directory."
            ) from error
        os.ftruncate(file, 0)
        os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    except BaseException:
        os.close(file)
        raise
    return file


def _number(path: Path) -> int:
    digits = path.stem.partition("-")[2]
    return int(digits) if digits.isdecimal() else 0


def write_whole(path: Path, text: str) -> None:
    """Write a file of a run, whole or not at all.

    Raises:
        ConfigError: There is no room, or no access.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ConfigError(
            f"cannot write {path}: {error.strerror or error}. Make room or grant access, and run "
            "the same command again."
        ) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
