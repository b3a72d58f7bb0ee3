# SPDX-License-Identifier: Apache-2.0
"""What users of other systems call, as one line; and plain torch where those systems are wrong.

captum 0.9.0 and inseq 0.7.1, on the same token ids.
"""

import warnings

import numpy as np
import pytest

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")

from pizza_local import LocalBackend  # noqa: E402
from pizza_local.methods.integrated_gradients import IntegratedGradients  # noqa: E402
from support import cases, oracles, peers, tiny  # noqa: E402

import pizza  # noqa: E402

UNK = 3
DECODERS = ("gpt2", "llama")
# What captum and inseq round to single precision.
SINGLE = 1e-5


@pytest.fixture
def captum():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield pytest.importorskip("captum.attr")


def tokenizer_of(case):
    return tiny.byte_tokenizer(bos=case.kind == "llama")


def asked_captum(case, method, **options):
    skip = ["<s>"] if case.kind == "llama" else []
    output = case.targets["text"][1].reading.targets
    return case.units(
        peers.captum_decoder(
            case.model,
            tokenizer_of(case),
            case.prompt,
            output,
            method,
            baseline=UNK,
            skip=skip,
            **options,
        )
    )


# --- PIZZA: the gradient of the first k tokens that are generated ---------------------------------


@pytest.mark.parametrize("k", [1, 3])
async def test_l1_norm_of_the_gradient_over_the_first_k_generated_tokens(k):
    case = cases.make("gpt2")
    async with pizza.Session(case.open()) as session:
        found = await session.attribute(
            case.prompt,
            units="token",
            method="saliency:norm=l1",
            generation=pizza.Generation(max_tokens=k),
        )
    assert len(found.output.tokens) == k
    explained = case.targets["completion"][1]
    first = oracles.Explained(
        reading=oracles.Reading(case.model, case.ids, explained.reading.targets[:k]),
        inside=explained.inside,
    )
    spans = [(unit.start, unit.end) for unit in found.units]
    expected = oracles.to_units(oracles.saliency(first, "l1").numpy(), case.token_spans, spans)
    assert oracles.apart(found.scores, expected) <= 1e-9


async def test_probabilities_are_of_the_vocabulary_not_of_positions():
    """PIZZA takes the softmax of the logits over the positions of the sequence."""
    case = cases.make("gpt2")
    found = await case.attribute("saliency:norm=l1,function=prob")
    explained = case.targets["text"][1]
    reading = explained.reading
    right = case.units(oracles.saliency(explained, "l1", "prob").numpy())
    leaf = reading.start().requires_grad_(True)
    logits = case.model(inputs_embeds=leaf[None], use_cache=False).logits[0]
    (gradient,) = torch.autograd.grad(logits.softmax(0)[-1, reading.targets[-1]], leaf)
    over_positions = case.units(gradient.abs().sum(-1, keepdim=True).T.numpy())[0]
    assert oracles.apart(found.scores, right) <= 1e-9
    assert oracles.apart(found.scores[-1], over_positions) > 0.1


# --- Captum: layer methods on text, with tokens that are skipped ---------------------------------


@pytest.mark.parametrize("kind", DECODERS)
async def test_layer_gradient_x_activation_on_text(captum, kind):
    case = cases.make(kind)
    found = await case.attribute("input-x-gradient")
    theirs = asked_captum(case, captum.LayerGradientXActivation)
    assert oracles.apart(found.scores[1:], theirs) <= SINGLE


@pytest.mark.parametrize("kind", DECODERS)
async def test_layer_integrated_gradients_on_text(captum, kind):
    case = cases.make(kind)
    found = await case.attribute(IntegratedGradients(steps=5, baseline="unk"))
    theirs = asked_captum(case, captum.LayerIntegratedGradients, n_steps=5)
    assert oracles.apart(found.scores[1:], theirs) <= SINGLE


async def test_tokens_that_are_skipped_are_held_fixed(captum):
    case = cases.make("gpt2")
    tokenizer = tokenizer_of(case)
    skip = ["red", "\u2581", "has", " "]
    known = [text for text in skip if text in tokenizer.get_vocab()]
    ids = case.ids
    held = [place for place, index in enumerate(ids) if place in (2, 5)]
    texts = [tokenizer.convert_ids_to_tokens(ids[place]) for place in held]
    places = [place for place, index in enumerate(ids) if index in {ids[p] for p in held}]
    prompt = pizza.Prompt.of(case.prompt).fix(*(case.token_spans[place] for place in places))
    async with pizza.Session(case.open()) as session:
        found = await session.attribute(
            prompt,
            units="token",
            method=f"integrated-gradients:steps=5,baseline={UNK}",
            target=case.targets["text"][0],
        )
    from captum.attr import LLMGradientAttribution, TextTokenInput

    given = TextTokenInput(case.prompt, tokenizer, baselines=UNK, skip_tokens=texts)
    assert given.inp_tensor[0].tolist() == list(ids)
    method = captum.LayerIntegratedGradients(case.model, case.model.get_input_embeddings())
    theirs = LLMGradientAttribution(method, tokenizer).attribute(
        given, target=torch.tensor(case.targets["text"][1].reading.targets), n_steps=5
    )
    kept = [span for place, span in enumerate(case.token_spans) if place not in places]
    units = [(unit.start, unit.end) for unit in found.units]
    expected = oracles.to_units(theirs.token_attr.numpy(), kept, units)
    assert oracles.apart(found.scores[1:], expected) <= SINGLE
    assert known is not None


