# SPDX-License-Identifier: Apache-2.0
"""What the values of a metric count, where measures of faithfulness need to know."""

from __future__ import annotations

from dataclasses import replace

from pizza._explain.job import Context
from pizza._explain.run import Prepared
from pizza.evaluation.case import Case

_SCALES = {
    "logprob-diff": "nats",
    "logit-diff": "nats",
    "prob-diff": "probability",
    "kl-divergence": "nats",
    "js-divergence": "nats",
}


def with_scale(case: Case, context: Context, ready: Prepared, column: int) -> Case:
    """The case with what is known of the values' scale."""
    metric, target = context.metrics[0], context.job.target
    scale = _SCALES.get(metric.name, metric.label)
    plain = metric.options.get("alignment", "aligned") == "aligned"
    joint = metric.options.get("whole", "joint") == "joint"
    logprobs = ready.output.logprobs
    if metric.name != "logprob-diff" or not plain or not joint or logprobs is None:
        return replace(case, scale=scale)
    start, stop = (
        ready.output.token_window(target.span) if target.span else (0, len(ready.output.tokens))
    )
    if column:
        start, stop = column - 1, column
    contrast = target.kind == "contrast"
    return replace(
        case,
        scale=scale,
        n_tokens=1 if contrast else stop - start,
        log_probability=None if contrast else float(logprobs[start:stop].sum()),
    )
