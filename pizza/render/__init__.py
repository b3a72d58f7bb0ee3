# SPDX-License-Identifier: Apache-2.0
"""Renderers: they read an Attribution and never the other way round."""
