# SPDX-License-Identifier: Apache-2.0
"""What a method of one's own sees: points, values and gradients, in the promised shapes."""

import numpy as np
import pytest

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")

from pizza_local import LocalMethod, TokenScores  # noqa: E402
from support import cases, oracles  # noqa: E402

import pizza  # noqa: E402
from pizza.errors import CapabilityError, ConfigError  # noqa: E402


class Look(LocalMethod):
    """Runs a function on the view and keeps what it gives."""

    def __init__(self, look, **options):
        super().__init__(**options)
        self.look, self.seen = look, None

    def attribute(self, view):
        self.seen = self.look(view)
        n_rows = 1 if view.level == "sequence" else 1 + view.n_outputs
        return TokenScores(rows=np.zeros((n_rows, view.n_tokens)))


async def look(case, target, function, **options):
    method = Look(function, **options)
    await case.attribute(method, target)
    return method.seen


def points_of(view):
    torch.manual_seed(0)
    start = view.start()
    return torch.stack([start + torch.randn_like(start) * scale for scale in (0.0, 0.3, 1.0)])


@pytest.mark.parametrize("kind", oracles.KINDS)
async def test_values_and_gradients_at_any_points(kind):
    case = cases.make(kind)
    for target, (_, explained) in case.targets.items():

        def see(view):
            points = points_of(view)
            chunks = list(view.gradients(points))
            assert [i for chunk, _, _ in chunks for i in range(len(points))[chunk]] == [0, 1, 2]
            gradients = torch.cat([part for _, _, part in chunks])
            values = torch.cat([part for _, part, _ in chunks])
            return points, view.values(points), values, gradients

        points, values, same, gradients = await look(case, target, see)
        assert oracles.apart(points[0], explained.start()) == 0
        with torch.no_grad():
            expected = torch.stack([explained.rows(point) for point in points])
        assert oracles.apart(values, expected) <= case.tolerance, target
        assert oracles.apart(same, expected) <= case.tolerance, target
        expected = torch.stack([explained.jacobian(point) for point in points])
        assert oracles.apart(gradients, expected) <= case.tolerance, target


@pytest.mark.parametrize("kind", ["gpt2", "t5", "bert-mlm"])
@pytest.mark.parametrize("target", ["text", "contrast"])
async def test_points_at_a_layer(kind, target):
    case = cases.make(kind)
    explained = case.targets[target][1]

    def see(view):
        return view.start(), view.baseline("pad"), view.values(view.start().unsqueeze(0))

    start, absent, values = await look(case, target, see, layer=1)
    pad = 0 if kind.startswith("bert") else 2
    assert oracles.apart(start, explained.start(1)) <= case.tolerance
    assert oracles.apart(absent, explained.baseline(pad, 1)) <= case.tolerance
    # What leaves a block gives the same output as what it was made of.
    with torch.no_grad():
        expected = explained.rows(explained.start())
    assert oracles.apart(values[0], expected) <= case.tolerance


async def test_a_view_at_level_sequence_has_the_whole_only():
    def see(view):
        ((_, values, gradients),) = view.gradients(view.start().unsqueeze(0))
        return view.n_tokens, values.shape, gradients.shape

    n, values, gradients = await look(cases.make("gpt2"), "text", see, level="sequence")
    assert tuple(values) == (1, 1)
    assert tuple(gradients) == (1, 1, n, 32)


async def test_only_tokens_of_units_are_absent_in_the_baseline():
    case = cases.make("llama")
    start, absent = await look(case, "text", lambda view: (view.start(), view.baseline("zero")))
    changed = (start != absent).any(-1).tolist()
    explained = case.targets["text"][1]
    assert changed == [*explained.inside, *[False] * (len(start) - explained.n_prompt)]
    assert changed[0] is False


async def test_random_numbers_are_those_of_the_seed():
    case = cases.make("gpt2")

    def draw(view):
        return torch.rand(3, generator=view.generator()).tolist()

    async with pizza.Session(case.open()) as session:
        drawn = []
        for seed in (1, 1, 2):
            method = Look(draw)
            await case.ask(session, method, seed=seed)
            drawn.append(method.seen)
    assert drawn[0] == drawn[1] != drawn[2]


async def test_outputs_of_a_contrast_have_places_of_their_own():
    case = cases.make("gpt2")
    explained = case.targets["contrast"][1]

    def see(view):
        return [(token.id, token.origin) for token in view.tokens]

    tokens = await look(case, "contrast", see)
    before = explained.reading.targets[:-1] + explained.versus.targets[:-1]
    assert tokens[explained.n_prompt :] == [(index, "output") for index in before]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda view: view.of("perplexity"), ConfigError, "there is no function"),
        (lambda view: view.of("logit", level="word"), ConfigError, "the level is"),
        (lambda view: view.at(9), CapabilityError, "there is no layer 9"),
        (lambda view: view.at(True), ConfigError, "a layer is a whole number"),
    ],
)
async def test_views_that_there_are_not(change, error, message):
    with pytest.raises(error, match=message):
        await look(cases.make("gpt2"), "text", change)
