# SPDX-License-Identifier: Apache-2.0
"""DeepLIFT: differences handed back through activations, and what refuses them."""

import warnings

import numpy as np
import pytest

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from pizza_local import LocalBackend  # noqa: E402
from pizza_local.methods.deep_lift import DeepLift  # noqa: E402
from pizza_local.methods.integrated_gradients import IntegratedGradients  # noqa: E402
from support import cases, oracles, tiny  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

import pizza  # noqa: E402
from pizza.errors import CapabilityError, ConfigError  # noqa: E402

WORDS, LABELS = cases.WORDS, cases.LABELS
TEXT = "great food and the service was great but slow and the food terrible"
FEATURES = [WORDS[word] for word in TEXT.split() if word in WORDS]
ACTIVATIONS = [
    nn.ReLU(),
    nn.ReLU(inplace=True),
    nn.LeakyReLU(0.2),
    nn.ELU(),
    nn.Tanh(),
    nn.Sigmoid(),
    nn.Softplus(),
    nn.GELU(),
    nn.SiLU(),
    nn.PReLU(),
]


def feed_forward(activation, seed=0, dtype=torch.float64):
    torch.manual_seed(seed)
    module = nn.Sequential(
        nn.Linear(len(WORDS), 9), activation, nn.Dropout(0.3), nn.Linear(9, 6), nn.Tanh(),
        nn.Linear(6, 3),
    )  # fmt: skip
    return module.to(dtype).eval()


def counted():
    counts = torch.bincount(torch.tensor(FEATURES), minlength=len(WORDS)).double()[None]
    return counts.requires_grad_(True)


async def words_of(module, target="positive", **options):
    """Scores of the known words' occurrences, and the attribution."""
    target = pizza.Target.label(target) if isinstance(target, str) else target
    async with pizza.Session(LocalBackend.from_features(module, WORDS, LABELS)) as session:
        found = await session.attribute(TEXT, method=DeepLift(**options), target=target)
    known = [place for place, unit in enumerate(found.units) if unit.text in WORDS]
    return found.scores[:, known], found


def by_feature(scores):
    """Scores of features ``(rows, n_features)``: sums over their occurrences."""
    total = np.zeros((len(scores), len(WORDS)))
    for place, feature in enumerate(FEATURES):
        total[:, feature] += scores[:, place]
    return total


def by_hand(module, counts, multiplier):
    """Multipliers of a feed-forward module, layer by layer, from those of its logits."""
    x, b = [counts.detach()], [torch.zeros_like(counts)]
    for layer in module:
        x.append(layer(x[-1].clone()).detach())
        b.append(layer(b[-1].clone()).detach())
    for place in reversed(range(len(module))):
        layer = module[place]
        if isinstance(layer, nn.Linear):
            multiplier = multiplier @ layer.weight.detach()
        elif not isinstance(layer, nn.Dropout):
            multiplier = multiplier * (x[place + 1] - b[place + 1]) / (x[place] - b[place])
    return (multiplier * counts.detach())[0], x[-1][0], b[-1][0]


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
async def test_multipliers_are_quotients_of_differences(activation):
    module = feed_forward(activation)
    scores, found = await words_of(module, function="logit")
    expected, x, b = by_hand(module, counted(), torch.eye(3).double()[2:])
    assert oracles.apart(by_feature(scores)[0], expected) < 1e-9
    assert scores.sum(1) == pytest.approx([float(x[2] - b[2])] * 2, rel=1e-9)
    assert np.abs(found.provenance["method"]["details"]["completeness_error"]).max() < 1e-12
    assert found.warnings[1:] == ()


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Tanh(), nn.ELU()], ids=str)
async def test_the_logit_is_captums(activation):
    attr = pytest.importorskip("captum.attr")
    module = feed_forward(activation)
    scores, _ = await words_of(module, function="logit")
    counts = counted()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = attr.DeepLift(module).attribute(counts, torch.zeros_like(counts), target=2)
    assert oracles.apart(by_feature(scores)[0], theirs[0].detach()) < 1e-9


