# SPDX-License-Identifier: Apache-2.0
"""What authors of plugins and applications test with."""
