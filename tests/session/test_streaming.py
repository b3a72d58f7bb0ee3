# SPDX-License-Identifier: Apache-2.0
"""Watching an attribution: what is told, when, and what ends with who watches."""

import asyncio
from itertools import pairwise

import numpy as np
import pytest
from support.games import WordGame

import pizza
from pizza._engine.clock import SystemClock
from pizza._engine.latest import latest
from pizza.abc import Metric
from pizza.errors import AuthError, ConfigError, RefusedError, SessionClosedError
from pizza.progress import Partial, Progress
from pizza.testing.clock import ManualClock

WEIGHTS = {"Ana": 0.5, "has": 0.0, "3": 2.0, "red": -0.25, "apples": 1.0}
PROMPT = "Ana has 3 red apples"


async def watched(session, prompt=PROMPT, **options):
    """All steps."""
    async with session.attribute_streaming(prompt, **options) as steps:
        return [step async for step in steps]


def partial(coalitions, effects):
    coalitions = np.array(coalitions, dtype=bool)
    n, p = coalitions.shape
    units = pizza.Prompt.of(" ".join("abcdefghij"[:p]))
    return Partial(
        units=tuple(units.unit(0, 2 * i, 2 * i + 1) for i in range(p)),
        output=None,
        progress=Progress(phase="coalitions", done=n, total=n, calls=n, cache_hits=0),
        coalitions=coalitions,
        effects=np.array(effects, dtype=float),
    )


# --- what is told ------------------------------------------------------------------------------


async def test_the_units_come_before_anything_is_sent_and_the_result_last():
    game = WordGame(WEIGHTS)
    async with (
        pizza.Session(game, discover=False) as session,
        session.attribute_streaming(PROMPT) as steps,
    ):
        first = await anext(steps)
        assert game.requests == []
        assert [unit.text for unit in first.units] == list(WEIGHTS)
        assert first.output is None
        assert np.isnan(first.unit_scores).all()
        rest = [step async for step in steps]
    assert isinstance(rest[-1], pizza.Attribution)
    assert all(isinstance(step, pizza.Partial) for step in rest[:-1])


async def test_callbacks_get_every_step_and_leave_one_out_never_changes_its_mind():
    seen = []
    async with pizza.Session(WordGame(WEIGHTS), discover=False) as session:
        result = await session.attribute(PROMPT, on_partial=seen.append)
    known = [int(np.isfinite(step.unit_scores).sum()) for step in seen]
    # Units, reference, one per answer, and the end of the round.
    assert known == [0, 0, 1, 2, 3, 4, 5, 5]
    assert [step.output is None for step in seen] == [True] + [False] * 7
    for step in seen:
        shown = np.isfinite(step.unit_scores)
        assert step.unit_scores[shown] == pytest.approx(result.unit_scores[shown], abs=1e-12)
    assert [step.progress.done for step in seen] == [0, 0, 1, 2, 3, 4, 5, 5]


@pytest.mark.parametrize(
    "options",
    [
        {"method": "hierarchical"},
        {"method": "shapley"},
        {"method": "kernel-shap", "budget": 40},
        {"budget": 30},
        {"metrics": ["prob-diff", "edit-distance"], "evidence": "complete"},
        {"metrics": ["logprob-diff", "edit-distance"]},
        {"evidence": "complete", "repeats": 3},
    ],
    ids=str,
)
async def test_watching_changes_no_result(options):
    async with pizza.Session(WordGame(WEIGHTS), discover=False) as session:
        plain = await session.attribute(PROMPT, **options)
    async with pizza.Session(WordGame(WEIGHTS), discover=False) as session:
        *steps, result = await watched(session, **options)
    for one, other in zip(plain.results, result.results, strict=True):
        assert np.array_equal(one.scores, other.scores, equal_nan=True)
    assert result.calls == plain.calls
    # The last step knows every coalition that was measured, with the effects of the result.
    last = steps[-1]
    whole = result.evaluations.effects[result.metric][:, 0]
    places = {row.tobytes(): e for row, e in zip(last.coalitions, last.effects, strict=True)}
    expected = {
        row.tobytes(): e for row, e in zip(result.evaluations.coalitions, whole, strict=True)
    }
    assert places.keys() == expected.keys()
    floor = {round(places[key] - expected[key], 9) for key in places}
    assert len(floor) == 1


