# SPDX-License-Identifier: Apache-2.0
"""The engine: cuts points and targets into chunks, seeds the cotangents, sweeps them down."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pizza.errors import ConfigError
from pizza_local.chunks import Chunks, check
from pizza_local.gradients.stacked import gpt2, llama, sweep
from pizza_local.gradients.stacked.attention import Places
from pizza_local.gradients.stacked.block import Network, Rope
from pizza_local.gradients.stacked.inspect import is_plain
from pizza_local.gradients.stacked.rows import Rows

if TYPE_CHECKING:
    from pizza_local.gradients.problem import Problem

# Rows of a product from which on more rows make it no faster.
_ROWS = {"cpu": 2304}
_ROWS_ELSEWHERE = 16384
# Logits and their cotangents of more points than fit into this are not made at once, bytes.
_LOGITS = 256 << 20


class Stacked:
    """Gradients of all output tokens in one sweep; belongs to one model, changes nothing in it.

    Weights are read at every use. Made by `for_model`.

    Args:
        network: The model, taken apart.
        chunks: What fits.
        rows: Rows of cotangents that go down together, at most; one target of one point always
            goes down whole.
    """

    def __init__(self, network: Network, chunks: Chunks, rows: int) -> None:
        self._network = network
        self._chunks = chunks
        self._rows = rows

    @classmethod
    def for_model(cls, model: Any, chunks: Chunks) -> Stacked | None:
        """The engine for a model of transformers.

        Args:
            model: A causal language model.
            chunks: What fits on its device.

        Returns:
            None when the architecture or something in its configuration is not known here, and
            when the weights are quantised, sharded, hooked, or of several precisions.
        """
        for adapter in (gpt2, llama):
            network = adapter.take_apart(model)
            if network is not None and is_plain(model):
                rows = _ROWS.get(model.device.type, _ROWS_ELSEWHERE)
                return cls(network, chunks, rows)
        return None

    def gradients(
        self, positions: Tensor, problem: Problem
    ) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Gradients with respect to the hidden states that enter a layer.

        Agrees with autograd through the model to 1e-9 in fp64 and 1e-5 in fp32, relative to the
        largest; models with RMSNorm, which transformers computes in fp32, to 1e-6 in fp64.

        Args:
            positions: ``[n]``, ascending: whose logits predict the output tokens.
            problem: The points ``[B, L, D]``, and what is differentiated there. Its counts get as
                forwards the positions of a chunk up to the last of ``positions``, as backwards
                every pair of target and position that the target sees.

        Yields:
            A slice of ``range(B)``; the function there, ``[b, n]``; gradients ``[b, R, L, D]``,
            R being n, or 1 for the sequence. Chunks come in order.

        Raises:
            Stopped: The caller was cancelled.
            torch.OutOfMemoryError: Not even one target of one point fits.
            ConfigError: There is no such layer.

        Cost: one forward pass per chunk of points, and one backward pass per chunk of targets.
        """
        n_layers = len(self._network.blocks)
        if not 0 <= problem.layer <= n_layers:
            raise ConfigError(
                f"there is no layer {problem.layer}: this model has inputs (0), outputs of blocks "
                f"(1 to {n_layers - 1}) and what enters the final norm ({n_layers})."
            )
        job = _Job(self, positions, problem)
        key = ("stacked", problem.level, problem.layer, len(positions), job.length)
        chunks = self._chunks.run(
            key, len(problem.points), job.bytes_each, job.points_at_once, job.work, problem.stop
        )
        for chunk, (each, gradients) in chunks:
            yield chunk, each, gradients


