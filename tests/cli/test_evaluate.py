# SPDX-License-Identifier: Apache-2.0
"""``pizza evaluate`` with the embedded model: from a prompt to figures, and wrong calls."""

import json
import re

import pytest
from support.commandline import flat
from support.server import served_model

from pizza.evaluation import Evaluation

SHORT = "Eva has 4 blue hats. How many hats does Eva have?"


@pytest.fixture
def saved(pizza_command, tmp_path):
    """A file with an attribution."""
    path = tmp_path / "result.json"
    assert pizza_command("attribute", "--quiet", "--output", path, SHORT).code == 0
    return path


def lines_of(done):
    """The table's lines by measure."""
    return {line.split()[0]: line for line in done.out.splitlines() if line.startswith("  ")}


def test_figures_stand_beside_what_random_orders_give(pizza_command, saved):
    done = pizza_command("evaluate", saved)
    assert done.code == 0, done.err
    assert "Faithfulness  of leave-one-out" in done.out
    lines = lines_of(done)
    assert re.search(r"lds +-?\d\.\d+ \+- \d\.\d+ +-?\d\.\d+ +higher", lines["lds"])
    assert re.search(r"deletion +\d\.\d+ +\d\.\d+ +lower", done.out)
    assert re.search(r"completeness-error +[\d.e-]+ +lower", done.out), "no order, no control"
    assert re.search(r"deletion +[▁-█]+ +random [▁-█]+", done.out)
    assert re.search(r"\d+ model calls and \d+ answers? from the cache", flat(done.out))
    assert done.err == ""


@pytest.mark.parametrize("columns", [60, 80, 140])
def test_it_fits_the_terminal(pizza_command, saved, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    done = pizza_command("evaluate", saved)
    assert max(map(len, done.out.splitlines())) <= columns
    assert "\x1b" not in done.out


def test_json_is_one_document_that_can_be_read_again(pizza_command, saved):
    done = pizza_command("evaluate", "--json", saved)
    assert done.out.count("\n") == 1
    found = Evaluation.from_dict(done.json)
    assert found["lds"].details["coalitions"] > 16
    assert found.provenance["backend"].startswith("embedded")


def test_the_attribution_may_come_by_a_pipe(pizza_command):
    document = pizza_command("attribute", "--json", SHORT).out
    done = pizza_command("evaluate", "-", "--measure", "tau-loo", data=document.encode())
    assert done.code == 0, done.err
    assert "tau-loo" in done.out


def test_options_are_the_session_s(pizza_command, saved, tmp_path):
    path = tmp_path / "evaluation.json"
    done = pizza_command(
        *("evaluate", saved, "--measure", "lds:p=0.8", "--measure", "deletion", "--budget", "40"),
        *("--metric", "prob-diff", "--perturbation", "fixed:text=_", "--seed", "3", "-o", path),
    )
    assert done.code == 0, done.err
    assert str(path) in done.err.replace("\n", "")
    found = Evaluation.load(path)
    assert found.measures == ("lds:p=0.8", "deletion")
    assert found.calls <= 40
    assert found.metric == "prob-diff"
    assert found.provenance["perturbation"]["options"] == {"text": "_"}
    assert found.provenance["seed"] == 3


def test_answers_are_paid_for_once(pizza_command, saved):
    first = pizza_command("evaluate", "--json", saved).json
    again = pizza_command("evaluate", "--json", saved).json
    assert first["calls"] > 100
    assert again["calls"] == 0
    assert again["results"] == first["results"]
    unkept = pizza_command("evaluate", "--json", "--no-cache", saved).json
    assert unkept["calls"] == first["calls"] + first["cache_hits"]


def test_an_output_token_is_named(pizza_command, saved):
    done = pizza_command("evaluate", saved, "--output-token", "0", "--measure", "tau-loo")
    assert done.code == 0, done.err
    assert re.search(r"Row +output token 0", done.out)


def test_another_model_is_asked_about_the_same_output(pizza_command, saved):
    with served_model() as server:
        done = pizza_command(
            *("evaluate", saved, "--model", f"openai:{server.model}", "--measure", "deletion"),
            *("--base-url", server.base_url, "--budget", "30"),
        )
        assert done.code == 0, done.err
        assert 0 < sum(server.stats["requests"].values()) <= 40
    assert "the attribution was made with embedded:default" in flat(done.out)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--measure", "ldss"], "Did you mean 'lds'"),
        (["--measure", "lds:q=1"], "It takes: p"),
        (["--budget", "3"], "need at least"),
        (["--budget", "few"], "not a budget"),
        (["--max-calls", "3"], "need at least"),
        (["--metric", "prob-dif"], "Did you mean 'prob-diff'"),
        (["--perturbation", "deleted"], "Did you mean 'delete'"),
        (["--output-token", "9"], "there is no output token 9"),
        (["--model", "embeded"], "Did you mean 'embedded'"),
        (["--output", "/no/such/folder/x.json"], "in a folder that exists"),
    ],
)
def test_a_wrong_call_ends_with_2_and_says_what_is_right(pizza_command, saved, options, said):
    done = pizza_command("evaluate", saved, *options)
    assert done.code == 2
    assert done.out == ""
    assert said in flat(done.err)
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    "text", [None, "", "{", "[" * 100_000, "[]", '{"schema": "pizza.evaluation"}', "\xff"]
)
def test_files_that_hold_no_attribution(pizza_command, tmp_path, text):
    path = tmp_path / "x.json"
    if text is not None:
        path.write_bytes(text.encode("latin-1"))
    done = pizza_command("evaluate", path)
    assert done.code == 2
    assert ("cannot read" if text is None else "holds no attribution") in flat(done.err)
    assert "Traceback" not in done.err


def test_hostile_text_of_a_result_does_not_reach_the_terminal(pizza_command, saved):
    document = json.loads(saved.read_text())
    document["provenance"]["method"] = {"name": "\x1b[31m\u202e", "options": {"\x07": "\x1b]0;x"}}
    saved.write_text(json.dumps(document))
    done = pizza_command("evaluate", saved, "--measure", "completeness-error")
    assert done.code == 0, done.err
    assert not any(ord(c) < 32 and c != "\n" for c in done.out + done.err)
    assert "\u202e" not in done.out
