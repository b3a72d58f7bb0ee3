# SPDX-License-Identifier: Apache-2.0
"""From tokens to units: characters shared, and four ways to aggregate."""

import itertools

import numpy as np
import pytest

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")

from pizza_local.encoding import InputToken  # noqa: E402
from pizza_local.units import aggregate, check_aggregation, shares  # noqa: E402
from support import cases, oracles  # noqa: E402

import pizza  # noqa: E402
from pizza.errors import ConfigError  # noqa: E402
from pizza.prompt import Unit  # noqa: E402

HOW = ("sum", "mean", "norm", "max")
# Cut through tokens and through the parts of a character's token.
CUT = ((0, 2), (2, 9), (12, 20), (22, 24), (24, 32))


def tokens(*spans):
    return [
        InputToken(id=0, text="x", origin="prompt", message=0, start=a, end=b) for a, b in spans
    ]


def units(*spans):
    return [Unit(message=0, start=a, end=b, text="x" * (b - a)) for a, b in spans]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("method", ["saliency", "input-x-gradient"])
async def test_units_that_cut_tokens_get_their_share_by_characters(how, method):
    case = cases.make("gpt2")
    found = await case.attribute(f"{method}:aggregation={how}", units=list(CUT))
    oracle = getattr(oracles, method.replace("-", "_"))(case.targets["text"][1]).detach()
    expected = oracles.to_units(oracle.numpy(), case.token_spans, CUT, how)
    assert oracles.apart(found.scores, expected) <= 1e-9
    assert found.provenance["method"]["details"]["aggregation"] == how


@pytest.mark.parametrize("how", HOW)
def test_aggregates_of_random_cuts(how):
    rng = np.random.default_rng(0)
    for _ in range(30):
        spans = _cuts(rng, 30, 8)
        wanted = _cuts(rng, 30, 5)
        scores = rng.normal(size=(3, len(spans)))
        found = aggregate(scores, shares(tokens(*spans), units(*wanted)), how)
        expected = oracles.to_units(scores, spans, wanted, how)
        np.testing.assert_allclose(found, expected, atol=1e-12)


def _cuts(rng, length, n):
    """Spans in order that leave some characters out."""
    edges = np.sort(rng.choice(length + 1, size=n + 1, replace=False))
    spans = [(int(a), int(b)) for a, b in itertools.pairwise(edges)]
    return [span for span in spans if rng.random() < 0.8] or spans[:1]


def test_columns_of_shares_sum_to_one_where_a_token_is_in_a_unit_and_to_zero_elsewhere():
    assigned = shares(tokens((0, 3), (3, 7), (9, 12)), units((0, 4), (4, 7)))
    np.testing.assert_allclose(assigned.share, [[1, 0.25, 0], [0, 0.75, 0]])
    assert assigned.used.tolist() == [True, True, False]
    assert assigned.members(1).tolist() == [1]


def test_the_maximum_keeps_its_sign():
    assigned = shares(tokens((0, 1), (1, 2)), units((0, 2)))
    assert aggregate(np.array([[1.0, -3.0]]), assigned, "max").tolist() == [[-3.0]]


async def test_the_template_and_what_is_held_fixed_are_in_no_unit_and_are_listed():
    case = cases.make("llama")
    async with pizza.Session(case.open()) as session:
        found = await session.attribute(
            pizza.Prompt.of(case.prompt).fix("red"),
            method="input-x-gradient",
            target=case.targets["text"][0],
        )
    details = found.provenance["method"]["details"]
    origins = [one["origin"] for one in details["tokens_outside_units"]]
    # The BOS token, the fixed word, the output's tokens before the last.
    assert origins[0] == "special"
    assert origins.count("output") == len(found.output.tokens) - 1
    assert "fixed" in origins
    scores = oracles.input_x_gradient(case.targets["text"][1]).detach().numpy()
    total = found.scores.sum(1) + np.array(details["sum_outside_units"])
    assert oracles.apart(total, scores.sum(1)) <= case.tolerance


def test_an_aggregation_that_there_is_not():
    with pytest.raises(ConfigError, match="sum, mean, norm, max"):
        check_aggregation("median")
