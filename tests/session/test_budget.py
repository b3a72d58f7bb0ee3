# SPDX-License-Identifier: Apache-2.0
"""An attribution with a budget of its own: in calls, in tokens, in dollars."""

import numpy as np
import pytest
from support.games import ALL, WordGame

import pizza
from pizza.abc import Method, Scores
from pizza.capability import Capability
from pizza.errors import BudgetTooSmallError, ConfigError

WORDS = [f"w{i}" for i in range(30)]
WEIGHTS = dict.fromkeys(WORDS, 0.0) | {"w3": 3.0, "w7": 2.0, "w20": -1.0}
PROMPT = " ".join(WORDS)
NO_SCORE = ALL - {Capability.SCORE}


class Priced(WordGame):
    """One token a word; a dollar per thousand tokens."""

    price = pizza.Price(prompt=1000.0, completion=2000.0)

    def count_tokens(self, request):
        return len(request.prompt.text.split())


async def explain(game, prompt=PROMPT, *, session=None, **options):
    async with pizza.Session(game, discover=False, **(session or {})) as opened:
        return await opened.attribute(prompt, **options)


async def test_a_budget_chooses_the_method_and_bounds_all_calls():
    game = WordGame(WEIGHTS)
    result = await explain(game, budget=64)
    assert result.provenance["method"]["name"] == "auto"
    assert result.calls == len(game.requests) <= 64
    assert [unit.text for unit, _ in result.top(2)] == ["w3", "w7"]
    spent = result.provenance["budget"]
    assert (spent["max_calls"], spent["calls"]) == (64, result.calls)


async def test_a_named_method_is_what_is_run():
    game = WordGame(WEIGHTS)
    result = await explain(game, budget=64, method="leave-one-out")
    assert result.provenance["method"]["name"] == "leave-one-out"
    assert len(game.requests) == 2 + 30


async def test_without_a_budget_it_is_leave_one_out():
    result = await explain(WordGame(WEIGHTS))
    assert result.provenance["method"]["name"] == "leave-one-out"
    assert "budget" not in result.provenance


async def test_what_is_not_needed_is_not_spent():
    # One word decides, without any noise: a fit of a quarter or two of the budget is perfect.
    game = WordGame(dict.fromkeys(WORDS, 0.0) | {"w3": 3.0})
    result = await explain(game, budget=400)
    assert len(game.requests) < 400
    assert result.provenance["method"]["details"]["unspent"] == 400 - len(game.requests)
    assert result.provenance["budget"]["calls"] == len(game.requests)


async def test_the_cache_changes_what_is_paid_and_not_what_is_found():
    game = WordGame(WEIGHTS)
    async with pizza.Session(game, discover=False) as session:
        first = await session.attribute(PROMPT, budget=50)
        again = await session.attribute(PROMPT, budget=50)
    assert again.calls == 0
    assert again.cache_hits == first.calls
    np.testing.assert_array_equal(again.scores, first.scores)
    assert again.provenance["budget"] == first.provenance["budget"]


@pytest.mark.parametrize("capabilities", [ALL, NO_SCORE])
async def test_a_budget_in_tokens_is_kept_and_used(capabilities):
    game = Priced(WEIGHTS, capabilities=capabilities)
    result = await explain(game, budget="2,000 tokens")
    used = result.usage.total_tokens
    assert used <= 2000
    details = result.provenance["method"]["details"]
    if not details["unspent"]:
        assert used > 1850
    # Half coalitions cost half: many more of them than whole prompts would have been.
    assert len(result.evaluations) > 2000 / (30 + 3) or details["unspent"]


async def test_a_budget_in_dollars_is_kept():
    game = Priced(WEIGHTS)
    result = await explain(game, budget="$1.50")
    assert result.cost <= 1.50
    assert result.provenance["budget"]["cost"] == pytest.approx(result.cost)
    assert result.provenance["budget"]["max_cost"] == 1.5


