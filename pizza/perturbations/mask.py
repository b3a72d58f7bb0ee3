# SPDX-License-Identifier: Apache-2.0
"""A mask token in the place of every token of an absent unit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pizza.abc import Resources
from pizza.errors import CapabilityError, ConfigError, EncodingUnavailableError
from pizza.perturbations._replacement import ReplacementStrategy
from pizza.perturbations._unit_tokens import pieces
from pizza.prompt import Prompt, Unit


class MaskToken(ReplacementStrategy):
    """A mask stands in for every token of an absent unit, or one for the unit.

    Args:
        token: The mask: the model's own mask token where it has one; any text.
        per: ``"token"`` (the default): one mask per model token, so the prompt keeps its length in
            tokens where the mask is one token; needs a tokenizer. ``"unit"``: one per unit.
        separator: Stands between the masks of one unit.
    """

    def __init__(
        self,
        token: str = "[MASK]",  # noqa: S107 - a token of text, not a secret
        per: Literal["token", "unit"] = "token",
        separator: str = " ",
    ) -> None:
        if per not in ("token", "unit"):
            raise ConfigError(f"per is 'token' or 'unit' in mask-token, not {per!r}.")
        self._token = token
        self._per = per
        self._separator = separator

    def replacements(
        self, prompt: Prompt, units: Sequence[Unit], resources: Resources
    ) -> Sequence[str]:
        """The masks of each unit.

        Raises:
            ConfigError: Masks per token were asked for and there is no tokenizer.
        """
        if self._per == "unit":
            return [self._token] * len(units)
        try:
            tokenizer = resources.tokenizer()
        except (CapabilityError, EncodingUnavailableError) as error:
            raise ConfigError(
                f"mask-token counts the tokens of each unit, and there is no tokenizer: {error} "
                "Or use mask-token:per=unit, which needs none."
            ) from error
        counts = [len(found) for found, _ in pieces(prompt, units, tokenizer)]
        return [self._separator.join([self._token] * max(1, count)) for count in counts]
