# SPDX-License-Identifier: Apache-2.0
"""Completions made by hand, and a vocabulary with embeddings."""

from __future__ import annotations

import numpy as np
import pytest

from pizza.abc import TokenTable
from pizza.completion import Completion, pack_alternatives

TOKENS = ("a", "b", "c", " d", " e", "é", "\ufffd", "🍐")


def make(*rows, finish="stop", bare=False):
    """A completion from ``(token, {alternative: probability, ...})`` rows.

    The token's own log-probability is the one in its row (1e-4 when it is not listed).
    """
    texts, values = pack_alternatives(
        [[(token, float(np.log(p))) for token, p in listed.items()] for _, listed in rows]
    )
    own = [float(np.log(listed.get(token, 1e-4))) for token, listed in rows]
    return Completion(
        text="".join(token for token, _ in rows),
        tokens=tuple(token for token, _ in rows),
        logprobs=np.array(own),
        alternative_tokens=None if bare else texts,
        alternative_logprobs=None if bare else values,
        finish_reason=finish,
    )


@pytest.fixture(scope="session", name="make")
def make_fixture():
    return make


@pytest.fixture(scope="session")
def table() -> TokenTable:
    embeddings = np.random.default_rng(2).normal(size=(len(TOKENS) + 1, 5))
    return TokenTable(tokens=(*TOKENS, "<end>"), embeddings=embeddings, special=frozenset({8}))
