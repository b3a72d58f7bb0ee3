# SPDX-License-Identifier: Apache-2.0
"""Models that sample: repeats, a noise floor, and tests of whether answers shift."""

import random
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import energy_distance as scipy_energy
from support.games import WordGame

import pizza
from pizza._explain.shift import energy_distance, p_value
from pizza.abc import Backend
from pizza.capability import Capability
from pizza.completion import Completion, Reply, Usage
from pizza.errors import ResultFormatError

PROMPT = "the red door is open today"
HOT = pizza.Generation(temperature=1.0)
LIKELY = {True: ("yes yes", 0.8), False: ("no no", 0.8)}


class Sampler(Backend):
    """Says "yes yes" with "red" in the prompt and "no no" without, with probability 0.8."""

    name = "sampler:one"
    identity = "sampler"
    capabilities = frozenset({Capability.COMPLETE})

    def __init__(self, *, always: bool = False) -> None:
        self.always = always
        self.requests: list = []

    async def answer(self, request):
        self.requests.append(request)
        text, likely = LIKELY["red" in request.prompt.text.split()]
        temperature = request.generation.temperature
        rng = random.Random(f"{request.prompt.text}/{request.generation.seed}/{request.sample}")
        if (temperature > 0 or self.always) and rng.random() > likely:
            text = "maybe so"
        return Reply(completion=Completion(text=text, usage=Usage(prompt_tokens=6)))


async def explain(backend, prompt=PROMPT, **options):
    async with pizza.Session(backend, discover=False) as session:
        return await session.attribute(prompt, metrics="exact-match", **options)


async def test_a_model_that_samples_is_asked_four_times_before_anything_else():
    backend = Sampler()
    result = await explain(backend, generation=HOT)
    whole = [r for r in backend.requests if r.prompt.text == PROMPT]
    assert [r.sample for r in whole] == [0, 1, 2, 3]
    # The same seed would make it say the same again.
    assert len({r.generation.seed for r in whole}) == 4
    assert result.noise.answers == 4
    assert result.calls == 4 + 6


async def test_a_model_that_does_not_sample_is_asked_once():
    backend = Sampler()
    result = await explain(backend)
    assert result.noise is None
    assert result.calls == 1 + 6


async def test_a_budget_finds_out_whether_a_model_at_temperature_0_repeats_itself():
    calm = await explain(Sampler(), budget=64)
    assert calm.noise.answers == 2
    assert not calm.noise.varies
    backend = Sampler(always=True)
    backend_says = {
        seed: (await explain(Sampler(always=True), "the red door", budget=64, repeats=None)).noise
        for seed in range(1)
    }
    assert backend_says[0].answers in (2, 4)
    noisy = await explain(backend, "a red car", budget=64)
    if noisy.noise.answers == 4:
        assert noisy.noise.varies


async def test_a_small_budget_spares_no_call_for_it():
    assert (await explain(Sampler(), budget=16)).noise is None


async def test_the_floor_is_what_an_unchanged_prompt_does_and_is_taken_off():
    result = await explain(Sampler(), generation=HOT, repeats=200)
    noise = result.noise
    assert (noise.answers, noise.repeats) == (200, 200)
    # A repeat differs from the reference, "yes yes", in a fifth of all cases.
    assert result.output.text == "yes yes"
    assert noise.floor["exact-match"][0] == pytest.approx(0.2, abs=0.06)
    assert noise.sigma["exact-match"][0] == pytest.approx(0.4, abs=0.06)
    scores = dict(zip(PROMPT.split(), result.unit_scores, strict=True))
    # Without "red" no answer is the reference's; other words do nothing.
    assert scores.pop("red") == pytest.approx(0.8, abs=0.06)
    assert max(abs(score) for score in scores.values()) < 0.12
    # Both means are of 200 answers each.
    assert result.standard_errors[0] == pytest.approx(0.4 * np.sqrt(2 / 200), rel=0.2)
    assert result.differs_from_zero(0.99).tolist() == [w == "red" for w in PROMPT.split()]


async def test_units_whose_removal_shifts_the_answers_are_told_by_a_test():
    result = await explain(Sampler(), generation=HOT, repeats=8)
    p = dict(zip(PROMPT.split(), result.noise.p_values["exact-match"], strict=True))
    assert p.pop("red") < 0.01
    assert min(p.values()) > 0.02


async def test_repeats_are_different_requests_and_effects_are_their_mean():
    backend = Sampler()
    result = await explain(backend, generation=HOT, repeats=5)
    assert result.calls == 5 + 6 * 5
    without = [r for r in backend.requests if "red" not in r.prompt.text.split()]
    assert sorted(r.sample for r in without) == [0, 1, 2, 3, 4]
    effects = result.evaluations.effects["exact-match"]
    assert set(np.round(effects.ravel() * 5, 9)) <= {0, 1, 2, 3, 4, 5}


async def test_a_scored_output_is_never_repeated():
    game = WordGame({"red": 1.0, "door": 0.0})
    async with pizza.Session(game, discover=False) as session:
        result = await session.attribute("red door", repeats=3, generation=HOT)
    assert result.noise is None
    assert len(game.requests) == 2 + 2


async def test_the_noise_is_saved_with_the_result(tmp_path):
    result = await explain(Sampler(), generation=HOT, repeats=4)
    path = tmp_path / "result.json"
    result.save(path)
    loaded = pizza.Attribution.load(path)
    assert loaded.noise.to_dict() == result.noise.to_dict()
    data = result.to_dict()
    data["noise"]["floor"] = 5
    with pytest.raises(ResultFormatError, match="damaged"):
        pizza.Attribution.from_dict(data)


def test_the_energy_distance_is_scipys():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, 7), rng.normal(1, 2, 5)
    both = np.concatenate([a, b])
    matrix = np.abs(both[:, None] - both[None])
    first = np.arange(12) < 7
    # scipy gives the root.
    assert energy_distance(matrix, first[None])[0] == pytest.approx(scipy_energy(a, b) ** 2)


def test_the_p_value_is_the_share_of_all_groupings():
    both = np.array([0.0, 0.1, 0.2, 5.0, 5.1])
    matrix = np.abs(both[:, None] - both[None])
    # Of the 10 groupings into 3 and 2, the measured one is the farthest apart.
    assert p_value(matrix, 3) == pytest.approx(0.1)
    assert p_value(np.zeros((5, 5)), 3) == 1.0
    assert np.isnan(p_value(matrix, 5))


def test_p_values_are_uniform_when_nothing_shifts():
    rng = np.random.default_rng(1)
    found = []
    for _ in range(300):
        both = rng.normal(size=9)
        found.append(p_value(np.abs(both[:, None] - both[None]), 4))
    assert len(list(combinations(range(9), 4))) == 126
    assert np.mean(np.array(found) <= 0.1) == pytest.approx(0.1, abs=0.04)
    assert np.mean(found) == pytest.approx(0.5, abs=0.05)


def test_many_answers_are_grouped_at_random():
    both = np.concatenate([np.zeros(20), np.ones(20)])
    matrix = np.abs(both[:, None] - both[None])
    assert p_value(matrix, 20) == pytest.approx(1 / 2001)
    assert p_value(matrix, 20, seed=1) == p_value(matrix, 20, seed=1)
