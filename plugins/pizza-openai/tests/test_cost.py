# SPDX-License-Identifier: Apache-2.0
"""Counting tokens before they are sent, and what they cost."""

import json
from importlib import resources

import pytest
import tiktoken
from support.ranks import ranks_folder

from pizza import tokenizers
from pizza.capability import Capability
from pizza.errors import CapabilityError, EncodingUnavailableError
from pizza.limits import Price

OPENAI = "https://api.openai.com/v1"


@pytest.fixture
def ranks(monkeypatch):
    folder = ranks_folder()
    if folder is None:
        pytest.skip("tiktoken's ranks can neither be found nor downloaded")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(folder))


@pytest.fixture
def no_ranks(monkeypatch, tmp_path):
    for name in ("_loaded", "_failed"):
        monkeypatch.setattr(tokenizers, name, {})
    monkeypatch.setattr(tiktoken.registry, "ENCODINGS", {})
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))

    def fetch(*_):
        raise OSError("no network")

    monkeypatch.setattr(tiktoken.load, "read_file", fetch)


async def test_messages_are_counted_with_their_frames(backend, ask, ranks):
    messages = [
        {"role": "system", "content": "hello world"},
        {"role": "user", "content": "hello"},
    ]
    async with backend("gpt-4o-mini", base_url=OPENAI) as opened:
        assert opened.count_tokens(ask(messages)) == (4 + 2) + (4 + 1) + 3
        assert opened.count_tokens(ask(messages, target="hello world")) == 14 + 4 + 2
    async with backend("gpt-4o-mini", api="completions") as opened:
        assert opened.count_tokens(ask("hello world")) == 2


async def test_without_ranks_the_count_is_an_estimate(backend, ask, no_ranks):
    async with backend("gpt-4o-mini", base_url=OPENAI) as opened:
        assert opened.count_tokens(ask("hello world")) in range(9, 14)
        assert Capability.TOKENIZE not in opened.capabilities
        assert Capability.TOKENIZE in opened.uncertain


TOKENIZE = frozenset({Capability.TOKENIZE})


async def test_the_tokenizer_is_probed_without_a_request(backend, no_ranks):
    async with backend("gpt-4o-mini", base_url=OPENAI) as opened:
        assert await opened.probe(None, TOKENIZE) == frozenset()
        with pytest.raises(EncodingUnavailableError, match="TIKTOKEN_CACHE_DIR"):
            _ = opened.tokenizer


async def test_the_tokenizer_is_tiktokens(backend, ranks):
    async with backend("gpt-4", base_url=OPENAI) as opened:
        assert Capability.TOKENIZE in opened.capabilities
        assert opened.tokenizer.name == "cl100k_base"


async def test_models_of_others_have_no_known_tokenizer(backend):
    async with backend("llama-3-8b") as opened:
        assert Capability.TOKENIZE not in opened.capabilities | opened.uncertain
        with pytest.raises(CapabilityError, match="tokenize"):
            _ = opened.tokenizer


# --- prices ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "prompt", "completion"),
    [
        ("gpt-4o-mini", 0.15, 0.60),
        ("gpt-4o-mini-2024-07-18", 0.15, 0.60),
        ("gpt-4o-2024-05-13", 5.0, 15.0),
        ("gpt-4.1-nano", 0.10, 0.40),
    ],
)
async def test_openais_prices(backend, model, prompt, completion):
    async with backend(model, base_url=OPENAI) as opened:
        assert (opened.price.prompt, opened.price.completion) == (prompt, completion)
        assert "openai.com" in opened.price.source
        assert "20" in opened.price.source  # the year that it was read


@pytest.mark.parametrize("model", ["gpt-4o-minimal", "gpt-99", "ft:gpt-4o-mini:org::id"])
async def test_an_unknown_price_is_none(backend, model):
    async with backend(model, base_url=OPENAI) as opened:
        assert opened.price is None


async def test_other_servers_have_no_known_price(backend):
    async with backend("gpt-4o-mini") as opened:
        assert opened.price is None


@pytest.mark.parametrize(
    "given", [Price(prompt=1, completion=2), (1, 2), "1/2", [1.0, 2.0]], ids=repr
)
async def test_a_price_can_be_given(backend, given):
    async with backend(price=given) as opened:
        assert opened.price.cost(1_000_000, 1_000_000) == 3.0


def test_the_price_list_says_where_and_when():
    table = json.loads(resources.files("pizza_openai").joinpath("prices.json").read_text())
    assert table["source"].startswith("https://")
    assert table["date"]
    assert all(len(pair) == 2 and min(pair) > 0 for pair in table["models"].values())
