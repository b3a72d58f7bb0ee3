# SPDX-License-Identifier: Apache-2.0
"""Wrong calls and failures: one message that says what to do, and an exit code for scripts."""

import socket

import pytest
from support.commandline import PROMPT, flat
from support.server import served_model

from pizza import errors
from pizza.cli.failures import chosen, exit_code, without_secrets

KEY = "sk-test-0123456789abcdef"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model", "embeded"], "Did you mean 'embedded'"),
        (["--metric", "prob-dif"], "Did you mean 'prob-diff'"),
        (["--method", "leave-one"], "leave-one-out"),
        (["--units", "words"], "Did you mean 'word'"),
        (["--perturbation", "deleted"], "Did you mean 'delete'"),
        (["--perturbation", "fixed:texts=_"], "It takes: text"),
        (["--perturbation", "fixed:_"], "option=value"),
        (["--units", "slot"], "slot"),
        (["--max-calls", "3"], "Raise --max-calls"),
        (["--rpm", "0"], "--rpm must be greater than 0"),
        (["--max-tokens", "0"], "at least 1"),
        (["--temperature", "-1"], "0 or more"),
        (["--evidence", "guess"], "auto, score, complete"),
        (["--contrast", "3"], "--target"),
        (["--target", "3", "--contrast", "3"], "two different texts"),
        (["--fix", "("], "regular expression"),
        (["--fix", "zzz"], "matches nothing"),
        (["--fix-role", "system"], "--messages"),
        (["--api-key-env", "NOT_THERE"], "export NOT_THERE="),
        (["--backend-option", "api"], "NAME=VALUE"),
        (["--output", "/no/such/folder/x.json"], "in a folder that exists"),
        (["--file", "x.txt"], "given 2 times"),
        (["--top", "0"], "top"),
        (["--rpm", "many"], "--rpm"),
        (["--no-such-option"], "no-such-option"),
    ],
)
def test_a_wrong_call_ends_with_2_and_says_what_is_right(pizza_command, options, said):
    done = pizza_command("attribute", *options, PROMPT)
    assert done.code == 2
    assert done.out == ""
    assert said in flat(done.err)
    assert "Traceback" not in done.err


def test_nothing_is_sent_before_the_call_is_known_to_be_right(pizza_command):
    with served_model() as server:
        done = pizza_command(
            *("attribute", "--model", f"openai:{server.model}", "--base-url", server.base_url),
            *("--metric", "prob-dif", PROMPT),
        )
        assert done.code == 2
        assert sum(server.stats["requests"].values()) == 0


@pytest.mark.parametrize("text", ["", "   ", "\n"])
def test_an_empty_prompt_is_refused(pizza_command, text):
    done = pizza_command("attribute", text)
    assert done.code == 2
    assert "empty" in done.err


def test_no_prompt_at_all_is_explained_with_the_ways_to_give_one(pizza_command):
    done = pizza_command("attribute", terminal=True)
    assert done.code == 2
    assert "--file" in done.err
    assert "--messages" in done.err


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("missing.txt", None, "No such file"),
        ("latin.txt", "caf\xe9".encode("latin-1"), "iconv"),
    ],
)
def test_files_that_cannot_be_read(pizza_command, tmp_path, name, data, said):
    if data is not None:
        (tmp_path / name).write_bytes(data)
    done = pizza_command("attribute", "--file", tmp_path / name)
    assert done.code == 2
    assert said in done.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "no chat"),
        ('{"prompt": "x"}', "no chat"),
        ('["x"]', "role"),
        ('[{"role": "boss", "content": "x"}]', "boss"),
        ('[{"role": "user", "content": [{"type": "image_url"}]}]', "images"),
    ],
)
def test_chats_that_are_none(pizza_command, tmp_path, text, said):
    path = tmp_path / "chat.json"
    path.write_text(text)
    done = pizza_command("attribute", "--messages", path)
    assert done.code == 2
    assert said in done.err


def test_no_key_ends_with_3_and_names_the_variable(pizza_command):
    done = pizza_command("attribute", "--model", "openai:gpt-4o-mini", PROMPT)
    assert done.code == 3
    assert "OPENAI_API_KEY" in done.err


