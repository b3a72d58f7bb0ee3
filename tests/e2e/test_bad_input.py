# SPDX-License-Identifier: Apache-2.0
"""What is wrong is said as a type, with what to do, before it costs anything where that can be."""

import os
import subprocess
import sys

import pytest
from support.games import WordGame

import pizza
from pizza.errors import ConfigError, ContextTooLongError

LONG = "The clock in the hall shows nine. " * 3000  # 102 kB


async def test_a_prompt_of_100_kb_is_refused_by_a_small_model_with_both_lengths():
    async with pizza.Session("embedded") as session:
        with pytest.raises(ContextTooLongError, match="shorten") as caught:
            await session.attribute(LONG)
        assert caught.value.limit is not None
        assert caught.value.got > caught.value.limit
        assert session.statistics.usage.total_tokens == 0


async def test_a_prompt_of_100_kb_is_explained_where_the_model_can_read_it():
    game = WordGame({"needle": 3.0})
    async with pizza.Session(game, discover=False) as session:
        result = await session.attribute(
            LONG + "needle " + LONG, units="sentence", method="hierarchical:chunks=8"
        )
    assert "needle" in result.top(1)[0][0].text
    assert result.calls < 100


@pytest.mark.parametrize(
    "text",
    [
        "🍕🍕 How many 👩‍👩‍👧 pizzas does Ana have?",
        "كم تفاحة لدى آنا؟ لدى آنا 3 تفاحات",
        "nul \x00 byte and \x1b[31m escape",
        "e\u0301te\u0301 combining",
        "word",
        "5",
    ],
)
@pytest.mark.parametrize("units", ["word", "token"])
async def test_any_text_can_be_explained(text, units):
    async with pizza.Session("embedded") as session:
        result = await session.attribute(text, units=units, target="5")
    assert [u.text for u in result.units] == [text[u.start : u.end] for u in result.units]
    assert result.scores.shape[1] == len(result.units) >= 1


def test_token_units_without_ranks_are_a_clear_error_and_never_a_hang(tmp_path):
    """A machine without a network: the ranks are nowhere, and nobody answers."""
    environment = {
        **os.environ,
        "TIKTOKEN_CACHE_DIR": str(tmp_path),
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "OPENAI_API_KEY": "never-sent",
    }
    model = ["--model", "openai:gpt-4o", "--base-url", "http://127.0.0.1:9/v1", "--no-cache"]
    command = [sys.executable, "-m", "pizza.cli", "attribute", "a b", "--units", "token", *model]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "TIKTOKEN_CACHE_DIR" in done.stderr
    assert "Traceback" not in done.stderr


async def test_a_model_must_be_named():
    with pytest.raises(ConfigError, match=r"backend:model|Backend object"):
        pizza.Session(None)
