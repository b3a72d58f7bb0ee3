# SPDX-License-Identifier: Apache-2.0
"""A file of prompts, under a cap, interrupted by the cap and finished later.

python examples/bulk.py
"""

import asyncio
import json
import tempfile
from pathlib import Path

import pizza
from pizza import bulk
from pizza.events import RowFinished

NAMES = ("Ana", "Bob", "Eva", "Tom")


def write_prompts(path: Path) -> None:
    """One JSON object per line: an id, a prompt, and columns of one's own."""
    with path.open("w", encoding="utf-8") as file:
        for number, name in enumerate(NAMES):
            prompt = f"{name} has {number + 2} blue hats. How many hats does {name} have?"
            file.write(json.dumps({"id": name, "prompt": prompt, "hats": number + 2}) + "\n")


async def main(folder: Path) -> None:
    """Estimate, run, run again, look."""
    prompts, run = folder / "prompts.jsonl", folder / "run"
    write_prompts(prompts)
    options = {"units": "word", "generation": pizza.Generation(max_tokens=8)}

    (plan,) = await bulk.estimate(prompts, model="embedded", options=options)
    print(f"estimated: {plan.requests} requests, {plan.prompt_tokens} tokens of prompts")

    def listen(event: object) -> None:
        if isinstance(event, RowFinished):
            print(f"  {event.id}: {event.calls} sent, {event.cache_hits} known")

    # The cap ends the first run early; the second one, with more, pays only for the rest.
    for cap in (plan.requests // 2, plan.requests * 2):
        summary = await bulk.run(
            prompts,
            run,
            model="embedded",
            options=options,
            budget=pizza.Budget(max_calls=cap),
            workers=1,
            on_event=listen,
        )
        spent = summary.spent.calls
        print(f"{summary.reason}: {summary.done} of {summary.rows} rows, {spent} requests in all")

    frame = bulk.to_pandas(run)
    whole = frame[frame["output_index"] == -1]
    for name, scores in whole.groupby("id"):
        best = scores.loc[scores["score"].idxmax()]
        print(
            f"answer: {name} because of {best['unit']!r} ({best['score']:+.2f}), hats", best["hats"]
        )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        asyncio.run(main(Path(made)))
