# SPDX-License-Identifier: Apache-2.0
"""Peers that implement the same formula, on the same coalitions: shapiq and captum."""

import warnings

import numpy as np
import pytest
from support.games_known import Known, make_game, play, random_moebius

from pizza.methods.banzhaf import Banzhaf
from pizza.methods.leave_one_out import LeaveOneOut
from pizza.methods.leverage_shap import LeverageShap
from pizza.methods.lime import Lime
from pizza.methods.odd_shap import OddShap
from pizza.methods.paired_sparse_shap import PairedSparseShap
from pizza.methods.pairwise_interactions import PairwiseInteractions
from pizza.methods.proxy_spex import ProxySpex
from pizza.methods.regression_msr import RegressionMsr
from pizza.methods.shapley import Shapley
from pizza.methods.svarm import Svarm

pytestmark = pytest.mark.peers


@pytest.fixture(name="shapiq")
def _shapiq():
    return pytest.importorskip("shapiq")


@pytest.fixture(name="captum")
def _captum():
    return pytest.importorskip("captum.attr")


def table_game(n, seed=0):
    table = np.random.default_rng(seed).normal(size=2**n)
    return lambda rows: table[np.atleast_2d(rows) @ (1 << np.arange(n))]


def for_captum(value):
    """A game as captum asks for it: one coalition, floats of 0 and 1."""
    torch = pytest.importorskip("torch")
    return lambda given: torch.tensor(value(given.numpy().astype(bool)), dtype=torch.float64)


def recorded(value):
    """The game, and the coalitions that it was asked for."""
    asked = []

    def game(rows):
        asked.extend(np.atleast_2d(rows).astype(bool))
        return value(rows)

    return game, asked


def estimated(method, value, rows):
    n = rows.shape[1]
    full = np.ones((1, n), dtype=bool)
    return method.estimate(make_game(n), rows, (value(rows) - value(full))[:, None]).values[0]


# --- shapiq --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method", [Shapley, LeverageShap, OddShap, PairedSparseShap, RegressionMsr, Svarm]
)
def test_shapley_values_of_shapiqs_coalitions_are_shapiqs(shapiq, method):
    n = 7
    value, asked = recorded(table_game(n))
    exact = shapiq.ExactComputer(n_players=n, game=value)("SV").get_n_order_values(1)
    rows = np.unique(asked, axis=0)
    np.testing.assert_allclose(estimated(method(), table_game(n), rows), exact, atol=1e-10)


@pytest.mark.parametrize("n", [5, 8])
def test_svarm_is_shapiqs(shapiq, n):
    value, asked = recorded(table_game(n))
    theirs = shapiq.SVARM(n=n, random_state=0).approximate(2**n, value).get_n_order_values(1)
    rows = np.unique(asked, axis=0)
    np.testing.assert_allclose(estimated(Svarm(), table_game(n), rows), theirs, atol=1e-10)


@pytest.mark.parametrize("n", [5, 8])
def test_leverage_shap_is_shapiqs_regression_with_uniform_sizes(shapiq, n):
    value, asked = recorded(table_game(n))
    theirs = shapiq.KernelSHAP(
        n=n, sampling_weights=np.ones(n + 1), pairing_trick=True, random_state=0
    ).approximate(2**n, value)
    rows = np.unique(asked, axis=0)
    ours = estimated(LeverageShap(), table_game(n), rows)
    np.testing.assert_allclose(ours, theirs.get_n_order_values(1), atol=1e-5)


def test_pairs_are_shapiqs_banzhaf_interactions(shapiq):
    n = 6
    theirs = shapiq.ExactComputer(n_players=n, game=table_game(n))("BII", 2).dict_values
    scores, _ = play(PairwiseInteractions(), table_game(n), n)
    found = {tuple(pair["units"]): pair["value"] for pair in scores.details["interactions"]}
    assert len(found) == 15
    assert found == pytest.approx({pair: theirs[pair] for pair in found}, abs=1e-10)


