# SPDX-License-Identifier: Apache-2.0
"""Runs one order: progress while it runs, the result or the error after it, Ctrl-C at any time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from pizza.cli.connection import Connection
from pizza.cli.consoles import err, orderly, out, show, view_for, write_json
from pizza.cli.failures import INTERRUPTED, OK, report
from pizza.cli.order import Order
from pizza.cli.suggestions import suggestions
from pizza.errors import PizzaError
from pizza.prompt import Prompt
from pizza.render.terminal import attribution_view, hints
from pizza.render.text import harmless, plural

if TYPE_CHECKING:
    from pizza._plugins import Registry
    from pizza.attribution import Attribution
    from pizza.session import Progress as Step
    from pizza.session import Session

_T = TypeVar("_T")
Listen: TypeAlias = "Callable[[Step], None]"


@dataclass(slots=True)
class Run:
    """What is known about a run while it runs, for whoever has to explain how it ended.

    Attributes:
        cache: The file of answers, or ``None``.
        answers: Answers that came in and were paid for.
        registry: The session's plugins.
    """

    cache: Path | None = None
    answers: int = 0
    registry: Registry | None = None

    @property
    def kept(self) -> str:
        """What the run left behind for the next one."""
        if not self.answers:
            return ""
        answers = plural(self.answers, "answer")
        if self.cache is None:
            return f"{answers} came in and went unkept, because there is no cache (--no-cache)."
        return (
            f"{answers} of this run {'is' if self.answers == 1 else 'are'} kept in {self.cache}: "
            "run the same command again and it goes on from there."
        )


def execute(order: Order) -> int:
    """Explain the prompt of an order; return the exit code."""

    def work(run: Run, console: Console) -> tuple[Prompt, Attribution]:
        prompt = order.source.read()
        call = order.call_options()

        async def ask(session: Session, listen: Listen) -> Attribution:
            return await session.attribute(prompt, on_progress=listen, **call)

        return prompt, in_session(order, run, console, ask)

    return conduct(
        order,
        work,
        save=lambda found, path: found[1].save(path),
        show=lambda found, run: _show(order, *found, run),
    )


def conduct(
    order: Connection,
    work: Callable[[Run, Console], _T],
    *,
    save: Callable[[_T, Path], None],
    show: Callable[[_T, Run], None],
) -> int:
    """Do what was asked for, and turn whatever happens into an exit code.

    Args:
        order: The command's options.
        work: Does it; gets the run and standard error.
        save: Writes the result to a file.
        show: Prints the result.
    """
    console = err()
    run = Run()
    variables = (order.api_key_env,) if order.api_key_env else ()
    try:
        with orderly(console):
            result = work(run, console)
        if order.output is not None:
            _save(result, order.output, save)
    except KeyboardInterrupt:
        _say_interrupted(console, run)
        return INTERRUPTED
    except Exception as error:  # the last place where it can be turned into an exit code
        return report(error, console, debug=order.debug, variables=variables, kept=run.kept)
    show(result, run)
    return OK


def in_session(
    order: Connection,
    run: Run,
    console: Console,
    ask: Callable[[Session, Listen], Coroutine[Any, Any, _T]],
) -> _T:
    """What ``ask`` returns in a session of its own, with progress shown meanwhile."""
    order.check_output()
    run.cache = order.cache_path()
    session_options = order.session_options(run.cache)
    # Imported here: it brings numpy, and the checks above answer without it.
    from pizza.session import Session

    async def work(watch: Listen) -> _T:
        async with Session(order.model, **session_options) as session:
            run.registry = session.plugins

            def listen(step: Step) -> None:
                # Attempts that were made again brought no answer.
                run.answers = max(0, step.calls - session.statistics.retries)
                watch(step)

            return await ask(session, listen)

    with _progress(console, order) as watch:
        # On Ctrl-C asyncio.run cancels the work and waits until the session has closed.
        return asyncio.run(work(watch))


@contextmanager
def _progress(console: Console, order: Connection) -> Iterator[Listen]:
    """A live line on standard error, when somebody is there to see it."""
    if order.quiet or not console.is_terminal:
        yield lambda step: None
        return
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[said]}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    ) as bar:
        model = harmless(order.model.partition(":")[0], keep_newlines=False)
        task = bar.add_task(f"opening {model}", total=None, said="")

        def listen(step: Step) -> None:
            cached = f", {step.cache_hits:,} cached" if step.cache_hits else ""
            done = f"{step.done:,}/{step.total:,}, " if step.total else ""
            bar.update(
                task,
                description={"reference": "first answer"}.get(step.phase, "perturbing"),
                completed=step.done,
                total=step.total or None,
                said=f"{done}{plural(step.calls, 'call')}{cached}",
            )

        yield listen


def _save(result: _T, path: Path, save: Callable[[_T, Path], None]) -> None:
    try:
        save(result, path)
    except OSError as error:
        raise PizzaError(f"cannot write {path}: {error.strerror or error}.") from error


def _show(order: Order, prompt: Prompt, attribution: Attribution, run: Run) -> None:
    if order.as_json:
        write_json(attribution.to_dict())
        return
    console = out()
    view = view_for(console, top=order.top, everything=order.show_all)
    show(console, attribution_view(attribution, view))
    say_where(order)
    if not order.quiet and run.registry is not None:
        for line in hints(suggestions(order, prompt, attribution, run.registry)):
            console.print(line, soft_wrap=True)


def say_where(order: Connection) -> None:
    """Name the file that was written, if one was."""
    if order.output is not None:
        err().print(Text(f"The result is in {harmless(str(order.output))}."), soft_wrap=True)


def _say_interrupted(console: Console, run: Run) -> None:
    said = run.kept or "No answer had come in yet."
    console.print(Text(harmless(f"Interrupted; nothing is left running. {said}")), soft_wrap=True)
