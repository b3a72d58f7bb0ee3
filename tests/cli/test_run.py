# SPDX-License-Identifier: Apache-2.0
"""The commands for many prompts: run, estimate, merge, export."""

import io
import json

import pytest
from rich.console import Console
from support.commandline import flat

from pizza.cli.run_display import Board
from pizza.errors import AuthError
from pizza.events import Pace, RowFailed
from pizza.limits import Budget, Spent

pytest.importorskip("pyarrow", reason="installed with the extra 'bulk'")


@pytest.fixture
def rows(tmp_path):
    """Three prompts."""
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "".join(
            json.dumps({"id": f"r{i}", "prompt": f"Box {i}: Eva has {i} hats. How many?"}) + "\n"
            for i in range(3)
        )
    )
    return path


def test_a_run_says_how_it_ended_and_goes_on_for_nothing(pizza_command, rows, tmp_path):
    first = pizza_command("run", rows, "-o", tmp_path / "run", "--max-tokens", 4, "--json")
    assert first.code == 0, first.err
    assert (first.json["reason"], first.json["done"]) == ("finished", 3)
    again = pizza_command("run", rows, "-o", tmp_path / "run", "--max-tokens", 4, "--resume")
    assert again.code == 0
    assert "3 of 3 rows done" in flat(again.err)
    assert f"{first.json['spent']['calls']} requests in all" in flat(again.err)
    changed = pizza_command("run", rows, "-o", tmp_path / "run", "--max-tokens", 5)
    assert changed.code == 2
    assert "options.generation.max_tokens: 4 -> 5" in flat(changed.err)


def test_exit_codes_tell_how_it_ended(pizza_command, rows, tmp_path):
    capped = pizza_command("run", rows, "-o", tmp_path / "a", "--max-requests", 13, "--workers", 1)
    assert capped.code == 5
    assert "run the same command again" in flat(capped.err)
    rows.write_text(rows.read_text() + json.dumps({"id": "long", "prompt": "x " * 9000}) + "\n")
    failed = pizza_command("run", rows, "-o", tmp_path / "b", "--max-tokens", 4)
    assert failed.code == 4
    assert "1 failed (see failures.jsonl)" in flat(failed.err)
    wrong = pizza_command("run", rows, "-o", tmp_path / "c", "--metric", "no-such", "--circuit", 2)
    assert wrong.code == 2
    assert "no metric is called 'no-such'" in flat(wrong.err)
    assert pizza_command("run", rows, "-o", tmp_path / "new", "--resume").code == 2
    assert pizza_command("run", tmp_path / "none.jsonl", "-o", tmp_path / "new").code == 2
    two = pizza_command("run", rows, "-o", tmp_path / "d", "--method", "lime", "--method", "auto")
    assert two.code == 2


def test_an_estimate_and_a_dry_run_say_the_same_and_send_nothing(pizza_command, rows, tmp_path):
    run = tmp_path / "run"
    options = ("--max-tokens", 4, "--rpm", 60, "--json")
    estimated = pizza_command("estimate", rows, *options)
    dry = pizza_command("run", rows, "-o", run, "--dry-run", *options)
    assert estimated.code == 0, estimated.err
    assert estimated.json == dry.json
    assert not run.exists()
    (plan,) = estimated.json["plans"]
    assert plan["requests"] == plan["minutes"] * 60 > 0
    assert (plan["rows"], plan["cost"]) == (3, 0.0)
    real = pizza_command("run", rows, "-o", run, "--max-tokens", 4, "--json")
    assert real.json["spent"]["calls"] == plan["requests"]
    shown = pizza_command("estimate", rows, "--method", "leave-one-out", "--method", "kernel-shap")
    assert "kernel-shap" in shown.out
    assert "Most requests, leave-one-out: r" in flat(shown.out)


def test_what_every_prompt_would_take_is_written_to_a_file(pizza_command, rows, tmp_path):
    lines = tmp_path / "each.jsonl"
    methods = ("--method", "leave-one-out", "--method", "kernel-shap")
    done = pizza_command("estimate", rows, *methods, "--json", "--per-prompt", lines)
    assert done.code == 0, done.err
    found = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [line["method"] for line in found].count("kernel-shap") == 3
    for plan in done.json["plans"]:
        of_it = [line["requests"] for line in found if line["method"] == plan["method"]]
        assert sum(of_it) == plan["requests"]
    nowhere = pizza_command("estimate", rows, "--per-prompt", tmp_path / "no" / "each.jsonl")
    assert nowhere.code == 2
    assert "--per-prompt" in nowhere.err


def test_results_are_merged_and_exported(pizza_command, rows, tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_text(rows.read_text().replace('"r', '"s'))
    for path, run in ((rows, "a"), (other, "b")):
        done = pizza_command("run", path, "-o", tmp_path / run, "--max-tokens", 4, "--quiet")
        assert (done.code, done.err, done.out) == (0, "", "")
    merged = pizza_command("merge", tmp_path / "a", tmp_path / "b", "-o", tmp_path / "m")
    assert merged.code == 0
    assert "6 rows" in merged.err
    long = pizza_command("export", tmp_path / "m", "-o", tmp_path / "x.csv", "--long")
    assert long.code == 0
    assert (tmp_path / "x.csv").read_text().startswith("id,metric,output_index,")
    refused = pizza_command("merge", tmp_path / "a", tmp_path / "a", "-o", tmp_path / "n")
    assert refused.code == 2
    assert pizza_command("export", tmp_path, "-o", tmp_path / "y.csv").code == 1


def test_the_board_shows_what_matters():
    board = Board(budget=Budget(max_cost=5.0, max_calls=9000), rpm=6000)
    board.take(
        Pace(
            at=0.0,
            done=120,
            failed=3,
            total=1000,
            calls=4800,
            cache_hits=12,
            in_flight=34,
            per_second=98.5,
            spent=Spent(calls=4800, tokens=1_200_000, cost=1.25),
            left_s=754.0,
        )
    )
    failed = RowFailed(at=0.0, id="x", index=1, error=AuthError("no"), seconds=1.0)
    board.take(failed)
    file = io.StringIO()
    Console(file=file, width=120).print(board)
    shown = flat(file.getvalue())
    assert "120 of 1,000, 3 failed (AuthError 1)" in shown
    assert "98.5 of 100.0 per second, 34 under way, 4,800 sent, 12 known" in shown
    assert "$1.25 of $5.00, 4,800 requests of 9,000, 1,200,000 tokens" in shown
    assert "0:12:34" in shown