@pytest.mark.parametrize("function", ["logprob", "prob", "entropy", "kl"])
async def test_functions_of_all_logits_add_up_too(function):
    module = feed_forward(nn.ReLU())
    scores, found = await words_of(module, function=function)
    with torch.no_grad():
        x, b = module(counted())[0], module(torch.zeros(1, len(WORDS)).double())[0]
    clean = x.log_softmax(-1)

    def value(logits):
        logs = logits.log_softmax(-1)
        return {
            "logprob": logs[2],
            "prob": logs[2].exp(),
            "entropy": -(logs.exp() * logs).sum(),
            "kl": -(clean.exp() * (clean - logs)).sum(),
        }[function]

    assert scores.sum(1) == pytest.approx([float(value(x) - value(b))] * 2, rel=1e-9)
    # The mean derivative along the line between the logits, by many small steps.
    total = torch.zeros(3).double()
    for alpha in (torch.arange(4000).double() + 0.5) / 4000:
        leaf = (b + alpha * (x - b)).requires_grad_(True)
        total += torch.autograd.grad(value(leaf), leaf)[0] / 4000
    expected, *_ = by_hand(module, counted(), total[None])
    assert oracles.apart(by_feature(scores)[0], expected) < 1e-6
    assert found.metric == function


async def test_a_contrast_is_the_difference_of_two_logits():
    module = feed_forward(nn.ReLU())
    target = pizza.Target.contrast("positive", "negative")
    scores, _ = await words_of(module, target, function="logit")
    first, _ = await words_of(module, "positive", function="logit")
    second, _ = await words_of(module, "negative", function="logit")
    assert oracles.apart(scores[0], first[0] - second[0]) < 1e-9
    assert oracles.apart(scores[1], first[1]) < 1e-9


async def test_only_the_whole_at_the_level_of_the_sequence():
    module = feed_forward(nn.Sigmoid())
    both, _ = await words_of(module)
    whole, _ = await words_of(module, level="sequence")
    assert oracles.apart(whole[0], both[0]) < 1e-12
    assert np.isnan(whole[1]).all()


async def test_where_input_and_baseline_are_alike_the_derivative_is_taken():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(len(WORDS), 2), nn.Tanh(), nn.Linear(2, 3)).double().eval()
    with torch.no_grad():
        # "great" and "food" are there twice each, and cancel.
        module[0].weight.zero_()
        module[0].weight[0, :2] = torch.tensor([1.0, -1.0])
    scores, _ = await words_of(module, function="logit")
    slope = 1 - module[0].bias.detach()[0].tanh() ** 2
    expected = torch.zeros(len(WORDS)).double()
    expected[:2] = torch.tensor([2.0, -2.0]).double() * slope * module[2].weight.detach()[2, 0]
    assert oracles.apart(by_feature(scores)[0], expected) < 1e-9


async def test_single_precision():
    exact, _ = await words_of(feed_forward(nn.GELU()))
    single, _ = await words_of(feed_forward(nn.GELU(), dtype=torch.float32))
    assert oracles.apart(single, exact) < 1e-5


class Pooled(nn.Module):
    """A convolution over embeddings, then their mean."""

    def __init__(self, activation):
        super().__init__()
        self.convolution = nn.Conv1d(6, 5, 3, padding=1)
        self.activation = activation
        self.head = nn.Linear(5, 3)

    def forward(self, points):
        hidden = self.activation(self.convolution(points.transpose(1, 2)))
        return self.head(self.activation(hidden).mean(-1))


@pytest.mark.parametrize("baseline", ["zero", "unk", "mean"])
async def test_embeddings_and_activations_that_are_used_twice(baseline):
    torch.manual_seed(3)
    tokenizer = tiny.word_tokenizer()
    embedding = nn.Embedding(len(tokenizer), 6).double()
    module = Pooled(nn.Softplus()).double()
    backend = LocalBackend.from_embeddings(module, embedding, tokenizer, LABELS)
    async with pizza.Session(backend) as session:
        found = await session.attribute(
            "this film was great",
            method=DeepLift(baseline, function="logit"),
            target=pizza.Target.label("neutral"),
        )
    ids = torch.tensor(tokenizer("this film was great")["input_ids"])
    x = embedding(ids).detach()[None]
    b = x.clone()
    stand_in = {
        "zero": torch.zeros(6).double(),
        "unk": embedding.weight[tokenizer.unk_token_id].detach(),
        "mean": embedding.weight.mean(0).detach(),
    }[baseline]
    b[:, 1:-1] = stand_in

    def stages(points):
        first = module.convolution(points.transpose(1, 2)).detach()
        second = functional.softplus(first)
        return first, second, functional.softplus(second)

    (x1, x2, x3), (b1, b2, b3) = stages(x), stages(b)
    hidden = module.head.weight[1].detach()[None, :, None] / x.shape[1]
    hidden = hidden * (x3 - b3) / (x2 - b2) * (x2 - b2) / torch.where(x1 == b1, 1.0, x1 - b1)
    slope = functional.conv_transpose1d(hidden, module.convolution.weight.detach(), padding=1)
    expected = (slope.transpose(1, 2) * (x - b)).sum(-1)[0, 1:-1]
    assert oracles.apart(found.unit_scores, expected) < 1e-9


