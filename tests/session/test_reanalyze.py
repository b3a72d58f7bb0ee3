# SPDX-License-Identifier: Apache-2.0
"""Other scores from kept answers equal those of a run that asks for them."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from support.games import ALL, WordGame

import pizza
from pizza._explain.replay import NotMeasuredError, games, recorded
from pizza.abc import Game, Method, Metric, Scores, Tariff, TokenTable
from pizza.attribution import Evaluations
from pizza.capability import Capability
from pizza.completion import Reply
from pizza.errors import (
    CapabilityError,
    ConfigError,
    IncomparableError,
    RefusedError,
    UnknownNameError,
)
from pizza.evidence import Answers

MODEL_PROMPT = "Ana has 3 red apples and Bob has 5 green pears. How many pears does Bob have?"
WEIGHTS = {"Ana": 0.5, "has": 0.0, "3": 2.0, "red": -0.25, "apples": 1.0}
PROMPT = "Ana has 3 red apples"
NO_SCORE = ALL - {Capability.SCORE}


async def asked(prompt=MODEL_PROMPT, *, model="embedded", session=None, **options):
    """An attribution of its own, without a cache that another one has filled.

    One request at a time: what else is in a batch changes the last bits of the model's numbers.
    """
    alone = {"limits": pizza.Limits(max_concurrency=1)}
    async with pizza.Session(model, **{**alone, **(session or {})}) as opened:
        return await opened.attribute(prompt, **options)


def same(one, other):
    assert one.metrics == other.metrics
    assert one.target == other.target
    assert one.output.tokens == other.output.tokens
    for first, second in zip(one.results, other.results, strict=True):
        np.testing.assert_allclose(first.scores, second.scores, rtol=0, atol=1e-12)
        assert (first.standard_errors is None) == (second.standard_errors is None)
        if first.standard_errors is not None:
            np.testing.assert_allclose(first.standard_errors, second.standard_errors, atol=1e-12)
    if len(one.evaluations) != len(other.evaluations):
        return
    for name, effects in other.evaluations.effects.items():
        np.testing.assert_allclose(one.evaluations.effects[name], effects, rtol=0, atol=1e-12)


def through_json(attribution):
    return pizza.Attribution.from_dict(json.loads(json.dumps(attribution.to_dict())))


# --- the model in this process ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("evidence", "names"),
    [
        ("score", ["prob-diff", "kl-divergence", "token-displacement", "logprob-diff:whole=mean"]),
        ("complete", ["prob-diff", "js-divergence", "edit-distance", "rouge-l", "exact-match"]),
        ("complete", ["logprob-diff:alignment=location-invariant", "token-displacement"]),
    ],
)
async def test_another_metric_is_that_of_a_run_with_it(evidence, names):
    first = await asked(evidence=evidence, metrics="logprob-diff")
    fresh = await asked(evidence=evidence, metrics=names)
    same(first.reanalyze(metrics=names), fresh)
    same(through_json(first).reanalyze(metrics=names), fresh)


@pytest.mark.parametrize(
    ("method", "units"),
    [
        ("leave-one-out", "word"),
        ("hierarchical", "word"),
        ("auto:samples=48", "word"),
        ("auto", "sentence"),
        ("context-cite:samples=48", "word"),
        ("shapley", "sentence"),
        ("shapley-sampling:samples=60", "word"),
        ("multi-level", "word"),
    ],
)
async def test_nothing_changed_gives_exactly_the_same(method, units):
    first = await asked(method=method, units=units, metrics=["logprob-diff", "prob-diff"], seed=5)
    again = through_json(first).reanalyze()
    same(again, first)
    assert again.provenance["reanalysis"]["changed"] == []
    assert again.provenance["method"] == first.provenance["method"]


@pytest.mark.parametrize("method", ["auto", "context-cite", "hierarchical", "kernel-shap"])
@pytest.mark.parametrize("where", ["session", "attribution"])
async def test_a_budget_is_remembered(method, where):
    budget = {"budget": pizza.Budget(max_calls=41)}
    own = budget if where == "attribution" else {}
    first = await asked(method=method, session=budget if where == "session" else None, **own)
    same(first.reanalyze(), first)


async def test_a_method_that_adapts_goes_on_with_the_coalitions_that_there_are():
    first = await asked(method="hierarchical")
    both = await asked(method="hierarchical", metrics=["logprob-diff", "prob-diff"])
    again = first.reanalyze(metrics="prob-diff")
    np.testing.assert_allclose(
        again.scores, both.for_metric("prob-diff").scores, rtol=0, atol=1e-12
    )
    assert "chosen by logprob-diff" in again.warnings[0]


async def test_a_span_is_that_of_a_run_with_it():
    first = await asked(target="5 green pears")
    target = pizza.Target.given("5 green pears", span=(2, 7))
    fresh = await asked(target=target)
    same(first.reanalyze(span=(2, 7)), fresh)
    same(first.reanalyze(target=target), fresh)
    with pytest.raises(ConfigError, match="outside of the output"):
        first.reanalyze(span=(70, 75))


async def test_a_contrast_can_be_turned_and_taken_apart():
    first = await asked(target=pizza.Target.contrast("5", "3"))
    turned = pizza.Target.contrast("3", "5")
    same(first.reanalyze(target=turned), await asked(target=turned))
    same(first.reanalyze(target="5"), await asked(target="5"))
    same(first.reanalyze(target="3"), await asked(target="3"))
    same(first.reanalyze(target="3").reanalyze(target=first.target), first)


# The model writes token by token and scores all at once: its last bits differ.
@pytest.mark.parametrize(("evidence", "exact"), [("score", 1e-12), ("complete", 1e-4)])
async def test_alternatives_hold_contrasts_of_two_tokens(evidence, exact):
    first = await asked(evidence=evidence)
    target = pizza.Target.contrast("5", "3")
    found = first.reanalyze(target=target)
    fresh = await asked(target=target)
    np.testing.assert_allclose(found.scores, fresh.scores, rtol=0, atol=exact)
    assert found.output.tokens == fresh.output.tokens
    assert found.provenance["evidence"] == "alternatives"
    same(through_json(found).reanalyze(), found)


async def test_methods_that_did_not_choose_the_coalitions():
    first = await asked(method="shapley", units="sentence", target="5 pears")
    for method in ("banzhaf", "leave-one-out"):
        same(
            first.reanalyze(method=method),
            await asked(method=method, units="sentence", target="5 pears"),
        )


async def test_nothing_can_be_sent(model_server):
    async with pizza.Session(
        f"openai:{model_server.model}",
        base_url=model_server.base_url,
        api_key="none",
        backend_options={"api": "completions"},
    ) as session:
        first = await session.attribute(MODEL_PROMPT, units="sentence")
    before = model_server.stats["requests"]
    second = first.reanalyze(metrics="prob-diff")
    assert model_server.stats["requests"] == before
    model_server.stop()
    third = second.reanalyze(metrics=["kl-divergence"], method="leave-one-out")
    assert (third.calls, third.cache_hits, third.usage, third.cost) == (0, 0, pizza.Usage(), 0.0)
    assert first.calls > 0


async def test_a_saved_result_can_be_analyzed_again(tmp_path):
    first = await asked()
    first.reanalyze(metrics="prob-diff").save(tmp_path / "a.json")
    again = pizza.Attribution.load(tmp_path / "a.json").reanalyze(metrics="kl-divergence")
    same(again, await asked(metrics="kl-divergence"))
    told = again.provenance["reanalysis"]
    assert told["of"]["created_at"] == first.provenance["created_at"]
    assert told["of"]["method"] == {"name": "leave-one-out", "options": {}}
    assert told["of"]["metrics"] == [{"name": "logprob-diff", "options": {}}]
    assert (told["changed"], told["how"]) == (["metrics"], "replayed")


# --- a model whose answers are known ----------------------------------------------------------


async def of_game(game=None, **options):
    return await asked(
        PROMPT, model=game or WordGame(WEIGHTS), session={"discover": False}, **options
    )


def close(values):
    return pytest.approx(list(values), abs=1e-9)


async def test_an_estimator_is_applied_to_all_coalitions():
    first = await of_game(method="shapley")
    found = first.reanalyze(method="kernel-shap", discover=False)
    assert found.unit_scores.tolist() == close(WEIGHTS.values())
    assert found.provenance["reanalysis"]["how"] == "estimated"
    assert found.provenance["reanalysis"]["changed"] == ["method"]
    again = found.reanalyze(metrics="logprob-diff:whole=mean", discover=False)
    assert again.unit_scores.tolist() == close(w / 3 for w in WEIGHTS.values())
    assert again.provenance["method"]["name"] == "kernel-shap"


async def test_a_plan_that_asks_for_what_was_not_measured_names_what_works():
    first = await of_game(method="leave-one-out")
    with pytest.raises(NotMeasuredError, match=r"4 of 4 were not .*: .*leave-one-out") as caught:
        first.reanalyze(method="sliding-window:size=2", discover=False)
    assert caught.value.missing == 4


async def test_a_method_of_ones_own_is_followed():
    class Pairs(Method):
        """Asks for two coalitions, one after the other."""

        def plan(self, game):
            rows = ~np.eye(game.n_units, dtype=bool)
            one = yield rows[:1]
            two = yield rows[1:2]
            values = np.zeros((game.n_columns, game.n_units))
            values[:, 0], values[:, 1] = -one[0], -two[0]
            return Scores(values=values)

    first = await of_game()
    found = first.reanalyze(method=Pairs(), discover=False)
    assert found.unit_scores.tolist() == close([0.5, 0, 0, 0, 0])
    with pytest.raises(ConfigError, match="object of its caller"):
        found.reanalyze(discover=False)


async def test_a_metric_of_ones_own_is_computed():
    class Length(Metric):
        def compare(self, reference, perturbed):
            effects = np.zeros((len(perturbed), 1 + len(reference.tokens)))
            effects[:, 0] = [len(reference.text) - len(p.text) for p in perturbed]
            return effects

    first = await of_game(WordGame(WEIGHTS, changes={"3": "no"}), evidence="complete")
    found = first.reanalyze(metrics=Length(), discover=False)
    assert found.unit_scores.tolist() == [0, 0, 6, 0, 0]
    # What it was is not known: it can be gone on with, and not be made again.
    same(found.reanalyze(discover=False), found)
    with pytest.raises(UnknownNameError, match="length"):
        found.reanalyze(metrics="length", discover=False)


class Silent(WordGame):
    """Without one word it lists no alternatives."""

    async def answer(self, request):
        reply = await super().answer(request)
        if "red" in request.prompt.text.split():
            return reply
        bare = replace(
            reply.completion, alternative_tokens=None, alternative_logprobs=None, logprobs=None
        )
        return Reply(completion=replace(bare, logprobs=reply.completion.logprobs))


@pytest.mark.parametrize("evidence", ["score", "complete"])
async def test_answers_that_a_metric_cannot_use_are_named_or_left_out(evidence):
    first = await of_game(Silent(WEIGHTS), evidence=evidence)
    whole = await of_game(metrics="kl-divergence", evidence=evidence)
    with pytest.raises(IncomparableError, match=r"1 of 5 coalitions \(without units \[3\]\)"):
        first.reanalyze(metrics="kl-divergence", discover=False)
    found = first.reanalyze(
        metrics=["kl-divergence", "prob-diff"], on_incomparable="skip", discover=False
    )
    assert np.isnan(found.unit_scores).tolist() == [False, False, False, True, False]
    kept = [0, 1, 2, 4]
    np.testing.assert_allclose(found.scores[:, kept], whole.scores[:, kept], atol=1e-12)
    assert not np.isnan(found.for_metric("prob-diff").scores).any()
    assert "[3]" in found.warnings[0]


async def test_a_metric_that_no_answer_can_have_is_an_error_in_any_case():
    first = await of_game(WordGame(WEIGHTS), evidence="complete", metrics="exact-match")
    bare = replace(
        first,
        evaluations=Evaluations(
            coalitions=first.evaluations.coalitions,
            effects=first.evaluations.effects,
            answers=first.evaluations.answers,
        ),
    )
    assert bare.reanalyze(metrics="jaccard", discover=False).unit_scores.tolist() == [0] * 5
    with pytest.raises(IncomparableError, match="5 of 5"):
        first.reanalyze(metrics="logprob-diff", on_incomparable="skip", discover=False)


@pytest.mark.parametrize(
    ("run", "options", "error", "message"),
    [
        ({}, {"metrics": "exact-match"}, IncomparableError, "nothing was written"),
        ({}, {"metrics": "jaccard", "span": (0, 2)}, IncomparableError, "a span of the output"),
        ({}, {"target": "it is not"}, ConfigError, "'it is not' was not measured.*it is so"),
        ({"target": "it is so"}, {"target": pizza.Target()}, ConfigError, "own completion was not"),
        ({}, {"target": pizza.Target.label("x")}, ConfigError, "label 'x' was not measured"),
        ({}, {"target": 5}, ConfigError, "a text or a pizza.Target"),
        ({}, {"span": (3, 3)}, ConfigError, "empty or negative"),
        ({"evidence": "complete"}, {"span": (0, 2)}, ConfigError, "takes scored evidence"),
        ({"target": ("it", "is")}, {"span": (0, 1)}, ConfigError, "a contrast has two"),
        ({}, {"target": ("it", "this")}, ConfigError, "no position of the output lists both"),
        ({}, {"target": ("other", "so"), "span": (0, 5)}, ConfigError, "touches 2 tokens"),
        ({}, {"metrics": "cosine"}, CapabilityError, "opens no model"),
        ({}, {"method": "shapley:sizes=2"}, ConfigError, "does not take these options"),
        ({}, {"metrics": "logprob-dif"}, UnknownNameError, "Did you mean 'logprob-diff'"),
        ({}, {"on_incomparable": "ignore"}, ConfigError, "'raise' or 'skip', not 'ignore'"),
    ],
)
async def test_what_the_answers_do_not_hold_is_refused(run, options, error, message):
    def made(of):
        pair = of.get("target")
        return {**of, "target": pizza.Target.contrast(*pair)} if isinstance(pair, tuple) else of

    first = await of_game(**made(run))
    with pytest.raises(error, match=message):
        first.reanalyze(**made(options), discover=False)


async def test_a_place_of_two_tokens_is_named_where_there_are_several():
    first = await of_game(WordGame(WEIGHTS, answer=("so", " or", " so")))
    wanted = pizza.Target.contrast("so", "other")
    with pytest.raises(ConfigError, match=r"at 2 positions of the output.*0:2, 5:8"):
        first.reanalyze(target=wanted, discover=False)
    found = first.reanalyze(target=wanted, span=(6, 7), discover=False)
    loss = np.array(list(WEIGHTS.values())) / 3
    before, after = -1.0, -1.0 - loss
    odds = (before - math.log(-math.expm1(before))) - (after - np.log(-np.expm1(after)))
    assert found.unit_scores.tolist() == close(odds)
    assert found.provenance["reanalysis"]["position"] == 2


async def test_embeddings_are_given_or_refused():
    table = TokenTable(tokens=("it", " is", " so", "no"), embeddings=np.eye(4), special=frozenset())
    game = WordGame(WEIGHTS, changes={"3": "no"})
    first = await of_game(game, evidence="complete")
    found = first.reanalyze(metrics=pizza.Choice("cosine", table=table), discover=False)
    assert found.unit_scores.tolist() == close([0, 0, 1, 0, 0])


async def test_a_refused_coalition_stays_unknown():
    game = WordGame(WEIGHTS, failures={"red": RefusedError("no")})
    first = await of_game(game, skip_failures=True)
    found = first.reanalyze(metrics="prob-diff", discover=False)
    assert np.isnan(found.unit_scores).tolist() == [False, False, False, True, False]


async def test_too_many_alternatives_are_not_kept_and_missed_aloud(monkeypatch):
    monkeypatch.setenv("PIZZA_MAX_ALTERNATIVES", "29")
    scored = await of_game()  # 5 answers of 3 tokens with 2 alternatives each are 30
    assert scored.evaluations.evidence[0].dropped == 30
    fresh = await of_game(metrics="prob-diff")
    same(through_json(scored).reanalyze(metrics="prob-diff", discover=False), fresh)
    assert scored.reanalyze(span=(0, 2), discover=False).unit_scores[2] == pytest.approx(2 / 3)
    for name in ("kl-divergence", "token-displacement"):
        with pytest.raises(IncomparableError, match="PIZZA_MAX_ALTERNATIVES"):
            scored.reanalyze(metrics=name, discover=False)
    # Where texts diverge, probabilities come from the alternatives: no other number instead.
    monkeypatch.setenv("PIZZA_MAX_ALTERNATIVES", "25")
    written = await of_game(WordGame(WEIGHTS, changes={"3": "no"}), evidence="complete")
    assert written.evaluations.evidence[0].dropped
    with pytest.raises(IncomparableError, match=r"without units \[2\].*were not kept"):
        written.reanalyze(metrics="prob-diff", discover=False)
    monkeypatch.setenv("PIZZA_MAX_ALTERNATIVES", "30")
    kept = await of_game()
    assert kept.evaluations.evidence[0].dropped == 0
    monkeypatch.setenv("PIZZA_MAX_ALTERNATIVES", "many")
    with pytest.raises(ConfigError, match="a number of alternatives, not 'many'"):
        await of_game()


class Moody(WordGame):
    """Answers every other repetition otherwise."""

    async def answer(self, request):
        reply = await super().answer(request)
        if request.sample % 2:
            return Reply(completion=replace(reply.completion, text="so", tokens=("so",) * 3))
        return reply


async def test_repeated_answers_are_kept_and_averaged_again():
    first = await of_game(Moody(WEIGHTS), evidence="complete", metrics="exact-match", repeats=2)
    kept = first.evaluations.evidence[0]
    assert {len(answers) for answers in kept.answers} == {2}
    assert first.evaluations.effects["exact-match"][:, 0].tolist() == [0.5] * 5
    again = through_json(first).reanalyze(discover=False)
    same(again, first)
    assert again.noise.floor["exact-match"][0] == first.noise.floor["exact-match"][0] != 0
    other = first.reanalyze(metrics="edit-distance", discover=False)
    fresh = await of_game(Moody(WEIGHTS), evidence="complete", metrics="edit-distance", repeats=2)
    np.testing.assert_allclose(
        other.evaluations.effects["edit-distance"], fresh.evaluations.effects["edit-distance"]
    )


@pytest.mark.parametrize("kept", [0, 2])
async def test_noise_is_taken_off_by_the_answers_that_tell_it(kept):
    first = await of_game(Moody(WEIGHTS), evidence="complete", metrics="exact-match", repeats=2)
    (evidence,) = first.evaluations.evidence
    reference = evidence.reference
    further = (replace(reference, text="so", tokens=("so",) * 3), reference)[:kept]
    answers = Answers(first.evaluations.answers.texts, (replace(evidence, further=further),))
    told = replace(first, evaluations=replace(first.evaluations, answers=answers))
    found = through_json(told).reanalyze(metrics="edit-distance", discover=False)
    distance = 6 / 8  # "so" is left of "it is so"
    effects = found.evaluations.effects["edit-distance"][:, 0]
    assert effects.tolist() == close([distance / 2] * 5)
    assert found.noise.floor["edit-distance"][0] == pytest.approx(distance / 2 if kept else 0)
    assert found.unit_scores.tolist() == close([0 if kept else distance / 2] * 5)
    assert any("no noise is taken off" in text for text in found.warnings) is not bool(kept)


async def test_a_method_that_looks_inside_leaves_nothing_to_analyze():
    first = await of_game()
    inside = replace(
        first,
        evaluations=Evaluations(coalitions=np.ones((0, 5), dtype=bool), effects={}, answers=()),
        provenance={**first.provenance, "evidence": "internals"},
    )
    with pytest.raises(ConfigError, match="looking inside the model"):
        inside.reanalyze(metrics="prob-diff")


async def test_an_old_file_allows_other_methods_but_no_other_metric():
    data = (await of_game(method="shapley")).to_dict()
    del data["evaluations"]["evidence"]
    old = pizza.Attribution.from_dict({**data, "schema_version": 1})
    assert "older pizza" in old.warnings[-1]
    assert old.evaluations.evidence == ()
    found = old.reanalyze(method="leave-one-out", discover=False)
    assert found.unit_scores.tolist() == close(WEIGHTS.values())
    with pytest.raises(IncomparableError, match="no answers were kept"):
        old.reanalyze(metrics="prob-diff", discover=False)


@pytest.mark.parametrize(
    "damage",
    [
        {"metrics": 5},
        {"metrics": ["logprob-diff"]},
        {"metrics": [{"name": "logprob-diff"}]},
        {"method": "leave-one-out"},
        {"method": {"name": "leave-one-out", "options": [1]}},
        {"seed": "x"},
        {"reanalysis": {"of": {}}},
        {"reanalysis": 7},
    ],
)
async def test_a_damaged_provenance_is_refused(damage):
    first = await of_game()
    damaged = replace(first, provenance={**first.provenance, **damage})
    with pytest.raises(ConfigError, match="provenance of this attribution is damaged"):
        damaged.reanalyze(discover=False)


async def test_what_the_provenance_does_not_say_must_be_given():
    bare = replace(await of_game(), provenance={})
    with pytest.raises(ConfigError, match="name a method"):
        bare.reanalyze(discover=False)
    found = bare.reanalyze(method="leave-one-out", metrics="prob-diff", discover=False)
    same(found, await of_game(metrics="prob-diff"))


# --- the game of a run ------------------------------------------------------------------------


def test_a_recorded_game_is_read_again():
    game = Game(
        n_units=2,
        n_columns=1,
        groups=np.zeros((2, 3), dtype=np.int64),
        lengths=np.ones(2, dtype=np.int64),
    )
    tariff = Tariff(
        currency="tokens", call=3.0, units=np.array([1.0, 2.0]), limit=50.0, max_calls=7
    )
    said = recorded(replace(game, max_calls=9, tariff=tariff))
    (again,) = games(game, {"game": json.loads(json.dumps(said))}, 4)
    assert again.max_calls == 9
    assert again.tariff.of(np.ones((1, 2), dtype=bool)).tolist() == [6.0]
    assert again.tariff.calls(1.0) == tariff.calls(1.0) == 7
    # Without a record: what the details say, then none, then what was measured.
    details = {"method": {"details": {"samples": 5, "unspent": 3}}}
    assert [g.max_calls for g in games(game, details, 4)] == [8, None, 4]
