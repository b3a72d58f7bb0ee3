# SPDX-License-Identifier: Apache-2.0
"""`Noise`: how much a model's answers to one and the same prompt differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from pizza.completion import frozen_array

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Noise:
    """What repeated answers to the unperturbed prompt say about the model.

    Effects are measured against one reference answer. A model that samples differs from it even
    when nothing was changed: on average by the ``floor``, which is taken off all effects before
    they are scored, so that an effect of 0 still means "as without any change".

    Attributes:
        answers: Answers to the unperturbed prompt, the reference included.
        repeats: Answers per coalition, whose effects are averaged.
        floor: Per metric the mean effect of the repeated answers, ``(1 + n_output_tokens,)``.
        sigma: Per metric their standard deviation, same shape: the noise of one answer. 0 where
            all answers were the same.
        p_values: Per metric ``(n_units,)``: the probability of such a difference between the
            answers with and without the unit when removing it changes nothing (permutation test
            of the energy distance). NaN = no coalition lacked this unit alone. Empty when each
            coalition was answered once.
    """

    answers: int
    repeats: int
    floor: Mapping[str, NDArray[np.float64]]
    sigma: Mapping[str, NDArray[np.float64]]
    p_values: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("floor", "sigma", "p_values"):
            arrays = {key: frozen_array(value) for key, value in getattr(self, name).items()}
            object.__setattr__(self, name, MappingProxyType(arrays))

    @property
    def varies(self) -> bool:
        """Whether the answers differed at all."""
        return any(bool((np.nan_to_num(sigma) > 0).any()) for sigma in self.sigma.values()) or any(
            bool((np.nan_to_num(floor) != 0).any()) for floor in self.floor.values()
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; the inverse of `from_dict`."""
        return {
            "answers": self.answers,
            "repeats": self.repeats,
            **{
                name: {key: _listed(value) for key, value in getattr(self, name).items()}
                for name in ("floor", "sigma", "p_values")
            },
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Noise:
        """The inverse of `to_dict`."""
        arrays = {
            name: {key: _array(value) for key, value in data[name].items()}
            for name in ("floor", "sigma", "p_values")
        }
        return cls(answers=int(data["answers"]), repeats=int(data["repeats"]), **arrays)


def _listed(array: NDArray[np.float64]) -> list[float | None]:
    return [value if np.isfinite(value) else None for value in array.tolist()]


def _array(values: Any) -> NDArray[np.float64]:
    return np.array([np.nan if value is None else float(value) for value in values], dtype=float)
