# SPDX-License-Identifier: Apache-2.0
"""A rule-based ticket router, explained with pizza."""
