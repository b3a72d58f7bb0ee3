# SPDX-License-Identifier: Apache-2.0
"""Built-in perturbation strategies, one idea a file."""
