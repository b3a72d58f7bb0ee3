# SPDX-License-Identifier: Apache-2.0
"""``pizza reanalyze`` of what ``pizza attribute`` has saved."""

import json

import pytest

import pizza

SHORT = "Eva has 4 blue hats. How many hats does Eva have?"


@pytest.fixture
def saved(pizza_command, tmp_path):
    """The file of a result."""

    def save(*options):
        path = tmp_path / "result.json"
        done = pizza_command("attribute", "--quiet", "--output", path, *options, SHORT)
        assert done.code == 0, done.err
        return path

    return save


def test_another_metric_is_shown_as_attribute_shows_it(pizza_command, saved):
    path = saved()
    done = pizza_command("reanalyze", path, "--metric", "prob-diff", "--top", "3")
    fresh = pizza_command("attribute", "--quiet", "--metric", "prob-diff", "--top", "3", SHORT)
    assert done.code == 0, done.err
    assert "Spent       0 model calls" in done.out
    assert "answers of a run by leave-one-out" in done.out
    assert "changed: metrics. Nothing was sent." in done.out
    assert done.out.partition("\nSpent")[0] == fresh.out.partition("\nSpent")[0]


def test_json_is_one_document_that_can_be_analyzed_again(pizza_command, saved, tmp_path):
    path, second = saved(), tmp_path / "second.json"
    done = pizza_command(
        *("reanalyze", path, "--metric", "kl-divergence", "--metric", "prob-diff", "--json"),
        *("--output", second),
    )
    assert done.out.count("\n") == 1
    result = pizza.Attribution.from_dict(done.json)
    assert result.metrics == ("kl-divergence", "prob-diff")
    assert (result.calls, result.cost) == (0, 0.0)
    assert json.loads(second.read_text()) == done.json
    again = pizza_command("reanalyze", second, "--metric", "logprob-diff", "--json").json
    assert again["results"] == json.loads(path.read_text())["results"]


def test_a_dash_reads_standard_input(pizza_command, saved):
    path = saved()
    piped = pizza_command("reanalyze", "-", "--metric", "prob-diff", data=path.read_bytes())
    assert piped.code == 0, piped.err
    assert piped.out == pizza_command("reanalyze", path, "--metric", "prob-diff").out


def test_a_contrast_of_tokens_and_a_span(pizza_command, saved):
    path = saved("--target", "4 hats")
    done = pizza_command("reanalyze", path, "--span", "0:1", "--json")
    assert done.json["target"]["span"] == [0, 1]
    options = ("--target", "4", "--contrast", "5", "--span", "0:1", "--skip-incomparable")
    done = pizza_command("reanalyze", path, *options)
    assert done.code == 0, done.err
    assert "why this and not '5'" in done.out


def test_a_method_that_suits_and_a_seed(pizza_command, saved):
    path = saved("--units", "sentence", "--method", "shapley")
    done = pizza_command("reanalyze", path, "--method", "banzhaf", "--seed", "3", "--json")
    assert done.json["provenance"]["method"]["name"] == "banzhaf"
    assert done.json["provenance"]["reanalysis"]["changed"] == ["method", "seed"]


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--metric", "exact-match"], 2, "nothing was written here"),
        (["--method", "sliding-window"], 2, "Methods that work on what was measured: "),
        (["--target", "7 hats"], 2, "'7 hats' was not measured"),
        (["--contrast", "5"], 2, "name what was with --target"),
        (["--span", "5"], 2, "--span takes START:END"),
        (["--span", "60:70"], 2, "outside of the output"),
        (["--output", "no/such/folder.json"], 2, "cannot write --output"),
        (["--metric", "logprob-dif"], 2, "Did you mean 'logprob-diff'"),
    ],
)
def test_what_cannot_be_is_said(pizza_command, saved, options, code, said):
    done = pizza_command("reanalyze", saved(), *options)
    assert done.code == code
    assert said in " ".join(done.err.split())
    assert done.out == ""


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot read"),
        ("{}", "not a saved attribution"),
        ("[", "not a JSON file"),
        ('{"schema": "pizza.attribution", "schema_version": 3}', "schema version 3"),
        ('{"schema": "pizza.attribution", "schema_version": 2}', "damaged"),
        ("[" * 100_000, "holds no attribution"),
    ],
)
def test_a_file_that_is_no_result_is_refused(pizza_command, tmp_path, content, said):
    path = tmp_path / "other.json"
    if content is not None:
        path.write_text(content)
    done = pizza_command("reanalyze", path)
    assert done.code == 2
    assert said in " ".join(done.err.split())
    assert "bug" not in done.err
