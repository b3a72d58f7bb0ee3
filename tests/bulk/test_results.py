# SPDX-License-Identifier: Apache-2.0
"""Runs put together, and results in the forms that other programs read."""

import csv
import json
import math

import pandas as pd
import pytest

import pizza
from pizza import bulk
from pizza.errors import ConfigError, ResultFormatError

pq = pytest.importorskip("pyarrow.parquet", reason="installed with the extra 'bulk'")


@pytest.fixture
async def run(prompts, tmp_path, served):
    """A run over four prompts with two metrics."""
    options = {**served["options"], "metrics": ["logprob-diff", "prob-diff"]}
    await bulk.run(prompts(4), tmp_path / "run", part_rows=3, **{**served, "options": options})
    return tmp_path / "run"


def scores(run):
    return {row["id"]: row for row in pq.read_table(run / "results").to_pylist()}


async def test_the_long_form_holds_every_score_once(run, tmp_path):
    frame = bulk.to_pandas(run)
    rows = scores(run)
    assert len(frame) == sum(
        2 * len(row["units"]) * (1 + len(row["output_tokens"])) for row in rows.values()
    )
    assert set(frame["topic"]) == {"hats"}
    for name, row in rows.items():
        for metric, grid in (
            (row["metric"], row["scores"]),
            *((other["metric"], other["scores"]) for other in row["further"]),
        ):
            mine = frame[(frame["id"] == name) & (frame["metric"] == metric)]
            expected = [value for line in grid for value in line]
            assert mine["score"].tolist() == pytest.approx(expected, nan_ok=True)
            assert mine["output_index"].tolist() == [
                i - 1 for i, line in enumerate(grid) for _ in line
            ]


@pytest.mark.parametrize("long", [False, True])
async def test_every_form_holds_the_same(run, tmp_path, long):
    sizes = {
        form: bulk.export(run, tmp_path / f"out.{form}", long=long)
        for form in ("jsonl", "csv", "parquet")
    }
    assert len(set(sizes.values())) == 1
    lines = [json.loads(x) for x in (tmp_path / "out.jsonl").read_text().splitlines()]
    with (tmp_path / "out.csv").open(newline="") as file:
        cells = list(csv.DictReader(file))
    table = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert len(lines) == len(cells) == len(table) == sizes["csv"]
    for line, cell, row in zip(lines, cells, table, strict=True):
        assert line["id"] == cell["id"] == row["id"]
        assert (line["weight"], float(cell["weight"])) == (row["weight"], row["weight"])
        if long:
            assert math.isclose(line["score"], float(cell["score"]))
            assert line["score"] == row["score"]
        else:
            assert line["scores"] == json.loads(cell["scores"]) == row["scores"]


async def test_columns_with_names_of_ours_keep_their_values(served, tmp_path):
    rows = [{"id": 1, "prompt": "Eva has 4 hats.", "score": 9, "calls": "many"}]
    await bulk.run(rows, tmp_path / "run", **served)
    assert set(bulk.to_pandas(tmp_path / "run")["user_score"]) == {9}
    wide = bulk.to_pandas(tmp_path / "run", long=False)
    assert wide["user_calls"].tolist() == ["many"]
    assert wide["score"].tolist() == [9]


async def test_columns_that_differ_from_row_to_row_need_jsonl(served, tmp_path):
    rows = [
        {"id": 1, "prompt": "Eva has 4 hats.", "x": 1},
        {"id": 2, "prompt": "Ana has 4 hats.", "x": "one", "y": 1},
    ]
    await bulk.run(rows, tmp_path / "run", workers=1, **served)
    with pytest.raises(ConfigError, match="Export to JSONL"):
        bulk.export(tmp_path / "run", tmp_path / "out.csv")
    with pytest.raises(ConfigError, match="Export to JSONL"):
        bulk.export(tmp_path / "run", tmp_path / "out.parquet")
    assert bulk.export(tmp_path / "run", tmp_path / "out.jsonl") == 2
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith((".out", "out"))) == [
        "out.jsonl"
    ]


async def test_what_cannot_be_exported_is_refused(run, tmp_path):
    with pytest.raises(ConfigError, match="one of jsonl, csv, parquet, not 'txt'"):
        bulk.export(run, tmp_path / "out.txt")
    with pytest.raises(ResultFormatError, match="is not a run"):
        bulk.export(tmp_path, tmp_path / "out.csv")
    with pytest.raises(pizza.PizzaError, match="cannot write"):
        bulk.export(run, tmp_path / "nowhere" / "out.csv")


async def test_runs_over_parts_of_an_input_become_one(served, prompts, tmp_path, model_server):
    first, second = prompts(3, "a.jsonl"), prompts(3, "b.jsonl", first=3)
    whole = prompts(6, "c.jsonl")
    a = await bulk.run(first, tmp_path / "a", **served)
    b = await bulk.run(second, tmp_path / "b", **served)
    assert bulk.merge([tmp_path / "a", tmp_path / "b"], tmp_path / "m") == 6
    merged = scores(tmp_path / "m")
    assert merged == {**scores(tmp_path / "a"), **scores(tmp_path / "b")}
    assert len(list((tmp_path / "m" / "results").iterdir())) == 1
    assert len(bulk.to_pandas(tmp_path / "m")["id"].unique()) == 6
    # The answers are together, too: the whole input costs nothing more.
    sent = sum(model_server.stats["requests"].values())
    await bulk.run(whole, tmp_path / "c", cache=tmp_path / "m" / "responses.sqlite", **served)
    assert sum(model_server.stats["requests"].values()) == sent == a.spent.calls + b.spent.calls
    with pytest.raises(ConfigError, match="put together by pizza merge"):
        await bulk.run(whole, tmp_path / "m", **served)
    with pytest.raises(ConfigError, match="holds a run already"):
        bulk.merge([tmp_path / "a"], tmp_path / "m")


async def test_runs_that_do_not_fit_together_are_refused(served, prompts, tmp_path):
    path = prompts(2)
    await bulk.run(path, tmp_path / "a", **served)
    other = {**served, "options": {**served["options"], "units": "sentence"}}
    await bulk.run(path, tmp_path / "b", **other)
    with pytest.raises(ConfigError, match="another configuration"):
        bulk.merge([tmp_path / "a", tmp_path / "b"], tmp_path / "m")
    await bulk.run(prompts(3), tmp_path / "c", **served)
    with pytest.raises(ConfigError, match="both have a result for the id 'r"):
        bulk.merge([tmp_path / "a", tmp_path / "c"], tmp_path / "m")
    with pytest.raises(ConfigError, match="'refuse' or 'first'"):
        bulk.merge([tmp_path / "a"], tmp_path / "m", duplicates="last")
    assert not (tmp_path / "m").exists()
    assert bulk.merge([tmp_path / "a", tmp_path / "c"], tmp_path / "m", duplicates="first") == 3
    assert sorted(scores(tmp_path / "m")) == ["r0", "r1", "r2"]


async def test_failures_of_one_run_that_another_has_results_for_are_dropped(
    served, prompts, tmp_path
):
    rows = [{"id": "x", "prompt": "word " * 3000}, {"id": "y", "prompt": "Eva has 4 hats."}]
    await bulk.run(rows, tmp_path / "a", **served)
    rows[0]["prompt"] = "Eva has 5 hats."
    await bulk.run(rows[:1], tmp_path / "b", **served)
    bulk.merge([tmp_path / "a", tmp_path / "b"], tmp_path / "m")
    assert (tmp_path / "m" / "failures.jsonl").read_text() == ""
    assert isinstance(bulk.to_pandas(tmp_path / "m"), pd.DataFrame)
