# SPDX-License-Identifier: Apache-2.0
"""Sources that need another package, and the source that a path or a name means."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pizza.bulk.delimited import Csv
from pizza.bulk.rows import Columns
from pizza.bulk.sources import JsonLines, PathSource, Records, Source, TextFiles
from pizza.errors import ConfigError

_BATCH = 256
_BUFFER = 1 << 20
_UNPACK = " It is compressed: unpack it first."
_HINTS = {
    ".json": " A list of objects becomes a file of lines with: jq -c '.[]' {name} > rows.jsonl",
    ".txt": " Put texts into a directory: each file is a prompt.",
    **dict.fromkeys((".gz", ".zst", ".bz2", ".xz", ".zip"), _UNPACK),
}
"""What to do with files that people have, by how their names end."""


class Parquet(PathSource):
    """A Parquet file, read in batches."""

    def records(self) -> Iterator[tuple[str, Mapping[str, Any] | str]]:
        """See `Source.records`."""
        pa, parquet = arrow()
        number = 0
        try:
            # Without these a column of a row group is read as a whole, and others write files with
            # one row group.
            with parquet.ParquetFile(self.path, buffer_size=_BUFFER, pre_buffer=False) as file:
                for batch in file.iter_batches(batch_size=_BATCH):
                    for record in batch.to_pylist():
                        number += 1
                        yield f"{self.path}: row {number}", record
        except (OSError, pa.ArrowException) as error:
            after = f" after row {number}" if number else ""
            raise ConfigError(
                f"{self.path}: this cannot be read as Parquet{after}: {str(error).rstrip('.')}."
            ) from error


def source_of(
    given: Source | str | Path | Iterable[Mapping[str, Any]],
    columns: Columns | None = None,
    *,
    split: str | None = None,
) -> Source:
    """The source that is meant by a path, a name or rows in memory.

    Args:
        given: A `Source`; a file named ``.jsonl``, ``.ndjson``, ``.csv``, ``.tsv`` or
            ``.parquet``; a directory of text files; a dataset of the Hugging Face ``datasets``
            package: ``"hf:NAME"`` or ``"hf:NAME:CONFIGURATION"``, a directory that
            ``save_to_disk`` wrote, or the object; or a list of mappings.
        columns: Which columns mean what.
        split: Of a dataset.

    Raises:
        ConfigError: It is none of these.
    """
    if isinstance(given, Source):
        return given
    if not isinstance(given, (str, Path)):
        return _in_memory(given, columns, split)
    if isinstance(given, str) and given.startswith("hf:"):
        name = given.removeprefix("hf:")
        return (
            _saved(Path(name), columns, split)
            if _is_saved(Path(name))
            else _loaded(name, columns, split)
        )
    path = Path(given)
    if _is_saved(path):
        return _saved(path, columns, split)
    if split is not None:
        raise ConfigError(f"{path} is no dataset: it has no splits, and --split is not for it.")
    if path.is_dir():
        return TextFiles(path)
    if not path.exists():
        raise ConfigError(f"there is no file or directory {path}.")
    kinds: dict[str, Any] = {
        ".jsonl": JsonLines,
        ".ndjson": JsonLines,
        ".csv": Csv,
        ".tsv": Csv,
        ".parquet": Parquet,
    }
    kind = kinds.get(path.suffix.lower())
    if kind is None:
        hint = _HINTS.get(path.suffix.lower(), "")
        raise ConfigError(
            f"{path} is of no kind that is understood: {', '.join(kinds)}, a directory of .txt "
            f"files, or hf:NAME for a dataset.{hint.format(name=path.name)}"
        )
    if not path.is_file():
        raise ConfigError(
            f"{path} is no regular file: a run reads its input twice, to check it and to explain "
            "it. Write it to a file first."
        )
    made: Source = kind(path, columns)
    return made


def _in_memory(given: Any, columns: Columns | None, split: str | None) -> Source:
    if isinstance(given, Mapping):
        # A dict of datasets, as they come without a split.
        if not given or any(isinstance(v, str) or not hasattr(v, "info") for v in given.values()):
            raise ConfigError("rows are a list of mappings, and this is one mapping.")
        given = _split_of(given, split, "the dataset")
    elif split is not None:
        raise ConfigError("these rows have no splits: split is for a dataset that has them.")
    if hasattr(given, "iloc"):
        raise ConfigError("rows of a pandas frame are given as frame.to_dict('records').")
    if hasattr(given, "to_pylist"):
        raise ConfigError("rows of an Arrow table are given as table.to_pylist(), or as a file.")
    if not isinstance(given, Iterable):
        raise ConfigError(
            f"rows are a file's name, a dataset or a list of mappings, not {type(given).__name__}."
        )
    return Records(given, columns, name=_dataset_name(given))


def _split_of(found: Mapping[str, Any], split: str | None, what: str) -> Any:
    if split is None or split not in found:
        said = "none was named" if split is None else f"{split!r} is none of them"
        raise ConfigError(
            f"{what} has splits, and {said}: {', '.join(found)}. Name one with --split."
        )
    return found[split]


def _is_saved(path: Path) -> bool:
    marks = ("dataset_info.json", "dataset_dict.json")
    return path.is_dir() and any((path / name).exists() for name in marks)


def arrow() -> tuple[Any, Any]:
    """``pyarrow`` and ``pyarrow.parquet``.

    Raises:
        ConfigError: They are not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise ConfigError(
            "runs over many prompts need pyarrow: pip install 'pizza-attribution[bulk]'."
        ) from error
    return pa, parquet


def _datasets() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise ConfigError("Hugging Face datasets need: pip install datasets.") from error
    return datasets


def _loaded(name: str, columns: Columns | None, split: str | None) -> Source:
    if not name:
        raise ConfigError("name the dataset after 'hf:', for example hf:squad.")
    datasets = _datasets()
    path, _, configuration = name.partition(":")
    try:
        found = datasets.load_dataset(path, configuration or None, split=split or "train")
    except Exception as error:
        raise ConfigError(
            f"the dataset {name!r}, split {split or 'train'!r}, cannot be loaded: "
            f"{type(error).__name__}: {str(error).rstrip('.')}. Another split is named with "
            "--split, a configuration with hf:NAME:CONFIGURATION."
        ) from error
    return Records(found, columns, name=f"hf:{name}")


def _saved(path: Path, columns: Columns | None, split: str | None) -> Source:
    datasets = _datasets()
    try:
        found = datasets.load_from_disk(str(path))
    except Exception as error:
        raise ConfigError(
            f"the dataset in {path} cannot be loaded: {type(error).__name__}: {error}."
        ) from error
    if isinstance(found, datasets.DatasetDict):
        found = _split_of(found, split, f"the dataset in {path}")
    return Records(found, columns, name=path.name)


def _dataset_name(given: Any) -> str:
    name = getattr(getattr(given, "info", None), "dataset_name", None)
    return f"hf:{name}" if name else "records"
