# SPDX-License-Identifier: Apache-2.0
"""Runs against a model behind HTTP: results, resuming, caps, failures, the circuit."""

import asyncio
import dataclasses
import json
import random
import time

import numpy as np
import pytest
from support.server import served_model

import pizza
import pizza.abc
from pizza import bulk
from pizza.bulk.parts import attribution_of
from pizza.errors import ConfigError
from pizza.events import Pace, PartWritten, RowFailed, RowFinished, RunEnded, RunOpened

pq = pytest.importorskip("pyarrow.parquet", reason="installed with the extra 'bulk'")


def requests(server):
    return sum(server.stats["requests"].values())


def table(run):
    return {row["id"]: row for row in pq.read_table(run / "results").to_pylist()}


async def test_results_are_those_of_attribute_with_the_users_ids_and_columns(
    served, prompts, tmp_path
):
    path = prompts(5)
    summary = await bulk.run(path, tmp_path / "run", keep="full", part_rows=2, **served)
    assert (summary.reason, summary.done, summary.failed) == ("finished", 5, 0)
    found = table(tmp_path / "run")
    assert len(list((tmp_path / "run" / "results").iterdir())) == 3
    session_options = {k: v for k, v in served.items() if k != "options"}
    async with pizza.Session(**session_options) as session:
        for place, line in enumerate(path.read_text().splitlines()):
            asked = json.loads(line)
            expected = await session.attribute(asked["prompt"], **served["options"])
            row = found[asked["id"]]
            assert row["row"] == place
            assert json.loads(row["columns"]) == {"topic": "hats", "weight": asked["weight"]}
            assert row["output"] == expected.output.text
            assert [u["text"] for u in row["units"]] == [u.text for u in expected.units]
            np.testing.assert_allclose(row["scores"], expected.scores, rtol=1e-4, atol=1e-5)
            whole = attribution_of(row["attribution"])
            np.testing.assert_array_equal(row["scores"], whole.scores)
            assert whole.prompt.text == asked["prompt"]


async def test_a_finished_run_sends_nothing_and_a_changed_one_is_refused(
    served, prompts, tmp_path, model_server
):
    path = prompts(3)
    first = await bulk.run(path, tmp_path / "run", **served)
    sent = requests(model_server)
    again = await bulk.run(path, tmp_path / "run", resume=True, **served)
    assert requests(model_server) == sent == first.spent.calls == again.spent.calls
    assert (again.done, again.reason) == (3, "finished")
    other = {**served, "options": {**served["options"], "units": "sentence"}}
    with pytest.raises(ConfigError, match=r"options\.units: None -> \{'name': 'sentence'\}"):
        await bulk.run(path, tmp_path / "run", **other)
    path.write_text(path.read_text().replace("Eva", "Ana"))
    with pytest.raises(ConfigError, match=r"input\.digest"):
        await bulk.run(path, tmp_path / "run", **served)
    assert requests(model_server) == sent


async def test_limits_and_caps_may_change_between_runs(served, prompts, tmp_path):
    path = prompts(2)
    await bulk.run(path, tmp_path / "run", workers=1, **served)
    again = await bulk.run(
        path,
        tmp_path / "run",
        workers=3,
        limits=pizza.Limits(requests_per_minute=60),
        budget=pizza.Budget(max_calls=10_000),
        **served,
    )
    assert again.done == 2


async def test_a_directory_with_a_part_lost_is_completed_for_nothing(
    served, prompts, tmp_path, model_server
):
    path = prompts(4)
    await bulk.run(path, tmp_path / "run", part_rows=1, **served)
    sent = requests(model_server)
    before = table(tmp_path / "run")
    (tmp_path / "run" / "results" / "part-000002.parquet").unlink()
    summary = await bulk.run(path, tmp_path / "run", **served)
    assert summary.done == 4
    assert requests(model_server) == sent
    after = table(tmp_path / "run")
    assert {k: v["scores"] for k, v in after.items()} == {k: v["scores"] for k, v in before.items()}


