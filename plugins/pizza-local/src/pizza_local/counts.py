# SPDX-License-Identifier: Apache-2.0
"""What was computed: passes and tokens, counted where they happen."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counts:
    """Work done for one question. Owned by whoever asks; the engines add to it.

    Attributes:
        forward_passes: Times that the network was run forwards; a batch is one pass.
        backward_passes: Times that it was run backwards; a stack of cotangents is one pass.
        forward_tokens: Positions that went forwards through the network, padding included.
        backward_tokens: Positions that went backwards, once per cotangent.
    """

    forward_passes: int = 0
    backward_passes: int = 0
    forward_tokens: int = 0
    backward_tokens: int = 0

    def forward(self, tokens: int) -> None:
        """Count one pass forwards over so many positions."""
        self.forward_passes += 1
        self.forward_tokens += tokens

    def backward(self, tokens: int) -> None:
        """Count one pass backwards over so many positions."""
        self.backward_passes += 1
        self.backward_tokens += tokens

    def to_dict(self) -> dict[str, int]:
        """For the provenance."""
        return {
            "forward_passes": self.forward_passes,
            "backward_passes": self.backward_passes,
            "forward_tokens": self.forward_tokens,
            "backward_tokens": self.backward_tokens,
        }
