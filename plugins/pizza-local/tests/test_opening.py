# SPDX-License-Identifier: Apache-2.0
"""Models are opened by name: from a folder, onto a device, in a precision, or not at all."""

import json
import logging

import numpy as np
import pytest
from support import tiny
from support.commandline import Input, Outcome, flat

import pizza
from pizza.errors import CapabilityError, ConfigError

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from pizza_local import LocalBackend  # noqa: E402

PROMPT = "Ana has 3 red apples"


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    """No hub, nobody's cache, and full precision again afterwards."""
    precision = torch.get_float32_matmul_precision()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("PIZZA_CACHE", str(tmp_path / "cache.sqlite"))
    yield
    torch.set_float32_matmul_precision(precision)


def saved(folder, model, tokenizer):
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def gpt2(tmp_path):
    return saved(tmp_path / "gpt2", tiny.gpt2(torch.float32), tiny.byte_tokenizer())


def scored(prompt, target):
    return pizza.Request(prompt=pizza.Prompt.of(prompt), kind="score", target=target)


async def opened(folder, **options):
    """What the model says, opened by name."""
    async with pizza.Session(f"local:{folder}", backend_options=options) as session:
        return await session.submit(scored(PROMPT, " red"))


@pytest.mark.parametrize(
    ("make", "tokenizer", "prompt", "target"),
    [
        (tiny.gpt2, tiny.byte_tokenizer(), PROMPT, " red"),
        (tiny.llama, tiny.byte_tokenizer(chat=True), PROMPT, " red"),
        (tiny.t5, tiny.byte_tokenizer(), PROMPT, " red"),
        (tiny.bert_classifier, tiny.word_tokenizer(), PROMPT, "neutral"),
        (tiny.bert_mlm, tiny.word_tokenizer(), "the [MASK] is red", "hat"),
    ],
)
async def test_a_saved_model_says_what_it_said_before(tmp_path, make, tokenizer, prompt, target):
    model = make(torch.float32)
    folder = saved(tmp_path / "model", model, tokenizer)
    async with pizza.Session(LocalBackend(model, tokenizer)) as session:
        own = await session.submit(scored(prompt, target))
    async with pizza.Session(f"local:{folder}") as session:
        assert session.backend.name == "local:model"
        found = await session.submit(scored(prompt, target))
    np.testing.assert_allclose(found.logprobs, own.logprobs, rtol=1e-5)
    assert found.tokens == own.tokens


async def test_weights_are_opened_in_single_precision_unless_told_otherwise(tmp_path):
    folder = saved(tmp_path / "half", tiny.gpt2(torch.float16), tiny.byte_tokenizer())
    for options, dtype in [({}, torch.float32), ({"dtype": "auto"}, torch.float16)]:
        async with pizza.Session(f"local:{folder}", backend_options=options) as session:
            assert session.backend._open.network.table.dtype == dtype


async def test_low_precision_is_opened_and_signed_scores_say_so(gpt2):
    async with pizza.Session(f"local:{gpt2}", backend_options={"dtype": "bfloat16"}) as session:
        signed = await session.attribute(PROMPT, method="input-x-gradient", target=" red pears")
        norms = await session.attribute(PROMPT, method="saliency", target=" red pears")
    assert (signed.scores < 0).any()
    assert any("bfloat16" in w and "dtype=float32" in w for w in signed.warnings)
    assert not any("bfloat16" in w for w in norms.warnings)


async def test_tf32_is_asked_for_and_signed_scores_say_so(gpt2):
    async with pizza.Session(f"local:{gpt2}", backend_options={"tf32": True}) as session:
        assert torch.get_float32_matmul_precision() == "high"
        signed = await session.attribute(PROMPT, method="input-x-gradient", target=" red pears")
    assert any("TF32" in w for w in signed.warnings)
    # Torch has one setting for the process: others go on as they were.
    assert torch.get_float32_matmul_precision() == "highest"


async def test_single_precision_is_no_warning(gpt2):
    async with pizza.Session(f"local:{gpt2}") as session:
        signed = await session.attribute(PROMPT, method="input-x-gradient", target=" red pears")
    assert (signed.scores < 0).any()
    assert signed.warnings == ()


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"devise": "cpu"}, r"no option 'devise'; it has chat, device,"),
        ({"dtype": "float8"}, r"dtype is one of float32, .*not 'float8'"),
        ({"device": "gpu"}, r"no device 'gpu': use cpu, cuda"),
        ({"device": 0}, r"'device' .* is a text, not 0"),
        ({"tf32": "no"}, r"'tf32' .* is true or false, not 'no'"),
        ({"chat": "yes"}, r"'chat' .* is true, false or left out, not 'yes'"),
        ({"chat": True}, r"has no chat template"),
        ({"quantization": "2bit"}, r"quantization is '8bit' or '4bit', not '2bit'"),
    ],
)
async def test_options_that_mean_nothing_are_refused(gpt2, options, message):
    with pytest.raises(ConfigError, match=message):
        await opened(gpt2, **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
async def test_cuda_that_is_not_there_is_a_clear_error(gpt2):
    for device in ("cuda", "cuda:1"):
        with pytest.raises(ConfigError, match=r"device='cuda.*was asked for and .*device=cpu"):
            await opened(gpt2, device=device)


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="there is an MPS device")
async def test_mps_that_is_not_there_is_a_clear_error(gpt2):
    with pytest.raises(ConfigError, match=r"'mps' was asked for .*device=cpu"):
        await opened(gpt2, device="mps")