@pytest.mark.parametrize("concurrency", [1, 200])
async def test_a_cap_on_requests_holds_under_concurrency_and_over_resumes(
    concurrency, served, prompts, tmp_path, model_server
):
    path = prompts(12)
    limits = pizza.Limits(max_concurrency=concurrency)
    for _ in range(3):
        summary = await bulk.run(
            path, tmp_path / "run", budget=pizza.Budget(max_calls=70), limits=limits, **served
        )
        assert summary.reason == "budget"
        assert "max_calls=70" in summary.message
        assert requests(model_server) <= 70
        assert summary.spent.calls == requests(model_server)
    assert summary.failed == 0
    summary = await bulk.run(path, tmp_path / "run", limits=limits, **served)
    assert (summary.reason, summary.done) == ("finished", 12)
    assert model_server.stats["duplicates"] == 0
    assert summary.spent.calls == requests(model_server)


async def test_caps_on_tokens_and_money_hold_over_resumes(served, prompts, tmp_path, model_server):
    path = prompts(12)
    priced = {**served, "backend_options": {"price": "1000/1000"}}
    for budget in (pizza.Budget(max_tokens=900), pizza.Budget(max_cost=0.9)):
        run = tmp_path / f"run{budget.max_tokens}"
        before = model_server.stats
        for _ in range(2):
            summary = await bulk.run(path, run, budget=budget, **priced)
            assert summary.reason == "budget"
        after = model_server.stats
        used = sum(after[k] - before[k] for k in ("prompt_tokens", "completion_tokens"))
        assert 0 < used <= 900
        assert summary.spent.tokens >= used


async def test_a_failing_prompt_fails_alone_and_says_what_to_do(served, tmp_path, model_server):
    rows = [{"id": i, "prompt": f"Box {i}: Eva has 4 hats. How many hats?"} for i in range(6)]
    rows[2]["prompt"] = "word " * 3000
    events = []
    summary = await bulk.run(rows, tmp_path / "run", on_event=events.append, **served)
    assert (summary.done, summary.failed, summary.reason) == (5, 1, "finished")
    (failure,) = map(json.loads, (tmp_path / "run" / "failures.jsonl").read_text().splitlines())
    assert (failure["id"], failure["row"], failure["kind"]) == ("2", 2, "ContextTooLongError")
    assert failure["again"] is False
    assert failure["message"]
    assert [e.id for e in events if isinstance(e, RowFailed)] == ["2"]
    sent = requests(model_server)
    summary = await bulk.run(rows, tmp_path / "run", **served)
    assert (summary.done, summary.failed) == (5, 1)
    assert requests(model_server) == sent
    summary = await bulk.run(rows, tmp_path / "run", retry_failed=True, **served)
    assert requests(model_server) > sent
    assert summary.failed == 1
    assert len((tmp_path / "run" / "failures.jsonl").read_text().splitlines()) == 1


async def test_a_wrong_key_opens_the_circuit_and_the_right_one_goes_on(prompts, tmp_path):
    with served_model(api_key="sk-right") as server:
        common = {"model": f"openai:{server.model}", "base_url": server.base_url}
        path = prompts(40)
        summary = await bulk.run(path, tmp_path / "run", api_key="sk-wrong", workers=4, **common)
        assert (summary.reason, summary.done, summary.failed) == ("circuit", 0, 0)
        assert isinstance(summary.error, pizza.errors.AuthError)
        last = json.loads((tmp_path / "run" / "events.jsonl").read_text().splitlines()[-1])
        # Servers repeat what they were sent in their messages: the log says what kind it was.
        assert (last["event"], last["kind"], last["message"]) == ("RunEnded", "AuthError", "")
        assert summary.message == str(summary.error)
        assert "sk-wrong" not in (tmp_path / "run" / "manifest.json").read_text()
        assert requests(server) < 20
        summary = await bulk.run(path, tmp_path / "run", api_key="sk-right", **common)
        assert (summary.reason, summary.done) == ("finished", 40)


