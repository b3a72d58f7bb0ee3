# SPDX-License-Identifier: Apache-2.0
"""Attention weights are those of transformers' plain attention, and of inseq."""

import asyncio
import warnings

import numpy as np
import pytest

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from pizza_local import LocalBackend  # noqa: E402
from pizza_local.attending.replaced import attending  # noqa: E402
from pizza_local.methods.attention import Attention  # noqa: E402
from support import attended, tiny  # noqa: E402

import pizza  # noqa: E402
from pizza.errors import CapabilityError, ConfigError  # noqa: E402


def told(case, output=None):
    """Weights ``(layers, heads, n_outputs, n_positions)`` that transformers reports."""
    with torch.no_grad():
        found = case.eager()(**case.inputs(output), output_attentions=True)
    layers = found.cross_attentions if case.split else found.attentions
    return torch.stack(layers)[:, 0][:, :, case.readers(output)]


@pytest.mark.parametrize("kind", [*attended.KINDS, "bart"])
async def test_weights_are_those_of_transformers(kind):
    case = attended.case(kind)
    found = await case.ask("attention")
    np.testing.assert_allclose(
        found.scores, case.scores(told(case).mean((0, 1))), rtol=1e-9, atol=1e-12
    )
    assert found.metric == "attention"
    details = found.provenance["method"]["details"]
    assert details["passes"]["forward_passes"] == 1
    assert details["passes"]["backward_passes"] == 0
    assert details["engine"] == "forward"


@pytest.mark.parametrize("kind", ["llama", "t5"])
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"heads": "max"}, lambda w: w.amax(1).mean(0)),
        ({"heads": 3, "layers": 1}, lambda w: w[1, 3]),
        ({"heads": -1, "layers": [0, -1]}, lambda w: (w[0, -1] + w[-1, -1]) / 2),
        ({"layers": -1}, lambda w: w[-1].mean(0)),
    ],
)
async def test_layers_and_heads_can_be_chosen(kind, options, expected):
    case = attended.case(kind)
    found = await case.ask(Attention(**options))
    np.testing.assert_allclose(
        found.scores, case.scores(expected(told(case))), rtol=1e-9, atol=1e-12
    )


