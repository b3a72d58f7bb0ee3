# SPDX-License-Identifier: Apache-2.0
"""Starting weights that can already copy.

From random weights a small network spends most of its training finding out how to look up what
followed an earlier occurrence of a word. Here that circuit is written into the starting weights
(everything stays trainable): heads of the first layer look one token back and note which token
that was; heads of the second layer look for a note that matches the current token, and repeat the
token found there (Olsson et al., 2022, call these induction heads).
"""

from __future__ import annotations

import torch
from model import Network
from torch import Tensor

PREVIOUS_HEADS = 5
# Standard deviation of an embedding's entries, and how large its constant part is beside it.
EMBEDDING = 0.1
CONSTANT = 0.5
# Attention scores of the token one back, and of a token whose note matches.
LOOK_BACK = 40.0
MATCH = 20.0
# Size of what is copied, in embeddings.
COPY = 8.0
# Positions over which a slow rotary frequency counts as standing still.
REACH = 60.0


def orthonormal(size: int) -> Tensor:
    """Return a random orthonormal matrix ``(size, size)``."""
    return torch.linalg.qr(torch.randn(size, size))[0].T.contiguous()


@torch.no_grad()
def start(network: Network) -> None:
    """Set the weights of a network in place, drawing from torch's global generator."""
    width, head = network.config["hidden_size"], network.config["head_dim"]
    half = head // 2
    rates = network.config["rope_theta"] ** (-torch.arange(half).float() / half)
    for matrix in network.matrices():
        matrix.normal_(0, 0.02)
    constant = torch.randn(width)
    constant /= constant.norm()

    def besides(rows: Tensor) -> Tensor:
        return rows - (rows @ constant)[:, None] * constant

    content = besides(torch.randn_like(network.embed)) * EMBEDDING
    network.embed.copy_(content + constant * CONSTANT * EMBEDDING * width**0.5)
    reading, notes = besides(orthonormal(width)), besides(orthonormal(width))

    first = network.layers[0]
    share = CONSTANT / (1 + CONSTANT**2) ** 0.5 * width**0.5
    fast = torch.zeros(half)
    fast[:3] = 1.0
    scale = (LOOK_BACK * head**0.5 / 3) ** 0.5 / share
    for index in range(network.heads):
        rows = slice(index * head, (index + 1) * head)
        # The constant part of the query, turned by as many positions as the head looks back.
        back = max(1, index - PREVIOUS_HEADS + 2)
        query = torch.cat([fast, torch.zeros(half)])
        key = torch.cat([fast * (rates * back).cos(), fast * (rates * back).sin()])
        first["self_attn/q_proj"][rows] = scale * query[:, None] * constant
        first["self_attn/k_proj"][rows] = scale * key[:, None] * constant
        first["self_attn/v_proj"][rows] = reading[rows]
        first["self_attn/o_proj"][:, rows] = notes[rows].T * EMBEDDING

    second = network.layers[1]
    # Squared lengths, in embeddings: the token, its constant part, the note.
    noted = PREVIOUS_HEADS * head / width / (1 + CONSTANT**2)
    total = (1 + CONSTANT**2 + noted) ** 0.5
    own, note = width**0.5 / total, width**0.5 / total / (1 + CONSTANT**2) ** 0.5
    slow = torch.nonzero(rates * REACH < 1.0)[:, 0]
    slow = torch.cat([slow, slow + half])
    scale = (MATCH * head**0.5 / (own * note * len(slow) / width)) ** 0.5
    for index in range(PREVIOUS_HEADS):
        rows = slice(index * head, (index + 1) * head)
        second["self_attn/q_proj"][index * head + slow] = scale * reading[rows][slow]
        second["self_attn/k_proj"][index * head + slow] = scale * notes[rows][slow]
        second["self_attn/v_proj"][rows] = reading[rows]
        second["self_attn/o_proj"][:, rows] = reading[rows].T * EMBEDDING * COPY
