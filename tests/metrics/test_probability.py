# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from math import exp, log, nan

import numpy as np
import pytest

from pizza.completion import Completion
from pizza.metrics.probability import LogitDiff, LogprobDiff, ProbDiff

ANYWHERE = {"alignment": "location-invariant"}


def effects(metric, reference, *perturbed):
    return metric.compare(reference, list(perturbed))


@pytest.fixture
def reference(make):
    return make(("5", {"5": 0.9, "4": 0.1}), (" pears", {" pears": 0.8}), (".", {".": 0.5}))


def test_the_same_tokens_are_defined_everywhere(make, reference):
    scored = make(("5", {"5": 0.3}), (" pears", {" pears": 0.4}), (".", {".": 1.0}))
    falls = [log(0.9 / 0.3), log(0.8 / 0.4), log(0.5 / 1.0)]
    np.testing.assert_allclose(
        effects(LogprobDiff(), reference, scored), [[sum(falls), *falls]], rtol=1e-12
    )
    np.testing.assert_allclose(
        effects(ProbDiff(), reference, scored),
        [[0.9 * 0.8 * 0.5 - 0.3 * 0.4 * 1.0, 0.6, 0.4, -0.5]],
        rtol=1e-12,
    )
    np.testing.assert_allclose(
        effects(ProbDiff(whole="mean"), reference, scored)[:, 0], (0.6 + 0.4 - 0.5) / 3
    )
    np.testing.assert_allclose(
        effects(LogprobDiff(whole="mean"), reference, scored)[:, 0], sum(falls) / 3
    )


def logit(p):
    return log(p / (1 - p))


def test_log_odds_are_of_the_tokens_and_of_their_joint_probability(make, reference):
    scored = make(("5", {"5": 0.3}), (" pears", {" pears": 0.4}), (".", {".": 0.9}))
    falls = [logit(0.9) - logit(0.3), logit(0.8) - logit(0.4), logit(0.5) - logit(0.9)]
    joint = logit(0.9 * 0.8 * 0.5) - logit(0.3 * 0.4 * 0.9)
    np.testing.assert_allclose(
        effects(LogitDiff(), reference, scored), [[joint, *falls]], rtol=1e-12
    )
    np.testing.assert_allclose(
        effects(LogitDiff(whole="mean"), reference, scored)[:, 0], sum(falls) / 3
    )


def test_certain_outputs_have_finite_log_odds(make):
    certain, sure = make(("5", {"5": 1.0})), make(("5", {"5": 0.999}))
    expected = log(1e6) - logit(0.999)
    np.testing.assert_allclose(effects(LogitDiff(), certain, sure), [[expected] * 2], rtol=1e-6)
    np.testing.assert_allclose(effects(LogitDiff(), sure, certain), [[-expected] * 2], rtol=1e-6)
    assert effects(LogitDiff(), certain, certain).tolist() == [[0.0, 0.0]]


def test_aligned_up_to_and_including_the_divergence(make, reference):
    # After " apples" the contexts differ, so nothing is known of ".".
    other = make(("5", {"5": 0.6}), (" apples", {" apples": 0.7, " pears": 0.2}), (".", {".": 0.9}))
    falls = [log(0.9 / 0.6), log(0.8 / 0.2)]
    np.testing.assert_allclose(
        effects(LogprobDiff(), reference, other), [[sum(falls), *falls, nan]], rtol=1e-12
    )
    # What is not defined counts as unchanged: the joint probability keeps that factor.
    np.testing.assert_allclose(
        effects(ProbDiff(), reference, other),
        [[0.9 * 0.8 * 0.5 - 0.6 * 0.2 * 0.5, 0.3, 0.6, nan]],
        rtol=1e-12,
    )


@pytest.mark.parametrize(
    ("listed", "bound"),
    [
        # The least likely alternative bounds it ...
        ({"4": 0.5, "3": 0.3, "2": 0.01}, 0.01),
        # ... or what the alternatives leave over ...
        ({"4": 0.6, "3": 0.38}, 0.02),
        # ... which is never taken to be 0,
        ({"4": 1.0}, 1e-6),
        # and the bound is never above what the token had: no increase without evidence.
        ({"4": 0.01, "3": 0.01}, 0.01),
    ],
)
def test_a_token_that_is_not_listed_gets_an_upper_bound(make, reference, listed, bound):
    other = make(("4", listed))
    np.testing.assert_allclose(
        effects(LogprobDiff(), reference, other), [[log(0.9 / bound)] * 2 + [nan, nan]], rtol=1e-6
    )


def test_no_increase_without_evidence(make):
    unlikely = make(("5", {"4": 0.9, "5": 0.001}))
    other = make(("4", {"4": 0.5, "3": 0.2}))
    assert effects(LogprobDiff(), unlikely, other).tolist() == [[0.0, 0.0]]


