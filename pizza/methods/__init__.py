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
    MethodSpec(
        name="auto",
        target="pizza.methods.auto:Auto",
        summary="chooses design and estimator for the budget, stops early, says how good it is",
    ),
    MethodSpec(
        name="shapley",
        target="pizza.methods.shapley:Shapley",
        summary="exact Shapley values from all 2^n coalitions (at most 20 units)",
    ),
    MethodSpec(
        name="banzhaf",
        target="pizza.methods.banzhaf:Banzhaf",
        summary="exact Banzhaf values from all 2^n coalitions (at most 20 units)",
    ),
    MethodSpec(
        name="shapley-sampling",
        target="pizza.methods.shapley_sampling:ShapleySampling",
        summary="Shapley values from random orders and their reverses",
    ),
    MethodSpec(
        name="kernel-shap",
        target="pizza.methods.kernel_shap:KernelShap",
        summary="Shapley values by least squares on pairs from the Shapley kernel",
    ),
    MethodSpec(
        name="leverage-shap",
        target="pizza.methods.leverage_shap:LeverageShap",
        summary="the same fit on coalitions whose sizes are drawn alike",
    ),
    MethodSpec(
        name="paired-sparse-shap",
        target="pizza.methods.paired_sparse_shap:PairedSparseShap",
        summary="Shapley values when few units matter: selects them, then fits",
    ),
    MethodSpec(
        name="odd-shap",
        target="pizza.methods.odd_shap:OddShap",
        summary="Shapley values from a sparse model of the odd Fourier terms",
    ),
    MethodSpec(
        name="svarm",
        target="pizza.methods.svarm:Svarm",
        summary="Shapley values from mean values with and without each unit, by size",
    ),
    MethodSpec(
        name="regression-msr",
        target="pizza.methods.regression_msr:RegressionMsr",
        summary="a fitted linear game and an unbiased correction from the same calls",
    ),
    MethodSpec(
        name="partition-shap",
        target="pizza.methods.partition_shap:PartitionShap",
        summary="Owen values over messages, paragraphs, sentences and neighbours",
    ),
    MethodSpec(
        name="lime",
        target="pizza.methods.lime:Lime",
        summary="a linear model of random coalitions, near ones weighted more",
    ),
    MethodSpec(
        name="c-lime",
        target="pizza.methods.c_lime:CLime",
        summary="a linear model of coalitions that lack one or two units",
    ),
    MethodSpec(
        name="l-shap",
        target="pizza.methods.l_shap:LShap",
        summary="Shapley values among each unit's neighbours",
    ),
    MethodSpec(
        name="context-cite",
        target="pizza.methods.context_cite:ContextCite",
        summary="a sparse linear model of random half coalitions (LASSO)",
    ),
    MethodSpec(
        name="random-ablation",
        target="pizza.methods.random_ablation:RandomAblation",
        summary="difference of means with and without each unit (TokenSHAP)",
    ),
    MethodSpec(
        name="multi-level",
        target="pizza.methods.multi_level:MultiLevel",
        summary="messages, then paragraphs, sentences and words inside those that matter",
    ),
    MethodSpec(
        name="pairwise-interactions",
        target="pizza.methods.pairwise_interactions:PairwiseInteractions",
        summary="main effects, and pairs of strong units that work together",
    ),
    MethodSpec(
        name="proxy-spex",
        target="pizza.methods.proxy_spex:ProxySpex",
        summary="interactions of any order, read off boosted trees (shapiq)",
        needs=("shapiq", "lightgbm"),
        install="pip install 'pizza-attribution[shapiq]'",
    ),
    MethodSpec(
        name="faith-shap",
        target="pizza.methods.faith_shap:FaithShap",
        summary="the main effects and pairs that fit best in Shapley's weights",
    ),
    MethodSpec(
        name="reagent",
        target="pizza.methods.reagent:Reagent",
        summary="random replacements, until the strongest units keep the output (ReAGent)",
    ),
)
