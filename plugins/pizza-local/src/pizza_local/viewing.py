# SPDX-License-Identifier: Apache-2.0
"""From what the core asks to the `View` that a method is given."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from pizza.abc import Inspection
from pizza.completion import Completion
from pizza_local.counts import Counts
from pizza_local.encoding import Encoding, InputToken
from pizza_local.units import shares
from pizza_local.view import Side, View

if TYPE_CHECKING:
    from pizza_local.model import LocalModel
    from pizza_local.subjects import Subject


def make_view(model: LocalModel, inspection: Inspection, stop: threading.Event) -> View:
    """The view of one prompt and target.

    Raises:
        BackendError: The model cannot read the prompt or give the output.
    """
    encoding = model.encoder.encode(inspection.prompt)
    target = inspection.target
    outputs = [_first_output(model, inspection, encoding)]
    if target.versus is not None:
        outputs.append(model.target_ids(target.versus, None, encoding))
    subjects = [model.kind.subject(encoding, ids) for ids in outputs]
    tokens, sides = _together(encoding, subjects)
    output = _output(model, inspection, outputs[0])
    return View(
        tokens=tokens,
        units=inspection.units,
        assignment=shares(tokens, inspection.units),
        output=output,
        sides=sides,
        engine=model.engine,
        chunks=model.chunks,
        counts=Counts(),
        window=output.token_window(target.span) if target.span else None,
        seed=inspection.seed,
        stop=stop,
    )


def _first_output(model: LocalModel, inspection: Inspection, encoding: Encoding) -> tuple[int, ...]:
    written, target = inspection.output, inspection.target
    if written is None:
        return model.target_ids(target.text or "", target.token_ids, encoding)
    return model.target_ids(written.text, written.token_ids, encoding)


def _output(model: LocalModel, inspection: Inspection, ids: Sequence[int]) -> Completion:
    written = inspection.output
    if written is not None and written.token_ids == tuple(ids):
        return written
    return Completion(
        text=model.kind.text(ids),
        tokens=model.kind.pieces(ids),
        token_ids=tuple(ids),
        model=model.network.name,
    )


def _together(
    encoding: Encoding, subjects: Sequence[Subject]
) -> tuple[tuple[InputToken, ...], tuple[Side, ...]]:
    """The prompt's tokens once, then what each output adds, and where each subject reads them."""
    tokens = list(encoding.tokens)
    shared = len(tokens)
    sides = []
    for number, subject in enumerate(subjects):
        added = subject.tokens[shared:]
        places = [*range(shared), *range(len(tokens), len(tokens) + len(added))]
        tokens.extend(added)
        sides.append(
            Side(
                subject=subject,
                sign=1 if number == 0 else -1,
                places=torch.tensor(places, dtype=torch.long),
            )
        )
    return tuple(tokens), tuple(sides)
