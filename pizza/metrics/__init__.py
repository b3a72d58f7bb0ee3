# SPDX-License-Identifier: Apache-2.0
"""Built-in attribution metrics, one idea a file."""
