# SPDX-License-Identifier: Apache-2.0
"""The round of complement pairs that estimators of Shapley values share: what it asks and costs."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from support.games_known import Known, make_game, play, random_moebius

from pizza.abc import Tariff
from pizza.errors import BudgetTooSmallError
from pizza.methods.faith_shap import FaithShap
from pizza.methods.kernel_shap import KernelShap
from pizza.methods.leverage_shap import LeverageShap
from pizza.methods.odd_shap import OddShap
from pizza.methods.paired_sparse_shap import PairedSparseShap
from pizza.methods.regression_msr import RegressionMsr

METHODS = [FaithShap, KernelShap, LeverageShap, OddShap, PairedSparseShap, RegressionMsr]


def prices(n, limit, *, call=5.0, seed=0):
    """Units of 1 to 40 tokens."""
    units = np.random.default_rng(seed).integers(1, 40, n).astype(float)
    return Tariff(currency="tokens", call=call, units=units, limit=limit)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("calls", [40, 90])
@pytest.mark.parametrize("seed", range(3))
def test_a_budget_in_tokens_buys_pairs_of_which_each_takes_two_halves(method, calls, seed):
    # Given what so many whole prompts cost -> pairs for all of it but the last one's price.
    game = Known(random_moebius(30, 6, seed))
    price = prices(30, 0.0, seed=seed)
    price = replace(price, limit=calls * (price.call + price.units.sum()))
    _, asked = play(method(), game, 30, max_calls=price.calls(1.0), tariff=price, seed=seed)
    spent = price.of(asked).sum()
    pair = 2 * price.call + price.units.sum()
    assert price.limit - 1.5 * pair < spent <= price.limit
    assert len(asked) == 1 + 2 * ((price.calls(0.5) - 1) // 2) > 1.6 * calls
    rows = {row.tobytes() for row in asked}
    assert all((~row).tobytes() in rows for row in asked if row.any())


@pytest.mark.parametrize("method", METHODS)
def test_calls_may_be_limited_besides_tokens(method):
    price = replace(prices(12, 1e6), max_calls=60)
    _, asked = play(method(), lambda rows: rows.sum(axis=1), 12, max_calls=60, tariff=price)
    assert len(asked) == 59


@pytest.mark.parametrize(("method", "fewest"), [(FaithShap, 9), (PairedSparseShap, 9)])
def test_too_few_tokens_for_the_pairs_that_it_needs_are_refused(method, fewest):
    price = prices(10, 0.0)
    half = price.call + price.units.sum() / 2
    enough = replace(price, limit=fewest * half)
    _, asked = play(
        method(), lambda r: r.sum(axis=1), 10, max_calls=enough.calls(1.0), tariff=enough
    )
    assert len(asked) == fewest
    short = replace(price, limit=fewest * half - 1)
    game = make_game(10, 1, max_calls=short.calls(1.0), tariff=short)
    with pytest.raises(BudgetTooSmallError) as caught:
        next(method().plan(game))
    assert (caught.value.needed, caught.value.allowed) == (fewest, fewest - 1)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("samples", [None, 41, 80])
def test_calls_are_foretold(method, samples):
    least, most = method(samples).calls(9)
    _, asked = play(method(samples), lambda rows: rows.sum(axis=1), 9)
    assert least <= len(asked) <= most
    if samples is not None:
        assert least == most == len(asked)


def test_without_a_budget_there_are_as_many_as_the_method_says_per_unit():
    asked = {m: len(play(m(), lambda rows: rows.sum(axis=1), 40)[1]) for m in METHODS}
    assert asked == dict.fromkeys(METHODS, 319) | {PairedSparseShap: 159}


def test_the_kernel_draws_more_of_the_outer_sizes_than_an_even_design():
    shares = []
    for method in (LeverageShap, KernelShap):
        _, asked = play(method(401), lambda rows: rows.sum(axis=1), 100)
        sizes = asked[1:].sum(axis=1)
        shares.append((np.minimum(sizes, 100 - sizes) <= 10).mean())
    assert all(a < b for a, b in pairwise(shares))
