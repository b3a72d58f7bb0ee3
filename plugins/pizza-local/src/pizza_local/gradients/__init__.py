# SPDX-License-Identifier: Apache-2.0
"""Gradients of what a local model says with respect to what it was told."""
