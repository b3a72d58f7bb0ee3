# SPDX-License-Identifier: Apache-2.0
"""Attributions of a model whose answer is known: every word has a weight in nats."""

import asyncio
import json

import numpy as np
import pytest
from support.games import ALL, WordGame

import pizza
from pizza.abc import Method, Metric, PerturbationStrategy, Scores, Segmenter, TokenTable
from pizza.capability import Capability
from pizza.errors import (
    AuthError,
    BudgetTooSmallError,
    CapabilityError,
    ConfigError,
    IncomparableError,
    PluginContractError,
    RefusedError,
    ResultFormatError,
    SessionClosedError,
    UnknownNameError,
)

WEIGHTS = {"Ana": 0.5, "has": 0.0, "3": 2.0, "red": -0.25, "apples": 1.0}
PROMPT = "Ana has 3 red apples"
NO_SCORE = ALL - {Capability.SCORE}


async def explain(game, prompt=PROMPT, *, session=None, **options):
    async with pizza.Session(game, discover=False, **(session or {})) as opened:
        return await opened.attribute(prompt, **options)


def close(values):
    return pytest.approx(list(values), abs=1e-12)


@pytest.mark.parametrize("evidence", ["auto", "score", "complete"])
async def test_leave_one_out_returns_the_weights_of_the_words(evidence):
    result = await explain(WordGame(WEIGHTS), evidence=evidence)
    assert [u.text for u in result.units] == list(WEIGHTS)
    assert result.unit_scores.tolist() == close(WEIGHTS.values())
    assert result.scores.shape == (1 + 3, 5)
    assert result.scores[1:].sum(axis=0).tolist() == close(WEIGHTS.values())
    assert result.provenance["evidence"] == ("complete" if evidence == "complete" else "score")


async def test_the_calls_are_counted_and_nothing_is_asked_twice():
    game = WordGame(WEIGHTS)
    result = await explain(game)
    # The completion, its scored form, and one per word.
    assert result.calls == len(game.requests) == 2 + 5
    assert result.usage.completion_tokens == 3 * 7
    assert game.closed == 0 + 1


async def test_several_metrics_cost_no_further_call():
    game = WordGame(WEIGHTS, capabilities=NO_SCORE, changes={"3": "no idea"})
    result = await explain(game, metrics=["logprob-diff", "prob-diff", "exact-match"])
    assert len(game.requests) == 1 + 5
    assert result.metrics == ("logprob-diff", "prob-diff", "exact-match")
    exact = result.for_metric("exact-match")
    assert exact.unit_scores.tolist() == [0, 0, 1, 0, 0]
    assert exact.metrics[0] == "exact-match"


async def test_scored_and_written_evidence_together_cost_two_calls_each():
    game = WordGame(WEIGHTS)
    await explain(game, metrics=["logprob-diff", "exact-match"])
    assert len(game.requests) == 2 + 2 * 5


async def test_an_adaptive_method_takes_all_metrics_along_one_path():
    game = WordGame(WEIGHTS, capabilities=NO_SCORE)
    result = await explain(
        game, method="hierarchical:chunks=2", metrics=["logprob-diff", "exact-match"]
    )
    assert len(game.requests) == 1 + len(result.evaluations)
    assert result.evaluations.effects["exact-match"].shape == (len(result.evaluations), 4)


async def test_fixed_parts_are_no_units_and_the_result_says_why():
    result = await explain(WordGame(WEIGHTS), "Q: Ana has 3 red apples A:")
    assert [u.text for u in result.units] == ["Ana", "has", "3", "red", "apples"]
    assert [f.reason for f in result.prompt.fixed] == ["template mark"] * 2


async def test_a_given_text_is_scored_and_not_written():
    game = WordGame(WEIGHTS)
    result = await explain(game, target="it is so")
    assert {r.kind for r in game.requests} == {"score"}
    assert result.unit_scores.tolist() == close(WEIGHTS.values())