def test_a_wrong_key_ends_with_3_after_one_request_and_is_shown_nowhere(pizza_command, monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    with served_model(api_key="another") as server:
        done = pizza_command(
            *("attribute", "--model", f"openai:{server.model}", "--base-url", server.base_url),
            *("--api-key-env", "MY_KEY", "--debug", PROMPT),
        )
        assert server.stats["statuses"] == {"401": 1}
    assert done.code == 3
    assert "Traceback" in done.err, "--debug shows it"
    assert KEY not in done.out + done.err
    assert KEY[-8:] not in done.out + done.err


def test_a_key_on_the_command_line_is_refused_and_not_repeated(pizza_command):
    done = pizza_command("attribute", "--api-key-env", KEY, PROMPT)
    assert done.code == 2
    assert "name of an environment variable" in flat(done.err)
    assert KEY not in done.err


def test_a_server_that_is_not_there_ends_with_4(pizza_command):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    done = pizza_command(
        *("attribute", "--model", "openai:any", "--base-url", f"http://127.0.0.1:{port}/v1"),
        *("--attempts", "1", PROMPT),
    )
    assert done.code == 4
    assert f"127.0.0.1:{port}" in done.err
    assert "Traceback" not in done.err


def test_a_model_that_is_not_there_ends_with_4(pizza_command):
    with served_model() as server:
        done = pizza_command(
            *("attribute", "--model", "openai:nobody", "--base-url", server.base_url, PROMPT)
        )
    assert done.code == 4
    assert "nobody" in done.err


def test_a_budget_that_runs_out_ends_with_5_and_the_next_run_goes_on(pizza_command):
    with served_model() as server:
        command = (
            *("attribute", "--model", f"openai:{server.model}", "--base-url", server.base_url),
            *("--concurrency", "2", PROMPT),
        )
        done = pizza_command(*command, "--max-total-tokens", "250")
        assert done.code == 5
        assert "kept in" in done.err
        assert "run the same command again" in flat(done.err)
        sent = sum(server.stats["requests"].values())
        assert pizza_command(*command).code == 0
        everything = sum(server.stats["requests"].values())
        assert server.stats["duplicates"] == 0
    assert 0 < sent < everything


def test_a_cache_that_is_another_file_is_left_alone(pizza_command, tmp_path):
    path = tmp_path / "letter.txt"
    path.write_text("dear all")
    done = pizza_command("attribute", "--cache", path, PROMPT)
    assert done.code != 0
    assert str(path) in done.err.replace("\n", "")
    assert path.read_text() == "dear all"


def test_hostile_text_from_a_server_does_not_reach_the_terminal(pizza_command):
    done = pizza_command("attribute", "--model", "openai:\x1b[31m\u202e", PROMPT)
    assert "\x1b" not in done.err
    assert "\u202e" not in done.err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ConfigError("x"), 2),
        (errors.CapabilityError("x", needed="score", backend="b"), 2),
        (errors.UnknownNameError("metric", "x", []), 2),
        (errors.BudgetTooSmallError("x", needed=2, allowed=1), 2),
        (errors.AuthError("x"), 3),
        (errors.BackendUnavailableError("x"), 4),
        (errors.QuotaExhaustedError("x"), 4),
        (errors.RetriesExhaustedError("x", attempts=1, waited_s=1), 4),
        (errors.BudgetExceededError("x", kind="calls", limit=1, spent=1), 5),
        (errors.PluginLoadError("x", plugin="p"), 6),
        (errors.DuplicateNameError("metric", "x", ["a", "b"]), 6),
        (errors.IncomparableError("x"), 1),
        (ValueError("x"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_every_kind_of_failure_has_its_code(error, code):
    assert exit_code(error) == code
    assert exit_code(ExceptionGroup("g", [error]) if isinstance(error, Exception) else error) == (
        code
    )


def test_of_several_errors_the_one_raised_on_purpose_is_reported():
    wanted = errors.ConfigError("x")
    group = ExceptionGroup("g", [ValueError("y"), ExceptionGroup("h", [wanted])])
    assert chosen(group) is wanted


def test_values_of_key_variables_and_credentials_are_cut_out(monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "value-of-a-key")
    text = "value-of-a-key at https://user:pass@host/v1"
    assert without_secrets(text) == "[key] at https://[credentials]@host/v1"
