# SPDX-License-Identifier: Apache-2.0
"""Showing an attribution to people. A renderer reads a result; results do not know renderers."""
