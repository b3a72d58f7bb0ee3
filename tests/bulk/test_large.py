# SPDX-License-Identifier: Apache-2.0
"""Inputs that are larger than what a run may take of the memory."""

import subprocess
import sys

import numpy as np
import pytest

pa = pytest.importorskip("pyarrow", reason="installed with the extra 'bulk'")
pq = pytest.importorskip("pyarrow.parquet", reason="installed with the extra 'bulk'")

ROWS = 10_000
SIZE = 200_000_000
CENSUS = """
import resource, sys
from pizza.bulk import source_of
from pizza.bulk.census import take_census
take_census(source_of(sys.argv[1]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rows = take_census(source_of(sys.argv[2])).rows
print(rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def text(row):
    """A prompt of its own that does not compress to nothing."""
    words = np.random.default_rng(row).integers(10**8, size=200)
    return f"Row {row}: " + " ".join(map(str, words)) * (SIZE // ROWS // 1800)


def written(path, rows):
    if path.suffix == ".parquet":
        table = pa.table({"id": range(rows), "prompt": [text(row) for row in range(rows)]})
        # One row group, as most programs write it.
        pq.write_table(table, path, compression="none", use_dictionary=False, row_group_size=rows)
        return path
    with path.open("w") as file:
        file.write("id,prompt\n" if path.suffix == ".csv" else "")
        for row in range(rows):
            line = f"{row},{text(row)}" if path.suffix == ".csv" else None
            file.write(line or f'{{"id": {row}, "prompt": "{text(row)}"}}')
            file.write("\n")
    return path


@pytest.mark.parametrize(("kind", "most_mb"), [("jsonl", 25), ("csv", 25), ("parquet", 100)])
def test_memory_is_for_a_row_and_not_for_the_file(kind, most_mb, tmp_path):
    small = written(tmp_path / f"small.{kind}", 300)
    large = written(tmp_path / f"large.{kind}", ROWS)
    assert large.stat().st_size > 0.9 * SIZE
    done = subprocess.run(
        [sys.executable, "-c", CENSUS, str(small), str(large)],
        capture_output=True,
        text=True,
        check=True,
    )
    rows, kilobytes = map(int, done.stdout.split())
    assert rows == ROWS
    assert kilobytes < most_mb << 10
    large.unlink()
