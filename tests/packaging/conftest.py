# SPDX-License-Identifier: Apache-2.0
"""Surroundings in which the documentation's commands and programs run."""

import os
import sys
from pathlib import Path

import pizza_embedded
import pytest
from support.server import served_model

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def server():
    """The embedded model under the names that the documentation uses, with a key."""
    with served_model(model_name="gpt-4o-mini") as running:
        yield running


@pytest.fixture
def reader(tmp_path, monkeypatch, server):
    """An empty folder, and variables as somebody has them who follows the documentation."""
    monkeypatch.chdir(tmp_path)
    for name in [n for n in os.environ if n.startswith(("OPENAI_", "PIZZA_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-a-key")
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    monkeypatch.setenv("PIZZA_CACHE", str(tmp_path / "responses.sqlite"))
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent) + os.pathsep + os.environ["PATH"])
    (tmp_path / "prompt.txt").write_text("Eva has 4 hats. How many hats does Eva have?\n")
    (tmp_path / "chat.json").write_text(
        '[{"role": "system", "content": "Be brief."},'
        ' {"role": "user", "content": "Eva has 4 hats. How many hats does Eva have?"}]'
    )
    (tmp_path / "prompts.jsonl").write_text(
        '{"id": "a", "prompt": "Eva has 4 hats. How many hats does Eva have?", "topic": "hats"}\n'
        '{"id": "b", "prompt": "The mug is red. What color is the mug?", "topic": "mugs"}\n'
    )
    weights = Path(pizza_embedded.__file__).parent / "weights"
    (tmp_path / "my-model").symlink_to(weights, target_is_directory=True)
    return tmp_path
