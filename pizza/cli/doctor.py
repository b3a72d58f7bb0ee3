# SPDX-License-Identifier: Apache-2.0
"""``pizza doctor``: what is installed and visible, what is missing, and how to get it."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pizza.cli.consoles import orderly, out, show, write_json
from pizza.render.text import harmless


def doctor(
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON document on standard output.")
    ] = False,
) -> None:
    """Say what is installed, which keys and endpoints are visible, and what is missing.

    Keys are only ever reported as set or not set. Nothing is sent over the network. The exit code
    is 0, or 1 when something that is installed does not work.
    """
    from pizza.cli.examination import examine

    with orderly():
        document = examine()
    if as_json:
        write_json(document)
    else:
        _show(out(), document)
    raise typer.Exit(1 if document["problems"] else 0)


def _show(console: Console, document: dict[str, Any]) -> None:
    system = document["system"]
    _section(
        console,
        "System",
        [
            ("pizza", system["pizza"], "", True),
            ("python", f"{system['python']} on {system['platform']}", "", True),
        ],
    )
    _section(
        console,
        "Plugins",
        [(p["origin"], p["status"], p["detail"], p["status"] == "ok") for p in document["plugins"]],
    )
    _show_packages(console, document["packages"])
    _section(
        console,
        "Keys and endpoints",
        [(v["name"], v["value"], v["purpose"], v["set"]) for v in document["environment"]],
    )
    _section(
        console,
        "Tokens",
        [
            (
                t["encoding"],
                "ranks present" if t["present"] else "no ranks",
                t["advice"],
                t["present"],
            )
            for t in document["tiktoken"]
        ],
    )
    cache, terminal = document["cache"], document["terminal"]
    size = f"{cache['bytes'] / 1e6:,.1f} MB" if cache["exists"] else "not made yet"
    _section(
        console,
        "Here",
        [
            ("cache", f"{cache['path']} ({size})", "", cache["writable"]),
            ("terminal", terminal["said"], "", True),
        ],
    )
    for problem in document["problems"]:
        console.print(Text(f"problem: {harmless(problem)}", style="bold red"), soft_wrap=True)
    if not document["problems"]:
        console.print(Text("No problems found.", style="green"))


def _show_packages(console: Console, packages: list[dict[str, Any]]) -> None:
    rows = [
        (p["name"], p["version"] or "not installed", f"extra: {p['extra']}", bool(p["version"]))
        for p in packages
    ]
    _section(console, "Optional packages", rows)
    missing = [p for p in packages if not p["version"]]
    if missing:
        console.print(Text("  To install what is missing:", style="dim"))
    for package in missing:
        # Not wrapped: it is there to be copied.
        console.print(Text(f"  {harmless(package['install'])}"), soft_wrap=True)
    if missing:
        console.print()


def _section(console: Console, title: str, rows: list[tuple[str, str, str, bool]]) -> None:
    """One table: what, state, more about it, and whether that is as it should be."""
    console.print(Text(title, style="bold"))
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_column(overflow="fold", style="dim")
    for name, state, more, good in rows:
        table.add_row(
            Text(f"  {harmless(name, keep_newlines=False)}"),
            Text(harmless(state, keep_newlines=False), style="green" if good else "yellow"),
            Text(harmless(more, keep_newlines=False)),
        )
    show(console, table)
    console.print()
