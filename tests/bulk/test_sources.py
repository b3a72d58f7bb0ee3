# SPDX-License-Identifier: Apache-2.0
"""Inputs of every kind give the same rows, and bad ones say what is wrong and where."""

import csv
import datetime as dt
import gzip
import json
import os

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pizza.bulk import Columns, source_of
from pizza.bulk.census import contains, take_census
from pizza.bulk.rows import Fault, id_hash
from pizza.errors import ConfigError

pa = pytest.importorskip("pyarrow", reason="installed with the extra 'bulk'")
pq = pytest.importorskip("pyarrow.parquet", reason="installed with the extra 'bulk'")

RECORDS = [
    {"id": "a", "prompt": "One hat.\nTwo hats.", "note": 'said "yes", then'},
    {"id": "b", "prompt": "Grüße, 世界", "note": ""},
    {"id": "c", "prompt": "Three.", "note": "x"},
]


def jsonl(path, records):
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return path


def as_jsonl(folder):
    return jsonl(folder / "rows.jsonl", RECORDS)


def as_csv(folder):
    path = folder / "rows.csv"
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, ["id", "prompt", "note"])
        writer.writeheader()
        writer.writerows(RECORDS)
    return path


def as_tsv(folder):
    path = folder / "rows.tsv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["id", "prompt", "note"], delimiter="\t")
        writer.writeheader()
        writer.writerows(RECORDS)
    return path


def as_parquet(folder):
    path = folder / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(RECORDS), path)
    return path


@pytest.mark.parametrize("make", [as_jsonl, as_csv, as_tsv, as_parquet, lambda folder: RECORDS])
def test_every_kind_of_input_has_the_same_rows_and_digest(make, tmp_path):
    source = source_of(make(tmp_path))
    rows = list(source.rows())
    assert [(r.id, r.prompt, r.columns) for r in rows] == [
        (r["id"], r["prompt"], {"note": r["note"]}) for r in RECORDS
    ]
    expected = take_census(source_of(RECORDS))
    found = take_census(source)
    assert (found.rows, found.digest) == (3, expected.digest)
    assert found.hashes.tolist() == sorted(id_hash(r["id"]) for r in RECORDS)


def test_a_directory_of_texts_is_a_prompt_per_file(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "b.txt").write_text("Second.\n")
    (tmp_path / "deep" / "a.txt").write_text("Third.")
    (tmp_path / "a.txt").write_text("First.\r\n")
    (tmp_path / "ignored.md").write_text("no")
    assert [(r.id, r.prompt) for r in source_of(tmp_path).rows()] == [
        ("a.txt", "First."),
        ("b.txt", "Second."),
        ("deep/a.txt", "Third."),
    ]


def test_columns_can_be_named_and_ids_are_line_numbers_without_a_column(tmp_path):
    path = jsonl(tmp_path / "x.jsonl", [{"q": "One?", "want": "1"}, {"q": "Two?", "want": None}])
    rows = list(source_of(path, Columns(prompt="q", target="want")).rows())
    assert [(r.id, r.prompt, r.target) for r in rows] == [("1", "One?", "1"), ("2", "Two?", None)]


def test_chats_may_stand_in_any_format(tmp_path):
    chat = [{"role": "user", "content": "Hi there"}]
    path = tmp_path / "x.csv"
    path.write_text('id,messages\n1,"' + json.dumps(chat).replace('"', '""') + '"\n')
    assert next(iter(source_of(path).rows())).prompt == chat
    assert next(iter(source_of([{"messages": chat}]).rows())).prompt == chat


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"id": 1', "not JSON"),
        (b"[1, 2]", "not list"),
        (b'{"id": 1, "prompt": "caf\xe9"}', "not UTF-8 text (byte 24 of the line)"),
        (b'{"id": 1}', "there is no prompt: the columns are 'id'"),
        (b'{"id": 1, "prompt": "  "}', "empty"),
        (b'{"id": 1, "prompt": 5}', "is 5; it is a text"),
        (b'{"id": null, "prompt": "x"}', "the id in column 'id' is None"),
        (b'{"id": "a\\u0007", "prompt": "x"}', "printable"),
        (b'{"id": 1, "prompt": "x\\ud800"}', "surrogate"),
        (b'{"id": 1, "prompt": [{"role": "user"}]}', "content"),
    ],
)
def test_a_bad_line_is_named_before_anything_is_sent(line, said, tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b'{"id": "ok", "prompt": "fine"}\n' + line + b"\n")
    with pytest.raises(ConfigError) as caught:
        take_census(source_of(path))
    assert f"{path}:2: " in str(caught.value)
    assert said in str(caught.value)
    assert "--skip-bad-rows" in str(caught.value)
    skipped = take_census(source_of(path), skip_faults=True)
    assert (skipped.rows, len(skipped.faults)) == (1, 1)