async def test_a_contrast_is_told_when_both_sides_are_known():
    class TwoAnswers(WordGame):
        async def answer(self, request):
            if request.target == "versus":
                # The other side does not depend on the prompt at all.
                request = pizza.Request(prompt=pizza.Prompt.of(PROMPT))
            return await super().answer(request)

    target = pizza.Target.contrast("it is so", "versus")
    async with pizza.Session(TwoAnswers(WEIGHTS), discover=False) as session:
        seen = []
        result = await session.attribute(PROMPT, target=target, on_partial=seen.append)
    for step in seen:
        shown = np.isfinite(step.unit_scores)
        assert step.unit_scores[shown] == pytest.approx(result.unit_scores[shown], abs=1e-12)
    assert result.unit_scores == pytest.approx(list(WEIGHTS.values()))
    assert np.isfinite(seen[-1].unit_scores).all()


async def test_a_metric_that_blocks_is_asked_for_several_answers_at_once():
    sizes = []

    class Slow(Metric):
        blocking = True

        def compare(self, reference, perturbed):
            sizes.append(len(perturbed))
            effects = np.zeros((len(perturbed), 1 + len(reference.tokens)))
            effects[:, 0] = [len(answer.text) for answer in perturbed]
            return effects

    words = {f"w{i}": 1.0 for i in range(20)}
    async with pizza.Session(WordGame(words), discover=False) as session:
        *steps, result = await watched(session, " ".join(words), metrics=Slow())
    assert sizes == [8, 8, 4]
    assert steps[-1].unit_scores.tolist() == result.unit_scores.tolist()


async def test_coalitions_that_are_skipped_are_not_known():
    game = WordGame(WEIGHTS, failures={"3": RefusedError("no")})
    async with pizza.Session(game, discover=False) as session:
        *steps, result = await watched(session, skip_failures=True)
    assert np.isnan(result.unit_scores[2])
    assert np.isnan(steps[-1].unit_scores).tolist() == [False, False, True, False, False]


async def test_more_coalitions_than_there_was_room_for_at_first():
    words = {f"w{i}": float(i) for i in range(150)}
    seen = []
    async with pizza.Session(WordGame(words), discover=False) as session:
        result = await session.attribute(" ".join(words), on_partial=seen.append)
    assert seen[-1].unit_scores == pytest.approx(result.unit_scores)
    # What was handed out before is what it was.
    assert [len(step.effects) for step in seen[2:-1]] == list(range(1, 151))
    assert all(not step.coalitions.flags.writeable for step in seen)
    assert np.isfinite(seen[40].unit_scores).sum() == len(seen[40].effects)


# --- the first view of scores --------------------------------------------------------------------


def test_disjoint_removals_share_their_effects_evenly():
    step = partial([[0, 0, 1, 1], [1, 1, 0, 1]], [3.0, -1.0])
    assert step.unit_scores[:3].tolist() == [1.5, 1.5, -1.0]
    assert np.isnan(step.unit_scores[3])


@pytest.mark.parametrize("n", [4, 40], ids=["fewer coalitions than units", "more"])
def test_overlapping_removals_are_a_ridge_regression(n):
    from sklearn.linear_model import Ridge

    rng = np.random.default_rng(n)
    coalitions = rng.random((n, 8)) < 0.5
    coalitions[0] = False
    effects = rng.normal(size=n)
    fitted = Ridge(alpha=1.0, fit_intercept=False).fit(~coalitions, effects)
    assert partial(coalitions, effects).unit_scores == pytest.approx(fitted.coef_, abs=1e-9)


