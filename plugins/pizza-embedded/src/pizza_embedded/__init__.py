# SPDX-License-Identifier: Apache-2.0
"""A small language model inside a pizza plugin."""
