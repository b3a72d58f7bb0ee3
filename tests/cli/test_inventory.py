# SPDX-License-Identifier: Apache-2.0
"""``pizza plugins``, ``pizza doctor`` and ``pizza --version``."""

import json
import re

import pytest

import pizza


def test_the_version(pizza_command):
    assert pizza_command("--version").out == f"pizza {pizza.__version__}\n"


def test_without_a_command_the_help_is_shown(pizza_command):
    done = pizza_command()
    for name in ("attribute", "plugins", "doctor"):
        assert name in done.out + done.err


@pytest.mark.parametrize("command", ["attribute", "plugins", "doctor"])
def test_every_command_explains_itself_in_60_columns(pizza_command, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "60")
    done = pizza_command(command, "--help")
    assert done.code == 0
    assert max(len(line) for line in done.out.splitlines()) <= 60


def test_plugins_as_json(pizza_command):
    document = pizza_command("plugins", "--json").json
    plugins = {p["distribution"]: p for p in document["plugins"]}
    assert {"pizza-attribution", "pizza-openai", "pizza-embedded"} <= set(plugins)
    assert all(p["status"] == "ok" for p in plugins.values())
    parts = {(part["kind"], part["name"]): part for p in plugins.values() for part in p["parts"]}
    assert parts["backend", "openai"]["needs"] == ["openai"]
    assert parts["metric", "logprob-diff"]["requires"] == ["logprobs"]
    # What does not load lacks a package, and says which command brings it.
    unloaded = [part for part in parts.values() if not part["loads"]]
    assert all(part["missing"] and "pip install" in part["install"] for part in unloaded)
    assert {part["name"] for part in unloaded} <= {"proxy-spex"}


def test_plugins_for_people(pizza_command):
    done = pizza_command("plugins", "--no-load")
    assert done.code == 0
    assert f"pizza-attribution {pizza.__version__}" in done.out
    assert "not tried" in done.out
    assert "leave-one-out" in done.out


def test_a_part_whose_package_is_missing_is_shown_with_the_command(monkeypatch):
    from pizza import metrics
    from pizza.cli.plugins import inventory
    from pizza.specs import MetricSpec

    heavy = MetricSpec(
        name="heavy", target="nothing:X", needs=("not_there",), install="pip install not-there"
    )
    monkeypatch.setattr("pizza.builtin.METRICS", (*metrics.SPECS, heavy))
    parts = inventory(load=True)["plugins"][0]["parts"]
    part = next(p for p in parts if p["name"] == "heavy")
    assert (part["missing"], part["loads"]) == (["not_there"], False)
    assert part["install"] == "pip install not-there"


def test_what_a_plugin_prints_while_it_loads_does_not_spoil_the_json(
    pizza_command, tmp_path, monkeypatch
):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "chatty.py").write_text("print('hello from a plugin')\n")
    info = tmp_path / "chatty-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: chatty\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[pizza.plugins]\nchatty = chatty\n")
    done = pizza_command("plugins", "--json", "--no-load")
    assert "chatty" in [p["name"] for p in done.json["plugins"]]
    assert "hello from a plugin" in done.err


def test_doctor_shows_no_secret(pizza_command, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-0123456789")
    monkeypatch.setenv("OPENAI_BASE_URL", "https://me:hunter2@llm.example:8443/v1?token=t0ps3cret")
    monkeypatch.setenv("HTTPS_PROXY", "http://me:hunter2@proxy.example:3128")
    for options in ([], ["--json"]):
        done = pizza_command("doctor", *options)
        assert not re.search("sk-secret|hunter2|t0ps3cret", done.out + done.err)
    variables = {v["name"]: v["value"] for v in json.loads(done.out)["environment"]}
    assert variables["OPENAI_API_KEY"] == "set"
    assert variables["OPENAI_BASE_URL"] == "https://llm.example:8443/v1"
    assert variables["HTTPS_PROXY"] == "http://proxy.example:3128"


def test_doctor_reports_what_is_there_and_how_to_get_the_rest(pizza_command, tmp_path):
    document = pizza_command("doctor", "--json").json
    assert document["problems"] == []
    assert document["system"]["pizza"] == pizza.__version__
    purposes = {v["name"]: v["purpose"] for v in document["environment"]}
    assert purposes["OPENAI_API_KEY"] == "key of openai and openai-batch"
    packages = {p["name"]: p for p in document["packages"]}
    assert {"pizza-local", "pizza-ray", "pandas"} <= set(packages)
    for package in packages.values():
        assert bool(package["version"]) != bool(package["install"])
        assert not package["install"] or "-m pip install" in package["install"]
    assert document["cache"]["path"] == str(tmp_path / "cache" / "responses.sqlite")
    assert document["cache"]["exists"] is False
    assert document["terminal"]["terminal"] is False


def test_doctor_says_whether_the_ranks_are_there(pizza_command, tmp_path, monkeypatch):
    # What other tests loaded is in memory and needs no file.
    monkeypatch.setattr("pizza.tokenizers._loaded", {})
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    before = pizza_command("doctor", "--json").json["tiktoken"]
    assert [t["present"] for t in before] == [False, False]
    (tmp_path / "fb374d419588a4632f3f557e76b4b70aebbca790").write_bytes(b"")
    after = pizza_command("doctor", "--json").json["tiktoken"]
    assert [t["present"] for t in after] == [True, False]


def test_doctor_for_people(pizza_command):
    done = pizza_command("doctor")
    assert done.code == 0
    assert "No problems found." in done.out
    assert "OPENAI_API_KEY" in done.out
    assert "not set" in done.out


def test_doctor_calls_a_cache_that_cannot_be_written_a_problem(pizza_command, monkeypatch):
    monkeypatch.setenv("PIZZA_CACHE", "/dev/null/responses.sqlite")
    document = pizza_command("doctor", "--json")
    assert document.code == 1
    assert "--cache" in document.json["problems"][0]
