# SPDX-License-Identifier: Apache-2.0
"""The model's own tokens."""

from __future__ import annotations

from collections.abc import Sequence

from pizza.abc import Resources, Segmenter
from pizza.prompt import Prompt, Unit
from pizza.segmenters._cutting import units_of


class TokenSegmenter(Segmenter):
    """One unit per token that is more than white space.

    Tokens are those of each message's whole text, so they are the ones that the model reads;
    fixed parts are cut away after that. The white space that a token starts or ends with is not
    part of its unit: strategies keep it. Tokens of nothing but white space belong to no unit.
    """

    def segment(self, prompt: Prompt, resources: Resources) -> Sequence[Unit]:
        """The tokens of the prompt's free parts.

        Raises:
            EncodingUnavailableError: The tokenizer's data is not on this machine.
            CapabilityError: There is no tokenizer for this model.
        """
        spans = resources.tokenizer().spans
        return units_of(prompt, spans, who="token", whole_graphemes=False)