class _Job:
    """One call of `Stacked.gradients`: what does not change from chunk to chunk."""

    def __init__(self, engine: Stacked, positions: Tensor, problem: Problem) -> None:
        points = problem.points
        self._network = engine._network
        self._chunks = engine._chunks
        self._blocks = self._network.blocks[problem.layer :]
        self._begin = problem.layer == 0
        self._points = points
        self._function = problem.function
        self._apart = problem.level == "token"
        self._counts = problem.counts
        self._stop = problem.stop
        places: list[int] = positions.tolist()
        self._positions = Places(positions.to(points.device), places)
        self.length = places[-1] + 1
        self._ends = places if self._apart else places[-1:]
        self._most_rows = engine._rows
        row_bytes, kept_bytes = self._costs()
        self._target_bytes = row_bytes * self.length
        self.points_at_once = max(1, engine._rows // Rows.count(self._ends))
        targets = min(len(self._ends), self._targets_at_once(1))
        result = len(self._ends) * points[0].numel() * points.element_size()
        self.bytes_each = kept_bytes * self.length + self._target_bytes * targets + 2 * result

    def _targets_at_once(self, n_points: int) -> int:
        n_targets = len(self._ends)
        most = max(1, self._most_rows // (n_points * self.length))
        if n_points * Rows.count(self._ends) <= self._most_rows:
            most = n_targets
        # Equal parts: a small last one would be inefficient.
        return math.ceil(n_targets / math.ceil(n_targets / most))

    def _costs(self) -> tuple[int, int]:
        """Bytes per row of cotangents, and per position that goes forwards."""
        size = self._points.element_size()
        features = self._points.shape[-1]
        row, kept = 3 * features, 0
        for block in self._blocks:
            heads = block.n_groups * block.n_repeats
            wide = block.mlp.wide + 4 * block.q_width + 4 * block.kv_width
            row = max(row, 3 * features + wide + 2 * heads * min(self.length, 128))
            kept += 2 * features * max(1, 4 // size) + 2 * (block.q_width + block.kv_width)
            kept += block.mlp.kept
        return row * size, kept * size

    def work(self, chunk: slice) -> tuple[Tensor, Tensor]:
        """One chunk of points: values ``[b, n]`` and gradients ``[b, R, L, D]``."""
        # Here and not around the generator, where it would leak to whoever iterates.
        with torch.inference_mode(False), torch.no_grad():
            return self._work(chunk)

    def _work(self, chunk: slice) -> tuple[Tensor, Tensor]:
        points = self._points[chunk]
        rope = self._network.rope(points)
        entered = self._network.begin(points) if self._begin else points
        entered = entered[:, : self.length].transpose(0, 1).contiguous()
        rope = rope and Rope(*(x[: self.length] for x in rope))
        hidden, tape = sweep.forward(self._blocks, entered, rope, self._positions, self._stop)
        self._counts.forward(len(points) * self.length)
        each, seeds = self._seed(hidden)

        n_targets = len(self._ends)
        gradients = points.new_zeros((len(points), n_targets, *points.shape[1:]))
        at_once = self._targets_at_once(len(points))
        key = ("stacked targets", len(points), self.length)

        def down(targets: slice) -> None:
            own = targets if self._apart else slice(0, len(self._positions.listed))
            todo = sweep.stack(self._positions, own, len(points), rope, entered, apart=self._apart)
            g = sweep.backward(self._blocks, tape, seeds, todo, self._stop)
            self._counts.backward(todo.rows.total)
            dense = gradients[:, targets, : todo.rows.length].permute(2, 0, 1, 3)
            todo.rows.unpack(g, dense)

        bytes_each = self._target_bytes * len(points)
        for _ in self._chunks.run(key, n_targets, bytes_each, at_once, down, self._stop):
            pass
        return each, gradients

    def _seed(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """The function, ``[b, n]``, and its cotangents, ``[n, b, D]``, of ``[n, b, D]``."""
        n, n_points, _ = hidden.shape
        each_bytes = 4 * n * self._network.head.width * hidden.element_size()
        size = max(1, _LOGITS // each_bytes)
        values, seeds = [], []
        for start in range(0, n_points, size):
            check(self._stop)
            part = hidden[:, start : start + size].transpose(0, 1)
            each, g = self._seed_some(part.detach().contiguous())
            values.append(each)
            seeds.append(g.transpose(0, 1))
        return torch.cat(values), torch.cat(seeds, dim=1)

    def _seed_some(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """The function, ``[b, n]``, and its cotangents, of ``[b, n, D]``."""
        head = self._network.head
        with torch.enable_grad():
            hidden.requires_grad_()
            normed = self._network.norm(hidden)
        # Not autograd's product: see `Linear.forward_few`, the backward of which would be slow.
        logits = head.forward_few(normed.detach().flatten(0, 1)).view(*normed.shape[:2], -1)
        with torch.enable_grad():
            logits.requires_grad_()
            each = self._function.each(logits)
            weighted = each
            if not self._apart:
                weighted = each * self._function.weights(each.detach()).detach()
            (d_logits,) = torch.autograd.grad(weighted.sum(), logits)
        d_normed = torch.empty_like(normed).flatten(0, 1)
        head.backward(d_logits.flatten(0, 1), d_normed)
        (g,) = torch.autograd.grad(normed, hidden, d_normed.view(normed.shape))
        return each.detach(), g