async def test_a_server_is_not_what_local_means(gpt2):
    with pytest.raises(ConfigError, match=r"no base_url.*backend 'openai'"):
        async with pizza.Session(f"local:{gpt2}", base_url="http://127.0.0.1:1"):
            pass


@pytest.mark.parametrize("allowed", [False, True])
async def test_code_of_the_models_own_is_refused_unless_allowed(tmp_path, gpt2, allowed):
    ran = tmp_path / "ran"
    (gpt2 / "modeling_own.py").write_text(
        "from pathlib import Path\n"
        f"Path({str(ran)!r}).touch()\n"
        "from transformers import GPT2Config, GPT2LMHeadModel\n"
        "class OwnConfig(GPT2Config):\n    model_type = 'own'\n"
        "class OwnForCausalLM(GPT2LMHeadModel):\n    config_class = OwnConfig\n"
    )
    config = json.loads((gpt2 / "config.json").read_text())
    config |= {
        "model_type": "own",
        "architectures": ["OwnForCausalLM"],
        "auto_map": {
            "AutoConfig": "modeling_own.OwnConfig",
            "AutoModelForCausalLM": "modeling_own.OwnForCausalLM",
        },
    }
    (gpt2 / "config.json").write_text(json.dumps(config))
    if allowed:
        completion = await opened(gpt2, trust_remote_code=True)
        assert np.isfinite(completion.logprobs).all()
    else:
        with pytest.raises(ConfigError, match=r"code of its own.*trust_remote_code=true"):
            await opened(gpt2)
    assert ran.exists() == allowed


async def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere cannot be loaded.*Give a folder"):
        await opened(tmp_path / "nowhere")


async def test_an_empty_folder(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot be loaded.*config\.json"):
        await opened(tmp_path)


async def test_a_folder_without_weights(gpt2):
    (gpt2 / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"cannot be loaded.*model\.safetensors"):
        await opened(gpt2)


async def test_a_folder_with_damaged_weights(gpt2):
    weights = gpt2 / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ConfigError, match="cannot be loaded"):
        await opened(gpt2)


async def test_weights_that_are_missing_are_not_drawn_at_random(gpt2):
    config = json.loads((gpt2 / "config.json").read_text())
    (gpt2 / "config.json").write_text(json.dumps(config | {"n_layer": 4}))
    with pytest.raises(ConfigError, match=r"no weights for transformer\.h\.3.*random"):
        await opened(gpt2)


async def test_weights_of_another_shape(gpt2):
    config = json.loads((gpt2 / "config.json").read_text())
    (gpt2 / "config.json").write_text(json.dumps(config | {"n_embd": 64}))
    with pytest.raises(ConfigError, match="cannot be loaded"):
        await opened(gpt2)


async def test_a_folder_without_a_tokenizer(gpt2):
    for path in gpt2.glob("tokenizer*"):
        path.unlink()
    # transformers makes an empty one.
    with pytest.raises(ConfigError, match="has no vocabulary"):
        await opened(gpt2)


async def test_a_kind_that_is_not_known_names_those_that_are(tmp_path):
    torch.manual_seed(0)
    config = transformers.BertConfig(
        num_hidden_layers=1, hidden_size=16, num_attention_heads=2, intermediate_size=16,
        vocab_size=len(tiny.word_tokenizer()),
    )  # fmt: skip
    folder = saved(tmp_path / "bert", transformers.BertModel(config), tiny.word_tokenizer())
    with pytest.raises(CapabilityError, match=r"saved as BertModel.*ForCausalLM"):
        await opened(folder)


async def test_a_name_on_the_hub_without_a_network():
    with pytest.raises(ConfigError, match=r"nobody/nothing cannot be loaded"):
        await opened("nobody/nothing")


# --- the command line ---------------------------------------------------------------------------


@pytest.fixture
def pizza_command(capsys, monkeypatch):
    """Run ``pizza ...`` in this process."""
    import sys

    from pizza.cli.app import app

    def run(*arguments):
        monkeypatch.setattr(sys, "stdin", Input(b""))
        monkeypatch.setenv("COLUMNS", "200")
        capsys.readouterr()
        try:
            app([str(a) for a in arguments], standalone_mode=True)
            code = 0
        except SystemExit as finished:
            code = finished.code or 0
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


def test_the_command_line_explains_a_folder(pizza_command, gpt2):
    outcome = pizza_command(
        "attribute", "--model", f"local:{gpt2}", "--method", "saliency", "--json", PROMPT
    )
    assert outcome.code == 0, outcome.err
    assert outcome.json["provenance"]["method"]["name"] == "saliency"


@pytest.mark.parametrize("model", ["local:nobody/nothing", "local:./nowhere"])
def test_the_command_line_says_what_is_wrong_without_a_traceback(pizza_command, model):
    outcome = pizza_command("attribute", "--model", model, PROMPT)
    assert outcome.code == 2
    assert "cannot be loaded" in flat(outcome.err)
    assert "Traceback" not in outcome.err


async def test_nothing_is_said_on_anybodys_terminal(gpt2, capfd, caplog):
    with caplog.at_level(logging.WARNING):
        await opened(gpt2)
    assert not caplog.records
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "%" not in captured.err
