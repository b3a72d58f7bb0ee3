# SPDX-License-Identifier: Apache-2.0
"""Looking at attention, and changing it for the time of one call."""
