# SPDX-License-Identifier: Apache-2.0
"""What a backend can do; negotiated before the first request is paid for."""

from __future__ import annotations

from enum import StrEnum


class Capability(StrEnum):
    """One thing that a backend can do and that metrics, methods and targets may need."""

    COMPLETE = "complete"
    """Writes a completion of a prompt."""
    LOGPROBS = "logprobs"
    """Gives the natural-log probability of every output token."""
    ALTERNATIVES = "alternatives"
    """Gives the most likely tokens, with log-probabilities, at every output position."""
    SCORE = "score"
    """Gives the teacher-forced log-probabilities of a given target text (echo)."""
    TOKENIZE = "tokenize"
    """Splits a text into the model's own tokens, offline."""
    EMBEDDINGS = "embeddings"
    """Offers its token embedding table."""
    CLASSIFY = "classify"
    """Gives the log-probabilities of class labels."""
    GRADIENTS = "gradients"
    """Differentiates a target with respect to the prompt's embeddings."""
