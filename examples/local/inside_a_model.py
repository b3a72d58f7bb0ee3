# SPDX-License-Identifier: Apache-2.0
"""Four ways to look at one prompt of a torch model, side by side.

Needs torch: pip install -c constraints.txt ./plugins/pizza-local
"""

from __future__ import annotations

import asyncio
import pathlib

import pizza_embedded

import pizza

PROMPT = "Ana has 3 red apples and Bob has 5 green pears. How many pears does Bob have?"
METHODS = ("leave-one-out", "saliency", "integrated-gradients:baseline=mean", "value-zeroing")


async def main() -> None:
    """Explain the prompt by each method; the model is opened once."""
    folder = pathlib.Path(pizza_embedded.__file__).parent / "weights"
    async with pizza.Session(f"local:{folder}") as session:
        results = [await session.attribute(PROMPT, method=method) for method in METHODS]
    print("answer:", results[0].output.text.strip())
    for method, attribution in zip(METHODS, results, strict=True):
        best = ", ".join(unit.text for unit, _ in attribution.top(4))
        print(f"{method:36} {best}")


if __name__ == "__main__":
    asyncio.run(main())
