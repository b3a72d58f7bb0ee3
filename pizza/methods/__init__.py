# SPDX-License-Identifier: Apache-2.0
"""Built-in attribution methods, one idea a file."""