def test_many_bad_lines_are_not_all_shown(tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_text("nothing\n" * 1000)
    with pytest.raises(ConfigError) as caught:
        take_census(source_of(path))
    assert len(str(caught.value).splitlines()) < 10


def test_a_file_without_one_usable_row_says_so_and_not_that_it_is_empty(tmp_path, monkeypatch):
    path = tmp_path / "bad.jsonl"
    path.write_text("nothing\n" * 100)
    with pytest.raises(ConfigError, match=r"all records .*\n  .*bad\.jsonl:1: this is not JSON"):
        take_census(source_of(path), skip_faults=True)
    # What is noted of each must not fill the memory.
    monkeypatch.setattr("pizza.bulk.census._MOST_FAULTS", 10)
    with pytest.raises(ConfigError, match="more than 10 records"):
        take_census(source_of(path), skip_faults=True)


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("x.jsonl", b"", "holds no rows"),
        ("x.jsonl", b"\n\n", "holds no rows"),
        ("x.csv", b"", "holds no rows"),
        ("x.csv", b"id,prompt\n", "holds no rows"),
        ("x.csv", b"id,id\n1,2\n", "has a name twice"),
        ("x.csv", b"id,prompt\n1,ok\n2,caf\xe9\n", "x.csv:3: this is not UTF-8"),
        ("x.csv", b"id,caf\xe9\n1,ok\n", "x.csv:1: this is not UTF-8"),
        ("x.csv", b"id;prompt\n1;ok\n", "not by ';'"),
        ("x.tsv", b"id,prompt\n1,ok\n", "not by ','"),
        ("x.csv", b'id,prompt\n1,"open\n2,x\n', "never closed"),
        ("x.csv", b'id,prompt\n1,"a" b\n', "not CSV"),
        ("x.csv", b"id,prompt\n1,a,b\n", "there are 3 fields, and the header has 2"),
        ("x.jsonl", '{"id": 1}'.encode("utf-16"), "iconv -f UTF-16 -t UTF-8 x.jsonl"),
        ("x.csv", "id,prompt\n1,ok\n".encode("utf-16"), "iconv -f UTF-16 -t UTF-8 x.csv"),
        ("x.jsonl", '{"id": 1, "prompt": "x"}'.encode("utf-16-le"), "-f UTF-16LE"),
        ("x.jsonl", gzip.compress(b'{"id": 1}'), "gunzip x.jsonl"),
        ("x.jsonl.gz", gzip.compress(b'{"id": 1}'), "unpack it first"),
        ("x.jsonl", b'[\n{"id": 1, "prompt": "x"}\n]\n', "jq -c '.[]'"),
        ("x.jsonl", b'{"id": 1,\n', "character"),
        ("x.json", b"[]", "jq -c '.[]' x.json"),
        ("x.txt", b"One hat.", "Put texts into a directory"),
        ("x.parquet", b"PAR1 not really", "cannot be read as Parquet"),
        ("x.parquet", b"", "cannot be read as Parquet"),
        ("x.docx", b"?", "of no kind that is understood"),
    ],
)
def test_bad_files_say_what_is_wrong(name, data, said, tmp_path):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        take_census(source_of(tmp_path / name))
    assert said in str(caught.value)
    assert name in str(caught.value)


