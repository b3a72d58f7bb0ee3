# SPDX-License-Identifier: Apache-2.0
"""The most faithful answer for 100 calls, how good it is, and more from the same answers.

python examples/budget.py
"""

import asyncio

import pizza

PROMPT = (
    "Ana has 3 red apples. Bob has 5 green pears. Ana has 3 red apples. How many apples does Ana "
    "have?"
)


async def main() -> None:
    """Explain, evaluate, compute again."""
    async with pizza.Session("embedded") as session:
        alone = await session.attribute(PROMPT)
        budgeted = await session.attribute(PROMPT, budget=100)
        print("answer:", budgeted.output.text.strip())
        # Each copy of the evidence stands in for the other: removing one at a time shows nothing.
        print("leave-one-out:", [unit.text for unit, _ in alone.top(4)])
        print("100 calls:    ", [unit.text for unit, _ in budgeted.top(4)])

        low, high = budgeted.confidence_intervals(0.9)[:, 0]
        certain = budgeted.differs_from_zero(0.9)
        for i, unit in enumerate(budgeted.units):
            if certain[i]:
                print(
                    f"{budgeted.unit_scores[i]:+.2f} ({low[i]:+.2f} to {high[i]:+.2f}) {unit.text}"
                )

        # Fresh coalitions, which neither of the two has seen.
        for name, attribution in (("leave-one-out", alone), ("100 calls", budgeted)):
            evaluation = await session.evaluate(attribution, measures=["lds"], budget=100)
            print(f"LDS of {name}: {evaluation['lds'].value:.2f}")

    # No session, no model, no call: from the answers that are kept with the result.
    again = budgeted.reanalyze(metrics="prob-diff", method="context-cite")
    print("probability:", [(u.text, round(score, 2)) for u, score in again.top(2)], again.calls)


if __name__ == "__main__":
    asyncio.run(main())
