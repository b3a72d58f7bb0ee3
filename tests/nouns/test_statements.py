# SPDX-License-Identifier: Apache-2.0
"""What an attribution says of its scores: intervals, what differs from zero and from each other."""

import numpy as np
import pytest
from scipy import stats

from pizza.attribution import Attribution, Evaluations, MetricScores, Target
from pizza.completion import Completion
from pizza.errors import ConfigError
from pizza.prompt import Prompt


def made(scores, errors):
    text = " ".join(f"w{i}" for i in range(len(scores)))
    prompt = Prompt.of(text)
    starts = np.cumsum([0, *[len(w) + 1 for w in text.split()]])
    units = [prompt.unit(0, s, s + len(w)) for s, w in zip(starts[:-1], text.split(), strict=True)]
    rows = np.array([scores], dtype=float)
    return Attribution(
        prompt=prompt,
        units=tuple(units),
        target=Target(),
        output=Completion(text=""),
        results=(
            MetricScores(
                metric="m",
                scores=rows,
                standard_errors=None if errors is None else np.array([errors], dtype=float),
            ),
        ),
        evaluations=Evaluations(
            coalitions=np.zeros((0, len(units)), dtype=bool), effects={}, answers=()
        ),
    )


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_intervals_are_normal(level):
    scores, errors = [1.0, -2.0, 0.0], [0.5, 0.1, 2.0]
    low, high = made(scores, errors).confidence_intervals(level)
    expected = stats.norm.interval(level, loc=scores, scale=errors)
    np.testing.assert_allclose([low[0], high[0]], expected, rtol=1e-9)


def test_without_errors_nothing_is_said():
    unsure = made([1.0, 2.0], None)
    assert np.isnan(unsure.confidence_intervals()).all()
    assert not unsure.differs_from_zero().any()
    assert not unsure.differ().any()


@pytest.mark.parametrize("level", [0.0, 1.0, 90, -0.1])
@pytest.mark.parametrize("errors", [None, [1.0]])
def test_a_level_is_a_probability(level, errors):
    attribution = made([1.0], errors)
    for ask in (
        attribution.confidence_intervals,
        attribution.differs_from_zero,
        attribution.differ,
    ):
        with pytest.raises(ConfigError, match="between 0 and 1"):
            ask(level)


def holm(p_values, alpha):
    """Holm's procedure as its definition says it: the smallest p against alpha / n, and so on."""
    rejected = np.zeros(len(p_values), dtype=bool)
    for rank, place in enumerate(np.argsort(p_values)):
        if p_values[place] > alpha / (len(p_values) - rank):
            break
        rejected[place] = True
    return rejected


def test_what_differs_from_zero_is_holms():
    rng = np.random.default_rng(0)
    for _ in range(50):
        scores, errors = rng.normal(0, 2, 12), rng.uniform(0.3, 2, 12)
        p = 2 * stats.norm.sf(np.abs(scores) / errors)
        np.testing.assert_array_equal(made(scores, errors).differs_from_zero(0.9), holm(p, 0.1))


def test_what_differs_from_each_other_is_holms_over_pairs():
    rng = np.random.default_rng(1)
    scores, errors = rng.normal(0, 3, 7), rng.uniform(0.3, 1, 7)
    a, b = np.triu_indices(7, 1)
    p = 2 * stats.norm.sf(np.abs(scores[a] - scores[b]) / np.hypot(errors[a], errors[b]))
    expected = np.zeros((7, 7), dtype=bool)
    expected[a, b] = expected[b, a] = holm(p, 0.1)
    assert 0 < expected.sum() < 42
    np.testing.assert_array_equal(made(scores, errors).differ(0.9), expected)


def test_no_statement_is_wrong_in_nine_of_ten_cases():
    rng = np.random.default_rng(2)
    wrong = 0
    for _ in range(400):
        truth = np.array([0.0] * 15 + [5.0] * 5)
        errors = np.full(20, 0.7)
        said = made(truth + rng.normal(0, errors), errors).differs_from_zero(0.9)
        wrong += said[:15].any()
        assert said[15:].sum() >= 4
    assert wrong / 400 <= 0.14


def test_a_score_without_any_error_differs_unless_it_is_zero():
    assert made([1.0, 0.0, np.nan], [0.0, 0.0, 1.0]).differs_from_zero().tolist() == [
        True,
        False,
        False,
    ]


def test_one_unit_is_compared_with_the_others_alone():
    rng = np.random.default_rng(3)
    scores, errors = rng.normal(0, 3, 9), rng.uniform(0.3, 1, 9)
    others = np.delete(np.arange(9), 4)
    p = 2 * stats.norm.sf(np.abs(scores[4] - scores[others]) / np.hypot(errors[4], errors[others]))
    expected = np.zeros(9, dtype=bool)
    expected[others] = holm(p, 0.1)
    np.testing.assert_array_equal(made(scores, errors).differ(0.9, unit=4), expected)
    assert made(scores, errors).differ(0.9).sum() <= 72
    with pytest.raises(ConfigError, match="units are numbered 0 to 8"):
        made(scores, errors).differ(unit=9)


def test_too_many_units_are_not_compared_all_with_all():
    many = made(np.arange(2001.0), np.ones(2001))
    with pytest.raises(ConfigError, match=r"2001 units are too many .* differ\(unit=...\)"):
        many.differ()
    assert many.differ(unit=0)[1:].sum() > 1900
