# SPDX-License-Identifier: Apache-2.0
"""Plain modules as models: classifiers over word counts, and over token embeddings."""

import math
import warnings

import numpy as np
import pytest

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from pizza_local import LocalBackend  # noqa: E402
from pizza_local.methods.deep_lift import DeepLift  # noqa: E402
from pizza_local.methods.input_x_gradient import InputXGradient  # noqa: E402
from pizza_local.methods.integrated_gradients import IntegratedGradients  # noqa: E402
from pizza_local.methods.saliency import Saliency  # noqa: E402
from support import oracles, tiny  # noqa: E402
from torch import nn  # noqa: E402

import pizza  # noqa: E402
from pizza.capability import Capability  # noqa: E402
from pizza.completion import Request  # noqa: E402
from pizza.errors import BadRequestError, CapabilityError, ConfigError  # noqa: E402
from pizza.prompt import Prompt  # noqa: E402

WORDS = {"good": 0, "bad": 1, "not": 2, "food": 3, "don't": 4, "!": 5, "slow": 6}
LABELS = ("negative", "neutral", "positive")
TEXT = "Good food not slow banana good"
FEATURES = [0, 3, 2, 6, 0]
"""Occurrences in `TEXT`."""

BLACK_BOX = ["leave-one-out", "sliding-window", "hierarchical"]
INSIDE = [
    "saliency", "input-x-gradient", "integrated-gradients", "gradient-shap", "smooth-grad",
    "deep-lift", "sequential-integrated-gradients",
]  # fmt: skip


def bag(dtype=torch.float64, n=7, activation=None):
    torch.manual_seed(0)
    activation = activation or nn.ReLU()
    return nn.Sequential(nn.Linear(n, 12), activation, nn.Linear(12, 3)).to(dtype).eval()


class MeanOfTokens(nn.Module):
    """Reads prompts of any length, and is spoiled by padding."""

    def __init__(self, d=6):
        super().__init__()
        self.read = nn.Sequential(nn.Linear(d, 8), nn.Tanh(), nn.Linear(8, 3))

    def forward(self, points):
        return self.read(points.mean(1) + points[:, -1])


def embedded(dtype=torch.float64, **options):
    torch.manual_seed(1)
    tokenizer = tiny.word_tokenizer()
    embedding, module = nn.Embedding(len(tokenizer), 6).to(dtype), MeanOfTokens().to(dtype)
    module.eval()
    backend = LocalBackend.from_embeddings(module, embedding, tokenizer, LABELS, **options)
    return backend, module, embedding, tokenizer


def features(module=None, **options):
    return LocalBackend.from_features(module or bag(), WORDS, LABELS, **options)


def counts_of(found=FEATURES, n=7):
    return torch.bincount(torch.tensor(found, dtype=torch.long), minlength=n).double()[None]


async def answers(backend, prompts, target=None, **options):
    generation = pizza.Generation(max_tokens=3, top_logprobs=options.pop("top", 0))
    requests = [
        Request(
            kind="score" if target else "complete",
            prompt=Prompt.of(prompt),
            generation=generation,
            target=target,
            logprobs=True,
            **options,
        )
        for prompt in prompts
    ]
    found = {}
    async for place, reply in backend.answer_batch(requests):
        if isinstance(reply, Exception):
            raise reply
        found[place] = reply.completion
    return [found[place] for place in range(len(prompts))]


async def explained(backend, method, prompt=TEXT, target="positive", **options):
    async with pizza.Session(backend) as session:
        return await session.attribute(
            prompt, method=method, target=pizza.Target.label(target), **options
        )


def occurrences(found):
    """Scores of the units that the module reads."""
    known = [place for place, unit in enumerate(found.units) if unit.text.lower() in WORDS]
    return found.scores[:, known]


# --- word counts against captum on the feature vector ---------------------------------------------


