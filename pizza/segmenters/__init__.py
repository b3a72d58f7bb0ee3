# SPDX-License-Identifier: Apache-2.0
"""Built-in segmenters, one idea a file."""
