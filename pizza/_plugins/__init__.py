# SPDX-License-Identifier: Apache-2.0
"""Discovery and registration of plugins."""

from pizza._plugins.registry import KINDS, Kind, PluginInfo, Registry

__all__ = ["KINDS", "Kind", "PluginInfo", "Registry"]