async def test_a_given_text_can_be_compared_with_what_is_written():
    game = WordGame(WEIGHTS, capabilities=frozenset({Capability.COMPLETE}), changes={"3": "no"})
    result = await explain(game, target="it is so", metrics="exact-match")
    assert result.unit_scores.tolist() == [0, 0, 1, 0, 0]
    assert len(game.requests) == 5


async def test_a_span_of_the_output_counts_only_its_tokens():
    result = await explain(WordGame(WEIGHTS), target=pizza.Target.completion(span=(2, 5)))
    third = [w / 3 for w in WEIGHTS.values()]
    assert result.scores[0].tolist() == close(third)
    assert result.scores[2].tolist() == close(third)
    assert np.isnan(result.scores[[1, 3]]).all()


async def test_a_contrast_is_the_difference_of_the_two_effects():
    class TwoAnswers(WordGame):
        async def answer(self, request):
            if request.target == "versus":
                request = pizza.Request(prompt=pizza.Prompt.of("Ana has 3 red apples"))
            return await super().answer(request)

    result = await explain(TwoAnswers(WEIGHTS), target=pizza.Target.contrast("it is so", "versus"))
    # The other side does not depend on the prompt at all.
    assert result.unit_scores.tolist() == close(WEIGHTS.values())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"metrics": "logprob-dif"}, UnknownNameError, "Did you mean 'logprob-diff'"),
        ({"method": "leave-one-in"}, UnknownNameError, "Did you mean 'leave-one-out'"),
        ({"perturbation": "erase"}, UnknownNameError, "no perturbation is called 'erase'"),
        ({"units": "wordz"}, UnknownNameError, "Did you mean 'word'"),
        ({"metrics": []}, ConfigError, "at least one"),
        ({"metrics": ["exact-match", "exact-match"]}, ConfigError, "named twice"),
        ({"metrics": 5}, TypeError, "iterable"),
        ({"method": 5}, ConfigError, "a method is a name"),
        ({"method": "sliding-window:width=2"}, ConfigError, "It takes: size, stride"),
        ({"units": [(0, 3), (2, 5)]}, ConfigError, "overlap"),
        ({"target": ""}, ConfigError, "target text is empty"),
        ({"target": pizza.Target.label("good")}, CapabilityError, "classify"),
        ({"target": pizza.Target.completion(span=(90, 95))}, ConfigError, "outside of the output"),
        (
            {"target": pizza.Target.contrast("a", "b"), "metrics": "exact-match"},
            ConfigError,
            "compare whole texts",
        ),
        ({"target": "x", "evidence": "complete"}, ConfigError, "scored, not written"),
    ],
)
async def test_what_is_wrong_is_said_before_perturbed_prompts_are_paid_for(options, error, message):
    game = WordGame(WEIGHTS)
    with pytest.raises(error, match=message):
        await explain(game, **options)
    assert len(game.requests) <= 2  # only the span needs to see the output first


async def test_missing_log_probabilities_are_refused_with_metrics_that_work():
    game = WordGame(WEIGHTS, capabilities=frozenset({Capability.COMPLETE}))
    with pytest.raises(CapabilityError, match="exact-match") as caught:
        await explain(game, metrics="logprob-diff")
    assert caught.value.needed == "logprobs"
    assert "exact-match" in caught.value.alternatives
    assert not game.requests


async def test_without_log_probabilities_the_default_compares_texts_and_says_so():
    game = WordGame(WEIGHTS, capabilities=frozenset({Capability.COMPLETE}), changes={"3": "no"})
    result = await explain(game)
    assert result.metric == "edit-distance"
    assert result.top(1)[0][0].text == "3"
    assert "no log-probabilities" in result.warnings[0]
    assert not any(r.logprobs for r in game.requests)


@pytest.mark.parametrize("there", [True, False])
async def test_an_uncertain_capability_is_probed_once_a_session(there):
    score = frozenset({Capability.SCORE})
    game = WordGame(
        WEIGHTS,
        capabilities=NO_SCORE,
        uncertain=score,
        confirmed=score if there else frozenset(),
    )
    async with pizza.Session(game, discover=False) as session:
        first = await session.attribute(PROMPT)
        await session.attribute(PROMPT + " now")
    assert game.probes == [score]
    assert first.provenance["evidence"] == ("score" if there else "complete")
    assert first.unit_scores.tolist() == close(WEIGHTS.values())


