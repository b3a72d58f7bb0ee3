# SPDX-License-Identifier: Apache-2.0
"""Which coalitions are asked for, how many of them, and what given ones are."""
