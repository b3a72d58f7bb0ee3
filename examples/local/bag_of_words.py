# SPDX-License-Identifier: Apache-2.0
"""A classifier of one's own over a bag of words, trained here in a second, and why it decides so.

Needs torch: pip install -c constraints.txt ./plugins/pizza-local
"""

from __future__ import annotations

import asyncio

import torch
from pizza_local import LocalBackend

import pizza

GOOD = ("great", "lovely", "fresh", "friendly")
BAD = ("terrible", "slow", "cold", "rude")
PLAIN = ("the", "food", "was", "service", "and", "soup", "staff", "but")
VOCABULARY = {word: index for index, word in enumerate((*GOOD, *BAD, *PLAIN))}
LABELS = ("negative", "positive")
TEXT = "the soup was cold but the staff was friendly and the food was lovely"


def trained() -> torch.nn.Module:
    """A network of two layers that counts good and bad words."""
    torch.manual_seed(0)
    counts = torch.randint(0, 3, (2000, len(VOCABULARY))).float()
    good = counts[:, : len(GOOD)].sum(1)
    bad = counts[:, len(GOOD) : len(GOOD) + len(BAD)].sum(1)
    network = torch.nn.Sequential(
        torch.nn.Linear(len(VOCABULARY), 16), torch.nn.ReLU(), torch.nn.Linear(16, 2)
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(200):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(counts), (good > bad).long())
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return network.eval()


async def main() -> None:
    """Explain one text by gradients and by leaving words out."""
    backend = LocalBackend.from_features(trained(), VOCABULARY, LABELS, name="reviews")
    async with pizza.Session(backend) as session:
        for method in ("leave-one-out", "input-x-gradient", "integrated-gradients", "deep-lift"):
            attribution = await session.attribute(TEXT, method=method)
            if method == "leave-one-out":
                print("answer:", attribution.output.text)
            words = ", ".join(f"{unit.text} {score:+.2f}" for unit, score in attribution.top(3))
            print(f"{method:22} {words}")


if __name__ == "__main__":
    asyncio.run(main())
