# SPDX-License-Identifier: Apache-2.0
"""What stands for an absent token in embedding space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pizza.errors import ConfigError
from pizza_local.encoding import InputToken
from pizza_local.subjects import ModuleSubject, Subject

_NAMED = ("pad", "mask", "unk", "bos", "eos")


def replacement(
    subject: Subject, start: Tensor, choice: Any, tokens: Sequence[InputToken], places: Tensor
) -> Tensor:
    """The point at which every token is absent, ``(n_positions, d)``.

    Args:
        subject: Whose positions they are.
        start: Its own point at layer 0.
        choice: As `View.baseline` takes it.
        tokens: The view's tokens; an array as ``choice`` has a row for each of them, or broadcasts.
        places: Which of these tokens are the subject's positions.

    Raises:
        ConfigError: The tokenizer has no such token, or the shape does not fit.
    """
    if isinstance(choice, str):
        if choice == "zero":
            absent = subject.absent if isinstance(subject, ModuleSubject) else None
            return torch.zeros_like(start) if absent is None else absent
        if choice == "mean" and not isinstance(subject, ModuleSubject):
            return subject.network.table.mean(dim=0).to(start).expand_as(start)
        return _embedded(subject, _token_id(subject, choice), start)
    if isinstance(choice, (int, np.integer)) and not isinstance(choice, bool):
        size = subject.network.vocabulary
        if not 0 <= choice < size:
            raise ConfigError(f"the baseline token id {choice} is not in the vocabulary of {size}.")
        return _embedded(subject, int(choice), start)
    return _given(choice, start, len(tokens), places)


def _embedded(subject: Subject, token: int, start: Tensor) -> Tensor:
    return subject.embed([token] * len(start)).to(start)


def _token_id(subject: Subject, choice: str) -> int:
    tokenizer = subject.network.tokenizer
    if tokenizer is None:
        raise ConfigError(
            f"{subject.network.name} has no tokenizer, so {choice!r} is no baseline of it: use "
            "'zero' or an array."
        )
    if choice in _NAMED:
        found = getattr(tokenizer, f"{choice}_token_id", None)
        if found is None:
            there = [n for n in _NAMED if getattr(tokenizer, f"{n}_token_id", None) is not None]
            raise ConfigError(
                f"the tokenizer of {subject.network.name} has no {choice} token to be the "
                f"baseline; there are 'zero', 'mean', {', '.join(map(repr, there))}, a token's "
                "text or id, and arrays."
            )
        return int(found)
    ids = tokenizer(choice, add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        raise ConfigError(
            f"the baseline {choice!r} is {len(ids)} tokens; it must be one of 'zero', 'mean', "
            f"{', '.join(map(repr, _NAMED))}, the text of one token, a token id, or an array."
        )
    return int(ids[0])


def _given(choice: Any, start: Tensor, n_tokens: int, places: Tensor) -> Tensor:
    try:
        values = torch.as_tensor(choice, dtype=start.dtype, device=start.device)
        whole = values.expand(n_tokens, start.shape[-1])
    except (TypeError, ValueError, RuntimeError) as error:
        shape = tuple(getattr(choice, "shape", ())) or repr(choice)
        raise ConfigError(
            f"the baseline of shape {shape} does not fit points of ({n_tokens} tokens, "
            f"{start.shape[-1]} dimensions)."
        ) from error
    return whole[places.to(whole.device)]
