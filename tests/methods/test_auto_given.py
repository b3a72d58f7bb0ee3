# SPDX-License-Identifier: Apache-2.0
"""Auto on coalitions that it did not choose."""

import numpy as np
import pytest
from support.games_known import (
    Known,
    calibrated,
    every,
    exact_banzhaf,
    exact_shapley,
    make_game,
    play,
    random_moebius,
)

from pizza.errors import ConfigError
from pizza.methods._designs.halves import Draws
from pizza.methods.auto import Auto


@pytest.mark.parametrize("calls", [50, 100, 200])
def test_it_concludes_the_same_from_what_it_measured(calls):
    game = calibrated(50, 6, 3)
    method = Auto(early_stop=False)
    planned, asked = play(method, game, 50, max_calls=calls)
    again = method.estimate(make_game(50), asked, game(asked)[:, None])
    assert again.details["design"] == planned.details["design"]
    # Pairs are found in another order, so other rows are left out together.
    close = 0.1 * np.abs(planned.values).max()
    np.testing.assert_allclose(again.values, planned.values, atol=close)
    assert (again.standard_errors is None) == (planned.standard_errors is None)


def test_a_few_coalitions_without_complement_do_not_undo_the_pairs():
    game = calibrated(40, 5, 3)
    first = Draws(40, np.random.default_rng(0)).pairs(60)
    rows = np.vstack([first, ~first[:-3]])
    scores = Auto().estimate(make_game(40), rows, game(rows)[:, None])
    assert scores.details["design"] == "complement pairs"
    assert scores.details["samples"] == 114
    assert scores.details["unpaired"] == 3
    halved = Auto().estimate(make_game(40), rows[:80], game(rows[:80])[:, None])
    assert halved.details["design"] == "random halves"
    assert halved.details["samples"] == 80
    assert halved.details["unpaired"] == 0


def test_all_coalitions_are_enumerated_whoever_chose_them():
    values = np.random.default_rng(0).normal(size=32)
    game = lambda rows: values[rows @ (1 << np.arange(5))] - values[-1]  # noqa: E731
    rows = np.random.default_rng(1).permutation(every(5))
    for index, exact in (("banzhaf", exact_banzhaf), ("shapley", exact_shapley)):
        scores = Auto(index=index).estimate(make_game(5), rows, game(rows)[:, None])
        np.testing.assert_allclose(scores.values[0], exact(game, 5), atol=1e-12)


def test_pairs_of_uniform_sizes_give_shapley_values_and_nothing_else():
    game = Known(random_moebius(30, 6, 1))
    planned, asked = play(Auto(index="shapley"), game, 30, max_calls=151)
    values = game(asked)[:, None]
    again = Auto(index="shapley").estimate(make_game(30), asked, values)
    np.testing.assert_allclose(again.values, planned.values, rtol=0.2, atol=0.05)
    with pytest.raises(ConfigError, match="random coalitions"):
        Auto().estimate(make_game(30), asked, values)


def test_coalitions_that_lack_one_unit_are_refused():
    rows = ~np.eye(40, dtype=bool)
    for index in ("banzhaf", "shapley"):
        with pytest.raises(ConfigError):
            Auto(index=index).estimate(make_game(40), rows, np.ones((40, 1)))
