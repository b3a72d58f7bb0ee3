# SPDX-License-Identifier: Apache-2.0
"""The slots of a template."""

from __future__ import annotations

from collections.abc import Sequence

from pizza.abc import Resources, Segmenter
from pizza.errors import ConfigError
from pizza.prompt import Prompt, Unit
from pizza.segmenters._cutting import require_units


class SlotSegmenter(Segmenter):
    """One unit per place where a template's slot stands, labelled by the slot's name.

    A slot's value is taken as it was given, white space included. Values of nothing but white
    space give no unit. A slot that stands in two places gives two units of the same label.
    """

    def segment(self, prompt: Prompt, resources: Resources) -> Sequence[Unit]:
        """The filled slots, in order of appearance.

        Raises:
            ConfigError: The prompt has no slots, or nothing in them is free.
        """
        if not prompt.slots:
            raise ConfigError(
                "the segmenter 'slot' needs a template prompt and this prompt has no slots: make "
                "one with pizza.Prompt.template('... {name} ...', name='...'), or use another "
                "kind of unit."
            )
        units: list[Unit] = []
        for slot in prompt.slots:
            text = prompt.messages[slot.message].text
            for start, end in prompt.free_spans(slot.message):
                low, high = max(start, slot.start), min(end, slot.end)
                if low < high and not text[low:high].isspace():
                    units.append(prompt.unit(slot.message, low, high, label=slot.name))
        return require_units(units, prompt, who="slot")
