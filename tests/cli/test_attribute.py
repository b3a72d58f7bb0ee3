# SPDX-License-Identifier: Apache-2.0
"""``pizza attribute`` with the embedded model."""

import json
import re
import shlex

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.commandline import PROMPT

import pizza

SHORT = "Eva has 4 blue hats. How many hats does Eva have?"


def words(outcome):
    """The words of the heat map and the table, without the lines that say what was spent."""
    return outcome.out.partition("What to try next")[0]


def test_a_prompt_is_explained(pizza_command):
    done = pizza_command("attribute", SHORT)
    assert done.code == 0
    for title in ("Prompt", "Answer", "Strongest units", "Held fixed", "Spent", "What to try"):
        assert title in done.out
    assert re.search(r"\d+ model calls; [\d,]+ prompt and [\d,]+ output tokens; no cost", done.out)
    assert re.search(r"\[[+-]\d", done.out), "without colour, scores stand beside the words"
    assert done.err == ""


def test_json_is_one_document_that_can_be_read_again(pizza_command):
    done = pizza_command("attribute", "--json", SHORT)
    assert done.out.count("\n") == 1
    result = pizza.Attribution.from_dict(done.json)
    assert result.prompt.text == SHORT
    assert len(result.units) == len(SHORT.split())
    assert result.provenance["backend"].startswith("embedded")


def test_answers_are_paid_for_once_over_several_runs(pizza_command):
    first = pizza_command("attribute", "--json", SHORT).json
    second = pizza_command("attribute", "--json", SHORT).json
    assert first["calls"] > 0
    assert (second["calls"], second["cache_hits"]) == (0, first["calls"])
    assert second["results"] == first["results"]
    third = pizza_command("attribute", "--json", "--no-cache", SHORT).json
    assert third["calls"] == first["calls"]


def test_a_cache_may_be_named(pizza_command, tmp_path):
    path = tmp_path / "new" / "mine.sqlite"
    assert pizza_command("attribute", "--cache", path, "--quiet", SHORT).code == 0
    assert path.is_file()


def test_the_result_can_be_written_to_a_file_too(pizza_command, tmp_path):
    path = tmp_path / "result.json"
    done = pizza_command("attribute", "--output", path, SHORT)
    assert "Prompt" in done.out
    assert str(path) in done.err.replace("\n", "")
    assert pizza.Attribution.load(path).prompt.text == SHORT


def test_parts_and_their_options_are_named_as_elsewhere(pizza_command):
    done = pizza_command(
        *("attribute", "--json", "--units", "sentence", "--method", "sliding-window:size=1"),
        *("--perturbation", "fixed:text=_", "--metric", "prob-diff", "--metric", "exact-match"),
        *("--evidence", "complete", "--max-tokens", "8", "--seed", "7", SHORT),
    )
    assert done.code == 0, done.err
    document = done.json
    assert len(document["units"]) == 2
    how = document["provenance"]
    assert how["method"]["options"] == {"size": 1}
    assert how["perturbation"]["options"] == {"text": "_"}
    assert [m["name"] for m in how["metrics"]] == ["prob-diff", "exact-match"]
    assert (how["evidence"], how["seed"], how["generation"]["max_tokens"]) == ("complete", 7, 8)


def test_a_given_target_and_a_contrast(pizza_command):
    document = pizza_command("attribute", "--json", "--target", "4", SHORT).json
    assert document["target"]["text"] == "4"
    done = pizza_command("attribute", "--target", "4", "--contrast", "3", SHORT)
    assert "why this and not '3'" in done.out


def test_quiet_leaves_the_suggestions_out(pizza_command):
    assert "What to try next" not in pizza_command("attribute", "--quiet", SHORT).out


