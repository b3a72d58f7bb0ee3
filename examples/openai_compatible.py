# SPDX-License-Identifier: Apache-2.0
"""Explain a model behind an OpenAI-compatible API.

With ``--base-url`` it talks to that server (vLLM, llama.cpp, a gateway, ...). Without, it serves
the embedded model on this machine and talks to that, so that it runs with no key.
"""

import argparse
import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pizza

PROMPT = "Ana has 3 red apples and Bob has 5 green pears. How many pears does Bob have?"


@contextmanager
def served() -> Iterator[str]:
    """The embedded model behind HTTP; gives the base URL."""
    command = [sys.executable, "-m", "pizza_embedded", "serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            # "pizza-embedded serves 'embedded' on http://127.0.0.1:PORT/v1"
            yield server.stdout.readline().split()[-1]
        finally:
            server.terminate()


async def explain(base_url: str, model: str) -> None:
    limits = pizza.Limits(requests_per_minute=6000, max_concurrency=16)
    budget = pizza.Budget(max_calls=200)
    async with pizza.Session(
        f"openai:{model}", base_url=base_url, limits=limits, budget=budget
    ) as session:
        attribution = await session.attribute(PROMPT)
        print(f"answer: {attribution.output.text.strip()}")
        for unit, score in attribution.top(3):
            print(f"{score:+7.3f}  {unit.text}")
        statistics = session.statistics
        print(f"{statistics.calls} calls, {statistics.retries} retries")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base-url")
    parser.add_argument("--model", default="embedded")
    options = parser.parse_args()
    if options.base_url:
        asyncio.run(explain(options.base_url, options.model))
        return
    with served() as base_url:
        asyncio.run(explain(base_url, options.model))


if __name__ == "__main__":
    main()
