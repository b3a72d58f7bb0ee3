# SPDX-License-Identifier: Apache-2.0
"""Which engine differentiates: stacked cotangents where they fit, a retained graph elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from pizza_local.chunks import Chunks, Stopped
from pizza_local.counts import Counts
from pizza_local.gradients.problem import Problem
from pizza_local.gradients.retained import Retained
from pizza_local.gradients.stacked import Stacked
from pizza_local.subjects import CausalSubject, Network, Subject

_log = logging.getLogger("pizza.local")

# Largest difference, relative to the largest gradient, that rounding explains.
_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4}
_COARSE = 5e-2


class Engine:
    """Gradients and values of subjects of one model. Belongs to whoever opened the model.

    Args:
        network: The model.
        chunks: Sizes of batches.
        stacked: False: never use stacked cotangents.
    """

    def __init__(self, network: Network, chunks: Chunks, *, stacked: bool = True) -> None:
        self._retained = Retained(chunks)
        self._stacked = Stacked.for_model(network.model, chunks) if stacked else None
        self._checked = False
        self._network = network

    def name(self, subject: Subject) -> str:
        """Which engine differentiates this subject, for the provenance."""
        return "stacked" if self._fits(subject) else "retained"

    def _fits(self, subject: Subject) -> bool:
        return self._stacked is not None and isinstance(subject, CausalSubject)

    def gradients(
        self, subject: Subject, problem: Problem
    ) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """As `Retained.gradients`."""
        if self._fits(subject) and not self._checked:
            self._check(subject, problem)
        if isinstance(subject, CausalSubject) and self._stacked is not None:
            return self._stacked.gradients(subject.positions, problem)
        return self._retained.gradients(subject, problem)

    def values(self, subject: Subject, problem: Problem) -> Tensor:
        """Values ``(b, n)`` of the points."""
        return self._retained.values(subject, problem)

    def _check(self, subject: Subject, problem: Problem) -> None:
        """Hold the hand-written backward against autograd, once, on what is asked for."""
        assert isinstance(subject, CausalSubject)  # noqa: S101 - `_fits` saw to it
        assert self._stacked is not None  # noqa: S101
        self._checked = True
        one = replace(
            problem, points=problem.points[:1], level="sequence", counts=Counts(), stop=None
        )
        try:
            ((_, _, fast),) = self._stacked.gradients(subject.positions, one)
            ((_, _, sure),) = self._retained.gradients(subject, one)
        except Stopped:
            raise
        except Exception as error:
            reason = f"it failed: {type(error).__name__}: {error}"
        else:
            largest = float(sure.abs().max())
            off = float((fast - sure).abs().max()) / max(largest, 1e-30)
            if off <= _TOLERANCE.get(problem.points.dtype, _COARSE) or not largest:
                return
            reason = f"it is off by {off:.1e} of the largest gradient"
        self._stacked = None
        _log.warning(
            "the fast gradients do not fit %s (%s): plain autograd is used, which is slower.",
            self._network.name,
            reason,
        )
