# SPDX-License-Identifier: Apache-2.0
"""Which words made the model say that? No key, no download: the embedded model answers."""

import asyncio

import pizza

PROMPT = "Ana has 3 red apples and Bob has 5 green pears. How many pears does Bob have?"


async def main() -> None:
    async with pizza.Session("embedded") as session:
        attribution = await session.attribute(PROMPT, units="word")
        print(f"answer: {attribution.output.text.strip()}")
        for unit, score in attribution.top(3):
            print(f"{score:+7.3f}  {unit.text}")
        print(f"{attribution.calls} calls, {attribution.usage.total_tokens} tokens")

        # The same session again: what was answered is not asked again.
        again = await session.attribute(PROMPT, units="word", metrics="prob-diff")
        print(f"a second metric: {again.calls} calls, {again.cache_hits} answers remembered")


if __name__ == "__main__":
    asyncio.run(main())
