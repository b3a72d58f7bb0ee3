# SPDX-License-Identifier: Apache-2.0
"""`Session.evaluate`: the attribution's own question, asked again, of this model or another."""

import dataclasses

import numpy as np
import pytest
from support.games import ALL, WordGame

import pizza
from pizza.abc import PerturbationStrategy
from pizza.attribution import Attribution, Evaluations
from pizza.capability import Capability
from pizza.completion import Generation
from pizza.errors import BudgetTooSmallError, CapabilityError, ConfigError
from pizza.limits import Budget
from pizza.prompt import Edit

WEIGHTS = {"Ana": 0.5, "has": 0.1, "3": 2.0, "red": -0.25, "apples": 1.0, "today": 0.3, "here": 0.7}
PROMPT = " ".join(WEIGHTS)
LONG = "Ana has 3 red apples and Bob has 5 green pears. How many pears does Bob have?"
NO_SCORE = ALL - {Capability.SCORE}


class Other(WordGame):
    """Another model than `WordGame`."""

    name = "game:other"
    identity = "other"


async def attributed(game=None, prompt=PROMPT, **options):
    async with pizza.Session(game or WordGame(WEIGHTS), discover=False) as session:
        return await session.attribute(prompt, **options)


async def evaluated(attribution, game=None, *, session=None, **options):
    game = game or WordGame(WEIGHTS)
    async with pizza.Session(game, discover=False, **(session or {})) as opened:
        return await opened.evaluate(attribution, **options)


def without_evaluations(attribution):
    """The same attribution, as if nothing were known of its coalitions."""
    n_rows, n = attribution.scores.shape
    nothing = Evaluations(
        coalitions=np.ones((0, n), dtype=bool),
        effects={name: np.zeros((0, n_rows)) for name in attribution.metrics},
        answers=(),
    )
    return dataclasses.replace(attribution, evaluations=nothing)


async def test_leave_one_out_is_faithful_to_a_model_that_adds_up():
    found = await evaluated(await attributed())
    assert found["lds"].value == pytest.approx(1.0)
    assert found["infidelity"].value == pytest.approx(0.0, abs=1e-20)
    assert found["completeness-error"].value == pytest.approx(0.0, abs=1e-12)
    assert found["shapley-correlation"].value == pytest.approx(1.0)
    assert found["deletion"].value < found["deletion"].random
    assert found["top-k-drop"].details["output_tokens"] == 3
    assert found["comprehensiveness"].details["probability_of_output"] == pytest.approx(
        np.exp(-3.0)
    )
    assert found.metric == "logprob-diff"
    assert found.warnings == ()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"evidence": "complete"},
        {"metrics": "prob-diff"},
        {"metrics": ["exact-match", "logprob-diff"]},
        {"perturbation": "fixed:text=_"},
        {"target": "it is so"},
        {"target": pizza.Target.contrast("it is so", "it was not")},
        {"target": pizza.Target.completion(span=(0, 2))},
        {"generation": Generation(max_tokens=5, seed=4)},
    ],
)
async def test_the_values_are_those_of_the_attribution(options):
    game = WordGame(WEIGHTS, changes={"3": "no idea"})
    first = await attributed(game, **options)
    found = await evaluated(without_evaluations(first), game, measures="tau-loo")
    assert found["tau-loo"].details["drops"] == pytest.approx(first.unit_scores.tolist(), abs=1e-12)
    assert found.calls >= len(WEIGHTS)


@pytest.mark.parametrize("options", [{"perturbation": "random-token", "seed": 3}, {}])
async def test_the_embedded_model_gives_the_values_of_the_attribution(options):
    async with pizza.Session() as session:
        first = await session.attribute(LONG, **options)
        found = await session.evaluate(without_evaluations(first), measures="tau-loo", seed=9)
    assert found["tau-loo"].details["drops"] == first.unit_scores.tolist()
    assert found["tau-loo"].value == pytest.approx(1.0)


