# SPDX-License-Identifier: Apache-2.0
"""Gradients of many targets in one sweep down the layers, for architectures with an adapter."""

from pizza_local.gradients.stacked.engine import Stacked

__all__ = ["Stacked"]
