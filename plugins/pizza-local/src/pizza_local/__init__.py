# SPDX-License-Identifier: Apache-2.0
"""Local torch models as a pizza plugin."""