async def test_what_the_attribution_measured_is_not_asked_for_again():
    first = await attributed()
    game = WordGame(WEIGHTS)
    found = await evaluated(first, game, measures="tau-loo", budget=2)
    assert found["tau-loo"].value == pytest.approx(1.0)
    assert len(game.requests) == 1, "the reference"


async def test_the_embedded_model_ranks_two_methods():
    async with pizza.Session() as session:
        alone = await session.attribute(LONG, method="leave-one-out")
        cited = await session.attribute(LONG, method="context-cite:samples=64")
        first, second = [await session.evaluate(a, seed=1) for a in (alone, cited)]
    for found in (first, second):
        assert found.calls + found.cache_hits <= 256 + 2
        for name in ("deletion", "insertion", "comprehensiveness", "sufficiency", "top-k-drop"):
            result = found[name]
            better = result.value - result.random
            assert (better > 0) is result.higher_is_better, name
        assert found["lds"].value - 2 * found["lds"].standard_error > found["lds"].random
    assert second["lds"].value > first["lds"].value
    assert second["deletion"].value < first["deletion"].value
    # Nothing of either is in sample: random halves that ContextCite used are not used again.
    used = {row.tobytes() for row in cited.evaluations.coalitions}
    assert len(used) == 64
    assert second.provenance["effort"]["held_out"] == second["lds"].details["coalitions"]


async def test_an_output_token_is_evaluated_by_its_own_scores():
    first = await attributed()
    found = await evaluated(first, measures=["tau-loo", "completeness-error"], output_token=1)
    assert found["tau-loo"].details["drops"] == pytest.approx(first.scores[2].tolist())
    assert found["completeness-error"].details["all_less_none"] == pytest.approx(
        sum(WEIGHTS.values()) / 3
    )
    assert found.output_token == 1


async def test_a_saved_attribution_gives_the_same_figures(tmp_path):
    first = await attributed(method="random-ablation:samples=30")
    first.save(tmp_path / "a.json")
    again = Attribution.load(tmp_path / "a.json")
    one, other = await evaluated(first, seed=5), await evaluated(again, seed=5)
    assert one.to_dict()["results"] == other.to_dict()["results"]


async def test_scores_of_another_metric_are_evaluated_when_they_are_there():
    first = await attributed(metrics=["logprob-diff", "prob-diff"])
    found = await evaluated(first, metric="prob-diff", measures="tau-loo")
    assert found.metric == "prob-diff"
    drops = found["tau-loo"].details["drops"]
    assert drops == pytest.approx(first.for_metric("prob-diff").unit_scores.tolist())
    found = await evaluated(first, metric="edit-distance", measures="comprehensiveness")
    assert found["comprehensiveness"].scale == "edit-distance"


# --- another model ---------------------------------------------------------------------------


async def test_another_model_scores_the_attributions_output():
    first = await attributed()
    against = {word: -weight / 4 for word, weight in WEIGHTS.items()}
    game = Other(against)
    found = await evaluated(first, game, measures=["tau-loo", "lds"])
    assert {request.kind for request in game.requests} == {"score"}
    assert {request.target for request in game.requests} == {"it is so"}
    assert found["tau-loo"].details["drops"] == pytest.approx(list(against.values()))
    assert found["lds"].value == pytest.approx(-1.0)
    assert "measured on game:other; the attribution was made with game:words." in found.warnings
    assert found.provenance["output"] == "it is so"


async def test_another_model_that_cannot_score_is_compared_with_its_own_answer():
    first = await attributed()
    game = Other(WEIGHTS, answer=("something", " else"), capabilities=NO_SCORE)
    found = await evaluated(first, game, measures="tau-loo")
    assert found["tau-loo"].value == pytest.approx(1.0)
    assert "answers 'something else' here and not 'it is so'" in " ".join(found.warnings)
    with pytest.raises(ConfigError, match="other tokens"):
        await evaluated(first, game, measures="tau-loo", output_token=0)


async def test_a_target_that_must_be_scored_needs_a_model_that_can():
    first = await attributed(target="it is so")
    game = Other(WEIGHTS, capabilities=NO_SCORE)
    with pytest.raises(CapabilityError, match="score"):
        await evaluated(first, game)
    assert game.requests == []