async def test_layer_gradient_shap_is_right_for_more_than_one_token(captum):
    """Captum's scores other tokens than asked for, and always at the all-absent prompt."""
    case = cases.make("gpt2")
    explained = case.targets["text"][1]
    found = await case.attribute(f"gradient-shap:samples=4,baselines={UNK}")
    right = oracles.gradient_shap(explained, samples=4, baseline=UNK).detach()
    assert oracles.apart(found.scores, case.units(right)) <= 1e-9
    # In expectation it is integrated gradients; captum's is not.
    many = await case.attribute(f"gradient-shap:samples=400,baselines={UNK},level=sequence")
    limit = case.units(oracles.integrated_gradients(explained, baseline=UNK).detach())
    assert oracles.apart(many.scores[0], limit[0]) < 0.25
    theirs = asked_captum(
        case, captum.LayerGradientShap, n_samples=4, baselines=torch.zeros(1, len(case.ids))
    )
    assert oracles.apart(theirs.sum(0), limit[0]) > 0.25


async def test_leave_one_out_is_that_of_captum_without_its_broken_cache(captum):
    """Captum's default feeds the whole input again on top of the cache under transformers 5."""
    from captum.attr import FeatureAblation, LLMAttribution, TextTokenInput

    case = cases.make("gpt2")
    tokenizer = tokenizer_of(case)
    output = torch.tensor(case.targets["text"][1].reading.targets)
    clean = case.again(case.prompt, output.tolist())
    with torch.no_grad():
        reference = oracles.values(clean, clean.start(), "logprob", 0)
        falls = []
        for place in range(len(case.ids)):
            ids = [*case.ids[:place], UNK, *case.ids[place + 1 :]]
            one = oracles.Reading(case.model, ids, output.tolist())
            falls.append(reference - oracles.values(one, one.start(), "logprob", 0))
    right = torch.stack(falls, dim=1)
    given = TextTokenInput(case.prompt, tokenizer, baselines=UNK)
    attribution = LLMAttribution(FeatureAblation(case.model), tokenizer)
    by_sequence = attribution.attribute(given, target=output, forward_in_tokens=False).token_attr
    default = attribution.attribute(given, target=output).token_attr
    assert oracles.apart(by_sequence, right) <= SINGLE
    assert oracles.apart(default, right) > 0.1
    # The same through pizza, word by word, each of which is put by another word.
    found = await case.attribute("leave-one-out", perturbation="fixed:text=the")
    assert oracles.apart(found.scores, case.leave_one_out("text", "the")) <= 1e-9


# --- TrustyAI: integrated gradients of classifiers and of fillers of masks ------------------------


@pytest.mark.parametrize("kind", ["bert-classifier", "bert-mlm"])
async def test_integrated_gradients_of_auto_models_with_baseline_and_steps(captum, kind):
    case = cases.make(kind)
    explained = case.targets["text"][1]
    async with pizza.Session(case.open()) as session:
        found = await session.attribute(
            case.prompt,
            method="integrated-gradients:baseline=pad,steps=6",
            target=case.targets["text"][0],
            units=list(case.words),
        )
    raw = peers.captum_encoder(
        explained.reading, captum.IntegratedGradients, explained.baseline(0), n_steps=6
    )
    assert oracles.apart(found.scores[1:], case.units(raw.sum(-1).numpy())) <= SINGLE
    right = oracles.integrated_gradients(explained, steps=6, baseline=0).detach()
    assert oracles.apart(found.scores, case.units(right)) <= 1e-9


@pytest.mark.parametrize("kind", ["bert-classifier", "bert-mlm"])
async def test_steps_and_baseline_are_used(kind):
    """TrustyAI ignores both."""
    case = cases.make(kind)
    errors, scores = [], []
    async with pizza.Session(case.open()) as session:
        for options in ("steps=1", "steps=4", "steps=64", "steps=64,baseline=mask"):
            found = await case.ask(session, f"integrated-gradients:{options}")
            details = found.provenance["method"]["details"]
            errors.append(abs(details["completeness_error"][0]))
            scores.append(found.scores)
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-6
    assert oracles.apart(scores[0], scores[2]) > 0.01
    assert oracles.apart(scores[3], scores[2]) > 0.1


