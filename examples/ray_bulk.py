# SPDX-License-Identifier: Apache-2.0
"""A file of prompts over the workers of a Ray cluster, under one rate and one cap; finished alone.

python examples/ray_bulk.py                        a cluster of this machine, on loopback
python examples/ray_bulk.py --address auto         the cluster that this machine is a node of
"""

import argparse
import asyncio
import tempfile
from pathlib import Path

from pizza_ray import RayEngine

import pizza
from pizza import bulk
from pizza.events import PartWritten

NAMES = ("Ana", "Bob", "Eva", "Tom", "Mia", "Leo")


async def main(folder: Path, address: str | None) -> None:
    """Spread the rows, until the cap ends it; do the rest in this process."""
    rows = [
        {"id": name, "prompt": f"{name} has {hats} blue hats. How many hats does {name} have?"}
        for hats, name in enumerate(NAMES, 2)
    ]
    options = {"units": "word", "generation": pizza.Generation(max_tokens=8)}

    def listen(event: object) -> None:
        if isinstance(event, PartWritten):
            print(f"  {event.name}: {event.rows} rows")

    # Two workers share 1,200 requests per minute and 50 requests in all. The directory must be on
    # a disk that all nodes share; here there is one node.
    engines: dict[int, bulk.Engine | str] = {50: RayEngine(address, workers=2), 500: "local"}
    for cap, engine in engines.items():
        summary = await bulk.run(
            rows,
            folder / "run",
            engine=engine,
            model="embedded",
            options=options,
            limits=pizza.Limits(requests_per_minute=1200),
            budget=pizza.Budget(max_calls=cap),
            on_event=listen,
        )
        spent = summary.spent.calls
        print(f"{summary.reason}: {summary.done} of {summary.rows} rows, {spent} requests in all")

    frame = bulk.to_pandas(folder / "run")
    whole = frame[frame["output_index"] == -1]
    for name, scores in whole.groupby("id"):
        best = scores.loc[scores["score"].idxmax()]
        print(f"answer: {name} because of {best['unit']!r} ({best['score']:+.2f})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--address")
    with tempfile.TemporaryDirectory() as made:
        asyncio.run(main(Path(made), parser.parse_args().address))