async def test_a_budget_below_the_methods_minimum_costs_nothing():
    game = WordGame(WEIGHTS)
    with pytest.raises(BudgetTooSmallError, match="at least 7 calls for 5 units") as caught:
        await explain(game, session={"budget": pizza.Budget(max_calls=6)})
    assert caught.value.needed == 7
    assert not game.requests


async def test_a_budget_that_fits_exactly_is_enough():
    result = await explain(WordGame(WEIGHTS), session={"budget": pizza.Budget(max_calls=7)})
    assert result.calls == 7


async def test_a_refused_coalition_fails_the_attribution_unless_told_otherwise():
    game = WordGame(WEIGHTS, failures={"red": RefusedError("the filter declined")})
    with pytest.raises(RefusedError, match="declined"):
        await explain(game)
    result = await explain(game, skip_failures=True)
    assert np.isnan(result.unit_scores).tolist() == [False, False, False, True, False]
    assert "without units [3]" in result.warnings[0]


async def test_a_wrong_key_is_never_skipped():
    game = WordGame(WEIGHTS, failures={"red": AuthError("no")})
    with pytest.raises(AuthError):
        await explain(game, skip_failures=True)


async def test_an_empty_output_cannot_be_explained_by_its_tokens():
    with pytest.raises(IncomparableError, match="answered nothing"):
        await explain(WordGame(WEIGHTS, answer=("",)))


@pytest.mark.parametrize("prompt", ["one", "\x00", "🍕", "مرحبا بالعالم", "a\u0301 b"])
async def test_unusual_prompts_are_explained(prompt):
    result = await explain(WordGame({prompt.split()[0]: 1.0}), prompt)
    assert result.unit_scores[0] == pytest.approx(1.0)


async def test_a_prompt_without_anything_free_is_refused():
    with pytest.raises(ConfigError, match="nothing to perturb"):
        await explain(WordGame(WEIGHTS), pizza.Prompt.of(PROMPT).fix((0, len(PROMPT))))


async def test_a_long_prompt_keeps_few_requests_in_memory():
    words = [f"w{i}" for i in range(3000)]
    game = WordGame({"w7": 1.0})
    game.requests = _Counter()
    result = await explain(game, " ".join(words), method="hierarchical", units="word")
    assert result.top(1)[0][0].text == "w7"
    assert game.requests.n < 60


class _Counter:
    n = 0

    def append(self, _):
        self.n += 1


async def test_progress_is_told_in_order():
    seen = []
    await explain(WordGame(WEIGHTS), on_progress=seen.append)
    assert seen[0].phase == "reference"
    assert [p.done for p in seen if p.phase == "coalitions"] == [1, 2, 3, 4, 5]
    assert seen[-1].total == 5
    assert seen[-1].calls == 7


# --- parts that break their contract ---------------------------------------------------------


class Wrong:
    class Shape(Metric):
        def compare(self, reference, perturbed):
            return np.zeros((len(perturbed), 99))

    class Order(Segmenter):
        def segment(self, prompt, resources):
            return [prompt.unit(0, 4, 7), prompt.unit(0, 0, 3)]

    class Ints(Method):
        def plan(self, game):
            yield np.ones((1, game.n_units), dtype=int)

    class Result(Method):
        def plan(self, game):
            yield ~np.eye(game.n_units, dtype=bool)
            return Scores(values=np.zeros((1, 1)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": Wrong.Shape()}, "Shape.compare returned shape"),
        ({"units": Wrong.Order()}, "out of order"),
        ({"method": Wrong.Ints()}, "bool array"),
        ({"method": Wrong.Result()}, "values .n_columns, n_units. = .4, 5."),
    ],
)
async def test_a_part_that_breaks_its_contract_is_named(options, message):
    with pytest.raises(PluginContractError, match=message):
        await explain(WordGame(WEIGHTS), **options)


