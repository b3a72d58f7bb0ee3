# SPDX-License-Identifier: Apache-2.0
"""Inputs and settings of bulk runs."""

import json
import os

import pytest

import pizza


@pytest.fixture(autouse=True)
def surroundings(monkeypatch):
    """No key and no server of whoever runs the tests."""
    for name in [n for n in os.environ if n.startswith(("OPENAI_", "PIZZA_"))]:
        monkeypatch.delenv(name)


@pytest.fixture
def served(model_server):
    """Keyword arguments of `pizza.bulk.run` for the model behind HTTP."""
    return {
        "model": f"openai:{model_server.model}",
        "base_url": model_server.base_url,
        "api_key": "sk-test",
        "options": {"generation": pizza.Generation(max_tokens=8)},
    }


@pytest.fixture
def prompts(tmp_path):
    """Writes a JSONL file of so many prompts and returns its path."""

    def write(n, name="prompts.jsonl", first=0):
        path = tmp_path / name
        path.write_text(
            "".join(
                json.dumps(
                    {
                        "id": f"r{i}",
                        "prompt": f"Box {i}: Eva has {i % 9 + 1} hats. How many hats has Eva?",
                        "topic": "hats",
                        "weight": i / 2,
                    }
                )
                + "\n"
                for i in range(first, first + n)
            )
        )
        return path

    return write