async def test_a_look_inside_the_model_is_checked_by_deleting():
    """Given scores with no perturbation and no metric -> delete and logprob-diff."""
    first = without_evaluations(await attributed())
    inside = dataclasses.replace(
        first,
        results=(dataclasses.replace(first.results[0], metric="logprob"),),
        provenance={
            **first.provenance,
            "perturbation": None,
            "metrics": [],
            "evidence": "internals",
            "signed": False,
        },
    )
    found = await evaluated(inside)
    assert found["lds"].value == pytest.approx(1.0)
    assert found.provenance["perturbation"]["name"] == "delete"
    assert found.metric == "logprob-diff"
    assert "not in which direction" in found.warnings[0]
    told = await evaluated(inside, perturbation="fixed:text=_", metric="prob-diff")
    assert told.provenance["perturbation"]["options"] == {"text": "_"}
    assert told.metric == "prob-diff"


# --- bad input -------------------------------------------------------------------------------


class Underscore(PerturbationStrategy):
    """An object that no name leads to."""

    def render(self, prompt, units, present):
        return prompt.edited(
            [
                Edit(message=u.message, start=u.start, end=u.end, text="_")
                for u, there in zip(units, present, strict=True)
                if not there
            ]
        )


async def test_parts_that_a_result_cannot_hold_are_asked_for():
    first = await attributed(perturbation=Underscore())
    with pytest.raises(ConfigError, match="'underscore', an object that a result cannot hold"):
        await evaluated(first)
    found = await evaluated(first, perturbation=Underscore(), measures="tau-loo")
    assert found["tau-loo"].value == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"measures": "faith"}, "no measure is called"),
        ({"metric": "logprob-dif"}, "Did you mean 'logprob-diff'"),
        ({"output_token": 3}, "the output has 3, numbered from 0"),
        ({"output_token": -1}, "there is no output token -1"),
        ({"budget": "many"}, "not a budget"),
        ({"measures": "shapley-correlation:limit=5"}, "there are 7"),
    ],
)
async def test_wrong_calls_send_nothing(options, said):
    first, game = await attributed(), WordGame(WEIGHTS)
    with pytest.raises(ConfigError, match=said):
        await evaluated(first, game, **options)
    assert game.requests == []


async def test_only_attributions_are_evaluated():
    with pytest.raises(ConfigError, match="only an attribution can be evaluated, not dict"):
        await evaluated({})


async def test_an_attribution_that_does_not_say_how_it_was_made_is_refused():
    first = dataclasses.replace(await attributed(), provenance={"metrics": []})
    with pytest.raises(ConfigError, match="provenance has no 'evidence'"):
        await evaluated(first)


@pytest.mark.parametrize("where", ["session", "call"])
async def test_a_budget_that_is_too_small_is_refused_before_anything_is_sent(where):
    first, game = await attributed(), WordGame(WEIGHTS)
    options = {"session": {"budget": Budget(max_calls=9)}} if where == "session" else {"budget": 9}
    with pytest.raises(BudgetTooSmallError, match="at least") as caught:
        await evaluated(first, game, **options)
    assert game.requests == []
    assert caught.value.allowed == 9 - 1


@pytest.mark.parametrize("budget", [40, "700 tokens"])
async def test_a_budget_is_kept(budget):
    first, game = await attributed(), WordGame(WEIGHTS)
    found = await evaluated(first, game, budget=budget)
    used = found.calls if budget == 40 else found.usage.total_tokens
    assert used <= Budget.of(budget).max_calls if budget == 40 else 700
    assert len(found.results) >= 8


def test_the_blocking_facade_takes_the_model_of_the_attribution():
    first = pizza.sync.attribute(LONG, units="sentence")
    found = pizza.sync.evaluate(first, measures="completeness-error", budget=5)
    assert found["completeness-error"].value >= 0
    assert found.provenance["backend"] == first.provenance["backend"]
