# SPDX-License-Identifier: Apache-2.0
"""What a method sees of a model: one prompt and one output, as points, values and gradients."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pizza.abc import Findings
from pizza.completion import Completion
from pizza.errors import CapabilityError, ConfigError
from pizza.prompt import Unit
from pizza_local.baselines import replacement
from pizza_local.chunks import Chunks, check
from pizza_local.counts import Counts
from pizza_local.encoding import InputToken
from pizza_local.gradients import functions
from pizza_local.gradients.engine import Engine
from pizza_local.gradients.functions import Function
from pizza_local.gradients.problem import Level, Problem
from pizza_local.subjects import Subject
from pizza_local.units import Aggregation, Assignment, aggregate


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Side:
    """One output: the target, or one of the two of a contrast.

    Attributes:
        subject: Input and output on the model.
        sign: 1, or -1 for the output that was not chosen.
        places: Which of the view's tokens are the subject's positions, ``(n_positions,)`` long.
        function: What is explained; `View.of` sets it.
    """

    subject: Subject
    sign: int
    places: Tensor
    function: Function | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class View:
    """One prompt and one output on one model, for an `InternalsMethod` of this package.

    Rows: row 0 is the whole output, rows 1 to ``n_outputs`` its tokens (of the preferred output,
    in a contrast). With ``level="sequence"`` there is only row 0.

    Attributes:
        tokens: What the model reads, ``n_tokens`` of them: the prompt with its template, then the
            output tokens that stand before the last one.
        units: The prompt's units.
        assignment: Which tokens make up which unit.
        output: The output that is explained.
        sides: The output, or the two of a contrast.
        window: Half-open range of output tokens that the whole-output row is limited to.
        layer: Where points are: 0 = embeddings, k = what leaves block k.
        level: ``"token"`` or ``"sequence"``.
        function_name: What is explained: a key of `functions.FUNCTIONS`.
        seed: Seed of everything random.
        engine: Computes values and gradients.
        chunks: Sizes of batches, for work of the method's own.
        counts: Passes so far.
        stop: Set when the caller is gone.
    """

    tokens: tuple[InputToken, ...]
    units: tuple[Unit, ...]
    assignment: Assignment
    output: Completion
    sides: tuple[Side, ...]
    engine: Engine
    chunks: Chunks
    counts: Counts
    window: tuple[int, int] | None = None
    layer: int = 0
    level: Level = "token"
    function_name: str = "logprob"
    seed: int = 0
    stop: threading.Event | None = None

    # --- what is explained --------------------------------------------------------------------

    @property
    def n_tokens(self) -> int:
        """Positions of a point."""
        return len(self.tokens)

    @property
    def n_outputs(self) -> int:
        """Output tokens."""
        return len(self.output.tokens)

    @property
    def n_layers(self) -> int:
        """Blocks of the model: points exist at layers 0 to ``n_layers``."""
        return self.subject.n_layers

    @property
    def subject(self) -> Subject:
        """The (preferred) output's subject."""
        return self.sides[0].subject

    def of(self, function: str, *, level: Level = "token") -> View:
        """This view of another function of the output.

        Raises:
            ConfigError: There is no such function or level.
        """
        functions.check_name(function)
        if level not in ("token", "sequence"):
            raise ConfigError(f"the level is 'token' or 'sequence', not {level!r}.")
        sides = []
        for side in self.sides:

            def unperturbed(subject: Subject = side.subject) -> Tensor:
                self.counts.forward(subject.length)
                with torch.no_grad():
                    return subject.logits(subject.start().unsqueeze(0))[0]

            made = functions.make(function, side.subject.targets, unperturbed)
            sides.append(replace(side, function=made))
        return replace(self, sides=tuple(sides), function_name=function, level=level)

    def at(self, layer: int) -> View:
        """This view with points at another layer: 0 = embeddings, k = what leaves block k.

        Negative numbers count from the last layer.

        Raises:
            CapabilityError: There is no such layer.
        """
        if isinstance(layer, bool) or not isinstance(layer, int):
            raise ConfigError(f"a layer is a whole number, not {layer!r}.")
        found = layer if layer >= 0 else self.n_layers + 1 + layer
        if not 0 <= found <= self.n_layers:
            raise CapabilityError(
                f"there is no layer {layer}: {self.subject.network.name} has layers 0 (the "
                f"embeddings) to {self.n_layers}.",
                needed="gradients",
                backend=self.subject.network.name,
            )
        return replace(self, layer=found)

    def generator(self) -> torch.Generator:
        """A source of random numbers on the CPU, the same in every run with this seed."""
        return torch.Generator().manual_seed(self.seed)

    def check(self) -> None:
        """Leave when the caller is gone; to be called between pieces of a method's own work."""
        check(self.stop)

    # --- points -------------------------------------------------------------------------------

    def start(self) -> Tensor:
        """The prompt's own point at this layer, ``(n_tokens, d)``; detached."""
        return self._joined([side.subject.start() for side in self.sides])

    def baseline(self, choice: Any = "zero") -> Tensor:
        """The point of a prompt without its units, at this layer, ``(n_tokens, d)``; detached.

        Only tokens of units are replaced: special tokens, the template's tokens, what the user
        holds fixed and the output's tokens stay as they are.

        Args:
            choice: ``"zero"`` (a zero vector), ``"pad"``, ``"mask"``, ``"unk"``, ``"bos"``,
                ``"eos"`` (that token's embedding), ``"mean"`` (mean of the embedding table), the
                text of one token, a token id, or an array or tensor that broadcasts to
                ``(n_tokens, d)``.

        Raises:
            ConfigError: The tokenizer has no such token, or the shape does not fit.
        """
        starts = []
        inside = self.assignment.used
        for side in self.sides:
            start = side.subject.start()
            absent = replacement(side.subject, start, choice, self.tokens, side.places)
            own = torch.from_numpy(inside)[side.places.cpu()].to(start.device)
            starts.append(torch.where(own.unsqueeze(-1), absent, start))
        return self._joined(starts)

    def _joined(self, starts: Sequence[Tensor]) -> Tensor:
        """Points of the sides at layer 0 to one point of the view at this layer."""
        d = starts[0].shape[-1]
        joined = starts[0].new_zeros((self.n_tokens, d))
        for side, start in zip(self.sides, starts, strict=True):
            point = start.unsqueeze(0)
            if self.layer:
                self.counts.forward(side.subject.length)
                point = side.subject.states(point, self.layer)
            if joined.shape[-1] != point.shape[-1]:
                joined = point.new_zeros((self.n_tokens, point.shape[-1]))
            joined[side.places] = point[0].to(joined)
        return joined

    # --- values and gradients -----------------------------------------------------------------

    def values(self, points: Tensor) -> Tensor:
        """Rows ``(b, 1 + n_outputs)`` (or ``(b, 1)``) of points ``(b, n_tokens, d)``."""
        rows: Tensor | None = None
        for side in self.sides:
            each = self.engine.values(
                side.subject, self._problem(side, points, _set(side.function))
            )
            rows = self._add_values(rows, side, each)
        assert rows is not None  # noqa: S101 - there is at least one side
        return rows

    def gradients(self, points: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Gradients with respect to points, chunk by chunk, in their order.

        Args:
            points: ``(b, n_tokens, d)`` at this layer.

        Yields:
            ``(slice of the points, values (b', r), gradients (b', r, n_tokens, d))`` with
            r = ``1 + n_outputs``, or 1 at level ``"sequence"``. Row 0 is the whole output.

        Cost: per chunk of points and side one forward, and one backward per output token, or one
        at level ``"sequence"``; the token rows of a contrast are those of the preferred output.
        """
        if len(self.sides) == 1:
            (side,) = self.sides
            for chunk, each, part in self._one_side(side, points, self.level):
                yield chunk, self._add_values(None, side, each), self._spread(side, part)
            return
        # The sides' chunks differ in size: point by point they meet.
        for index in range(len(points)):
            rows: Tensor | None = None
            total: Tensor | None = None
            for side in self.sides:
                level = self.level if side.sign > 0 else "sequence"
                ((_, each, part),) = self._one_side(side, points[index : index + 1], level)
                rows = self._add_values(rows, side, each)
                spread = self._spread(side, part)
                if total is None:
                    total = spread
                else:
                    total[:, 0] += side.sign * spread[:, 0]
            assert rows is not None and total is not None  # noqa: S101, PT018
            yield slice(index, index + 1), rows, total

    def _one_side(
        self, side: Side, points: Tensor, level: Level
    ) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Values of the positions, and gradients with row 0 = whole."""
        function = self._function(side)
        problem = self._problem(side, points, function, level)
        for chunk, each, part in self.engine.gradients(side.subject, problem):
            if level == "token":
                weights = function.weights(each).to(part)
                whole = torch.einsum("bn,bnld->bld", weights, part)
                part = torch.cat([whole.unsqueeze(1), part], dim=1)
            yield chunk, each, part

    def _problem(
        self, side: Side, points: Tensor, function: Function, level: Level = "token"
    ) -> Problem:
        return Problem(
            points=points[:, side.places],
            function=function,
            level=level,
            layer=self.layer,
            counts=self.counts,
            stop=self.stop,
        )

    def _spread(self, side: Side, part: Tensor) -> Tensor:
        """Gradients at a side's positions to all tokens of the view."""
        if len(self.sides) == 1:
            return part
        b, r, _, d = part.shape
        total = part.new_zeros((b, r, self.n_tokens, d))
        total[:, :, side.places] = part
        return total

    def _function(self, side: Side) -> _Windowed:
        """What is explained of a side; a span is one of the preferred output."""
        return _Windowed(_set(side.function), self.window if side.sign > 0 else None)

    def _add_values(self, rows: Tensor | None, side: Side, each: Tensor) -> Tensor:
        function = self._function(side)
        whole = function.whole(each).unsqueeze(-1)
        if rows is None:
            return whole if self.level == "sequence" else torch.cat([whole, each], dim=-1)
        rows[:, :1] += side.sign * whole
        return rows

    # --- what was found -----------------------------------------------------------------------

    def findings(
        self,
        rows: Tensor | NDArray[np.floating[Any]],
        *,
        aggregation: Aggregation = "sum",
        details: Mapping[str, Any] | None = None,
        warnings: Sequence[str] = (),
        function: str | None = None,
    ) -> Findings:
        """Token scores to findings about units.

        Args:
            rows: ``(r, n_tokens)``, r = ``1 + n_outputs`` or 1: scores of the tokens.
            aggregation: How a unit's score is made of its tokens'.
            details: What else should be known, plain JSON values.
            warnings: What a reader should know.
            function: What is explained, when it is not the view's function.

        Raises:
            NonFiniteError: A score is not a number.
        """
        scores = torch.as_tensor(rows).detach().to("cpu", torch.float64).numpy()
        self._check_finite(scores)
        units = aggregate(scores, self.assignment, aggregation)
        outside = scores[:, ~self.assignment.used].sum(axis=1)
        told = {
            "tokens_outside_units": self._outside(),
            "sum_outside_units": outside.tolist(),
            "aggregation": aggregation,
        }
        return self.unit_findings(
            units, details={**told, **(details or {})}, warnings=warnings, function=function
        )

    def unit_findings(
        self,
        rows: NDArray[np.floating[Any]],
        *,
        details: Mapping[str, Any] | None = None,
        warnings: Sequence[str] = (),
        function: str | None = None,
    ) -> Findings:
        """Scores of units ``(r, n_units)`` to findings; r = ``1 + n_outputs`` or 1."""
        from pizza_local.findings import finished

        return finished(self, np.asarray(rows, dtype=float), details or {}, warnings, function)

    def _check_finite(self, scores: NDArray[np.float64]) -> None:
        from pizza_local.findings import check_finite

        check_finite(self, scores)

    def _outside(self) -> list[dict[str, Any]]:
        """The tokens that belong to no unit: where they stand, and why."""
        used = self.assignment.used
        return [
            {"position": i, "text": t.text, "origin": "fixed" if t.origin == "prompt" else t.origin}
            for i, t in enumerate(self.tokens)
            if not used[i] and not (t.origin == "prompt" and not t.text.strip())
        ]


@dataclass(frozen=True, slots=True)
class _Windowed:
    """A function whose whole is limited to a range of output tokens."""

    function: Function
    window: tuple[int, int] | None

    def each(self, logits: Tensor) -> Tensor:
        """See `Function.each`."""
        return self.function.each(logits)

    def weights(self, each: Tensor) -> Tensor:
        """See `Function.weights`."""
        if self.window is None:
            return self.function.weights(each)
        start, stop = self.window
        weights = torch.zeros_like(each)
        weights[..., start:stop] = self.function.weights(each[..., start:stop])
        return weights

    def whole(self, each: Tensor) -> Tensor:
        """See `Function.whole`."""
        if self.window is None:
            return self.function.whole(each)
        start, stop = self.window
        return self.function.whole(each[..., start:stop])


def _set(function: Function | None) -> Function:
    if function is None:
        raise ConfigError("say what is explained first: view.of('logprob').")
    return function