async def test_a_model_that_costs_nothing_is_paid_by_any_budget_in_dollars():
    class Free(Priced):
        price = pizza.Price(prompt=0.0, completion=0.0)

    result = await explain(Free(WEIGHTS), budget="$0.01")
    assert result.cost == 0
    assert [unit.text for unit, _ in result.top(2)] == ["w3", "w7"]
    assert result.provenance["budget"]["cost"] == 0


async def test_methods_that_know_nothing_of_tokens_keep_such_a_budget_too():
    game = Priced(WEIGHTS)
    result = await explain(game, budget="3000 tokens", method="random-ablation")
    assert result.usage.total_tokens <= 3000
    assert len(result.evaluations) > 20


class Greedy(Method):
    """Asks for more than there is."""

    def plan(self, game):
        rng = np.random.default_rng(0)
        rows = rng.random((80, game.n_units)) < 0.5
        values = yield rows
        self.known = np.isfinite(values[:, 0])
        return Scores(values=np.zeros((game.n_columns, game.n_units)))


async def test_coalitions_that_cannot_be_paid_are_left_out_and_named():
    method = Greedy()
    result = await explain(Priced(WEIGHTS), budget="600 tokens", method=method)
    assert 10 < method.known.sum() < 80
    assert result.usage.total_tokens <= 600
    assert result.provenance["budget"]["unaffordable"] == 80 - method.known.sum()
    (warning,) = [w for w in result.warnings if "used up" in w]
    assert f"after {method.known.sum()} of 80 coalitions" in warning


async def test_calls_are_a_cap_for_any_method():
    method = Greedy()
    result = await explain(WordGame(WEIGHTS), budget=40, method=method)
    assert result.calls == 40
    assert method.known.sum() == 38


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"budget": "a few"}, ConfigError, "'a few' is not a budget"),
        ({"budget": 0}, ConfigError, "greater than 0"),
        ({"budget": -3}, ConfigError, "-3"),
        ({"budget": True}, ConfigError, "True is not a budget"),
        ({"budget": "$1"}, ConfigError, "the price of game:words is not known"),
        ({"budget": pizza.Budget(max_tokens=5, max_cost=1.0)}, ConfigError, "not both"),
        ({"budget": 20, "method": "leave-one-out"}, BudgetTooSmallError, "at least 32 calls"),
        ({"budget": 4}, BudgetTooSmallError, "at least"),
        ({"repeats": 0}, ConfigError, "repeats is 1 or more"),
    ],
)
async def test_a_budget_that_cannot_be_kept_costs_nothing(options, error, message):
    game = WordGame(WEIGHTS)
    with pytest.raises(error, match=message.replace("$", r"\$")):
        await explain(game, **options)
    assert not game.requests


async def test_tokens_that_do_not_pay_for_the_least_are_refused_after_the_reference():
    game = Priced(WEIGHTS)
    with pytest.raises(BudgetTooSmallError, match="pays for 1") as refused:
        await explain(game, budget="90 tokens")
    assert len(game.requests) == 2
    assert "at least 8 coalitions" in str(refused.value)


async def test_finding_out_whether_the_model_can_score_counts_too(model_server):
    server = {"base_url": model_server.base_url, "api_key": "none"}
    async with pizza.Session(f"openai:{model_server.model}", **server) as session:
        first = await session.attribute(PROMPT, budget=40)
        again = await session.attribute(PROMPT, budget=40)
    assert first.provenance["evidence"] == "score"
    assert first.calls <= 40
    assert sum(model_server.stats["requests"].values()) == first.calls
    # The session knows by then; the same budget gives the same scores all the same.
    assert again.calls == 0
    np.testing.assert_array_equal(again.scores, first.scores)


async def test_the_sessions_budget_bounds_it_as_well():
    game = WordGame(WEIGHTS)
    result = await explain(game, budget=200, session={"budget": pizza.Budget(max_calls=60)})
    assert len(game.requests) <= 60
    assert [unit.text for unit, _ in result.top(2)] == ["w3", "w7"]
