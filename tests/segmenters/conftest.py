# SPDX-License-Identifier: Apache-2.0
"""A real byte-pair tokenizer of a few merges, which needs no network."""

from __future__ import annotations

import itertools

import pytest
import tiktoken

from pizza.abc import Resources, TokenTable
from pizza.errors import CapabilityError


class SmallTokenizer:
    name = "small"

    def __init__(self) -> None:
        ranks = {bytes([value]): value for value in range(256)}
        for merge in (b"th", b"the", b" t", b" the", b"an", b" a", b"\n\n", b"  "):
            ranks[merge] = len(ranks)
        self.encoding = tiktoken.Encoding(
            "small", pat_str=r"\s?\S+|\s+", mergeable_ranks=ranks, special_tokens={}
        )

    def spans(self, text: str) -> list[tuple[int, int]]:
        sizes = [len(piece) for piece in self.encoding.decode_tokens_bytes(self._encode(text))]
        ends = set(itertools.accumulate(sizes))
        at, cuts = 0, [0]
        for number, character in enumerate(text, start=1):
            at += len(character.encode())
            if at in ends:
                cuts.append(number)
        return list(itertools.pairwise(cuts))

    def count(self, text: str) -> int:
        return len(self._encode(text))

    def _encode(self, text: str) -> list[int]:
        return self.encoding.encode(text, disallowed_special=())


def _no_table() -> TokenTable:
    raise CapabilityError("no embeddings here", needed="embeddings", backend="test")


@pytest.fixture(scope="session")
def resources() -> Resources:
    tokenizer = SmallTokenizer()
    return Resources(tokenizer=lambda: tokenizer, token_table=_no_table)