def test_the_written_token_counts_as_listed(make, reference):
    # "7" was drawn although it is not among the alternatives: 0.6 + 0.3 + p("7") is taken.
    other = make(("7", {"4": 0.6, "3": 0.3}))
    bound = 1 - 0.6 - 0.3 - 1e-4
    np.testing.assert_allclose(effects(LogprobDiff(), reference, other)[0, 1], log(0.9 / bound))


def test_without_alternatives_the_written_token_is_the_bound(make, reference):
    other = make(("4", {"4": 0.7}), bare=True)
    np.testing.assert_allclose(effects(LogprobDiff(), reference, other)[0, 1], log(0.9 / 0.3))


def test_an_output_that_ends_gave_the_end_at_least_half(make, reference):
    ended = make(("5", {"5": 0.9}))
    np.testing.assert_allclose(
        effects(LogprobDiff(), reference, ended), [[log(0.8 / 0.5), 0, log(0.8 / 0.5), nan]]
    )
    cut_off = make(("5", {"5": 0.9}), finish="length")
    assert effects(LogprobDiff(), reference, cut_off)[0, :2].tolist() == [0.0, 0.0]
    assert np.isnan(effects(LogprobDiff(), reference, cut_off)[0, 2:]).all()


def test_an_output_that_goes_on_has_not_changed(make, reference):
    rows = [("5", {"5": 0.9}), (" pears", {" pears": 0.8}), (".", {".": 0.5}), ("!", {"!": 1})]
    np.testing.assert_allclose(effects(LogprobDiff(), reference, make(*rows)), 0, atol=1e-15)


def test_sure_answers_and_impossible_ones_are_finite():
    def scored(value):
        return Completion(text="5", tokens=("5",), logprobs=np.array([value]))

    sure = scored(0.0)
    assert effects(LogprobDiff(), sure, scored(-np.inf)).tolist() == [[100.0, 100.0]]
    assert effects(LogprobDiff(), sure, scored(-9999.0)).tolist() == [[100.0, 100.0]]
    assert effects(LogprobDiff(), scored(-np.inf), sure).tolist() == [[-100.0, -100.0]]
    np.testing.assert_allclose(effects(ProbDiff(), sure, scored(-np.inf)), [[1.0, 1.0]])
    # Rounding in a server's single precision: slightly more than certain.
    assert effects(LogprobDiff(), sure, scored(1e-6)).tolist() == [[0.0, 0.0]]


def test_a_position_that_the_server_left_out_is_not_defined():
    def scored(*values):
        return Completion(text="ab", tokens=("a", "b"), logprobs=np.array(values))

    both = effects(LogprobDiff(), scored(nan, -1.0), scored(nan, -3.0))
    np.testing.assert_array_equal(both, [[2.0, nan, 2.0]])


def test_location_invariant_finds_the_token_anywhere(make):
    reference = make(("a", {"a": 0.9}), ("b", {"b": 0.8, "a": 0.05}))
    # "a" is the second choice later; "b" is written first.
    other = make(("b", {"b": 0.6}), ("c", {"c": 0.5, "a": 0.3}), ("d", {"d": 0.99}))
    falls = [log(0.9 / 0.3), log(0.8 / 0.6)]
    np.testing.assert_allclose(
        effects(LogprobDiff(**ANYWHERE), reference, other), [[sum(falls), *falls]], rtol=1e-12
    )
    np.testing.assert_allclose(
        effects(ProbDiff(**ANYWHERE), reference, other),
        [[0.9 * 0.8 - 0.3 * 0.6, 0.6, 0.2]],
        rtol=1e-12,
    )


def test_location_invariant_takes_the_best_of_the_reference_too(make):
    # "a" is sure at position 1, so it has not become more likely by being sure there again.
    reference = make(("a", {"a": 0.4}), ("a", {"a": 0.9}))
    assert (effects(LogprobDiff(**ANYWHERE), reference, reference) == 0).all()
    other = make(("a", {"a": 0.9}))
    assert (effects(LogprobDiff(**ANYWHERE), reference, other) == 0).all()


def test_location_invariant_bounds_a_token_that_is_nowhere(make):
    reference = make(("a", {"a": 0.9}))
    other = make(("b", {"b": 0.7, "c": 0.02}), ("d", {"d": 0.7, "e": 0.05}))
    np.testing.assert_allclose(
        effects(LogprobDiff(**ANYWHERE), reference, other)[0], log(0.9 / 0.05)
    )


def test_the_whole_orders_alike_in_both_metrics(make, reference):
    rng = np.random.default_rng(3)
    others = [
        make(*[(token, {token: float(p)}) for token, p in zip(reference.tokens, row, strict=True)])
        for row in rng.uniform(0.01, 1, size=(20, 3))
    ]
    logs = effects(LogprobDiff(), reference, *others)[:, 0]
    falls = effects(ProbDiff(), reference, *others)[:, 0]
    assert np.argsort(logs).tolist() == np.argsort(falls).tolist()
    joint = exp(log(0.9) + log(0.8) + log(0.5))
    np.testing.assert_allclose(falls, joint - joint * np.exp(-logs))
