# SPDX-License-Identifier: Apache-2.0
"""What is known of OpenAI's models by their names. Servers are believed over this table."""

from __future__ import annotations

import json
import re
from functools import cache
from importlib import resources
from typing import Any

from pizza.limits import Price

# Reasoning models give no log-probabilities and take no temperature. The "chat" variants of
# gpt-5 are ordinary models. Only names at OpenAI's own service are looked up here.
_REASONING = re.compile(r"(?:o1|o3|o4|gpt-5|codex-mini|computer-use)(?:[.\-]|$)")
_BASE = re.compile(r"(?:davinci-002|babbage-002|gpt-3\.5-turbo-instruct(?:-\d+)?)$")
_DATE = re.compile(r"-\d{4}-\d{2}-\d{2}$")


def is_reasoning(model: str) -> bool:
    """Whether the model reasons before it answers, and therefore gives no log-probabilities."""
    name = _bare(model)
    return bool(_REASONING.match(name)) and "-chat" not in name


def is_base(model: str) -> bool:
    """Whether the model is only offered by the legacy Completions endpoint."""
    return bool(_BASE.match(_bare(model)))


def price_of(model: str) -> Price | None:
    """The bundled list price, or ``None`` when it is not known for certain."""
    table = _prices()
    # Fine-tuned models ("ft:...") have prices of their own: they are not found here.
    pair = table["models"].get(model) or table["models"].get(_DATE.sub("", model))
    if pair is None:
        return None
    return Price(prompt=pair[0], completion=pair[1], source=f"{table['source']}, {table['date']}")


def _bare(model: str) -> str:
    # Fine-tuned models are "ft:gpt-4o-mini-2024-07-18:organization::id".
    return model.split(":")[1] if model.startswith("ft:") and ":" in model[3:] else model


@cache
def _prices() -> Any:
    text = resources.files("pizza_openai").joinpath("prices.json").read_text(encoding="utf-8")
    return json.loads(text)
