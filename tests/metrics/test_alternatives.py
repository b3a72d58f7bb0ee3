# SPDX-License-Identifier: Apache-2.0
"""Metrics of whole lists of alternatives: token-displacement, kl-divergence, js-divergence."""

from __future__ import annotations

from math import log, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pizza.metrics.displacement import TokenDisplacement
from pizza.metrics.divergence import JSDivergence, KLDivergence


def by_hand(p: dict[str, float], q: dict[str, float]) -> tuple[float, float]:
    """KL and JS of two lists, token by token, as the module's docstring says."""
    union = sorted(set(p) | set(q))

    def filled(own, other):
        unlisted = [token for token in union if token not in own]
        left = max(1 - sum(own.values()), 1e-6)
        share = min(min(own.values(), default=1.0), left / (len(unlisted) + 1))
        full = [own.get(token, share) for token in union] + [left - share * len(unlisted)]
        return [value / sum(full) for value in full]

    def kl(one, two):
        return sum(a * log(a / b) for a, b in zip(one, two, strict=True) if a > 0)

    a, b = filled(p, q), filled(q, p)
    middle = [(x + y) / 2 for x, y in zip(a, b, strict=True)]
    return kl(a, b), (kl(a, middle) + kl(b, middle)) / 2


def lists():
    probability = st.floats(0.01, 1)
    raw = st.dictionaries(st.sampled_from("abcdefgh"), probability, min_size=1, max_size=6)
    return st.builds(
        lambda listed, rest: {
            token: value / (sum(listed.values()) + rest) for token, value in listed.items()
        },
        raw,
        st.sampled_from([0.0, 0.001, 0.5]),
    )


def written(make, listed):
    ordered = dict(sorted(listed.items(), key=lambda pair: -pair[1]))
    return make((next(iter(ordered)), ordered))


@given(p=lists(), q=lists())
def test_divergences_by_hand(make, p, q):
    reference, other = written(make, p), written(make, q)
    kl, js = by_hand(p, q)
    np.testing.assert_allclose(
        KLDivergence().compare(reference, [other]), [[kl, kl]], rtol=1e-9, atol=1e-12
    )
    np.testing.assert_allclose(
        JSDivergence().compare(reference, [other]), [[js, js]], rtol=1e-9, atol=1e-12
    )


def test_divergences_of_whole_vocabularies_are_exact(make):
    reference = make(("a", {"a": 0.5, "b": 0.3, "c": 0.2}))
    other = make(("b", {"b": 0.6, "c": 0.3, "a": 0.1}))
    kl = 0.5 * log(0.5 / 0.1) + 0.3 * log(0.3 / 0.6) + 0.2 * log(0.2 / 0.3)
    np.testing.assert_allclose(KLDivergence().compare(reference, [other])[0, 1], kl, atol=1e-5)


def test_lists_without_a_common_token_are_far_apart(make):
    reference, other = make(("a", {"a": 1.0})), make(("b", {"b": 1.0}))
    assert 13 < KLDivergence().compare(reference, [other])[0, 0] < 16
    np.testing.assert_allclose(
        JSDivergence().compare(reference, [other])[0, 0], log(2), rtol=0, atol=1e-4
    )


def test_positions_after_the_divergence_are_not_defined(make):
    p, q = {"a": 0.6, "b": 0.4}, {"b": 0.9, "a": 0.1}
    reference = make(("a", p), ("a", p), ("a", p))
    other = make(("a", q), ("b", q), ("a", p))
    kl, js = by_hand(p, q)
    np.testing.assert_allclose(
        KLDivergence().compare(reference, [other]), [[2 * kl, kl, kl, nan]], rtol=1e-9
    )
    np.testing.assert_allclose(
        JSDivergence().compare(reference, [other]), [[2 * js / 3, js, js, nan]], rtol=1e-9
    )


