# SPDX-License-Identifier: Apache-2.0
"""What values say of units: fits, their errors, and how good they are."""
