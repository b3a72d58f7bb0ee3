# SPDX-License-Identifier: Apache-2.0
"""From a method's scores to what the core is told, with every number checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pizza.abc import Findings, Scores
from pizza.errors import NonFiniteError
from pizza_local.subjects import Subject

if TYPE_CHECKING:
    from pizza_local.view import View


def finished(
    view: View,
    rows: NDArray[np.float64],
    details: Mapping[str, Any],
    warnings: Sequence[str],
    function: str | None,
) -> Findings:
    """Scores of units ``(r, n_units)``, r = ``1 + n_outputs`` or 1, as findings."""
    check_finite(view, rows)
    values = np.full((1 + view.n_outputs, len(view.units)), np.nan)
    values[: len(rows)] = rows
    if view.window is not None:
        start, stop = view.window
        values[1 : 1 + start] = np.nan
        values[1 + stop :] = np.nan
    empty = [u.name for i, u in enumerate(view.units) if not view.assignment.share[i].any()]
    told = [*warnings, *_imprecise(view, values)]
    if empty:
        told.append(
            f"the model reads no token of the units {', '.join(map(repr, empty[:5]))}"
            f"{' and others' if len(empty) > 5 else ''}: they score 0."
        )
    return Findings(
        output=view.output,
        function=function or view.function_name,
        scores=Scores(
            values=values,
            details={
                "level": view.level,
                "layer": view.layer,
                "engine": view.engine.name(view.subject),
                "passes": view.counts.to_dict(),
                **details,
            },
        ),
        warnings=tuple(told),
    )


def _imprecise(view: View, values: NDArray[np.float64]) -> tuple[str, ...]:
    """A warning where rounding may have turned signs: low precision spoils signed scores first."""
    dtype = view.subject.start().dtype
    if not (values < 0).any():
        return ()
    if dtype in (torch.bfloat16, torch.float16):
        how, remedy = str(dtype).removeprefix("torch."), "with dtype=float32"
    elif dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest":
        how, remedy = "reduced float32 precision (TF32 or less)", "without tf32"
    else:
        return ()
    text = (
        f"the scores have signs and {view.subject.network.name} computes in {how}: small scores "
        f"may be rounding, with the wrong sign. Open it {remedy} to be sure."
    )
    return (text,)


def check_finite(view: View, scores: NDArray[np.float64]) -> None:
    """Refuse scores that are no numbers, and say where they went wrong.

    Raises:
        NonFiniteError: A score is NaN or infinite; the layer is named.
    """
    bad = ~np.isfinite(scores)
    if not bad.any():
        return
    where = culprit(view.subject)
    raise NonFiniteError(
        f"{int(bad.sum())} of {bad.size} scores of {view.subject.network.name} are NaN or "
        f"infinite. {where} Open the model with dtype=float32.",
        backend=view.subject.network.name,
    )


def culprit(subject: Subject) -> str:
    """A sentence that names the first module whose output is not finite, forwards."""
    if not bool(torch.isfinite(subject.start()).all()):
        return "The input embeddings are not finite."
    found: list[str] = []
    handles = []
    for name, module in subject.network.model.named_modules():
        if not name or any(True for _ in module.children()):
            continue

        def look(_: nn.Module, __: Any, output: Any, name: str = name) -> None:
            tensor = output[0] if isinstance(output, tuple) else output
            if isinstance(tensor, Tensor) and not bool(torch.isfinite(tensor).all()) and not found:
                found.append(name)

        handles.append(module.register_forward_hook(look))
    try:
        with torch.no_grad():
            subject.logits(subject.start().unsqueeze(0))
    finally:
        for handle in handles:
            handle.remove()
    if found:
        return f"The first layer whose output is not finite is {found[0]!r}."
    return "All layers are finite forwards, so it is the backward pass that overflows."