async def test_a_metric_that_blocks_runs_on_another_thread():
    import threading

    threads = []

    class Slow(Metric):
        blocking = True

        def compare(self, reference, perturbed):
            threads.append(threading.current_thread())
            return np.zeros((len(perturbed), 1 + len(reference.tokens)))

    await explain(WordGame(WEIGHTS), metrics=Slow())
    assert threads[0] is not threading.main_thread()
    assert not threads[0].is_alive()


async def test_a_strategy_of_ones_own_is_used_as_it_is():
    class Upper(PerturbationStrategy):
        def render(self, prompt, units, present):
            words = [u.text if p else u.text.upper() for u, p in zip(units, present, strict=True)]
            return pizza.Prompt.of(" ".join(words))

    result = await explain(WordGame(WEIGHTS), perturbation=Upper())
    assert result.unit_scores.tolist() == close([0.5, 0, 0, -0.25, 1.0])  # "3" has no upper case
    assert result.provenance["perturbation"]["name"] == "upper"


# --- life ------------------------------------------------------------------------------------


async def test_a_session_is_used_inside_its_block_and_entered_once():
    session = pizza.Session(WordGame(WEIGHTS), discover=False)
    with pytest.raises(SessionClosedError, match="unopened"):
        await session.attribute(PROMPT)
    async with session:
        pass
    with pytest.raises(SessionClosedError, match="closed"):
        await session.attribute(PROMPT)
    with pytest.raises(SessionClosedError, match="entered once"):
        await session.__aenter__()


async def test_a_session_that_fails_to_open_closes_what_it_had_opened(tmp_path):
    game = WordGame(WEIGHTS)
    with pytest.raises(ConfigError, match="price"):
        await pizza.Session(game, discover=False, budget=pizza.Budget(max_cost=1)).__aenter__()
    assert game.closed == 1


async def test_an_unknown_backend_is_named():
    with pytest.raises(UnknownNameError, match="no backend is called 'opnai'"):
        await pizza.Session("opnai:gpt-4o").__aenter__()


async def test_a_cancelled_attribution_leaves_nothing_and_touches_nobody():
    game = WordGame(WEIGHTS)
    reached, release = asyncio.Event(), asyncio.Event()

    async def hold(request):
        if "zebra" in request.prompt.text:
            reached.set()
            await release.wait()

    game.before = hold
    async with pizza.Session(game, discover=False) as session:
        before = asyncio.all_tasks()
        stuck = asyncio.create_task(session.attribute("a zebra runs"))
        await reached.wait()
        other = asyncio.create_task(session.attribute(PROMPT))
        stuck.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stuck
        result = await other
        assert asyncio.all_tasks() - before == set()
        assert session.statistics.in_flight == 0
    assert result.unit_scores.tolist() == close(WEIGHTS.values())


async def test_many_prompts_come_as_they_are_ready_and_a_failure_is_a_value():
    game = WordGame(WEIGHTS, failures={"safe": RefusedError("no")})
    prompts = ["safe Ana", "safe 3 apples", "Ana alone"]
    async with (
        pizza.Session(game, discover=False) as session,
        session.attribute_many(prompts, method="sliding-window:size=2,stride=2") as outcomes,
    ):
        found = {o.index: o async for o in outcomes}
    assert sorted(found) == [0, 1, 2]
    assert all(isinstance(found[i].error, RefusedError) for i in range(3))


async def test_leaving_a_bulk_run_early_cancels_exactly_its_own_work():
    game = WordGame(WEIGHTS)

    def endless():
        n = 0
        while True:
            n += 1
            yield f"Ana has {n} things"

    async with pizza.Session(game, discover=False) as session:
        before = asyncio.all_tasks()
        async with session.attribute_many(endless(), concurrency=3) as outcomes:
            async for outcome in outcomes:
                assert outcome.attribution is not None
                if outcome.index > 5:
                    break
        assert asyncio.all_tasks() == before
        assert (await session.attribute(PROMPT)).calls == 7


