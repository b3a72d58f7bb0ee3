# SPDX-License-Identifier: Apache-2.0
"""Errors that go through the engine: copied between tasks, and contained when unexpected."""

from __future__ import annotations

import asyncio

from pizza.errors import BackendError, BackendUnavailableError, PizzaError


def again(error: PizzaError) -> PizzaError:
    """A copy to raise in another task: a traceback belongs to one of them."""
    copy = error.__class__.__new__(error.__class__, *error.args)
    copy.args = error.args
    copy.__dict__.update(error.__dict__)
    copy.__cause__ = error.__cause__
    return copy


def contained(error: Exception, backend: str) -> BackendError:
    """What a backend should have translated, and did not."""
    text = f"{backend} failed with {type(error).__name__}: {error}"
    if isinstance(error, OSError | EOFError | asyncio.IncompleteReadError):
        return BackendUnavailableError(text, backend=backend)
    return BackendError(
        f"{text}. Backends raise pizza.errors.BackendError types; this is a fault of the backend.",
        backend=backend,
    )
