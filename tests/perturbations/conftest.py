# SPDX-License-Identifier: Apache-2.0
"""A real byte-pair tokenizer without a network, and a vocabulary with embeddings."""

from __future__ import annotations

import numpy as np
import pytest
import tiktoken

from pizza.abc import Resources, TokenTable
from pizza.errors import CapabilityError, EncodingUnavailableError
from pizza.prompt import Prompt
from pizza.tokenizers import TiktokenTokenizer

WORDS = (" red", " blue", " green", " two", " three", " pear", " apple", " box")
PARTS = ("s", "es", "ing", "un", ".", "?")
OTHERS = ("<end>", " ", "\n", "\x07", "\ufffd")


def small_tokenizer() -> TiktokenTokenizer:
    """Tokens are the vocabulary's, and single bytes."""
    ranks = {bytes([value]): value for value in range(256)}
    for text in (*WORDS, *PARTS):
        data = text.encode()
        # Every prefix is a token, so that byte pairs can be merged up to the whole one.
        for stop in range(2, len(data) + 1):
            ranks.setdefault(data[:stop], len(ranks))
    encoding = tiktoken.Encoding(
        "small",
        pat_str=r" ?[a-z]+|\s+(?!\S)|\s+|[^a-z\s]",
        mergeable_ranks=ranks,
        special_tokens={},
    )
    return TiktokenTokenizer(encoding)


def _no_table() -> TokenTable:
    raise CapabilityError("no embeddings here", needed="embeddings", backend="test")


def _no_tokenizer() -> TiktokenTokenizer:
    raise EncodingUnavailableError("no ranks here.")


@pytest.fixture(scope="session")
def table() -> TokenTable:
    tokens = (*WORDS, *PARTS, *OTHERS)
    embeddings = np.random.default_rng(5).normal(size=(len(tokens), 6))
    return TokenTable(tokens=tokens, embeddings=embeddings, special=frozenset({len(tokens) - 5}))


@pytest.fixture(scope="session")
def rich(table: TokenTable) -> Resources:
    """A tokenizer and a token table."""
    tokenizer = small_tokenizer()
    return Resources(tokenizer=lambda: tokenizer, token_table=lambda: table, seed=1)


@pytest.fixture(scope="session")
def poor() -> Resources:
    """Neither."""
    return Resources(tokenizer=_no_tokenizer, token_table=_no_table, seed=1)


@pytest.fixture(scope="session")
def words():
    """Units of a prompt: its runs of letters, digits and marks between white space."""
    import re

    def cut(prompt: Prompt):
        return [
            prompt.unit(index, *match.span())
            for index, message in enumerate(prompt.messages)
            for start, end in prompt.free_spans(index)
            for match in re.compile(r"\S+").finditer(message.text, start, end)
        ]

    return cut