def test_the_blocking_facade_does_the_same():
    result = pizza.sync.attribute(PROMPT, model=WordGame(WEIGHTS), discover=False, seed=3)
    assert result.unit_scores.tolist() == close(WEIGHTS.values())
    outcomes = pizza.sync.attribute_many([PROMPT] * 3, model=WordGame(WEIGHTS), discover=False)
    assert [o.index for o in outcomes] == [0, 1, 2]


async def test_the_blocking_facade_refuses_a_running_loop():
    with pytest.raises(ConfigError, match="async with"):
        pizza.sync.attribute(PROMPT, model=WordGame(WEIGHTS))


# --- saving ----------------------------------------------------------------------------------


async def test_an_attribution_survives_saving(tmp_path):
    result = await explain(
        WordGame(WEIGHTS, changes={"3": "no"}, capabilities=NO_SCORE),
        "Q: Ana has 3 red apples A:",
        metrics=["logprob-diff", "exact-match"],
    )
    result.save(tmp_path / "a.json")
    again = pizza.Attribution.load(tmp_path / "a.json")
    assert again.to_dict() == result.to_dict()
    np.testing.assert_array_equal(again.scores, result.scores)
    assert json.loads((tmp_path / "a.json").read_text())["schema_version"] == 2
    assert list(tmp_path.iterdir()) == [tmp_path / "a.json"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "else"}, "not a saved attribution"),
        ({"schema_version": 99}, "schema version 99"),
        ({"units": [[0, 0, 9999, ""]]}, "damaged"),
        ({"results": []}, "damaged"),
        ({"evaluations": None}, "damaged"),
    ],
)
async def test_damaged_results_are_refused(change, message):
    data = (await explain(WordGame(WEIGHTS))).to_dict()
    with pytest.raises(ResultFormatError, match=message):
        pizza.Attribution.from_dict({**data, **change})


def test_a_file_that_is_no_json_is_refused(tmp_path):
    (tmp_path / "x.json").write_text("[" * 100000)
    with pytest.raises(ResultFormatError, match="not a JSON file"):
        pizza.Attribution.load(tmp_path / "x.json")


async def test_arrays_are_read_only():
    result = await explain(WordGame(WEIGHTS))
    with pytest.raises(ValueError, match="read-only"):
        result.scores[0, 0] = 1.0


async def test_the_frame_is_tidy():
    pytest.importorskip("pandas")
    result = await explain(WordGame(WEIGHTS))
    frame = result.to_pandas()
    assert len(frame) == 4 * 5
    whole = frame[frame.output_index == -1]
    assert whole.set_index("unit").score.to_dict() == pytest.approx(WEIGHTS)


async def test_a_table_of_ones_own_stands_in_for_the_models_embeddings():
    table = TokenTable(tokens=("it", " is", " so", "no"), embeddings=np.eye(4), special=frozenset())
    game = WordGame(WEIGHTS, changes={"3": "no"})
    result = await explain(game, metrics=pizza.Choice("cosine", table=table))
    assert result.unit_scores.tolist() == close([0, 0, 1, 0, 0])
    with pytest.raises(CapabilityError, match="embeddings"):
        await explain(game, metrics="cosine")


class OnlyWithRed(Metric):
    """Compares nothing that was written without "red"."""

    def compare(self, reference, perturbed):
        if any(completion.text == "blind" for completion in perturbed):
            raise IncomparableError("there is no colour in it.")
        return np.zeros((len(perturbed), 1 + len(reference.tokens)))


async def test_an_answer_that_a_metric_cannot_compare_is_named():
    def game():
        return WordGame(WEIGHTS, capabilities=NO_SCORE, changes={"red": "blind"})

    with pytest.raises(IncomparableError, match=r"without 'red' cannot be .* no colour in it\."):
        await explain(game(), metrics=OnlyWithRed())
    result = await explain(game(), metrics=OnlyWithRed(), skip_failures=True)
    assert np.isnan(result.unit_scores).tolist() == [w == "red" for w in WEIGHTS]
    assert "without units [3]" in result.warnings[0]
