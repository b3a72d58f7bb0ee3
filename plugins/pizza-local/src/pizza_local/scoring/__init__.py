# SPDX-License-Identifier: Apache-2.0
"""Scoring of many sequences that begin alike: what perturbation methods need of a local model."""

from pizza_local.scoring.items import Item, Scored
from pizza_local.scoring.scorer import CausalScorer
from pizza_local.scoring.trie import trie_size

__all__ = ["CausalScorer", "Item", "Scored", "trie_size"]
