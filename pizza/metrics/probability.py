# SPDX-License-Identifier: Apache-2.0
"""By how much the original output lost probability: on three scales."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from pizza.abc import Metric
from pizza.errors import ConfigError
from pizza.metrics._evidence import (
    RESIDUE,
    aligned_logprobs,
    location_invariant_logprobs,
    logprobs_of,
    same_output,
    total,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pizza.completion import Completion

Alignment = Literal["aligned", "location-invariant"]
Whole = Literal["joint", "mean"]


class _ProbabilityMetric(Metric):
    """What the two share: which probabilities of the reference's tokens are compared.

    Args:
        alignment: ``"aligned"`` (the default): the token at its own position. Defined up to and
            including the first position where the perturbed output differs, NaN after it, and
            everywhere for a teacher-forced score of the reference's text.
            ``"location-invariant"``: the best probability of the token anywhere in the output,
            in the reference's as in the perturbed one. Defined everywhere; for outputs that say
            the same in another order. It ignores the context of a token.
        whole: How column 0 sums up the tokens; positions that are not defined count as unchanged.
            ``"joint"`` (the default): of the output as a whole. ``"mean"``: mean over its tokens.
    """

    name: ClassVar[str]

    def __init__(self, alignment: Alignment = "aligned", whole: Whole = "joint") -> None:
        if alignment not in ("aligned", "location-invariant"):
            raise ConfigError(
                f"the alignment of {self.name} is 'aligned' or 'location-invariant', not "
                f"{alignment!r}."
            )
        if whole not in ("joint", "mean"):
            raise ConfigError(f"whole is 'joint' or 'mean' in {self.name}, not {whole!r}.")
        self._alignment = alignment
        self._whole = whole

    def compare(
        self, reference: Completion, perturbed: Sequence[Completion]
    ) -> NDArray[np.float64]:
        """Effects ``(m, 1 + n_tokens)``; positive = the original token became less probable.

        Raises:
            IncomparableError: A completion has no log-probabilities.
        """
        if self._alignment == "aligned":
            before = logprobs_of(reference, "reference", self.name)
            after = aligned_logprobs(reference, perturbed, self.name)
        else:
            before, after = location_invariant_logprobs(reference, perturbed, self.name)
        same = same_output(reference, perturbed)
        effects = self._effects(before, after)
        if self._whole == "mean":
            whole = total(effects, same) / max(1, before.size)
        else:
            fall = total(before - after, same)
            whole = self._joint(float(np.nansum(before)), fall)
        return np.column_stack([whole, effects])

    @abstractmethod
    def _effects(
        self, before: NDArray[np.float64], after: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Per token ``(m, n_tokens)``, from log-probabilities ``(n_tokens,)`` and ``(m, n)``."""

    @abstractmethod
    def _joint(self, before: float, fall: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of the whole output ``(m,)``, from its log-probability and by how much that fell."""


class LogprobDiff(_ProbabilityMetric):
    """Fall of the log-probability, nats: ``ln p(token | prompt) - ln p(token | perturbed)``.

    Column 0 is the sum over the tokens, which is the fall of the joint log-probability of the
    output up to and including the first divergence (of all of it when nothing diverges).
    """

    name = "logprob-diff"

    def _effects(
        self, before: NDArray[np.float64], after: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        return before - after

    def _joint(self, before: float, fall: NDArray[np.float64]) -> NDArray[np.float64]:
        return fall


class ProbDiff(_ProbabilityMetric):
    """Fall of the probability: ``p(token | prompt) - p(token | perturbed)``, within -1 to 1.

    Column 0 is the fall of the joint probability of the output, ``P - P exp(-D)`` with P the
    output's probability under the whole prompt and D the `LogprobDiff` of the output: it orders
    perturbations as `LogprobDiff` does. The joint probability of a long output is tiny: prefer
    `LogprobDiff`, or ``whole="mean"``, above some tens of tokens.
    """

    name = "prob-diff"

    def _effects(
        self, before: NDArray[np.float64], after: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        return np.exp(before) - np.exp(after)

    def _joint(self, before: float, fall: NDArray[np.float64]) -> NDArray[np.float64]:
        result: NDArray[np.float64] = np.exp(before) - np.exp(before - fall)
        return result


class LogitDiff(_ProbabilityMetric):
    """Fall of the log-odds, nats: ``logit p(token | prompt) - logit p(token | perturbed)``.

    ``logit p = ln p - ln(1 - p)``. Column 0 is that of the joint probability of the output, the
    quantity that ContextCite fits (Cohen-Wang et al. 2024, section 3). It is `LogprobDiff` for
    improbable outputs, and keeps changes apart that `LogprobDiff` cannot see any more when the
    output is nearly certain. ``1 - p`` counts as 1e-6 at least: a certain output has finite
    log-odds.
    """

    name = "logit-diff"

    def _effects(
        self, before: NDArray[np.float64], after: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        result: NDArray[np.float64] = _logit(before) - _logit(after)
        return result

    def _joint(self, before: float, fall: NDArray[np.float64]) -> NDArray[np.float64]:
        result: NDArray[np.float64] = _logit(np.array(before)) - _logit(
            np.minimum(before - fall, 0)
        )
        return result


def _logit(logprobs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log-odds of log-probabilities."""
    result: NDArray[np.float64] = logprobs - np.log(np.maximum(-np.expm1(logprobs), RESIDUE))
    return result
