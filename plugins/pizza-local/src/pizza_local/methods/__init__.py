# SPDX-License-Identifier: Apache-2.0
"""Methods that look inside a local model, one idea a file. Nothing is imported by listing them."""

_HERE = "pizza_local.methods"

SPECS: tuple[tuple[str, str, str], ...] = tuple(
    (name, f"{_HERE}.{target}", summary)
    for name, target, summary in (
        (
            "saliency",
            "saliency:Saliency",
            "norm of the gradient: how strongly the output reacts to a unit",
        ),
        (
            "input-x-gradient",
            "input_x_gradient:InputXGradient",
            "input times gradient: first-order effect of a unit, signed",
        ),
        (
            "integrated-gradients",
            "integrated_gradients:IntegratedGradients",
            "gradients along the path from a baseline; scores add up to the difference",
        ),
        ("layer-saliency", "layers:LayerSaliency", "saliency at what leaves a block"),
        (
            "layer-input-x-gradient",
            "layers:LayerInputXGradient",
            "activation times gradient at what leaves a block",
        ),
        (
            "layer-integrated-gradients",
            "layers:LayerIntegratedGradients",
            "integrated gradients at what leaves a block",
        ),
        (
            "gradient-shap",
            "gradient_shap:GradientShap",
            "gradients at random points between random baselines and the prompt, averaged",
        ),
        (
            "smooth-grad",
            "smooth_grad:SmoothGrad",
            "gradients at noisy copies of the prompt, averaged",
        ),
        (
            "deep-lift",
            "deep_lift:DeepLift",
            "differences from a baseline, handed back through every activation",
        ),
        (
            "sequential-integrated-gradients",
            "sequential_integrated_gradients:SequentialIntegratedGradients",
            "integrated gradients of each token by itself, the others as they are",
        ),
        (
            "discretized-integrated-gradients",
            "discretized_integrated_gradients:DiscretizedIntegratedGradients",
            "integrated gradients along paths through real words",
        ),
        ("attention", "attention:Attention", "attention weights from the output to a unit"),
        (
            "attention-rollout",
            "attention_rollout:AttentionRollout",
            "attention weights multiplied over the layers, residuals included",
        ),
        (
            "value-zeroing",
            "value_zeroing:ValueZeroing",
            "how much each layer changes when a token's value vector is zero",
        ),
        (
            "atman",
            "atman:AtMan",
            "loss of the output when attention to a unit is suppressed; one forward a unit",
        ),
    )
)
"""Name, target and summary of each method."""
