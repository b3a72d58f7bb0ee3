# SPDX-License-Identifier: Apache-2.0
"""Serve: ``cd examples && python -m serve``, then open http://127.0.0.1:8000."""

from __future__ import annotations

import argparse

import uvicorn

import pizza
from serve.app import create_app
from serve.rules import Rules


def main() -> None:
    """Read the options and serve until interrupted."""
    usual = Rules()
    parser = argparse.ArgumentParser(prog="python -m serve", description="Attribution on request.")
    parser.add_argument("--model", default="embedded", help="as for pizza.Session")
    parser.add_argument("--base-url", help="the server of the model, ending in /v1")
    parser.add_argument("--cache", help="a SQLite file: answers are paid for once, ever")
    parser.add_argument("--requests-per-minute", type=float)
    parser.add_argument("--max-concurrency", type=int)
    parser.add_argument("--max-cost", type=float, help="US dollars for all requests together")
    parser.add_argument("--max-calls", type=int, default=usual.max_calls, help="per request")
    parser.add_argument("--max-active", type=int, default=usual.max_active)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()

    def open_session() -> pizza.Session:
        return pizza.Session(
            options.model,
            base_url=options.base_url,
            cache=options.cache,
            limits=pizza.Limits(
                requests_per_minute=options.requests_per_minute,
                max_concurrency=options.max_concurrency,
            ),
            budget=pizza.Budget(max_cost=options.max_cost),
        )

    rules = Rules(max_calls=options.max_calls, max_active=options.max_active)
    # Streams that are open when the server is told to stop get five seconds.
    uvicorn.run(
        create_app(open_session, rules),
        host=options.host,
        port=options.port,
        timeout_graceful_shutdown=5,
    )


if __name__ == "__main__":
    main()
