# SPDX-License-Identifier: Apache-2.0
"""Explain prompts through OpenAI's Batch API: half the price, answers within 24 hours.

With ``--model`` and a key in OPENAI_API_KEY it hands real batches over, and may wait for hours. If
it is killed and started again, it goes on with the same batches. Without, it serves the embedded
model on this machine, whose batches take half a second, so that it runs with no key.
"""

import argparse
import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pizza

PROMPTS = [
    "Ana has 3 red apples and Bob has 5 green pears. How many pears does Bob have?",
    "Ana has 4 red apples and Bob has 2 green pears. How many apples does Ana have?",
]


@contextmanager
def served() -> Iterator[str]:
    """The embedded model behind HTTP, with batches; gives the base URL."""
    command = [sys.executable, "-m", "pizza_embedded", "serve", "--batches", "delay=0.5"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            # "pizza-embedded serves 'embedded' on http://127.0.0.1:PORT/v1"
            yield server.stdout.readline().split()[-1]
        finally:
            server.terminate()


async def explain(model: str, base_url: str | None, journal: Path, **pace: Any) -> None:
    """Explain the prompts; their requests go into common batches."""
    async with (
        pizza.Session(
            f"openai-batch:{model}",
            base_url=base_url,
            # By default the journal is beside the command line's response cache.
            backend_options={"journal": str(journal), **pace},
        ) as session,
        # As many prompts at once as there are: what waits together travels together.
        session.attribute_many(PROMPTS, concurrency=len(PROMPTS), evidence="complete") as outcomes,
    ):
        async for outcome in outcomes:
            if outcome.attribution is None:
                print(f"{outcome.prompt}: {outcome.error}")
                continue
            (unit, score), *_ = outcome.attribution.top(1)
            text = outcome.attribution.output.text.strip()
            print(f"answer: {text!r} because of {unit.text!r} ({score:+.3f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="e.g. gpt-4o-mini")
    options = parser.parse_args()
    if options.model:
        asyncio.run(explain(options.model, None, Path("batches.sqlite")))
        return
    pace = {"gather_s": 0.2, "poll_s": 0.1, "poll_max_s": 0.5}
    with served() as base_url, tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / "batches.sqlite"
        asyncio.run(explain("embedded", base_url, journal, **pace))
        print("once more: every answer is found in the batches of the first run")
        asyncio.run(explain("embedded", base_url, journal, **pace))


if __name__ == "__main__":
    main()
