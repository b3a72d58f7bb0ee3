# SPDX-License-Identifier: Apache-2.0
"""Several metrics from the same answers, side by side: they need no further calls."""

import asyncio

import pizza

PROMPT = "The capital of Norland is Zarlo. The capital of Sudia is Pemba. Where is Pemba?"
METRICS = ["logprob-diff", "prob-diff", "js-divergence", "token-displacement", "exact-match"]


async def main() -> None:
    async with pizza.Session("embedded") as session:
        # "complete": every metric reads what the model writes for each changed prompt.
        attribution = await session.attribute(PROMPT, metrics=METRICS, evidence="complete")
    print(f"answer: {attribution.output.text.strip()}  ({attribution.calls} calls)\n")
    print(f"{'':12}" + "".join(f"{name:>20}" for name in attribution.metrics))
    columns = [result.scores[0] for result in attribution.results]
    for index, unit in enumerate(attribution.units):
        values = "".join(f"{column[index]:20.3f}" for column in columns)
        print(f"{unit.text:12}{values}")


if __name__ == "__main__":
    asyncio.run(main())