async def test_nothing_is_left_on_the_module():
    module = feed_forward(nn.ReLU())
    module[0].weight.requires_grad_(False)
    before = [parameter.requires_grad for parameter in module.parameters()]
    await words_of(module)
    with pytest.raises(CapabilityError):
        await words_of(nn.Sequential(Functional().double()))
    for part in module.modules():
        assert not part._forward_hooks
        assert not part._forward_pre_hooks
        assert not part._backward_hooks
    assert [parameter.requires_grad for parameter in module.parameters()] == before
    assert all(parameter.grad is None for parameter in module.parameters())


class Functional(nn.Module):
    """An activation that is no module."""

    def __init__(self, hooked=False):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(len(WORDS), 8), nn.Linear(8, 3)
        self.activation = nn.Tanh() if hooked else None

    def forward(self, counts):
        hidden = self.first(counts)
        if self.activation is not None:
            hidden = self.activation(hidden)
        return self.last(functional.gelu(hidden))


class Changing(Functional):
    """Uses its activation for some inputs only."""

    def forward(self, counts):
        hidden = self.first(counts)
        return self.last(self.activation(hidden) if counts.sum() > 0 else hidden)


@pytest.mark.parametrize("hooked", [False, True])
async def test_an_activation_that_is_no_module_is_noticed(hooked):
    with pytest.raises(CapabilityError, match=r"no modules.*integrated-gradients"):
        await words_of(Functional(hooked).double())


async def test_a_module_that_runs_otherwise_on_the_baseline_is_noticed():
    with pytest.raises(CapabilityError, match="another order"):
        await words_of(Changing(hooked=True).double())


@pytest.mark.parametrize(
    ("part", "name"),
    [
        (nn.LayerNorm(9), "LayerNorm"),
        (nn.MultiheadAttention(9, 3), "MultiheadAttention"),
        (nn.GRU(9, 9), "GRU"),
        (nn.Softmax(-1), "Softmax"),
        (nn.MaxPool1d(2), "MaxPool1d"),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
async def test_parts_without_a_rule_are_named(part, name):
    module = feed_forward(nn.ReLU())
    module.part = part
    module.forward = lambda counts: nn.Sequential(*list(module)[:-1])(counts)
    with pytest.raises(CapabilityError, match=rf"{name} \(part of module\).*gradient-shap"):
        await words_of(module.double())


@pytest.mark.parametrize("kind", ["gpt2", "llama", "t5", "bert-classifier"])
async def test_transformers_are_refused_with_what_works(kind):
    case = cases.make(kind)
    with pytest.raises(CapabilityError, match="Use integrated-gradients"):
        await case.attribute(DeepLift())


async def test_for_a_linear_module_it_is_integrated_gradients():
    torch.manual_seed(5)
    module = nn.Linear(len(WORDS), 3).double()
    scores, _ = await words_of(module)
    async with pizza.Session(LocalBackend.from_features(module, WORDS, LABELS)) as session:
        path = await session.attribute(
            TEXT, method=IntegratedGradients(steps=60), target=pizza.Target.label("positive")
        )
    known = [place for place, unit in enumerate(path.units) if unit.text in WORDS]
    assert oracles.apart(scores, path.scores[:, known]) < 1e-9


@pytest.mark.parametrize("options", [{"layer": 1}, {"function": "margin"}])
def test_options_that_mean_nothing_are_refused(options):
    (value,) = options.values()
    with pytest.raises(ConfigError, match=str(value)):
        DeepLift(**options)
