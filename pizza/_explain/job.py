# SPDX-License-Identifier: Apache-2.0
"""What one attribution was asked for, and what its steps share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pizza._engine.allowance import Allowance
from pizza._engine.asking import Account
from pizza._explain.work import Meter, Reading
from pizza._parts import Part
from pizza._plugins import Registry
from pizza.abc import Backend
from pizza.attribution import Target
from pizza.capability import Capability
from pizza.completion import Generation
from pizza.limits import Budget
from pizza.progress import Partial, Progress
from pizza.prompt import Prompt

if TYPE_CHECKING:
    from pizza._engine.scheduler import Scheduler

Confirm = Callable[[frozenset[Capability], Account], Awaitable[frozenset[Capability]]]
InThread = Callable[..., Awaitable[Any]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Job:
    """What `Session.attribute` was asked for, with all names resolved."""

    prompt: Prompt
    units: Part
    method: Part
    perturbation: Part
    metrics: tuple[Part, ...] | None
    target: Target
    generation: Generation
    evidence: str
    seed: int
    skip_failures: bool
    budget: Budget | None = None
    repeats: int | None = None
    on_progress: Callable[[Progress], None] | None = None
    on_partial: Callable[[Partial], None] | None = None


@dataclass(slots=True, kw_only=True, eq=False)
class Context:
    """What the steps of one attribution share."""

    job: Job
    registry: Registry
    backend: Backend
    scheduler: Scheduler
    budget: Budget
    origin: tuple[str, str, str]
    in_thread: InThread
    confirm: Confirm
    account: Account = field(default_factory=Account)
    meter: Meter = field(default_factory=Meter)
    reading: Reading | None = None
    capabilities: frozenset[Capability] = frozenset()
    probed: frozenset[Capability] = frozenset()
    metrics: tuple[Part, ...] = ()
    scored: bool = False
    warnings: list[str] = field(default_factory=list)
    tokenizer_name: str | None = None
    allowance: Allowance | None = None