@pytest.mark.parametrize("name", ["Saliency", "InputXGradient", "IntegratedGradients", "DeepLift"])
async def test_scores_of_occurrences_add_up_to_captums_of_features(name):
    attr = pytest.importorskip("captum.attr")
    module = bag()
    method, extra = {
        "Saliency": (Saliency(function="logit"), {}),
        "InputXGradient": (InputXGradient(function="logit"), {}),
        "IntegratedGradients": (
            IntegratedGradients(steps=30, function="logit"),
            {"n_steps": 30, "baselines": 0.0},
        ),
        "DeepLift": (DeepLift(function="logit"), {"baselines": 0.0}),
    }[name]
    found = occurrences(await explained(features(module), method))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = getattr(attr, name)(module).attribute(
            counts_of().requires_grad_(True), target=2, **extra
        )
    theirs = theirs[0].detach()
    if name == "Saliency":
        # A gradient is the same for every occurrence; it does not add up.
        assert oracles.apart(found[0], theirs[FEATURES].abs()) < 1e-9
        return
    summed = torch.zeros(len(WORDS)).double()
    summed.index_add_(0, torch.tensor(FEATURES), torch.tensor(found[0]))
    # Captum keeps the weights of a path in single precision.
    tolerance = 1e-6 if name == "IntegratedGradients" else 1e-9
    assert oracles.apart(summed, theirs) < tolerance


async def test_leaving_a_word_out_is_captums_feature_ablation():
    attr = pytest.importorskip("captum.attr")
    module = bag()
    prompt, found_words = "good food not slow", [0, 3, 2, 6]
    found = await explained(features(module), "leave-one-out", prompt)
    theirs = attr.FeatureAblation(lambda x: module(x).log_softmax(-1)).attribute(
        counts_of(found_words), target=2
    )
    assert oracles.apart(found.unit_scores, theirs[0, found_words].detach()) < 1e-9


async def test_leaving_one_of_two_occurrences_out_counts_one_less():
    module = bag()
    found = await explained(features(module), "leave-one-out")
    with torch.no_grad():
        whole = module(counts_of()).log_softmax(-1)[0, 2]
        less = [
            module(counts_of(FEATURES[:i] + FEATURES[i + 1 :])).log_softmax(-1)[0, 2]
            for i in range(len(FEATURES))
        ]
    expected = [[float(whole - one) for one in less]] * 2
    assert oracles.apart(occurrences(found), expected) < 1e-9


# --- every method runs ----------------------------------------------------------------------------


@pytest.mark.parametrize("method", BLACK_BOX + INSIDE)
async def test_every_method_runs_on_features(method):
    found = await explained(features(), method)
    assert np.isfinite(found.scores).all()
    assert np.abs(occurrences(found)).max() > 0
    unread = [place for place, unit in enumerate(found.units) if unit.text.lower() not in WORDS]
    assert len(unread) == 1
    if method in [*INSIDE, "leave-one-out"]:
        assert (found.scores[:, unread] == 0).all()


@pytest.mark.parametrize(
    "method", [*BLACK_BOX, *INSIDE, "discretized-integrated-gradients:steps=4"]
)
async def test_every_method_runs_on_embeddings(method):
    backend, *_ = embedded()
    found = await explained(backend, method, "this film was not terrible")
    assert np.isfinite(found.scores).all()
    assert np.abs(found.scores).max() > 0


@pytest.mark.parametrize("function", ["logprob", "prob", "entropy"])
async def test_gradients_of_embeddings_are_autograds(function):
    backend, module, embedding, tokenizer = embedded()
    method = InputXGradient(function=function)
    prompt = "this film was not terrible"
    found = await explained(backend, method, prompt, "neutral")
    start = embedding(torch.tensor(tokenizer(prompt)["input_ids"])).detach()
    leaf = start.clone().requires_grad_(True)
    logs = module(leaf[None])[0].log_softmax(-1)
    value = {"logprob": logs[1], "prob": logs[1].exp(), "entropy": -(logs.exp() * logs).sum()}
    (slope,) = torch.autograd.grad(value[function], leaf)
    expected = (slope * start).sum(-1)[1:-1].expand(2, -1)
    assert oracles.apart(found.scores, expected) < 1e-9


@pytest.mark.parametrize("baseline", ["pad", "mean", 7, "film"])
async def test_embeddings_have_the_tokenizers_baselines(baseline):
    backend, module, embedding, tokenizer = embedded()
    prompt = "this food was great"
    found = await explained(backend, IntegratedGradients(40, baseline=baseline), prompt)
    start = embedding(torch.tensor(tokenizer(prompt)["input_ids"])).detach()
    absent = start.clone()
    table = embedding.weight.detach()
    absent[1:-1] = {
        "pad": table[0], "mean": table.mean(0), 7: table[7],
        "film": table[tokenizer.convert_tokens_to_ids("film")],
    }[baseline]  # fmt: skip
    with torch.no_grad():
        logs = module(torch.stack([start, absent])).log_softmax(-1)[:, 2]
    assert found.unit_scores.sum() == pytest.approx(float(logs[0] - logs[1]), rel=1e-6)


