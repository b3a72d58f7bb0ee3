# SPDX-License-Identifier: Apache-2.0
"""Implements a hook that does not exist."""

from pizza.hookspecs import hookimpl


@hookimpl
def pizza_register_metricks() -> list[object]:
    """Meant to be ``pizza_register_metrics``."""
    return []
