# SPDX-License-Identifier: Apache-2.0
"""An estimate says what a run then does."""

import pytest

import pizza
from pizza import bulk
from pizza.errors import ConfigError

pytest.importorskip("pyarrow", reason="installed with the extra 'bulk'")


def requests(server):
    return sum(server.stats["requests"].values())


@pytest.fixture
def writing(served):
    """The model writes every output, as one that cannot score does."""
    return {**served, "options": {**served["options"], "evidence": "complete"}}


@pytest.mark.parametrize("method", ["leave-one-out", "sliding-window:size=3"])
async def test_requests_of_methods_that_do_not_adapt_are_exact(
    method, writing, prompts, tmp_path, model_server
):
    path = prompts(5)
    options = {**writing["options"], "method": method}
    (plan,) = await bulk.estimate(path, **{**writing, "options": options})
    assert requests(model_server) == 0
    assert plan.rows == plan.rehearsed == 5
    assert plan.fewest <= plan.requests + plan.cached <= plan.most
    await bulk.run(path, tmp_path / "run", **{**writing, "options": options})
    assert requests(model_server) == plan.requests
    used = model_server.stats
    # The client estimates a tokenizer that it does not know.
    assert plan.output_tokens >= used["completion_tokens"]
    assert plan.prompt_tokens == pytest.approx(used["prompt_tokens"], rel=0.5)


async def test_what_a_run_holds_is_not_counted_again(writing, prompts, tmp_path):
    path = prompts(6)
    run = tmp_path / "run"
    first = await bulk.run(path, run, budget=pizza.Budget(max_tokens=900), workers=2, **writing)
    done = first.done
    (plan,) = await bulk.estimate(path, directory=run, **writing)
    assert 0 < done < 6
    assert plan.rows == 6 - done
    after = (await bulk.run(path, run, **writing)).spent.calls
    assert plan.requests == after - first.spent.calls
    assert plan.cached > 0
    (plan,) = await bulk.estimate(path, cache=run / "responses.sqlite", **writing)
    assert (plan.rows, plan.requests) == (6, 0)


async def test_dollars_and_minutes_are_those_of_the_price_and_the_limits(writing, prompts):
    (plan,) = await bulk.estimate(
        prompts(3), limits=pizza.Limits(requests_per_minute=10), **writing
    )
    assert plan.cost is None
    assert plan.minutes == pytest.approx(plan.requests / 10)
    slow = pizza.Limits(requests_per_minute=1e6, tokens_per_minute=100)
    priced = {**writing, "backend_options": {"price": "2/4"}}
    (plan,) = await bulk.estimate(prompts(3), limits=slow, **priced)
    assert plan.minutes == pytest.approx((plan.prompt_tokens + plan.output_tokens) / 100)
    assert plan.cost == pytest.approx((2 * plan.prompt_tokens + 4 * plan.output_tokens) / 1e6)


async def test_batches_take_half_the_price_and_no_minutes_of_single_requests(writing, prompts):
    limits = pizza.Limits(requests_per_minute=10)
    more = {
        "limits": limits,
        "api_key": "key",
        "options": {"generation": pizza.Generation(max_tokens=8)},
    }
    own = {"journal": "off"}
    (plain,) = await bulk.estimate(prompts(3), model="openai:gpt-4o-mini", **more)
    (batch,) = await bulk.estimate(
        prompts(3), model="openai-batch:gpt-4o-mini", backend_options=own, **more
    )
    assert (batch.requests, batch.prompt_tokens) == (plain.requests, plain.prompt_tokens)
    assert batch.cost == pytest.approx(plain.cost / 2)
    assert plain.minutes == pytest.approx(plain.requests / 10)
    assert batch.minutes is None
    assert {row.minutes for row in batch.largest} == {None}
    assert (plain.batch_window_s, batch.batch_window_s) == (None, 24 * 3600)


async def test_methods_are_compared_and_adaptive_ones_have_a_range(writing, prompts, model_server):
    plans = await bulk.estimate(prompts(2), methods=["leave-one-out", "auto"], **writing)
    assert [plan.method for plan in plans] == ["leave-one-out", "auto"]
    assert plans[0].fewest == plans[0].most
    assert plans[1].fewest < plans[1].most
    assert requests(model_server) == 0


async def test_a_sample_is_scaled_up(writing, prompts):
    path = prompts(40)
    (whole,) = await bulk.estimate(path, **writing)
    (part,) = await bulk.estimate(path, sample=10, **writing)
    assert (part.rehearsed, part.rows) == (10, 40)
    assert part.requests == pytest.approx(whole.requests, rel=0.1)
    with pytest.raises(ConfigError, match="sample is at least 1"):
        await bulk.estimate(path, sample=0, **writing)


async def test_rows_that_would_fail_and_the_dearest_are_named(writing):
    rows = [{"id": "ok", "prompt": "Eva has 4 hats."}, {"id": "none", "prompt": "Eva."}]
    rows.append({"id": "long", "prompt": "Eva has 4 hats. " * 5})
    options = {**writing["options"], "units": "regex:pattern=hats"}
    (plan,) = await bulk.estimate(rows, **{**writing, "options": options})
    assert plan.largest[0].id == "long"
    assert plan.unusable[0] == 1
    assert plan.unusable[1].startswith("none: ")


async def test_every_row_has_a_plan_of_its_own(writing, prompts):
    found = []
    (plan,) = await bulk.estimate(
        prompts(5),
        limits=pizza.Limits(requests_per_minute=10),
        on_row=lambda method, row: found.append((method, row)),
        **{**writing, "backend_options": {"price": "2/4"}},
    )
    assert {method for method, _ in found} == {plan.method}
    rows = [row for _, row in found]
    assert len({row.id for row in rows}) == 5
    for name in ("requests", "cached", "fewest", "prompt_tokens", "output_tokens"):
        assert sum(getattr(row, name) for row in rows) == getattr(plan, name)
    assert sum(row.cost for row in rows) == pytest.approx(plan.cost)
    assert sum(row.minutes for row in rows) == pytest.approx(plan.minutes)