# --- answers --------------------------------------------------------------------------------------


async def test_the_most_likely_label_is_the_completion_with_its_probabilities():
    module = bag()
    backend = features(module)
    async with pizza.Session(backend):
        (found,) = await answers(backend, [TEXT], top=3)
    logs = module(counts_of()).log_softmax(-1)[0].detach()
    best = int(logs.argmax())
    assert found.text == LABELS[best]
    assert found.tokens == (LABELS[best],)
    assert found.logprobs == pytest.approx([float(logs[best])], rel=1e-9)
    order = logs.argsort(descending=True)
    assert list(found.alternative_tokens[0]) == [LABELS[i] for i in order]
    assert found.alternative_logprobs[0] == pytest.approx(logs[order].numpy(), rel=1e-9)


async def test_prompts_of_different_lengths_are_scored_without_padding():
    backend, module, embedding, tokenizer = embedded()
    prompts = ["great", "this film was not terrible", "slow", "the food was great", "film food"]
    async with pizza.Session(backend):
        found = await answers(backend, prompts, "neutral")
    for prompt, completion in zip(prompts, found, strict=True):
        ids = torch.tensor(tokenizer(prompt)["input_ids"])
        logs = module(embedding(ids)[None]).log_softmax(-1)[0, 1].detach()
        assert completion.logprobs == pytest.approx([float(logs)], rel=1e-9)
        assert completion.text == "neutral"


async def test_a_prompt_without_known_words_is_the_empty_vector():
    module = bag()
    for prompt in ("banana and kiwi", "?"):
        backend = features(module)
        async with pizza.Session(backend):
            (found,) = await answers(backend, [prompt], "positive")
        logs = module(torch.zeros(1, len(WORDS)).double()).log_softmax(-1)[0, 2].detach()
        assert found.logprobs == pytest.approx([float(logs)], rel=1e-9)


@pytest.mark.parametrize("method", BLACK_BOX + INSIDE)
async def test_words_that_are_not_read_score_0_and_are_told(method):
    found = await explained(features(), method, "banana kiwi")
    assert (found.scores == 0).all()
    if method in INSIDE:
        assert any("reads no token of the units 'banana', 'kiwi'" in w for w in found.warnings)


async def test_words_are_found_in_any_case_with_apostrophes_and_signs():
    module = bag()
    backend = features(module)
    prompt = "DON'T eat the Bad, bad food!"
    async with pizza.Session(backend):
        (found,) = await answers(backend, [prompt], "negative")
        tokenizer = backend.tokenizer
        assert tokenizer.count(prompt) == 5
        spans = tokenizer.spans(prompt)
    pieces = [prompt[start:end] for start, end in spans]
    assert pieces == ["DON'T", " eat", " the", " Bad", ",", " bad", " food", "!"]
    logs = module(counts_of([4, 1, 1, 3, 5])).log_softmax(-1)[0, 0].detach()
    assert found.logprobs == pytest.approx([float(logs)], rel=1e-9)


@pytest.mark.parametrize("text", ["", "  ", " a", "a ", "!!", "né 東京 😀 don't\n"])
async def test_spans_tile_a_text(text):
    async with pizza.Session(features()) as session:
        spans = session.backend.tokenizer.spans(text)
    assert "".join(text[start:end] for start, end in spans) == text
    assert all(start < end for start, end in spans)


async def test_tokens_are_units_too():
    found = await explained(features(), "saliency", units="token")
    words = {unit.text.strip().lower() for unit in found.units}
    assert {"good", "food", "not", "slow"} <= words


async def test_a_chat_is_all_that_was_said():
    module = bag()
    chat = [{"role": "user", "content": "good food"}, {"role": "assistant", "content": "not bad"}]
    found = await explained(features(module), InputXGradient(function="logit"), chat)
    leaf = counts_of([0, 3, 2, 1]).requires_grad_(True)
    (slope,) = torch.autograd.grad(module(leaf)[0, 2], leaf)
    by_word = {word: float(slope[0, feature]) for word, feature in WORDS.items()}
    assert [unit.text for unit in found.units]
    for unit, score in zip(found.units, found.unit_scores, strict=True):
        assert score == pytest.approx(by_word[unit.text], rel=1e-9)


