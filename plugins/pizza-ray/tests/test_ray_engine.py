# SPDX-License-Identifier: Apache-2.0
"""What `RayEngine` refuses before anything starts, and how errors and parts travel."""

import json
import uuid
from pathlib import Path

import pytest
from pizza_ray import RayEngine
from pizza_ray.carried import Order, Secret, described, rebuilt
from pizza_ray.travels import travels
from pizza_ray.worker import Worker

import pizza
from pizza import bulk
from pizza.bulk.settings import Settings
from pizza.bulk.sources import Records
from pizza.errors import (
    BudgetTooSmallError,
    ConfigError,
    PluginError,
    RateLimitedError,
    RetriesExhaustedError,
)

pytest.importorskip("ray", reason="installed with the extra 'ray'")


def settings(**changed):
    given = {
        "source": Records([{"prompt": "a"}]),
        "directory": Path("run"),
        "model": "openai:m",
        "options": {},
        "session": {},
    }
    return Settings(**{**given, **changed})


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model": object()}, "name it, 'backend:model'"),
        ({"options": {"metrics": [object()]}}, "the option metrics is an object of builtins"),
        ({"options": {"on_progress": print}}, "on_progress is a function"),
        ({"session": {"api_key": lambda: "k"}}, "api_key is a function"),
        ({"session": {"plugins": [json]}}, "install them on all nodes"),
        ({"session": {"gate": None}}, "workers do not take gate"),
    ],
)
def test_what_cannot_travel_is_refused_before_anything_starts(changed, said):
    with pytest.raises(ConfigError, match=said):
        RayEngine().check(settings(**changed))


def test_usual_options_travel():
    options = {
        "units": pizza.Choice("sentence"),
        "metrics": ["cosine", pizza.Choice("prob-diff", floor=-20)],
        "generation": pizza.Generation(max_tokens=3),
        "budget": pizza.Budget(max_calls=5),
        "target": None,
    }
    session = {"limits": pizza.Limits(), "retry": pizza.RetryPolicy(), "api_key": "k"}
    RayEngine().check(settings(options=options, session=session))
    assert not travels({"a": [lambda: 0]})


def test_addresses_of_rays_client_are_refused(monkeypatch):
    with pytest.raises(ConfigError, match="ray job submit"):
        RayEngine("ray://head:10001").check(settings())
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    with pytest.raises(ConfigError, match="ray job submit"):
        RayEngine().check(settings())


@pytest.mark.parametrize("wrong", [{"workers": 0}, {"workers": True}, {"gpus_per_worker": -1}])
def test_numbers_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        RayEngine(**wrong)


async def test_the_engine_is_found_by_its_name_and_its_options_are_checked(tmp_path):
    for name, said in (
        ("ray:workers=0", "workers is a number"),
        ("ray:speed=1", "speed"),
        ("dask", "no engine is called 'dask'"),
    ):
        with pytest.raises(ConfigError, match=said):
            await bulk.run([{"prompt": "a"}], tmp_path / "run", engine=name)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "error",
    [
        BudgetTooSmallError("needs 5", needed=5, allowed=2),
        RateLimitedError("slow", backend="b", retry_after_s=2.0, request_id="r"),
        RetriesExhaustedError("gave up", attempts=3, waited_s=1.5),
    ],
)
def test_errors_arrive_as_they_were(error):
    error.__cause__ = ZeroDivisionError("by zero")
    found = rebuilt(json.loads(json.dumps(described(error))))
    assert type(found) is type(error)
    assert str(found) == str(error)
    assert vars(found) == vars(error)
    assert repr(found.__cause__) == repr(error.__cause__)


def test_an_error_that_is_not_ours_is_a_bug_of_a_plugin():
    class OddError(Exception):
        pass

    found = rebuilt(described(OddError("odd")))
    assert type(found) is PluginError
    assert "OddError: odd" in str(found)
    assert type(found.__cause__).__name__ == "OddError"


def test_a_key_is_not_shown():
    assert "sk-1" not in repr(Secret("sk-1")) + str([Secret("sk-1")])


class Nobody:
    """Stands where the coordinator's actor would: it is not asked before a worker begins."""


@pytest.fixture
def order(tmp_path):
    run = tmp_path / "run"
    with bulk.directory.RunDirectory(run) as directory:
        directory.settle({})
        name = directory.manifest["id"]
    return Order(
        directory=str(run),
        run=name,
        model="embedded",
        options={},
        session={},
        keep="scores",
        part_rows=4,
        version=pizza.__version__,
        environment={},
    )


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"directory": "/nowhere/at/all"}, "is not on node .* all nodes share under one path"),
        ({"run": uuid.uuid4().hex}, "is another directory than here"),
        ({"version": "0.0"}, "Install one version everywhere"),
        ({"model": "nothing:m"}, "no backend is called 'nothing'"),
    ],
)
async def test_a_worker_says_what_its_node_lacks(order, changed, said):
    import dataclasses

    worker = Worker("w0", 0, Nobody())
    found = await worker.open(dataclasses.replace(order, **changed), Secret(None))
    with pytest.raises(pizza.PizzaError, match=said):
        raise rebuilt(found)


async def test_a_worker_that_opens_says_who_answers(order):
    worker = Worker("w0", 0, Nobody())
    found = await worker.open(order, Secret(None))
    assert found.backend
    assert found.price is not None
    assert "embedded" in {plugin["name"] for plugin in found.plugins}
    assert (await worker.close()).parts == ()