async def test_weights_are_those_of_inseq():
    inseq = pytest.importorskip("inseq")
    case = attended.case("gpt2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = inseq.load_model(case.eager(), "attention", tokenizer=case.tokenizer, device="cpu")
        made = model.attribute(
            case.prompt, case.prompt + case.target, show_progress=False, pretty_progress=False
        ).sequence_attributions[0]
    assert [token.id for token in made.target] == [*case.ids, *case.output]
    # Positions, outputs, layers, heads.
    weights = made.target_attributions.nan_to_num()[: len(case.ids)].mean((-1, -2)).T
    # Inseq gives single precision.
    found = await case.ask("attention")
    np.testing.assert_allclose(found.scores, case.scores(weights), rtol=1e-6)


async def test_a_span_limits_the_whole_and_the_rows():
    case = attended.case("gpt2")
    target = pizza.Target.tokens(case.output, span=(4, len(case.target)))
    found = await case.ask("attention", target=target)
    rows = told(case).mean((0, 1))
    expected = case.scores(rows)
    kept = [bool(np.isfinite(row).all()) for row in found.scores[1:]]
    assert True in kept
    assert False in kept
    np.testing.assert_allclose(found.scores[0], expected[1:][kept].mean(0), rtol=1e-9)
    np.testing.assert_allclose(found.scores[1:][kept], expected[1:][kept], rtol=1e-9)


async def test_a_contrast_is_the_difference_of_the_means_with_a_warning():
    case = attended.case("gpt2")
    target = pizza.Target.contrast(case.target, " green")
    found = await case.ask("attention", target=target)
    other = case.tokenizer(" green", add_special_tokens=False)["input_ids"]
    own = case.scores(told(case).mean((0, 1)))
    against = case.scores(told(case, other).mean((0, 1)))
    np.testing.assert_allclose(found.scores[0], own[0] - against[0], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.scores[1:], own[1:], rtol=1e-9, atol=1e-12)
    assert any("what the model looks at" in text for text in found.warnings)


async def test_level_sequence_has_the_whole_only():
    case = attended.case("gpt2")
    found = await case.ask(Attention(level="sequence"))
    full = await case.ask(Attention())
    np.testing.assert_array_equal(found.scores[0], full.scores[0])
    assert np.isnan(found.scores[1:]).all()


async def test_words_get_the_sum_of_their_tokens():
    case = attended.case("gpt2")
    words = await case.ask("attention", units="word")
    tokens = await case.ask("attention")
    np.testing.assert_allclose(words.scores.sum(axis=1), tokens.scores.sum(axis=1), rtol=1e-9)
    assert len(words.units) < len(tokens.units)


@pytest.mark.parametrize(
    "changes", [{"scale_attn_by_inverse_layer_idx": True}, {"scale_attn_weights": False}]
)
async def test_the_scaling_options_of_gpt2_are_seen(changes):
    case = attended.case("gpt2")
    found = await case.ask("attention", tiny.gpt2(**changes))
    eager = tiny.gpt2(attn_implementation="eager", **changes)
    with torch.no_grad():
        layers = eager(**case.inputs(), output_attentions=True).attentions
    expected = torch.stack(layers)[:, 0].mean((0, 1))[case.readers()]
    np.testing.assert_allclose(found.scores, case.scores(expected), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("family", "changes"),
    [("Mistral", {"sliding_window": 3}), ("Gemma2", {"sliding_window": 4}), ("Qwen3", {})],
)
async def test_windows_and_soft_caps_are_the_familys_own(family, changes):
    case = attended.case("gpt2")
    found = await case.ask("attention", tiny.decoder(family, **changes).double())
    eager = tiny.decoder(family, attn_implementation="eager", **changes).double()
    with torch.no_grad():
        layers = eager(**case.inputs(), output_attentions=True).attentions
    expected = torch.stack(layers)[:, 0].mean((0, 1))[case.readers()]
    # These families take the softmax in single precision.
    np.testing.assert_allclose(found.scores, case.scores(expected), rtol=1e-6, atol=1e-9)


async def test_models_with_attention_of_their_own_report_their_weights():
    torch.manual_seed(0)
    config = transformers.GPTNeoConfig(
        vocab_size=384, hidden_size=32, num_layers=2, num_heads=4, max_position_embeddings=128,
        attention_types=[[["global", "local"], 1]], window_size=4, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    model = transformers.GPTNeoForCausalLM(config).eval()
    case = attended.case("gpt2")
    found = await case.ask("attention", model)
    with torch.no_grad():
        layers = model(**case.inputs(), output_attentions=True).attentions
    expected = torch.stack(layers)[:, 0].mean((0, 1))[case.readers()]
    np.testing.assert_allclose(found.scores, case.scores(expected), rtol=1e-5, atol=1e-8)
    assert found.provenance["method"]["details"]["passes"]["forward_passes"] == 2


async def test_a_classifier_that_is_a_decoder_reads_its_last_position():
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        n_layer=2, n_head=4, n_embd=32, n_positions=64, vocab_size=384, num_labels=3,
        pad_token_id=2, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    model = transformers.GPT2ForSequenceClassification(config).eval().double()
    case = attended.case("gpt2")
    found = await case.ask("attention", model, target=pizza.Target.label("LABEL_1"))
    model.config._attn_implementation = "eager"
    with torch.no_grad():
        layers = model(torch.tensor([case.ids]), output_attentions=True).attentions
    expected = torch.stack(layers)[:, 0].mean((0, 1))[-1:]
    np.testing.assert_allclose(found.scores, case.scores(expected), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", attended.KINDS)
@pytest.mark.parametrize("chosen", ["sdpa", "eager"])
async def test_the_model_is_left_as_it_was(kind, chosen):
    case = attended.case(kind)
    model = case.make(attn_implementation=chosen)
    before = case.logs(model)
    async with pizza.Session(case.open(model)) as session:
        for method in ("attention", "attention-rollout", "value-zeroing", "atman"):
            await session.attribute(case.prompt, method=method, target=case.target)
    assert torch.equal(case.logs(model), before)
    names = {
        module.config._attn_implementation
        for module in model.modules()
        if hasattr(module, "config")
    }
    assert names == {chosen}


class Failing:
    def attend(self, call):
        raise ValueError("no")


@pytest.mark.parametrize("kind", ["gpt2", "t5"])
def test_the_attention_is_put_back_after_an_exception(kind):
    case = attended.case(kind)
    model = case.make()
    before = case.logs(model)
    with pytest.raises(ValueError, match="no"), attending(model, Failing()):
        case.logs(model)
    assert torch.equal(case.logs(model), before)
    assert model.config._attn_implementation == "sdpa"


async def test_another_thread_sees_its_own_attention():
    case = attended.case("gpt2")
    model = case.make()
    expected = case.logs(case.eager())
    with attending(model, Failing()):
        # A new thread has none of this one's context.
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(None, case.logs, model)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


async def test_two_models_at_once_do_not_mix():
    first, second = attended.case("gpt2"), attended.case("llama")
    expected = [await first.ask("atman"), await second.ask("value-zeroing")]
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(first.ask("atman", chunk=1)),
            group.create_task(second.ask("value-zeroing", chunk=1)),
        ]
    for task, one in zip(tasks, expected, strict=True):
        np.testing.assert_allclose(task.result().scores, one.scores, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    "options",
    [
        {"heads": "median"},
        {"heads": True},
        {"layers": "some"},
        {"layers": []},
        {"layers": [0, "1"]},
        {"layers": 1.5},
        {"layer": 1},
        {"function": "logprob"},
        {"level": "word"},
        {"aggregation": "median"},
    ],
)
def test_options_that_mean_nothing(options):
    with pytest.raises(ConfigError):
        Attention(**options)


@pytest.mark.parametrize("options", [{"layers": 3}, {"layers": [-4]}, {"heads": 4}])
async def test_layers_and_heads_that_are_not_there(options):
    with pytest.raises(ConfigError, match="there is no"):
        await attended.case("gpt2").ask(Attention(**options))


async def test_a_plain_module_has_no_attention():
    torch.manual_seed(0)
    backend = LocalBackend.from_features(
        torch.nn.Linear(2, 2), {"good": 0, "bad": 1}, ["negative", "positive"]
    )
    async with pizza.Session(backend) as session:
        for method in ("attention", "attention-rollout", "value-zeroing", "atman"):
            with pytest.raises(CapabilityError, match="not a transformer"):
                await session.attribute("good bad", method=method)
