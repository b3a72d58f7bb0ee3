# SPDX-License-Identifier: Apache-2.0
"""``pizza plugins``: what is installed, from whom, what it needs, and whether it loads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pizza import __version__
from pizza.cli.consoles import orderly, out, show, write_json
from pizza.errors import PizzaError
from pizza.render.text import harmless, one_line

if TYPE_CHECKING:
    from pizza._plugins import Kind, PluginInfo, Registry
    from pizza.specs import Spec


def plugins(
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON document on standard output.")
    ] = False,
    load: Annotated[
        bool,
        typer.Option("--load/--no-load", help="Import every part to see whether it loads."),
    ] = True,
) -> None:
    """List the installed plugins and their parts.

    A broken plugin is shown with its error, and stops nobody else. The exit code is 0.
    """
    with orderly():
        document = inventory(load=load)
    if as_json:
        write_json(document)
    else:
        _show(out(), document)


def inventory(*, load: bool) -> dict[str, Any]:
    """Everything about the installed plugins, as plain JSON values.

    Args:
        load: Whether to import every part; ``loads`` is ``None`` otherwise.
    """
    from pizza._plugins import Registry

    registry = Registry()
    conflicts = [
        {"kind": c.kind, "name": c.name, "distributions": list(c.distributions)}
        for c in registry.conflicts()
    ]
    return {
        "pizza_version": __version__,
        "plugins": [_plugin(registry, info, load) for info in registry.plugins],
        "conflicts": conflicts,
    }


def _plugin(registry: Registry, info: PluginInfo, load: bool) -> dict[str, Any]:
    status = "disabled" if info.disabled else "broken" if info.error else "ok"
    return {
        "name": info.name,
        "distribution": info.distribution,
        "version": info.version,
        "module": info.module,
        "status": status,
        "error": info.error,
        "parts": [_part(registry, kind, spec, load) for kind, spec in info.specs],
    }


def _part(registry: Registry, kind: Kind, spec: Spec, load: bool) -> dict[str, Any]:
    missing = registry.missing(spec)
    loads: bool | None = None
    error: str | None = None
    if load:
        try:
            registry.load(kind, spec.name)
            loads = True
        except (PizzaError, SystemExit) as failure:
            loads = False
            error = str(failure) or type(failure).__name__
    return {
        "kind": kind,
        "name": spec.name,
        "summary": spec.summary,
        "requires": sorted(spec.requires),
        "needs": list(spec.needs),
        "missing": list(missing),
        "install": spec.install if missing else "",
        "loads": loads,
        "error": error,
    }


# --- for people ------------------------------------------------------------------------------


def _show(console: Console, document: dict[str, Any]) -> None:
    for plugin in document["plugins"]:
        console.print(_title(plugin), soft_wrap=True)
        if plugin["error"]:
            console.print(Text(f"  {harmless(plugin['error'])}"), soft_wrap=True)
        if plugin["parts"]:
            show(console, Padding(_parts(plugin["parts"], console.width), (0, 0, 0, 2)))
        for part in plugin["parts"]:
            if part["error"]:
                console.print(Text(f"  ! {harmless(part['error'])}"), soft_wrap=True)
        console.print()
    for conflict in document["conflicts"]:
        claimants = " and ".join(conflict["distributions"])
        said = f"conflict: the {conflict['kind']} {conflict['name']!r} is claimed by {claimants}"
        console.print(Text(harmless(said), style="bold red"), soft_wrap=True)


def _title(plugin: dict[str, Any]) -> Text:
    origin = f"{plugin['distribution']} {plugin['version']}".strip() or "no distribution"
    text = Text(one_line(origin), style="bold")
    text.append(f"  plugin {one_line(plugin['name'])}", style="not bold dim")
    said, style = {
        "ok": ("ok", "green"),
        "broken": ("cannot be used", "bold red"),
        "disabled": ("disabled", "yellow"),
    }[plugin["status"]]
    text.append(f"  {said}", style=style)
    return text


def _parts(parts: list[dict[str, Any]], width: int) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True, style="dim")
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    # Three columns say what counts; the fourth only where there is room for it.
    wide = width >= 80
    if wide:
        table.add_column(overflow="fold", ratio=1)
    for part in parts:
        cells = [Text(part["kind"]), Text(one_line(part["name"])), _state(part)]
        if wide:
            cells.append(Text("; ".join(_about(part))))
        table.add_row(*cells)
    return table


def _state(part: dict[str, Any]) -> Text:
    if part["missing"]:
        return Text("missing", style="yellow")
    if part["loads"] is None:
        return Text("not tried", style="dim")
    return Text("loads", style="green") if part["loads"] else Text("fails", style="bold red")


def _about(part: dict[str, Any]) -> Iterator[str]:
    if part["summary"]:
        yield harmless(part["summary"], keep_newlines=False).rstrip(".")
    if part["requires"]:
        yield f"needs a model with {', '.join(part['requires'])}"
    if part["needs"]:
        yield f"needs {harmless(', '.join(part['needs']), keep_newlines=False)}"
