# SPDX-License-Identifier: Apache-2.0
"""Where a path between two points is looked at, and with what weight."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from pizza.errors import ConfigError

Rule = Literal["gauss-legendre", "riemann-left", "riemann-right", "riemann-middle", "trapezoid"]


def nodes(rule: Rule, steps: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Positions on the path, 0 to 1, and weights that sum to 1; ``(steps,)`` each.

    Raises:
        ConfigError: No such rule, or too few steps.
    """
    least = 2 if rule == "trapezoid" else 1
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < least:
        raise ConfigError(f"the rule {rule!r} needs at least {least} steps, not {steps!r}.")
    if rule == "gauss-legendre":
        x, w = np.polynomial.legendre.leggauss(steps)
        return (1 + x) / 2, w / 2
    even = np.full(steps, 1 / steps)
    if rule == "riemann-left":
        return np.arange(steps) / steps, even
    if rule == "riemann-right":
        return np.arange(1, steps + 1) / steps, even
    if rule == "riemann-middle":
        return (np.arange(steps) + 0.5) / steps, even
    if rule == "trapezoid":
        weights = np.full(steps, 1 / (steps - 1))
        weights[[0, -1]] /= 2
        return np.linspace(0, 1, steps), weights
    raise ConfigError(f"the rule of a path is one of {', '.join(get_args(Rule))}, not {rule!r}.")