async def test_an_unknown_model_opens_the_circuit(served, prompts, tmp_path, model_server):
    wrong = {**served, "model": "openai:no-such-model"}
    summary = await bulk.run(prompts(40), tmp_path / "run", workers=2, **wrong)
    assert (summary.reason, summary.done) == ("circuit", 0)
    assert requests(model_server) < 20


async def test_bad_rows_can_be_noted_as_failures(served, tmp_path):
    rows = [{"id": "a", "prompt": "Eva has 4 hats."}, {"id": "b"}]
    with pytest.raises(ConfigError, match="records:2: there is no prompt"):
        await bulk.run(rows, tmp_path / "run", **served)
    for _ in range(2):
        summary = await bulk.run(rows, tmp_path / "run", skip_bad_rows=True, **served)
        assert (summary.rows, summary.done) == (1, 1)
        (line,) = (tmp_path / "run" / "failures.jsonl").read_text().splitlines()
        assert json.loads(line)["where"] == "records:2"


async def test_targets_may_stand_in_a_column(served, tmp_path):
    rows = [
        {"id": 1, "prompt": "Eva has 4 hats. How many hats does Eva have?", "want": "5"},
        {"id": 2, "prompt": "Eva has 4 hats. How many hats does Eva have?", "want": None},
    ]
    await bulk.run(rows, tmp_path / "run", columns=bulk.Columns(target="want"), **served)
    found = table(tmp_path / "run")
    assert found["1"]["output"] == "5"
    assert json.loads(found["1"]["target"])["text"] == "5"
    assert found["2"]["target"] is None