def test_a_csv_row_in_another_encoding_spoils_no_other(tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes("id,prompt\n1,Grüße\n2,caf".encode() + b"\xe9\n3,ok\n")
    census = take_census(source_of(path), skip_faults=True)
    assert census.rows == 2
    assert [fault.where for fault in census.faults] == [f"{path}:3"]


def test_a_directory_without_texts_says_what_it_looked_for(tmp_path):
    (tmp_path / "a.md").write_text("no")
    with pytest.raises(ConfigError, match=r"holds no files like \*\*/\*\.txt"):
        take_census(source_of(tmp_path))


def test_a_text_in_another_encoding_is_named_and_may_be_left_out(tmp_path):
    (tmp_path / "a.txt").write_text("One hat.")
    (tmp_path / "b.txt").write_bytes(b"caf\xe9")
    with pytest.raises(ConfigError, match=r"b\.txt: this is not UTF-8"):
        take_census(source_of(tmp_path))
    assert take_census(source_of(tmp_path), skip_faults=True).rows == 1


def test_what_can_be_read_once_only_is_refused_before_it_is_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(ConfigError, match="no regular file"):
        source_of(tmp_path / "pipe.jsonl")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"id": 1, "prompt": "x"}, "one mapping"),
        (5, "not int"),
        (pa.table({"prompt": ["x"]}), "to_pylist"),
        (pd.DataFrame({"prompt": ["x"]}), "to_dict"),
        (["x"], "a row is a mapping, not str"),
    ],
)
def test_rows_in_memory_of_another_form_say_what_is_expected(given, said):
    with pytest.raises(ConfigError, match=said):
        take_census(source_of(given))


def test_a_split_is_for_datasets(tmp_path):
    with pytest.raises(ConfigError, match="--split is not for it"):
        source_of(as_jsonl(tmp_path), split="test")
    with pytest.raises(ConfigError, match="no splits"):
        source_of(RECORDS, split="test")


class Opaque:
    """Shows its address."""


def test_columns_of_any_type_have_one_digest_in_every_pass():
    def digest():
        values = [Opaque(), np.arange(5000), np.float32(0.5), dt.date(2024, 1, 2), b"x", {"a": 1}]
        return take_census(
            source_of([{"prompt": "x", "value": value, "id": i} for i, value in enumerate(values)])
        ).digest

    assert digest() == digest()
    numbers = [{"prompt": "x", "value": np.arange(5000) * k} for k in (1, 2)]
    first, second = (take_census(source_of([row])).digest for row in numbers)
    assert first != second


def test_the_same_id_twice_is_named_with_both_places(tmp_path):
    path = jsonl(tmp_path / "x.jsonl", [{"id": i % 7, "prompt": "x"} for i in range(8)])
    with pytest.raises(ConfigError, match=r"the id '0': .*x\.jsonl:1 and .*x\.jsonl:8"):
        take_census(source_of(path))


def test_a_missing_column_and_a_missing_file_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"no column 'q' .*there are: 'prompt'"):
        take_census(source_of([{"prompt": "x"}], Columns(prompt="q")))
    with pytest.raises(ConfigError, match="no file or directory"):
        source_of(tmp_path / "nowhere.jsonl")


def test_rows_that_can_be_read_once_are_refused():
    with pytest.raises(ConfigError, match="only once"):
        source_of(iter(RECORDS))


def test_an_endless_line_does_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("pizza.bulk.sources.MAX_LINE_BYTES", 1000)
    path = tmp_path / "x.jsonl"
    path.write_text('{"prompt": "' + "x" * 5000)
    with pytest.raises(ConfigError, match=r"x\.jsonl:1: the line is longer"):
        take_census(source_of(path))


@given(st.lists(st.text(min_size=1), unique=True, max_size=30), st.text())
def test_membership_is_that_of_a_set(names, other):
    hashes = np.sort(np.array([id_hash(n) for n in names if n.isprintable()], dtype=np.uint64))
    known = {id_hash(n) for n in names if n.isprintable()}
    for name in [*names, other]:
        try:
            value = id_hash(name)
        except UnicodeEncodeError:
            continue
        assert contains(hashes, value) == (value in known)


def test_a_fault_is_a_line_that_can_be_found():
    assert str(Fault(where="f.jsonl:3", message="no")) == "f.jsonl:3: no"