def test_an_output_that_ends_diverges_at_least_as_far_as_one_half(make):
    reference = make(("a", {"a": 1.0}), ("b", {"b": 0.75, "c": 0.25}))
    ended = make(("a", {"a": 1.0}))
    kl = 0.75 * log(0.75 / 0.5) + 0.25 * log(0.25 / 0.5)
    np.testing.assert_allclose(KLDivergence().compare(reference, [ended]), [[kl, 0, kl]])
    unlikely = make(("a", {"a": 1.0}), ("b", {"c": 0.75, "b": 0.25}))
    np.testing.assert_allclose(KLDivergence().compare(unlikely, [ended]), 0)


def test_a_text_that_is_listed_twice_counts_once(make):
    # Two byte tokens are both shown as U+FFFD; the likelier one stands for the text.
    from pizza.completion import Completion, pack_alternatives

    def output(values):
        texts, logs = pack_alternatives([[("\ufffd", v) for v in values]])
        return Completion(
            text="\ufffd",
            tokens=("\ufffd",),
            logprobs=np.array([values[0]]),
            alternative_tokens=texts,
            alternative_logprobs=logs,
        )

    one, two = output([log(0.6), log(0.3)]), output([log(0.6), log(0.4)])
    assert (KLDivergence().compare(one, [one]) == 0).all()
    np.testing.assert_allclose(KLDivergence().compare(one, [two]), 0, atol=1e-12)


@pytest.mark.parametrize(
    ("listed", "places"),
    [
        ({"a": 0.5, "b": 0.3}, 0),
        ({"b": 0.5, "a": 0.3}, 1),
        ({"c": 0.5, "b": 0.3, "a": 0.1}, 2),
        ({"b": 0.4, "a": 0.4}, 0),
        ({"c": 0.5, "b": 0.3, "d": 0.1}, 3),
    ],
)
def test_places_that_the_token_lost(make, listed, places):
    reference = make(("a", {"a": 0.9}))
    other = make((next(iter(listed)), listed))
    assert TokenDisplacement().compare(reference, [other]).tolist() == [[places, places]]


def test_places_count_from_where_the_token_was(make):
    sampled = make(("b", {"a": 0.6, "b": 0.3, "c": 0.1}))
    first = make(("b", {"b": 0.9}))
    third = make(("c", {"a": 0.5, "c": 0.3, "b": 0.1}))
    assert TokenDisplacement().compare(sampled, [sampled, first, third])[:, 0].tolist() == [
        0,
        -1,
        1,
    ]


def test_displacement_after_the_divergence_and_at_the_end(make):
    reference = make(("a", {"a": 0.9}), ("b", {"b": 0.9}), ("c", {"c": 0.9}))
    other = make(("a", {"a": 0.9}), ("x", {"x": 0.5, "y": 0.2, "b": 0.1}), ("c", {"c": 0.9}))
    ended = make(("a", {"a": 0.9}))
    np.testing.assert_allclose(
        TokenDisplacement().compare(reference, [other, ended]),
        [[2 / 3, 0, 2, nan], [1 / 3, 0, 1, nan]],
    )


def test_best_place_anywhere(make):
    reference = make(("a", {"a": 0.9}), ("b", {"b": 0.9}))
    other = make(("x", {"x": 0.5, "b": 0.4}), ("y", {"y": 0.5, "x": 0.3, "a": 0.2}))
    assert TokenDisplacement("location-invariant").compare(reference, [other]).tolist() == [
        [1.5, 2, 1]
    ]
    nowhere = make(("x", {"x": 0.5, "y": 0.2, "z": 0.1}))
    assert TokenDisplacement("location-invariant").compare(reference, [nowhere]).tolist() == [
        [3, 3, 3]
    ]


@pytest.mark.parametrize("metric", [TokenDisplacement(), KLDivergence(), JSDivergence()])
def test_a_longer_list_in_the_same_batch_changes_nothing(make, metric):
    reference = make(("a", {"b": 0.9, "c": 0.05}))
    short = make(("a", {"b": 0.9}))
    long = make(("b", dict.fromkeys("bcdefgh", 0.1)))
    together = metric.compare(reference, [short, long])
    np.testing.assert_array_equal(metric.compare(reference, [short])[0], together[0])
    np.testing.assert_array_equal(metric.compare(reference, [long])[0], together[1])
