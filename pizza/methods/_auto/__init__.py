# SPDX-License-Identifier: Apache-2.0
"""What only `auto` does: waves of random halves, and what they say together."""
