# SPDX-License-Identifier: Apache-2.0
"""ProxySPEX: shapiq's forest on our coalitions; exact when all of them are there."""

import sys
from itertools import combinations

import numpy as np
import pytest
from support.games_known import (
    Known,
    Moebius,
    every,
    exact_banzhaf,
    make_game,
    play,
    random_moebius,
)

from pizza.errors import BudgetTooSmallError, ConfigError
from pizza.methods.proxy_spex import ProxySpex, banzhaf_interactions

pytestmark = pytest.mark.peers

GAME = Moebius(
    20, {(2,): 3.0, (5,): -2.0, (7,): 1.5, (2, 5): 2.0, (7, 9): -1.5, (3, 7, 11): 4.0, (0,): 1.0}
)


@pytest.fixture(name="_shapiq")
def _has_shapiq():
    pytest.importorskip("lightgbm")
    pytest.importorskip("shapiq")


def interactions(scores):
    return {tuple(found["units"]): found["value"] for found in scores.details["interactions"]}


def by_definition(value, n, term):
    """The mean over all coalitions of the alternating sum over the subsets of a term."""
    rows = every(n)
    signs = np.where(rows[:, list(term)], 1.0, -1.0).prod(axis=1)
    return (value(rows) * signs).sum() / 2 ** (n - len(term))


@pytest.mark.parametrize("n", [1, 2, 5, 7])
def test_with_all_coalitions_the_indices_are_exact_without_shapiq(n, monkeypatch):
    monkeypatch.setitem(sys.modules, "shapiq", None)
    value = Known(random_moebius(n, n, 3), noise=0.0)
    scores, asked = play(ProxySpex(), value, n, max_calls=2**n - 1)
    assert len(asked) == 2**n - 1
    np.testing.assert_allclose(scores.values[0], exact_banzhaf(value, n), atol=1e-12)
    for term, found in interactions(scores).items():
        assert found == pytest.approx(by_definition(value, n, term), abs=1e-12)
    everything = [t for size in range(2, n + 1) for t in combinations(range(n), size)]
    strong = {t for t in everything if abs(by_definition(value, n, t)) > 1e-6}
    assert set(interactions(scores)) >= set(sorted(strong)[:50]) or len(strong) > 50


def test_dividends_are_told_as_banzhaf_interactions():
    terms = banzhaf_interactions(GAME.dividends)
    small = {term: d for term, d in GAME.dividends.items() if max(term) < 10}
    game = Moebius(10, small)
    found = banzhaf_interactions(small)
    for term in [(2,), (5,), (9,), (2, 5), (7, 9)]:
        assert found[term] == pytest.approx(by_definition(game, 10, term))
    assert terms[3, 7] == pytest.approx(2.0)
    assert (1,) not in terms


def test_it_says_how_to_install_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(ConfigError, match=r"pip install 'pizza-attribution\[shapiq\]'"):
        play(ProxySpex(samples=100), GAME, 20)


def test_it_says_what_it_needs_before_it_asks():
    with pytest.raises(BudgetTooSmallError, match="proxy-spex needs 64 calls"):
        next(ProxySpex().plan(make_game(20, max_calls=63)))
    with pytest.raises(ConfigError, match="at most 1000 units, not 1001"):
        next(ProxySpex().plan(make_game(1001)))


@pytest.mark.usefixtures("_shapiq")
def test_triples_are_found_from_few_calls():
    scores, asked = play(ProxySpex(samples=400), GAME, 20)
    found = interactions(scores)
    assert len(asked) == 400
    top = sorted(found, key=lambda t: -abs(found[t]))
    assert (3, 7, 11) in top[:6]
    assert found[3, 7, 11] == pytest.approx(4.0, abs=1.0)
    strong = np.abs(GAME.banzhaf()) > 0.9
    np.testing.assert_allclose(scores.values[0][strong], GAME.banzhaf()[strong], atol=0.25)
    assert np.abs(scores.values[0][~strong]).max() < 0.9


@pytest.mark.usefixtures("_shapiq")
def test_the_regression_is_shapiqs_on_its_own_coalitions():
    import shapiq

    n = 10
    theirs = shapiq.ProxySPEX(n=n, index="FBII", random_state=3)
    asked = []

    def value(rows):
        asked.append(rows)
        return 5 + np.where(rows[:, :2].all(axis=1), 3.0, 0.0) - 2.0 * rows[:, 4] + rows[:, 7]

    found = banzhaf_interactions(theirs.approximate(150, value).dict_values)
    rows = asked[0]
    # Theirs fits the constant by the same penalty; ours takes the mean off first.
    values = (value(rows) - value(np.ones((1, n), dtype=bool)))[:, None]
    ours = ProxySpex().estimate(make_game(n, seed=3), rows, values)
    np.testing.assert_allclose(
        ours.values[0], [found.get((unit,), 0.0) for unit in range(n)], atol=1e-3
    )
    assert interactions(ours)[0, 1] == pytest.approx(found[0, 1], abs=1e-3)


@pytest.mark.usefixtures("_shapiq")
def test_other_columns_are_fitted_to_the_terms_of_the_first():
    other = Moebius(20, {(2,): -1.0, (5,): 4.0, (2, 5): 1.0})

    def value(rows):
        lost = np.where(np.arange(len(rows)) % 5 == 1, np.nan, other(rows))
        return np.column_stack([GAME(rows), lost, np.full(len(rows), np.nan)])

    scores, _ = play(ProxySpex(samples=200), value, 20)
    alone, _ = play(ProxySpex(samples=200), GAME, 20)
    np.testing.assert_allclose(scores.values[0], alone.values[0])
    np.testing.assert_allclose(scores.values[1], other.banzhaf(), atol=0.2)
    assert np.isnan(scores.values[2]).all()


@pytest.mark.usefixtures("_shapiq")
@pytest.mark.parametrize("seed", range(2))
def test_where_nothing_is_to_be_found_nothing_is_said(seed):
    constant, _ = play(ProxySpex(samples=64), lambda rows: np.full(len(rows), 2.0), 12)
    assert constant.values.tolist() == [[0.0] * 12]
    noise = Known(Moebius(30, {}), link=False, noise=1.0, seed=seed)
    scores, _ = play(ProxySpex(samples=64), noise, 30)
    assert np.isfinite(scores.values).all()
    assert np.abs(scores.values).max() < 1.5


@pytest.mark.usefixtures("_shapiq")
def test_a_shapiq_that_draws_by_itself_is_noticed(monkeypatch):
    import shapiq

    class Later(shapiq.ProxySPEX):
        def approximate(self, budget, game):
            return game(np.zeros((budget, self.n), dtype=bool))

    monkeypatch.setattr(shapiq, "ProxySPEX", Later)
    with pytest.raises(ConfigError, match="draws coalitions in a way"):
        play(ProxySpex(samples=64), GAME, 20)