async def test_a_function_finds_features_that_are_no_words():
    def bigrams(text):
        at = text.find("not bad")
        return [] if at < 0 else [(at, at + 7, 1)]

    module = bag(n=2)
    backend = LocalBackend.from_features(module, bigrams, LABELS, n_features=2)
    found = await explained(
        backend, InputXGradient(function="logit"), "it is not bad", units=[(0, 5), (6, 13)]
    )
    leaf = torch.tensor([[0.0, 1.0]]).double().requires_grad_(True)
    (slope,) = torch.autograd.grad(module(leaf)[0, 2], leaf)
    assert found.unit_scores == pytest.approx([0.0, float(slope[0, 1])], rel=1e-9)


async def test_single_precision_and_a_contrast():
    target = pizza.Target.contrast("positive", "negative")
    scores = []
    for dtype in (torch.float64, torch.float32):
        async with pizza.Session(features(bag(dtype))) as session:
            found = await session.attribute(TEXT, method="integrated-gradients", target=target)
        scores.append(found.scores)
    assert oracles.apart(scores[1], scores[0]) < 1e-5


async def test_what_a_module_can_do():
    async with pizza.Session(features()) as session:
        offers = session.backend.capabilities
        assert {Capability.CLASSIFY, Capability.SCORE, Capability.GRADIENTS} <= offers
        assert Capability.TOKENIZE in offers
        assert Capability.EMBEDDINGS not in offers
        with pytest.raises(CapabilityError, match="no token embeddings"):
            _ = session.backend.token_table
    backend, _, embedding, tokenizer = embedded()
    async with pizza.Session(backend) as session:
        assert Capability.EMBEDDINGS in session.backend.capabilities
        table = session.backend.token_table
    assert table.embeddings.shape == tuple(embedding.weight.shape)
    assert table.tokens[tokenizer.convert_tokens_to_ids("film")] == "film"


async def test_its_own_answer_is_explained_when_no_label_is_given():
    module = bag()
    async with pizza.Session(features(module)) as session:
        found = await session.attribute(TEXT, method="input-x-gradient")
    best = int(module(counts_of()).argmax())
    assert found.output.text == LABELS[best]
    again = await explained(features(module), "input-x-gradient", target=LABELS[best])
    assert oracles.apart(found.scores, again.scores) < 1e-12


# --- identity and mode ----------------------------------------------------------------------------


def test_identity_tells_models_apart():
    class Squared(nn.Sequential):
        def forward(self, counts):
            return super().forward(counts * counts)

    class Plain(nn.Sequential):
        def forward(self, counts):
            return super().forward(counts + counts)

    base = features().identity
    assert features().identity == base
    others = [
        features(bag(activation=nn.Tanh())),
        features(bag(torch.float32)),
        LocalBackend.from_features(bag(), WORDS, LABELS[::-1]),
        LocalBackend.from_features(bag(), WORDS | {"good": 1, "bad": 0}, LABELS),
        features(Squared(*bag())),
        features(Plain(*bag())),
        LocalBackend.from_features(bag(), lambda text: [], LABELS, n_features=len(WORDS)),
        LocalBackend.from_features(bag(), lambda text: [], LABELS, n_features=len(WORDS)),
    ]
    assert len({base, *(backend.identity for backend in others)}) == 1 + len(others)
    assert embedded()[0].identity == embedded()[0].identity


async def test_training_mode_comes_back():
    for make in (features, None):
        if make is None:
            torch.manual_seed(1)
            tokenizer = tiny.word_tokenizer()
            module = nn.Sequential(nn.Dropout(0.5), MeanOfTokens()).double().train()
            embedding = nn.Embedding(len(tokenizer), 6).double()
            backend = LocalBackend.from_embeddings(module, embedding, tokenizer, LABELS)
        else:
            module = nn.Sequential(nn.Dropout(0.5), *bag()).train()
            backend = make(module)
        first = await explained(backend, "saliency", "good food")
        assert module.training
        assert module[0].training
        again = await explained(
            LocalBackend.from_embeddings(module, embedding, tokenizer, LABELS)
            if make is None
            else make(module),
            "saliency",
            "good food",
        )
        assert oracles.apart(again.scores, first.scores) < 1e-12


