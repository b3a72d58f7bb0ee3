# SPDX-License-Identifier: Apache-2.0
"""Whole messages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pizza.abc import Resources, Segmenter
from pizza.prompt import Prompt, Unit
from pizza.segmenters._cutting import require_units, trim


class MessageSegmenter(Segmenter):
    """One unit per message, labelled by its role (numbered when a role speaks more than once).

    A fixed part in the middle of a message cuts it into parts: a unit is one span.
    """

    def segment(self, prompt: Prompt, resources: Resources) -> Sequence[Unit]:
        """The prompt's messages, as far as they are free."""
        units: list[Unit] = []
        for index, name in enumerate(_names(prompt)):
            text = prompt.messages[index].text
            spans = [trim(text, start, end) for start, end in prompt.free_spans(index)]
            spans = [(start, end) for start, end in spans if start < end]
            for part, (start, end) in enumerate(spans, start=1):
                label = name if len(spans) == 1 else f"{name} (part {part})"
                units.append(prompt.unit(index, start, end, label=label))
        return require_units(units, prompt, who="message")


def _names(prompt: Prompt) -> list[str]:
    roles = [message.role for message in prompt.messages]
    often = Counter(roles)
    seen: Counter[str] = Counter()
    names = []
    for role in roles:
        seen[role] += 1
        names.append(role if often[role] == 1 else f"{role} {seen[role]}")
    return names
