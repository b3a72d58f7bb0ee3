# SPDX-License-Identifier: Apache-2.0
"""Built-in attribution methods, one idea a file."""

from pizza.specs import MethodSpec

SPECS: tuple[MethodSpec, ...] = (
    MethodSpec(
        name="leave-one-out",
        target="pizza.methods.leave_one_out:LeaveOneOut",
        summary="the effect of removing each unit alone (occlusion, feature ablation)",
    ),
    MethodSpec(
        name="sliding-window",
        target="pizza.methods.sliding_window:SlidingWindow",
        summary="the effect of removing windows of neighbours, shared by their members",
    ),
    MethodSpec(
        name="hierarchical",
        target="pizza.methods.hierarchical:Hierarchical",
        summary="removes chunks and splits the ones that matter: few calls for long prompts",
    ),
)
