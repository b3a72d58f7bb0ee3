# SPDX-License-Identifier: Apache-2.0
"""A real byte-pair tokenizer of a few merges, which needs no network."""

from __future__ import annotations

import pytest
import tiktoken

from pizza.abc import Resources, TokenTable
from pizza.errors import CapabilityError
from pizza.tokenizers import TiktokenTokenizer


def small_tokenizer() -> TiktokenTokenizer:
    ranks = {bytes([value]): value for value in range(256)}
    for merge in (b"th", b"the", b" t", b" the", b"an", b" a", b"\n\n", b"  "):
        ranks[merge] = len(ranks)
    encoding = tiktoken.Encoding(
        "small", pat_str=r"\s?\S+|\s+", mergeable_ranks=ranks, special_tokens={}
    )
    return TiktokenTokenizer(encoding)


def _no_table() -> TokenTable:
    raise CapabilityError("no embeddings here", needed="embeddings", backend="test")


@pytest.fixture(scope="session")
def resources() -> Resources:
    tokenizer = small_tokenizer()
    return Resources(tokenizer=lambda: tokenizer, token_table=_no_table)
