# SPDX-License-Identifier: Apache-2.0
"""Auto on budgets in tokens, on models that sample, and on budgets that are too small."""

from dataclasses import replace

import numpy as np
import pytest
from support.games_known import Known, calibrated, play, random_moebius

from pizza.abc import Tariff
from pizza.methods.auto import Auto
from pizza.methods.context_cite import ContextCite
from pizza.methods.multi_level import MultiLevel


def tariff(n, limit, *, call=5.0, seed=0):
    """Units of 1 to 40 tokens."""
    units = np.random.default_rng(seed).integers(1, 40, n).astype(float)
    return Tariff(currency="tokens", call=call, units=units, limit=limit)


@pytest.mark.parametrize("method", [Auto(early_stop=False), ContextCite(), MultiLevel()])
@pytest.mark.parametrize("calls", [20, 60, 150])
@pytest.mark.parametrize("seed", range(3))
def test_a_budget_in_tokens_buys_half_coalitions_and_is_kept(method, calls, seed):
    # So noisy that nothing is found at half of the budget, which would change the plan.
    game = Known(random_moebius(40, 6, 0), noise=5.0)
    whole = tariff(40, 0.0, seed=seed)
    price = replace(whole, limit=calls * (whole.call + whole.units.sum()))
    scores, asked = play(method, game, 40, max_calls=price.calls(1.0), tariff=price, seed=seed)
    spent = price.of(asked).sum()
    # Whole prompts would have been as many as there are calls.
    assert 1.6 * calls < len(asked) <= price.calls(0.5)
    assert 0.93 * price.limit < spent <= price.limit
    if "cost" in scores.details:
        assert scores.details["cost"]["spent"] == pytest.approx(spent)
        assert scores.details["cost"]["unspent"] == pytest.approx(price.limit - spent)
        assert scores.details["cost"]["currency"] == "tokens"


@pytest.mark.parametrize("limit", [3500.0, 6000.0])
def test_complements_that_follow_are_paid_for_or_left_out(limit):
    weights = np.zeros(200)
    weights[[5, 50, 150]] = 3.0, -2.0, 2.0
    price = Tariff(currency="dollars", call=1.0, units=np.full(200, 0.4), limit=limit)
    scores, asked = play(
        Auto(early_stop=False),
        lambda rows: rows @ weights,
        200,
        max_calls=price.calls(1.0),
        tariff=price,
    )
    assert scores.details["design"] == "complement pairs"
    assert price.of(asked).sum() <= limit
    np.testing.assert_allclose(scores.values[0], weights, atol=0.2)


@pytest.mark.parametrize("index", ["banzhaf", "shapley"])
def test_all_coalitions_are_taken_when_the_limit_pays_for_them(index):
    game = lambda rows: rows @ np.arange(6.0)  # noqa: E731
    price = tariff(6, 0.0)
    price = replace(price, limit=63 * (price.call + price.units.sum() / 2))
    scores, asked = play(Auto(index=index), game, 6, max_calls=price.calls(1.0), tariff=price)
    assert len(asked) == 63
    assert scores.details["cost"]["spent"] == pytest.approx(price.of(asked).sum())
    np.testing.assert_allclose(scores.values[0], np.arange(6.0), atol=1e-12)


def test_shapley_pairs_are_bought_as_half_coalitions_too():
    game = Known(random_moebius(30, 6, 1))
    price = tariff(30, 0.0)
    price = replace(price, limit=90 * (price.call + price.units.sum()))
    scores, asked = play(Auto(index="shapley"), game, 30, max_calls=price.calls(1.0), tariff=price)
    assert scores.details["estimator"] == "odd-shap"
    assert len(asked) > 150
    assert scores.details["cost"]["spent"] == pytest.approx(price.of(asked).sum())
    assert price.of(asked).sum() <= price.limit


def test_what_an_early_stop_saves_is_said_in_calls_and_in_the_currency():
    weights = np.zeros(50)
    weights[:6] = 6.0, -5.0, 4.0, 3.0, 2.0, 1.0
    price = Tariff(currency="tokens", call=10.0, units=np.full(50, 2.0), limit=24_000.0)
    scores, asked = play(Auto(), lambda rows: rows @ weights, 50, max_calls=218, tariff=price)
    assert len(asked) == 200  # two of four waves of 400 half coalitions
    assert scores.details["unspent"] == 200
    assert scores.details["cost"]["unspent"] == pytest.approx(12_000.0)


def test_precision_is_not_sought_below_the_noise_of_one_answer():
    weights = np.zeros(20)
    weights[:5] = 6.0, -5.0, 4.0, 3.0, 2.0

    def value(rows):
        # The same answer whenever a coalition is asked for, and none at the whole prompt.
        draws = [np.random.default_rng(row.astype(int).tolist()).normal() for row in rows]
        return rows @ weights + np.where(rows.all(axis=1), 0.0, draws)

    exact = Auto(tolerance=0.01)
    kept, all_of_it = play(exact, value, 20, max_calls=600)
    scores, asked = play(exact, value, 20, max_calls=600, noise=np.array([1.0]))
    assert len(asked) < len(all_of_it) == 600
    assert scores.details["noise"] == 1.0
    assert "noise" not in kept.details
    # The odd part of the weights has a variance of a quarter of their squares, of the noise a half.
    left = 22.5 / (22.5 + 0.5)
    assert scores.details["quality"]["r2_without_noise"] == pytest.approx(left, abs=0.005)


def test_intervals_hold_the_noise_of_the_answers():
    inside, widths = [], []
    for seed in range(8):
        for noise in (0.05, 0.8):
            game = calibrated(30, 6, seed, noise=noise)
            scores, _ = play(Auto(early_stop=False), game, 30, max_calls=240, seed=seed)
            if scores.standard_errors is None:
                continue
            half = 1.645 * scores.standard_errors[0]
            widths.append((noise, half.mean()))
            if noise == 0.8:
                inside.append(np.abs(scores.values[0] - game.banzhaf()) < half)
    assert len(inside) >= 5
    assert 0.85 <= np.mean(inside) <= 0.95
    narrow, wide = (np.mean([w for s, w in widths if s == noise]) for noise in (0.05, 0.8))
    assert wide > 3 * narrow


def test_it_says_when_the_budget_is_too_small_and_not_when_it_is_not():
    said = {"dense": 0, "sparse": 0, "noise": 0}
    for seed in range(5):
        for name, game, calls in (
            ("dense", calibrated(200, 160, seed, link=False, noise=0.3), 24),
            ("sparse", calibrated(100, 14, seed), 128),
            ("noise", calibrated(60, 5, seed, noise=50.0), 80),
        ):
            if name == "dense":
                # Weights alone: enumeration of what interacts is not needed here.
                game = np.random.default_rng(seed).normal(size=200)
                scores, _ = play(Auto(), lambda rows, w=game: rows @ w, 200, max_calls=calls)
            else:
                scores, _ = play(Auto(), game, game.inner.n_units, max_calls=calls, seed=seed)
            said[name] += any("coarsen to sentences" in text for text in scores.warnings)
    assert said["dense"] >= 4
    assert said["noise"] >= 4
    assert said["sparse"] == 0
