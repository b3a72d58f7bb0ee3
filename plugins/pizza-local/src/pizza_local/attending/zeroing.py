# SPDX-License-Identifier: Apache-2.0
"""How much each layer's states change when a token's value vector is zero."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pizza_local.attending.places import mixing, row_bytes
from pizza_local.attending.replaced import (
    Attended,
    Call,
    Role,
    UnknownAttentionError,
    attending,
)
from pizza_local.subjects import Subject
from pizza_local.view import View

_MOST = 64
_POSITIONS = 4096


class _Zero:
    """Attends as the model does, without the values of one token in each row of the batch.

    Args:
        role: The attention that is changed.
        tokens: The token of each row, ``(b,)``; ``None`` = all values stay.
    """

    def __init__(self, role: Role, tokens: Tensor | None) -> None:
        self._role, self._tokens = role, tokens
        self.seen: set[int] = set()

    def attend(self, call: Call) -> Attended:
        if call.role != self._role:
            return call.run()
        self.seen.add(id(call.module))
        if self._tokens is None:
            return call.run()
        tokens = self._tokens.to(call.value.device)
        value = call.value.clone()
        value[torch.arange(len(tokens), device=value.device), :, tokens] = 0
        return call.run(value=value)


def changes(view: View, subject: Subject, at: Tensor) -> Tensor:
    """How far states move when a token's value vector is zero in one layer.

    For layer l, position q and token j the distance is ``1 - cos(h, h')``, h being what leaves
    block l at q, and h' the same from the same (clean) input of the block with ``V_j = 0`` in all
    heads. After the last block the states are those after the model's final norm.

    Args:
        view: Counts passes, sizes batches.
        subject: The input.
        at: Positions q that are wanted.

    Returns:
        ``(n_layers, len(at), n_positions)``, in single precision at least. In an encoder-decoder
        the layers are the decoder's, the positions q too, and the values its cross-attention's.

    Raises:
        UnknownAttentionError: The model's layers or their values cannot be reached.

    Cost: one forward, and a forward of each token of the input, in batches. One pass serves all
    layers, because clean states are put back after each.
    """
    role, blocks, holder = mixing(subject)
    tape = _Tape(blocks, holder, at)
    start = subject.start()
    handler = _Zero(role, None)
    with torch.no_grad(), attending(subject.network.model, handler), tape.recording():
        view.counts.forward(subject.length)
        subject.call(start.unsqueeze(0))
    tape.check(subject.network.name, len(handler.seen))

    def work(chunk: slice) -> Tensor:
        tokens = torch.arange(chunk.start, chunk.stop, device=start.device)
        points = start.expand(len(tokens), -1, -1)
        handler = _Zero(role, tokens)
        with torch.no_grad(), attending(subject.network.model, handler):
            view.counts.forward(len(tokens) * subject.length)
            with tape.comparing() as found:
                subject.call(points)
        return torch.stack([one.cpu() for one in found], dim=0)

    n = len(start)
    most = max(1, min(_MOST, _POSITIONS // subject.length))
    parts = view.chunks.run(
        ("value-zeroing", subject.length), n, row_bytes(subject), most, work, view.stop
    )
    return torch.cat([part for _, part in parts], dim=1).transpose(1, 2)


class _Tape:
    """The clean states after every layer, and how far other states are from them.

    Args:
        blocks: The layers.
        holder: The module whose output has the states after the last of them.
        at: Positions that are compared.
    """

    def __init__(self, blocks: tuple[nn.Module, ...], holder: nn.Module, at: Tensor) -> None:
        self._blocks, self._holder, self._at = blocks, holder, at
        self._clean: list[Tensor] = []

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Keep the states of a call of one row."""
        with self._hooked(lambda _, state: self._clean.append(state)):
            yield

    @contextmanager
    def comparing(self) -> Iterator[list[Tensor]]:
        """Fill a list with each layer's distances ``(b, len(at))`` in a call of b rows.

        Every layer but the last hands on the clean states.
        """
        found: list[Tensor] = []

        def compare(layer: int, state: Tensor) -> Tensor:
            clean = self._clean[layer].to(state.device)
            at = self._at.to(state.device)
            found.append(distance(clean[:, at], state[:, at]))
            # In storage of its own: some layers add to their input in place.
            return clean.expand(len(state), -1, -1).contiguous()

        with self._hooked(compare):
            yield found

    def check(self, who: str, n_attentions: int) -> None:
        """After a recording: whether every layer was reached.

        Raises:
            UnknownAttentionError: One was not.
        """
        n = len(self._blocks)
        if len(self._clean) != n or n_attentions != n:
            raise UnknownAttentionError(
                f"value zeroing needs the values of all {n} layers of {who}, and "
                f"{n_attentions} of them let pizza change theirs.",
                who,
            )

    @contextmanager
    def _hooked(self, take: Any) -> Iterator[None]:
        def after(layer: int) -> Any:
            def hook(_: nn.Module, __: Any, output: Any) -> Any:
                split = isinstance(output, tuple)
                given = take(layer, output[0] if split else output)
                if given is None:
                    return None
                return (given, *output[1:]) if split else given

            return hook

        last = len(self._blocks) - 1

        def at_the_end(_: nn.Module, __: Any, output: Any) -> None:
            take(last, output.last_hidden_state)

        handles = [
            block.register_forward_hook(after(layer))
            for layer, block in enumerate(self._blocks[:-1])
        ]
        handles.append(self._holder.register_forward_hook(at_the_end))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def distance(one: Tensor, other: Tensor) -> Tensor:
    """``1 - cos`` of vectors ``(..., d)``, in single precision at least.

    As half the square of the difference of the unit vectors: that is the same number, and small
    ones do not drown in the rounding of 1.
    """
    if one.dtype != torch.float64:
        one, other = one.float(), other.float()
    gap = nn.functional.normalize(one, dim=-1) - nn.functional.normalize(other, dim=-1)
    return 0.5 * gap.square().sum(-1)