@pytest.mark.parametrize("how", ["argument", "dash", "pipe", "file", "file-dash"])
def test_the_prompt_comes_from_anywhere(pizza_command, tmp_path, how):
    path = tmp_path / "prompt.txt"
    path.write_text(SHORT + "\n", encoding="utf-8-sig")
    data = (SHORT + "\r\n").encode()
    arguments, given_data = {
        "argument": ([SHORT], b""),
        "dash": (["-"], data),
        "pipe": ([], data),
        "file": (["--file", path], b""),
        "file-dash": (["--file", "-"], data),
    }[how]
    done = pizza_command("attribute", "--json", *arguments, data=given_data)
    assert done.json["prompt"]["messages"] == [{"role": "user", "content": SHORT}]


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_chat_comes_from_a_json_file(pizza_command, tmp_path, wrapped):
    chat = [
        {"role": "system", "content": "You count things."},
        {"role": "user", "content": SHORT},
    ]
    path = tmp_path / "chat.json"
    path.write_text(json.dumps({"model": "x", "messages": chat} if wrapped else chat))
    done = pizza_command("attribute", "--json", "--messages", path, "--fix-role", "system")
    assert done.json["prompt"]["messages"] == chat
    assert {unit[0] for unit in done.json["units"]} == {1}


def test_parts_of_the_prompt_can_be_fixed_or_not(pizza_command):
    text = f"Q: {SHORT} A:"
    done = pizza_command("attribute", "--fix", r"hats\.", text)
    assert '2 template marks ("Q:", "A:")' in done.out
    assert '1 part named by you ("hats.")' in done.out
    assert "Held fixed  nothing" in pizza_command("attribute", "--perturb-marks", text).out


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.text(min_size=1, max_size=40).filter(lambda t: t.strip() and not t.startswith("-")))
def test_no_prompt_breaks_the_output(pizza_command, text):
    """Given any text from a file -> a result, or an error that says what to do."""
    data = text.encode("utf-8", "surrogatepass")
    done = pizza_command("attribute", "--no-cache", "--quiet", "-", data=data)
    assert done.code in (0, 2)
    shown = done.out + done.err
    assert not any(ord(c) < 32 and c != "\n" for c in shown)
    assert "Traceback" not in shown


def test_suggested_commands_work_as_printed(pizza_command):
    done = pizza_command("attribute", SHORT)
    hints = done.out.partition("What to try next")[2]
    commands = [line.strip() for line in hints.splitlines() if line.startswith("    pizza ")]
    assert 2 <= len(commands) <= 3
    for command in commands:
        again = pizza_command(*shlex.split(command)[1:])
        assert again.code == 0, f"{command}: {again.err}"


def test_suggested_commands_keep_the_options_in_use(pizza_command, tmp_path):
    path = tmp_path / "it's a prompt.txt"
    path.write_text(SHORT)
    done = pizza_command(
        *("attribute", "--file", path, "--seed", "3", "--fix", "Eva", "--no-cache"),
        *("--perturbation", "fixed:text=_"),
    )
    hints = done.out.partition("What to try next")[2]
    commands = [shlex.split(line) for line in hints.splitlines() if line.startswith("    pizza ")]
    assert commands
    for command in commands:
        assert command[command.index("--seed") + 1] == "3"
        assert command[command.index("--file") + 1] == str(path)
        assert "--no-cache" in command
        assert "fixed:text=_" in command


def test_a_prompt_from_a_pipe_is_not_repeated_in_suggestions(pizza_command):
    done = pizza_command("attribute", "-", data=SHORT.encode())
    assert "the same command with --" in done.out
    assert "pizza attribute" not in done.out


def test_the_readme_prompt_has_its_answer_among_the_first_three(pizza_command):
    document = pizza_command("attribute", "--json", PROMPT).json
    result = pizza.Attribution.from_dict(document)
    assert result.output.text.strip().startswith("5")
    assert "5" in [unit.text for unit, _ in result.top(3)]


def test_a_span_of_the_output_is_explained(pizza_command):
    done = pizza_command("attribute", "--target", "4 hats", "--span", "0:1", "--json", SHORT)
    assert done.code == 0, done.err
    document = json.loads(done.out)
    assert document["target"]["span"] == [0, 1]
    first, *rest = document["results"][0]["scores"][1:]
    assert None not in first
    assert all(score is None for row in rest for score in row)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--span", "5"], "--span takes START:END"),
        (["--span", "3:3"], "empty or negative"),
        (["--target", "4", "--contrast", "5", "--span", "0:1"], "cannot go with --contrast"),
        (["--target", "4", "--span", "70:80"], "outside of the output"),
    ],
)
def test_a_span_that_means_nothing_is_refused(pizza_command, arguments, said):
    done = pizza_command("attribute", *arguments, SHORT)
    assert done.code == 2
    assert said in " ".join(done.err.split())
