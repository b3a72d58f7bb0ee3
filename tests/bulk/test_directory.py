# SPDX-License-Identifier: Apache-2.0
"""The run directory by itself: lock, manifest, tally, parts, journals."""

import json
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pizza._engine.budget import Ledger
from pizza.bulk.configuration import described, refuse_difference
from pizza.bulk.directory import RunDirectory, read_failures, read_manifest
from pizza.bulk.tally import TallyFile
from pizza.errors import BudgetExceededError, ConfigError, ResultFormatError
from pizza.limits import Budget, Price, Spent
from pizza.specs import Choice

pytest.importorskip("pyarrow", reason="installed with the extra 'bulk'")


def test_one_process_at_a_time_and_the_lock_goes_with_its_process(tmp_path):
    program = (
        "import sys; from pizza.bulk.directory import RunDirectory;"
        "d = RunDirectory(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "run")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with other:
        assert other.stdout.readline() == "open\n"
        with pytest.raises(ConfigError, match=f"in use: process {other.pid} on "):
            RunDirectory(tmp_path / "run")
        other.kill()
        other.wait()
    RunDirectory(tmp_path / "run").close()


def test_it_refuses_what_is_no_run(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="is a file"):
        RunDirectory(tmp_path / "file")
    with pytest.raises(ConfigError, match=r"is not a run, and not empty \(file\)"):
        RunDirectory(tmp_path)
    with pytest.raises(ConfigError, match=r"no manifest\.json"):
        RunDirectory(tmp_path / "new", create=False)


def test_results_without_a_manifest_are_nobodys(tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "part-000001.parquet").write_bytes(b"noise")
    with pytest.raises(ConfigError, match=r"holds results, and no manifest\.json"):
        RunDirectory(tmp_path)


@pytest.mark.parametrize("name", ["manifest.json", "failures.jsonl"])
def test_a_full_disk_leaves_the_file_as_it_was(name, tmp_path):
    (tmp_path / name).write_text("before")
    program = (
        "import resource, sys; from pathlib import Path; from pizza.errors import ConfigError;"
        "from pizza.bulk.directory import write_whole;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000));\n"
        "try: write_whole(Path(sys.argv[1]), 'x' * 5000)\n"
        "except ConfigError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / name)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Make room or grant access, and run the same command again" in done.stdout
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [(name, "before")]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_cannot_be_written_to_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match="cannot write to"):
        RunDirectory(tmp_path / "run")


def test_a_directory_on_a_file_system_that_takes_nothing_is_refused():
    with pytest.raises(ConfigError, match="cannot write to /proc/pizza-run"):
        RunDirectory("/proc/pizza-run")


def test_a_changed_configuration_is_refused_with_the_difference(tmp_path):
    with RunDirectory(tmp_path / "run") as directory:
        directory.settle({"model": "misspelt", "options": {}})
    with RunDirectory(tmp_path / "run") as directory:
        # Nothing was sent: nothing is lost.
        directory.settle({"model": "a", "options": {"units": "word", "seed": 1}})
        directory.tally.write(Spent(calls=1))
    with (
        RunDirectory(tmp_path / "run") as directory,
        pytest.raises(ConfigError, match=r"units: 'word' -> 'token'") as caught,
    ):
        directory.settle({"model": "a", "options": {"units": "token", "seed": 1}})
    assert "seed" not in str(caught.value)
    with RunDirectory(tmp_path / "run") as directory:
        directory.settle({"model": "a", "options": {"seed": 1, "units": "word"}})
        assert len(directory.manifest["runs"]) == 3
        directory.note_model("m", [{"name": "p", "distribution": "d", "version": "1"}])
    with RunDirectory(tmp_path / "run") as directory:
        directory.settle({"model": "a", "options": {"seed": 1, "units": "word"}})
        newer = [{"name": "p", "distribution": "d", "version": "2"}]
        assert directory.note_model("m", newer) == ["p 1 -> 2"]
        with pytest.raises(ConfigError, match="backend: 'm' -> 'other'"):
            directory.note_model("other", newer)


@pytest.mark.parametrize(
    ("text", "said"),
    [("{", "damaged"), ("[]", "not the manifest"), ('{"schema": "pizza.run"}', "version None")],
)
def test_a_manifest_of_something_else_is_refused(text, said, tmp_path):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ResultFormatError, match=said):
        read_manifest(tmp_path)