def test_effects_that_are_not_defined_are_left_out():
    step = partial([[0, 1, 1], [1, 0, 1]], [np.nan, 2.0])
    assert np.isnan(step.unit_scores).tolist() == [True, False, True]


def test_nothing_known_is_no_score():
    assert np.isnan(partial(np.ones((0, 3)), []).unit_scores).all()


# --- whose work it is ----------------------------------------------------------------------------


async def test_a_reader_that_is_slow_misses_steps_and_not_the_result():
    async def run(report):
        for step in range(100):
            report(step)
        return "the result"

    async with latest(run, SystemClock()) as steps:
        assert [step async for step in steps] == [99, "the result"]


async def test_steps_can_be_kept_apart_and_the_result_does_not_wait():
    clock = ManualClock()
    go = asyncio.Event()

    async def run(report):
        for step in range(95):
            await clock.sleep(0.1)
            report(step)
        await go.wait()
        return "the result"

    async def read():
        async with latest(run, clock, 2.0) as steps:
            return [(step, clock.now()) async for step in steps]

    reading = asyncio.create_task(read())
    for _ in range(99):
        await clock.advance(0.1)
    stopped = clock.now()
    go.set()
    *seen, newest, result = await reading
    assert [later[1] - earlier[1] for earlier, later in pairwise(seen)] == pytest.approx([2.0] * 4)
    # Without a moment of waiting: the newest step, and the result.
    assert (newest, result) == ((94, stopped), ("the result", stopped))


async def test_leaving_early_cancels_the_requests():
    game = WordGame(WEIGHTS)
    async with pizza.Session(
        game, discover=False, limits=pizza.Limits(max_concurrency=1)
    ) as session:
        async with session.attribute_streaming(PROMPT) as steps:
            async for step in steps:
                if step.progress.done:
                    break
        sent = len(game.requests)
        assert sent < 2 + len(WEIGHTS)
        assert session.statistics.in_flight == session.statistics.queued == 0
        assert [t.get_name() for t in asyncio.all_tasks() if "watched" in t.get_name()] == []
        assert (await session.attribute(PROMPT)).unit_scores[2] == pytest.approx(2.0)


async def test_errors_come_out_of_the_iteration_as_they_are():
    game = WordGame(WEIGHTS, failures={"Ana": AuthError("wrong key")})
    async with pizza.Session(game, discover=False) as session:
        with pytest.raises(AuthError, match="wrong key"):
            await watched(session)
        with pytest.raises(ConfigError, match="empty"):
            await watched(session, prompt=" ")
        with pytest.raises(TypeError, match="no_such_option"):
            await watched(session, no_such_option=1)


async def test_an_error_of_the_reader_is_not_wrapped():
    async with pizza.Session(WordGame(WEIGHTS), discover=False) as session:

        async def read():
            async with session.attribute_streaming(PROMPT) as steps:
                async for step in steps:
                    raise LookupError(step)

        with pytest.raises(LookupError):
            await read()


async def test_cancelling_the_reader_cancels_the_work():
    reading = asyncio.Event()
    game = WordGame(WEIGHTS)

    async def read(session):
        async with session.attribute_streaming(PROMPT) as steps:
            await anext(steps)
            reading.set()
            await asyncio.Event().wait()

    async with pizza.Session(game, discover=False) as session:
        task = asyncio.create_task(read(session))
        await reading.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert session.statistics.in_flight == 0


async def test_a_closed_session_says_so():
    session = pizza.Session(WordGame(WEIGHTS), discover=False)
    with pytest.raises(SessionClosedError):
        async with session.attribute_streaming(PROMPT):
            pass


async def test_work_that_is_cancelled_from_elsewhere_leaves_nobody_waiting():
    async def run(report):
        report("begun")
        gone = asyncio.get_running_loop().create_future()
        gone.cancel()  # as by a backend that cancels its own answers
        await gone

    async with asyncio.timeout(20), latest(run, SystemClock()) as steps:
        assert await anext(steps) == "begun"
        with pytest.raises(asyncio.CancelledError):
            await anext(steps)
