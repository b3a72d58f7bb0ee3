# SPDX-License-Identifier: Apache-2.0
"""Claims the metric ``margin``."""

from pizza.hookspecs import hookimpl
from pizza.specs import MetricSpec


@hookimpl
def pizza_register_metrics() -> list[MetricSpec]:
    """Another metric of the same name."""
    return [MetricSpec(name="margin", target="pizza_rival:Margin")]


class Margin:
    """Never used: neither claimant is."""
