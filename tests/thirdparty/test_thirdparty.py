# SPDX-License-Identifier: Apache-2.0
"""Distributions of strangers, built and installed by pip, found through their entry points."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import pizza
from pizza.errors import DuplicateNameError, UnknownNameError

HERE = Path(__file__).parent
TICKET = "I was charged twice for a parcel and want a refund now"


def pip_install(target, *names):
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-index"),
            *("--no-deps", "--no-build-isolation", "--target", str(target)),
            *(str(HERE / name) for name in names),
        ],
        check=True,
    )
    return target


@pytest.fixture(scope="module")
def strangers(tmp_path_factory):
    """A folder with one good distribution and two that cannot be used."""
    return pip_install(
        tmp_path_factory.mktemp("strangers"), "pizza-triage", "pizza-broken", "pizza-misspelt"
    )


@pytest.fixture(scope="module")
def rival(tmp_path_factory):
    """A folder with a distribution that claims one of pizza-triage's names."""
    return pip_install(tmp_path_factory.mktemp("rival"), "pizza-rival")


@pytest.fixture
def installed(strangers, monkeypatch):
    """The strangers, importable in this process."""
    monkeypatch.syspath_prepend(str(strangers))
    yield
    for name in [n for n in sys.modules if n.partition(".")[0].startswith("pizza_triage")]:
        del sys.modules[name]


def command(*arguments, folders, **variables):
    """Run the command line as a program of its own."""
    path = os.pathsep.join(str(folder) for folder in folders)
    return subprocess.run(
        [sys.executable, "-m", "pizza.cli", *arguments],
        env={**os.environ, "PYTHONPATH": path, **variables},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


def listed(*folders, **variables):
    done = command("plugins", "--json", folders=folders, **variables)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    return {plugin["distribution"]: plugin for plugin in document["plugins"]}, document


async def test_a_session_uses_its_backend_metric_and_strategy_together(installed):
    async with pizza.Session("triage") as session:
        result = await session.attribute(
            TICKET, metrics=["margin", "logprob-diff"], perturbation="redact"
        )
    assert result.output.text == "billing"
    assert result.top(1)[0][0].text == "refund"
    against = result.units[int(np.argmin(result.unit_scores))]
    assert against.text == "parcel"
    # Of the two neighbouring desks only the shipping words count against billing.
    assert result.unit_scores.max() == pytest.approx(3.0)
    assert result.provenance["backend_plugin"] == {
        "plugin": "triage",
        "distribution": "pizza-triage",
        "version": "1.2.0",
    }
    assert result.provenance["metrics"][0]["distribution"] == "pizza-triage"
    assert result.provenance["perturbation"]["version"] == "1.2.0"


async def test_its_parts_work_with_those_that_ship_with_pizza(installed):
    async with pizza.Session("embedded") as session:
        result = await session.attribute(
            "The mug is red. What color is the mug?",
            metrics="margin",
            perturbation="redact:mark=_",
            method="sliding-window:size=2",
        )
    assert np.isfinite(result.unit_scores).all()


async def test_options_of_its_parts_are_checked(installed):
    async with pizza.Session("triage") as session:
        with pytest.raises(pizza.ConfigError, match="one visible character"):
            await session.attribute(TICKET, perturbation="redact:mark=xx")
        with pytest.raises(pizza.ConfigError, match="It takes: mark"):
            await session.attribute(TICKET, perturbation="redact:colour=black")


async def test_a_near_miss_of_its_name_is_suggested(installed):
    async with pizza.Session("triage") as session:
        with pytest.raises(UnknownNameError, match="Did you mean 'margin'"):
            await session.attribute(TICKET, metrics="margins")


def test_the_list_names_distribution_version_and_parts_and_shows_what_is_broken(strangers):
    plugins, document = listed(strangers)
    good = plugins["pizza-triage"]
    assert (good["version"], good["status"], good["error"]) == ("1.2.0", "ok", None)
    parts = {(p["kind"], p["name"]): p for p in good["parts"]}
    assert set(parts) == {
        ("backend", "triage"),
        ("metric", "margin"),
        ("perturbation", "redact"),
    }
    assert all(part["loads"] for part in good["parts"])
    assert parts["metric", "margin"]["requires"] == ["alternatives", "logprobs"]
    assert plugins["pizza-broken"]["status"] == "broken"
    assert "a_package_that_nobody_has" in plugins["pizza-broken"]["error"]
    assert plugins["pizza-misspelt"]["status"] == "broken"
    assert "pizza_register_metricks" in plugins["pizza-misspelt"]["error"]
    assert document["conflicts"] == []


def test_the_list_for_people_says_the_same(strangers):
    done = command("plugins", folders=[strangers], COLUMNS="60")
    assert done.returncode == 0
    assert "pizza-triage 1.2.0" in done.stdout
    assert "margin" in done.stdout
    assert "a_package_that_nobody_has" in done.stdout
    assert max(len(line) for line in done.stdout.splitlines() if "metric " in line) <= 60


def test_the_command_line_attributes_with_it_although_others_are_broken(strangers):
    done = command(
        *("attribute", "--model", "triage", "--metric", "margin", "--perturbation", "redact"),
        *("--no-cache", "--json", TICKET),
        folders=[strangers],
    )
    assert done.returncode == 0, done.stderr
    result = pizza.Attribution.from_dict(json.loads(done.stdout))
    assert result.top(1)[0][0].text == "refund"


def test_a_name_that_only_a_broken_plugin_may_offer_says_which_is_broken(strangers):
    done = command("attribute", "--model", "oracle", "--no-cache", TICKET, folders=[strangers])
    assert done.returncode == 2
    assert "'broken' of pizza-broken 0.3.0 is broken" in done.stderr


def test_two_claimants_of_one_name_are_refused_by_name_and_harm_nothing_else(strangers, rival):
    plugins, document = listed(strangers, rival)
    claimants = ["pizza-rival 0.3.0", "pizza-triage 1.2.0"]
    assert document["conflicts"] == [
        {"kind": "metric", "name": "margin", "distributions": claimants}
    ]
    assert plugins["pizza-triage"]["status"] == "ok"
    used = ("attribute", "--model", "triage", "--no-cache", "--quiet")
    done = command(*used, "--metric", "margin", TICKET, folders=[strangers, rival])
    assert done.returncode == 6
    assert all(claimant in done.stderr for claimant in claimants)
    done = command(*used, "--metric", "prob-diff", TICKET, folders=[strangers, rival])
    assert done.returncode == 0, done.stderr
    assert "billing" in done.stdout


def test_one_of_two_claimants_can_be_switched_off(strangers, rival):
    plugins, document = listed(strangers, rival, PIZZA_DISABLE_PLUGINS="pizza-rival")
    assert document["conflicts"] == []
    assert plugins["pizza-rival"]["status"] == "disabled"


def test_in_a_session_two_claimants_are_an_error_that_names_both(installed, rival, monkeypatch):
    monkeypatch.syspath_prepend(str(rival))
    with pytest.raises(DuplicateNameError, match=r"pizza-rival 0\.3\.0.*pizza-triage 1\.2\.0"):
        pizza.sync.attribute(TICKET, model="triage", metrics="margin")


def test_doctor_calls_the_broken_ones_problems(strangers):
    done = command("doctor", "--json", folders=[strangers])
    assert done.returncode == 1
    problems = "\n".join(json.loads(done.stdout)["problems"])
    assert "pizza-broken 0.3.0" in problems
    assert "pizza-misspelt 0.3.0" in problems
    assert "pizza-triage" not in problems