def test_two_ways_to_write_one_option_are_one_configuration():
    named = described({"units": Choice("sliding-window", size=3)})
    refuse_difference(named, described({"units": Choice("sliding-window", size=3)}), "x")
    with pytest.raises(ConfigError, match=r"units\.size: 3 -> 4"):
        refuse_difference(named, described({"units": Choice("sliding-window", size=4)}), "x")


spents = st.builds(
    Spent,
    calls=st.integers(0, 2**63),
    tokens=st.integers(0, 2**63),
    cost=st.floats(0, 1e9),
)


@given(written=st.lists(spents, max_size=5), torn=st.integers(0, 200))
def test_the_tally_is_the_newest_whole_record(written, torn, tmp_path_factory):
    path = tmp_path_factory.mktemp("tally") / "spent"
    tally = TallyFile(path)
    for spent in written:
        tally.write(spent)
    tally.close()
    again = TallyFile(path)
    assert again.spent == (written[-1] if written else Spent())
    again.close()
    # A record that was cut off while it was written: the one before it counts.
    if len(written) > 1:
        slot = 64 * (len(written) % 2)
        data = bytearray(path.read_bytes())
        data[slot + torn % 40] ^= 0xFF
        path.write_bytes(data)
        again = TallyFile(path)
        assert again.spent == written[-2]
        again.close()


def test_a_tally_of_noise_is_refused(tmp_path):
    (tmp_path / "spent").write_bytes(b"x" * 128)
    with pytest.raises(ConfigError, match="Delete the file to count from zero"):
        TallyFile(tmp_path / "spent")


def test_a_line_of_failures_that_was_cut_off_is_left_out(tmp_path):
    first = {"id": "a", "where": "f:1", "kind": "X", "again": True}
    text = json.dumps(first) + "\n" + json.dumps({**first, "kind": "Y"}) + '\n{"id": "b", "wh'
    (tmp_path / "failures.jsonl").write_text(text)
    assert [f["kind"] for f in read_failures(tmp_path)] == ["Y"]


def test_parts_that_were_not_finished_are_cleared_away(tmp_path):
    with RunDirectory(tmp_path / "run") as directory:
        left = directory.results / ".part-000007.parquet.tmp"
        left.write_bytes(b"half")
    with RunDirectory(tmp_path / "run") as directory:
        assert not left.exists()
        assert len(directory.done()) == 0


def test_a_damaged_part_is_named_with_what_to_do(tmp_path):
    with RunDirectory(tmp_path / "run") as directory:
        (directory.results / "part-000001.parquet").write_bytes(b"noise")
        with pytest.raises(ResultFormatError, match=r"part-000001\.parquet cannot .* Delete it"):
            directory.done()


async def test_what_is_under_way_is_noted_and_what_waits_is_not(tmp_path):
    tally = TallyFile(tmp_path / "spent")
    tally.write(Spent(calls=5, tokens=50, cost=0.5))
    ledger = Ledger(Budget(max_calls=8), Price(prompt=1.0, completion=1.0), "x", tally)
    worst, real = Spent(calls=1, tokens=30, cost=0.25), Spent(calls=1, tokens=10, cost=0.125)
    await ledger.reserve(worst)
    await ledger.reserve(worst)
    assert tally.spent == Spent(calls=5, tokens=50, cost=0.5)
    ledger.begin(worst)
    ledger.begin(worst)
    assert tally.spent == Spent(calls=7, tokens=110, cost=1.0)
    ledger.settle(worst, real)
    ledger.settle(worst, real)
    assert tally.spent == ledger.spent == Spent(calls=7, tokens=70, cost=0.75)
    await ledger.reserve(worst)
    ledger.settle(worst, Spent(), sent=False)
    assert tally.spent.calls == 7
    # What another process spent before counts: there is room for one more, and not for two.
    await ledger.reserve(worst)
    ledger.begin(worst)
    ledger.settle(worst, Spent(calls=1, tokens=90, cost=1.0))
    assert tally.spent == Spent(calls=8, tokens=160, cost=1.75)
    with pytest.raises(BudgetExceededError, match="max_calls=8, spent 8"):
        await ledger.reserve(worst)
    tally.close()
