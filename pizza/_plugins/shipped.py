# SPDX-License-Identifier: Apache-2.0
"""What this project's own distributions offer: to name the one that is not installed."""

from __future__ import annotations

_LOCAL_METHODS = (
    "saliency",
    "input-x-gradient",
    "integrated-gradients",
    "layer-saliency",
    "layer-input-x-gradient",
    "layer-integrated-gradients",
    "gradient-shap",
    "smooth-grad",
    "deep-lift",
    "sequential-integrated-gradients",
    "discretized-integrated-gradients",
    "attention",
    "attention-rollout",
    "value-zeroing",
    "atman",
)

_SHIPPED: dict[tuple[str, str], str] = {
    ("backend", "openai"): "pizza-openai",
    ("backend", "openai-batch"): "pizza-openai",
    ("backend", "embedded"): "pizza-embedded",
    ("backend", "local"): "pizza-local",
    **{("method", name): "pizza-local" for name in _LOCAL_METHODS},
}


def hint(kind: str, name: str) -> str:
    """A sentence that says how to install what offers a name; empty when nobody is known to."""
    distribution = _SHIPPED.get((kind, name))
    if distribution is None:
        return ""
    return f"It comes with {distribution}: pip install {distribution}"