async def test_vocabularies_may_hold_numbers_of_numpy():
    counted = {word: np.int64(feature) for word, feature in WORDS.items()}
    found = await explained(LocalBackend.from_features(bag(), counted, LABELS), "saliency")
    plain = await explained(features(), "saliency")
    assert oracles.apart(found.scores, plain.scores) < 1e-12


def test_looking_at_a_module_when_it_is_opened_does_not_change_it():
    module = nn.Sequential(nn.BatchNorm1d(len(WORDS)), *bag()).double()
    module.train()
    module[0].eval()
    mean = module[0].running_mean.clone()
    from pizza_local.modules import feature_model

    feature_model(module, WORDS, LABELS, None, "module")
    assert torch.equal(module[0].running_mean, mean)
    assert module.training
    assert not module[0].training


# --- what does not fit ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vocabulary", "labels", "n_features", "message"),
    [
        (WORDS, ("only",), None, "two or more"),
        (WORDS, ("a", "a", "b"), None, "different names"),
        (WORDS, "pos", None, "two or more"),
        (WORDS, ("a", "b"), None, r"returned \(1, 3\)"),
        ({"Good": 0}, LABELS, 7, "'Good'"),
        ({"not bad": 0}, LABELS, 7, "'not bad'"),
        ({"good": 9}, LABELS, 7, "feature 9"),
        ({"good": 0}, LABELS, None, "give n_features"),
        ({}, LABELS, None, "whole number"),
        (lambda text: [], LABELS, None, "n_features is missing"),
    ],
)
def test_what_does_not_fit_is_said_when_it_is_opened(vocabulary, labels, n_features, message):
    with pytest.raises(ConfigError, match=message):
        LocalBackend.from_features(bag(), vocabulary, labels, n_features=n_features)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([(0, 99, 0)], "99"),
        ([(0, 2, 7)], "feature 7"),
        ([(0, 3, 0), (2, 4, 0)], "overlap"),
    ],
)
async def test_occurrences_that_cannot_be_are_refused(found, message):
    backend = LocalBackend.from_features(bag(), lambda text: found, LABELS, n_features=7)
    with pytest.raises(ConfigError, match=message):
        await explained(backend, "saliency", "good food")


async def test_a_module_that_returns_something_else_is_refused():
    class Pair(MeanOfTokens):
        def forward(self, points):
            return super().forward(points), points

    tokenizer = tiny.word_tokenizer()
    embedding = nn.Embedding(len(tokenizer), 6)
    for method in ("saliency", "leave-one-out"):
        backend = LocalBackend.from_embeddings(Pair(), embedding, tokenizer, LABELS)
        with pytest.raises(ConfigError, match="returned tuple"):
            await explained(backend, method, "good food")
    with pytest.raises(ConfigError, match="one model"):
        LocalBackend.from_embeddings(Pair(), nn.Embedding(3, 6), tokenizer, LABELS)


async def test_a_label_that_is_not_there_and_sampling_are_refused():
    backend = features()
    async with pizza.Session(backend) as session:
        with pytest.raises(BadRequestError, match=r"'great'; its labels are negative"):
            await session.attribute(TEXT, target=pizza.Target.label("great"))
        with pytest.raises(BadRequestError, match="temperature"):
            await session.attribute(TEXT, generation=pizza.Generation(temperature=1.0))


@pytest.mark.parametrize("baseline", ["pad", "mean", 3])
async def test_features_have_no_tokens_to_be_the_baseline(baseline):
    with pytest.raises((ConfigError, CapabilityError), match="'zero'"):
        await explained(features(), IntegratedGradients(baseline=baseline))


async def test_a_feature_may_be_absent_by_half():
    module = bag()
    method = IntegratedGradients(30, baseline=torch.tensor([[0.5]]), function="logit")
    found = await explained(features(module), method)
    with torch.no_grad():
        gap = (module(counts_of()) - module(counts_of() / 2))[0, 2]
    assert math.isclose(found.unit_scores.sum(), float(gap), rel_tol=1e-2)