def test_triples_are_shapiqs_banzhaf_interactions(shapiq):
    n = 5
    theirs = shapiq.ExactComputer(n_players=n, game=table_game(n))("BII", 3).dict_values
    scores, _ = play(ProxySpex(), table_game(n), n)
    found = {tuple(term["units"]): term["value"] for term in scores.details["interactions"]}
    found = {term: value for term, value in found.items() if len(term) < 4}
    assert len(found) == 20
    assert found == pytest.approx({term: theirs[term] for term in found}, abs=1e-10)
    np.testing.assert_allclose(
        play(Banzhaf(), table_game(n), n)[0].values, scores.values, atol=1e-12
    )


# --- captum --------------------------------------------------------------------------------------


def test_leave_one_out_is_captums_feature_ablation(captum):
    torch = pytest.importorskip("torch")
    value = table_game(6)
    ones = torch.ones(1, 6, dtype=torch.float64)
    theirs = captum.FeatureAblation(for_captum(value)).attribute(ones)
    np.testing.assert_allclose(play(LeaveOneOut(), value, 6)[0].values, theirs, atol=1e-12)


def test_shapley_is_captums_over_all_orders(captum):
    torch = pytest.importorskip("torch")
    from itertools import permutations

    n, value = 4, table_game(4)

    class Every(captum.ShapleyValueSampling):
        def __init__(self, forward):
            super().__init__(forward)
            self.permutation_generator = lambda features, _: permutations(range(features))

    ones = torch.ones(1, n, dtype=torch.float64)
    theirs = Every(for_captum(value)).attribute(ones, n_samples=24)
    np.testing.assert_allclose(play(Shapley(), value, n)[0].values, theirs, atol=1e-6)


@pytest.mark.parametrize("regression", ["ridge", "lasso"])
def test_lime_is_captums_on_the_same_coalitions(captum, regression):
    torch = pytest.importorskip("torch")
    linear = pytest.importorskip("sklearn.linear_model")
    n, alpha, width = 12, 0.02, 0.3
    value = Known(random_moebius(n, 5, 1))
    method = Lime(samples=60, regression=regression, alpha=alpha, width=width)
    scores, asked = play(method, value, n)
    rows = np.vstack([asked, np.ones((1, n), dtype=bool)])
    left = iter(rows)

    class Fit:
        """scikit-learn's regression, as captum's `interpretable_model` is called."""

        def fit(self, data):
            x, y, w = next(iter(data))
            x, y, w = x.numpy().astype(float), y.numpy().ravel(), w.numpy().ravel()
            if regression == "ridge":
                self.coefficients = linear.Ridge(alpha=alpha).fit(x, y, sample_weight=w).coef_
                return
            mean = np.average(x, axis=0, weights=w)
            scale = np.sqrt(np.average((x - mean) ** 2, axis=0, weights=w))
            found = linear.Lasso(alpha=alpha, tol=1e-12).fit((x - mean) / scale, y, sample_weight=w)
            self.coefficients = found.coef_ / scale

        def representation(self):
            return torch.tensor(self.coefficients)[None]

    def similarity(original, perturbed, *_, **__):
        cosine = (perturbed.sum() / np.sqrt(n * max(float(perturbed.sum()), 1e-12))).item()
        return torch.tensor(np.exp(-((1 - cosine) ** 2) / width**2), dtype=torch.float64)

    lime = captum.LimeBase(
        for_captum(value),
        Fit(),
        similarity,
        lambda original, **_: torch.tensor(next(left), dtype=torch.float64)[None],
        perturb_interpretable_space=False,
        from_interp_rep_transform=None,
        to_interp_rep_transform=lambda perturbed, *_, **__: perturbed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ones = torch.ones(1, n, dtype=torch.float64)
        theirs = lime.attribute(ones, n_samples=len(rows)).numpy().ravel()
    np.testing.assert_allclose(scores.values[0], theirs, atol=1e-4)