@pytest.mark.parametrize("kind", ["bert-classifier", "bert-mlm"])
async def test_classic_saliency_and_input_x_gradient(captum, kind):
    case = cases.make(kind)
    reading = case.targets["text"][1].reading
    async with pizza.Session(case.open()) as session:
        saliency = await case.ask(session, "saliency:norm=l1")
        times_input = await case.ask(session, "input-x-gradient")
    raw = peers.captum_encoder(reading, captum.Saliency)
    assert oracles.apart(saliency.scores[1:], case.units(raw.sum(-1).numpy())) <= 1e-9
    raw = peers.captum_encoder(reading, captum.InputXGradient)
    assert oracles.apart(times_input.scores[1:], case.units(raw.sum(-1).numpy())) <= 1e-9


async def test_classic_methods_on_a_bag_of_words(captum):
    case = cases.make("bag-of-words")
    bag = case.targets["text"][1].reading
    counts = torch.zeros(1, len(cases.WORDS), dtype=torch.float64)
    for feature in bag.features:
        counts[0, feature] += 1

    def forward(features):
        return case.model(features).log_softmax(-1)

    theirs = captum.IntegratedGradients(forward).attribute(counts, target=2, n_steps=5)
    found = await case.attribute("integrated-gradients:steps=5")
    # A feature's score is that of its occurrences together.
    by_feature = np.zeros(len(cases.WORDS))
    for unit, score in zip(found.units, found.scores[1], strict=True):
        word = unit.text.lower().strip(",.")
        if word in cases.WORDS:
            by_feature[cases.WORDS[word]] += score
    assert oracles.apart(by_feature, theirs[0].detach()) <= SINGLE


# --- Inseq: gradients of the probability, and batches --------------------------------------------


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", DECODERS)
@pytest.mark.parametrize(
    ("theirs", "ours", "how"),
    [
        ("saliency", "saliency:function=prob", "norm"),
        ("input_x_gradient", "input-x-gradient:function=prob", "sum"),
    ],
)
async def test_gradients_are_those_of_inseq_which_differentiates_probabilities(
    kind, theirs, ours, how
):
    pytest.importorskip("inseq")
    case = cases.make(kind)
    output = case.targets["text"][1].reading.targets
    raw = peers.inseq_decoder(case.model, tokenizer_of(case), case.prompt, output, theirs)
    found = await case.attribute(ours)
    norm = "l2" if how == "norm" else "sum"
    expected = case.units(oracles.reduced(raw, norm).numpy(), how)
    assert oracles.apart(found.scores[1:], expected) <= SINGLE


@pytest.mark.filterwarnings("ignore")
async def test_integrated_gradients_of_the_first_token_are_those_of_inseq():
    """Later ones are not: inseq replaces the output's own tokens by the baseline, too."""
    pytest.importorskip("inseq")
    case = cases.make("gpt2")
    output = case.targets["text"][1].reading.targets
    raw = peers.inseq_decoder(
        case.model, tokenizer_of(case), case.prompt, output, "integrated_gradients", n_steps=20
    )
    found = await case.attribute(IntegratedGradients(steps=20, baseline="unk", function="prob"))
    expected = case.units(raw.sum(-1).numpy())
    assert oracles.apart(found.scores[1], expected[0]) <= SINGLE


async def test_scores_do_not_depend_on_who_else_is_in_the_batch():
    """Inseq pads GPT-2's batches on the left and gives no position ids."""
    model, tokenizer = tiny.gpt2(), tiny.byte_tokenizer()
    texts = ["Ana", "Ana has 3 red apples and Bob has 5 green pears", "Bob has 5 pears"]
    target = pizza.Target.given(" Bob")
    alone, together, written = {}, {}, {}
    for text in texts:
        async with pizza.Session(LocalBackend(model, tokenizer)) as session:
            alone[text] = await session.attribute(text, target=target, units="token")
            written[text] = await session.attribute(
                text, method="saliency", generation=pizza.Generation(max_tokens=4)
            )
    async with pizza.Session(LocalBackend(model, tokenizer)) as session:
        async with session.attribute_many(texts, target=target, units="token") as outcomes:
            async for outcome in outcomes:
                together[outcome.prompt] = outcome.attribution
        async with session.attribute_many(
            texts, method="saliency", generation=pizza.Generation(max_tokens=4)
        ) as outcomes:
            async for outcome in outcomes:
                expected = written[outcome.prompt]
                assert outcome.attribution.output.token_ids == expected.output.token_ids
                assert oracles.apart(outcome.attribution.scores, expected.scores) <= 1e-9
    for text in texts:
        assert oracles.apart(together[text].scores, alone[text].scores) <= 1e-9
    # That padding on the left is wrong without position ids, and that it matters here:
    ids = tokenizer(texts[0])["input_ids"]
    with torch.no_grad():
        right = model(torch.tensor([ids])).logits[0, -1]
        mask = torch.tensor([[0] * 8 + [1] * len(ids)])
        shifted = model(torch.tensor([[2] * 8 + ids]), attention_mask=mask).logits[0, -1]
    assert oracles.apart(shifted, right) > 0.01
