# SPDX-License-Identifier: Apache-2.0
"""Runs one order of ``pizza evaluate``: reads the attribution, measures, shows the figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from pizza.cli.connection import Connection
from pizza.cli.consoles import out, show, view_for, write_json
from pizza.cli.reading import read_result
from pizza.cli.running import Listen, Run, conduct, in_session, say_where
from pizza.limits import Budget
from pizza.specs import parse_choice

if TYPE_CHECKING:
    from pizza.evaluation.result import Evaluation
    from pizza.session import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Order(Connection):
    """The options of ``pizza evaluate``, as they were given."""

    result: Path
    measures: Sequence[str]
    metric: str | None
    perturbation: str | None
    output_token: int | None
    budget: str | None

    def call_options(self) -> dict[str, Any]:
        """Keyword arguments of `pizza.Session.evaluate`.

        Raises:
            ConfigError: An option's value is not usable.
        """
        return {
            "measures": [parse_choice(measure) for measure in self.measures] or None,
            "metric": None if self.metric is None else parse_choice(self.metric),
            "perturbation": (
                None if self.perturbation is None else parse_choice(self.perturbation)
            ),
            "budget": None if self.budget is None else Budget.of(self.budget),
            "output_token": self.output_token,
            "seed": self.seed,
            "skip_failures": self.skip_failures,
        }


def execute(order: Order) -> int:
    """Do what was asked for; return the exit code."""

    def work(run: Run, console: Console) -> Evaluation:
        call = order.call_options()
        attribution = read_result(order.result)
        model = order.model or str(attribution.provenance.get("backend", "embedded"))

        async def ask(session: Session, listen: Listen) -> Evaluation:
            return await session.evaluate(attribution, on_progress=listen, **call)

        return in_session(replace(order, model=model), run, console, ask)

    return conduct(
        order,
        work,
        save=lambda evaluation, path: evaluation.save(path),
        show=lambda evaluation, run: _show(order, evaluation),
    )


def _show(order: Order, evaluation: Evaluation) -> None:
    if order.as_json:
        write_json(evaluation.to_dict())
        return
    from pizza.evaluation.catalog import MEASURES
    from pizza.render.evaluation import evaluation_view

    console = out()
    meanings = {name: kind.meaning for name, kind in MEASURES.items()}
    show(console, evaluation_view(evaluation, meanings, view_for(console)))
    say_where(order)