async def test_events_are_frozen_values_in_the_order_of_what_happened(served, prompts, tmp_path):
    async with bulk.running(prompts(4), tmp_path / "run", part_rows=2, **served) as events:
        seen = [event async for event in events]
    assert isinstance(seen[0], RunOpened)
    assert isinstance(seen[-1], RunEnded)
    assert sum(isinstance(e, RowFinished) for e in seen) == 4
    assert sum(e.rows for e in seen if isinstance(e, PartWritten)) == 4
    assert any(isinstance(e, Pace) for e in seen)
    with pytest.raises(dataclasses.FrozenInstanceError):
        seen[0].rows = 7
    logged = [json.loads(x) for x in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert [e["event"] for e in logged if e["event"].startswith("Run")] == ["RunOpened", "RunEnded"]
    assert "hats" not in (tmp_path / "run" / "events.jsonl").read_text()


async def test_leaving_early_writes_what_is_known_and_lets_go(
    served, prompts, tmp_path, model_server
):
    path = prompts(30)
    tasks = asyncio.all_tasks()
    async with bulk.running(path, tmp_path / "run", workers=2, **served) as events:
        finished = 0
        async for event in events:
            finished += isinstance(event, RowFinished)
            if finished == 5:
                break
    assert asyncio.all_tasks() == tasks
    known = len(table(tmp_path / "run"))
    assert 0 < known < 30
    assert json.loads((tmp_path / "run" / "events.jsonl").read_text().splitlines()[-1])[
        "reason"
    ] == ("interrupted")
    summary = await bulk.run(path, tmp_path / "run", **served)
    assert summary.done == 30
    assert len(table(tmp_path / "run")) == 30
    # What was under way when the run was left is all that may be sent twice.
    assert model_server.stats["duplicates"] <= 50


async def test_options_that_make_no_sense_are_refused(served, prompts, tmp_path):
    path = prompts(1)
    for wrong, said in (
        ({"workers": 0}, "workers is at least 1"),
        ({"keep": "all"}, "keep is one of scores, full"),
        ({"cache": 5}, "cache is a path"),
        ({"tally": None}, "tally is the run's own"),
        ({"resume": True}, "no run in"),
    ):
        with pytest.raises(ConfigError, match=said):
            await bulk.run(path, tmp_path / "run", **{**served, **wrong})


class Fragile(pizza.abc.Metric):
    """Compares lengths, and has a bug that prompts about pears meet."""

    def compare(self, reference, perturbed):
        if "7" in reference.text or any("7" in other.text for other in perturbed):
            raise ZeroDivisionError("a bug")
        lengths = [[len(reference.text) - len(other.text)] for other in perturbed]
        return np.repeat(np.array(lengths, dtype=float), 1 + len(reference.tokens), axis=1)


async def test_a_bug_that_one_prompt_meets_ends_no_other(served, tmp_path):
    rows = [
        {"id": n, "prompt": f"Eva has {n} hats. How many hats does Eva have?"} for n in (3, 7, 4)
    ]
    options = {**served["options"], "metrics": Fragile()}
    summary = await bulk.run(rows, tmp_path / "run", **{**served, "options": options})
    assert (summary.done, summary.failed) == (2, 1)
    (failure,) = map(json.loads, (tmp_path / "run" / "failures.jsonl").read_text().splitlines())
    assert (failure["id"], failure["kind"]) == ("7", "PluginError")
    assert failure["cause"] == "ZeroDivisionError: a bug"


async def test_prompts_of_attribute_many_have_names_and_options_of_their_own(served):
    session_options = {k: v for k, v in served.items() if k != "options"}
    seen = []
    async with pizza.Session(**session_options) as session:
        items = [
            pizza.Item(prompt="Eva has 4 hats.", id="a", options={"units": "sentence"}),
            pizza.Item(prompt="Eva has 5 hats.", id="b"),
            "Eva has 6 hats.",
        ]
        async with session.attribute_many(
            items, on_event=seen.append, **served["options"]
        ) as outcomes:
            found = {outcome.id: outcome.attribution async for outcome in outcomes}
    assert {name: len(made.units) for name, made in found.items()} == {"a": 1, "b": 4, None: 4}
    finished = [event for event in seen if isinstance(event, RowFinished)]
    assert {event.id: event.calls for event in finished} == {k: v.calls for k, v in found.items()}


async def test_a_long_prompt_does_not_keep_short_ones_waiting(served, tmp_path):
    rows = [{"id": "long", "prompt": "Eva has 4 hats. " * 50}]
    rows += [{"id": f"short{i}", "prompt": f"Box {i}: Eva has 4 hats."} for i in range(5)]
    events = []
    options = {**served["options"], "evidence": "complete"}
    summary = await bulk.run(
        rows,
        tmp_path / "run",
        workers=2,
        limits=pizza.Limits(max_concurrency=4),
        on_event=events.append,
        **{**served, "options": options},
    )
    assert summary.done == 6
    assert [e.id for e in events if isinstance(e, RowFinished)][-1] == "long"


class Jumping:
    """A wall clock that is set back or forth by days, every time that somebody looks at it."""

    def __init__(self):
        self.days = random.Random(3)
        self.looks = 0

    def __call__(self):
        self.looks += 1
        return 1.8e9 + 86400 * self.days.randrange(-400, 400)


async def test_a_wall_clock_that_jumps_changes_nothing(served, prompts, tmp_path, monkeypatch):
    jumping, events = Jumping(), []
    path = prompts(6)
    with served_model(faults="500=0.2,drop=0.05,seed=6") as server:
        given = {
            **served,
            "base_url": server.base_url,
            "retry": pizza.RetryPolicy(attempts=9, wait_initial_s=0.001, wait_max_s=0.01),
            "limits": pizza.Limits(requests_per_minute=6000),
        }
        with monkeypatch.context() as patched:
            patched.setattr(time, "time", jumping)
            summary = await bulk.run(path, tmp_path / "run", on_event=events.append, **given)
        # Whatever the clock said, the run goes on from here.
        again = await bulk.run(path, tmp_path / "run", resume=True, **given)
    assert (summary.reason, summary.done) == ("finished", 6)
    assert (again.done, again.spent.calls) == (6, summary.spent.calls)
    assert jumping.looks > 10
    assert 0 < summary.seconds < 3600
    assert all(0 <= e.seconds < 3600 for e in events if isinstance(e, RowFinished))
    for event in events:
        if isinstance(event, Pace):
            assert 0 <= event.per_second < 10_000
            assert event.left_s is None or 0 <= event.left_s < 3600
