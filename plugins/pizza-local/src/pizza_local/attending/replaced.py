# SPDX-License-Identifier: Apache-2.0
"""Putting oneself between the layers of a model and their attention, for the time of one call.

A model of transformers asks a registry for its attention function, by the name in its config. For
one call the name is changed to ours, which hands every layer's request to a handler. The arithmetic
stays the model family's own: the function that it calls "eager", with whatever it knows of soft
caps, sinks, position biases and shared heads.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from pizza.errors import CapabilityError
from pizza_local.attention import attention_by

_NAME = "pizza-local-attending"

Role = Literal["input", "output", "cross"]
"""Who attends to whom. ``"input"``: what a method scores to itself, in an encoder or in a model
that is only a decoder. ``"output"``: the decoder of an encoder-decoder to itself. ``"cross"``: that
decoder to the input."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Call:
    """What a layer asks of its attention.

    Attributes:
        module: The layer's attention.
        role: Who attends to whom.
        query: ``(b, heads, q, d)``.
        key: ``(b, key-value heads, k, d)``.
        value: ``(b, key-value heads, k, d')``.
        mask: What is added to the scores, broadcasts to ``(b, heads, q, k)``; ``None`` = nothing.
        options: What else the layer passes: scaling, soft cap, ...
    """

    module: nn.Module
    role: Role
    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    options: Mapping[str, Any]

    def run(self, *, value: Tensor | None = None, bias: Tensor | None = None) -> Attended:
        """Attend.

        Args:
            value: Values to use instead of the layer's.
            bias: What is added to the scores besides the mask.
        """
        mask = self.mask
        if bias is not None:
            mask = bias if mask is None else mask + bias
        family = _family(self.module)
        found: Attended = family(
            self.module,
            self.query,
            self.key,
            self.value if value is None else value,
            mask,
            **self.options,
        )
        return found


Attended = tuple[Tensor, Tensor]
"""What leaves the attention ``(b, q, heads, d')``, and its weights ``(b, heads, q, k)``."""


class Handler(Protocol):
    """Answers the layers. Made for one call of one model."""

    def attend(self, call: Call) -> Attended:
        """One layer's attention; the layers come in the order in which they run."""
        ...


class UnknownAttentionError(CapabilityError):
    """The model's attention cannot be looked at or changed."""

    def __init__(self, what: str, who: str) -> None:
        super().__init__(
            f"{what} Attribute with saliency, integrated-gradients or leave-one-out, which need "
            "nothing of the attention.",
            needed="gradients",
            backend=who,
            alternatives=("saliency", "integrated-gradients", "leave-one-out"),
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Running:
    """A call that is under way.

    Attributes:
        handler: Answers its layers.
        encoder: Ids of the encoder's modules; ``None`` where the model is not two.
    """

    handler: Handler
    encoder: frozenset[int] | None

    def role(self, module: nn.Module) -> Role:
        """Who attends to whom in an attention module."""
        if self.encoder is None or id(module) in self.encoder:
            return "input"
        # Only what attends within one sequence has an order that hides the future.
        return "output" if getattr(module, "is_causal", False) else "cross"


# A variable of the context and not of the module: calls on other threads have their own.
_running: ContextVar[_Running | None] = ContextVar("pizza_local_attending", default=None)


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> Attended:
    running = _running.get()
    call = Call(
        module=module,
        role="input" if running is None else running.role(module),
        query=query,
        key=key,
        value=value,
        mask=attention_mask,
        options=options,
    )
    # Another thread that uses the model meanwhile gets the attention that it would have had.
    return call.run() if running is None else running.handler.attend(call)


AttentionInterface.register(_NAME, _attention)
AttentionMaskInterface.register(_NAME, eager_mask)


def _family(module: nn.Module) -> Any:
    """The plain attention function of the file of transformers that a module is defined in."""
    for kind in type(module).__mro__:
        found = getattr(sys.modules.get(kind.__module__), "eager_attention_forward", None)
        if found is not None:
            return found
    who = type(module).__name__
    raise UnknownAttentionError(f"{who} has no attention function that pizza can call.", who)


@contextmanager
def attending(model: Any, handler: Handler) -> Iterator[None]:
    """Let a handler answer the layers of a model, inside of the block only.

    A model whose layers do not ask the registry runs as if nothing had been done.
    """
    encoder = None
    if getattr(model.config, "is_encoder_decoder", False):
        encoder = frozenset(id(module) for module in model.get_encoder().modules())
    token = _running.set(_Running(handler, encoder))
    try:
        with attention_by(_NAME, model):
            yield
    finally:
        _running.reset(token)
