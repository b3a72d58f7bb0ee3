# SPDX-License-Identifier: Apache-2.0
"""Which parts exist, and which distribution each comes from.

A `Registry` belongs to one session (or one command): there is no process-wide plugin state.
pluggy validates and registers; what it leaves open is done here: each entry point is loaded in
isolation, so that a broken plugin is kept as an error instead of stopping the others; two
distributions that claim one name are both refused; unknown hooks are refused.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import inspect
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, Literal, get_args

import pluggy

from pizza import hookspecs
from pizza._plugins import shipped
from pizza.errors import (
    ConfigError,
    DuplicateNameError,
    PluginContractError,
    PluginError,
    PluginLoadError,
    UnknownNameError,
)
from pizza.specs import (
    BackendSpec,
    MethodSpec,
    MetricSpec,
    PerturbationSpec,
    SegmenterSpec,
    Spec,
)

Kind = Literal["backend", "metric", "method", "perturbation", "segmenter"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_HOOKS: dict[Kind, tuple[str, type[Spec]]] = {
    "backend": ("pizza_register_backends", BackendSpec),
    "metric": ("pizza_register_metrics", MetricSpec),
    "method": ("pizza_register_methods", MethodSpec),
    "perturbation": ("pizza_register_perturbations", PerturbationSpec),
    "segmenter": ("pizza_register_segmenters", SegmenterSpec),
}
_HOOK_PREFIX = "pizza_"
DISABLE_VARIABLE = "PIZZA_DISABLE_PLUGINS"


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginInfo:
    """One plugin and what became of it.

    Attributes:
        name: The entry point's name, or the module's for plugins given by hand.
        module: The module that the entry point names.
        distribution: The distribution that it comes from; ``""`` when given by hand.
        version: The distribution's version.
        specs: What it registered, with the kinds.
        error: Why it could not be used, or ``None``.
        disabled: Whether ``PIZZA_DISABLE_PLUGINS`` names it.
    """

    name: str
    module: str
    distribution: str = ""
    version: str = ""
    specs: tuple[tuple[Kind, Spec], ...] = ()
    error: str | None = None
    disabled: bool = False

    @property
    def origin(self) -> str:
        """``"distribution version"``, for messages and provenance."""
        if not self.distribution:
            return f"the plugin {self.name!r} given to the session"
        return f"{self.distribution} {self.version}"


class Registry:
    """All parts that can be named, by kind.

    Args:
        plugins: Modules or objects with hook implementations, used besides the discovered ones.
            A fault in one of them is raised at once: the caller gave it.
        discover: Whether to look at installed distributions' entry points. The parts that ship
            with pizza are there in any case.
    """

    def __init__(self, plugins: Iterable[Any] = (), *, discover: bool = True) -> None:
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._plugins: list[PluginInfo] = []
        self._claims: dict[tuple[Kind, str], list[tuple[Spec, PluginInfo]]] = {}
        self._signatures: dict[tuple[Kind, str], inspect.Signature] = {}
        if discover:
            self._discover()
        else:
            self._add(_import("pizza.builtin"), _builtin_info())
        for plugin in plugins:
            name = getattr(plugin, "__name__", type(plugin).__name__)
            self._add(plugin, PluginInfo(name=name, module=name))

    # --- reading ------------------------------------------------------------------------------

    @property
    def plugins(self) -> tuple[PluginInfo, ...]:
        """All plugins, broken and disabled ones included, in the order of registration."""
        return tuple(self._plugins)

    def names(self, kind: Kind) -> tuple[str, ...]:
        """The names of all parts of a kind, sorted; contested ones included."""
        return tuple(sorted(name for k, name in self._claims if k == kind))

    def specs(self, kind: Kind) -> tuple[Spec, ...]:
        """The specs of all uncontested parts of a kind, sorted by name."""
        found = [
            claims[0][0]
            for (k, _), claims in self._claims.items()
            if k == kind and len(claims) == 1
        ]
        return tuple(sorted(found, key=lambda spec: spec.name))

    def spec(self, kind: Kind, name: str) -> Spec:
        """The spec of a part.

        Raises:
            UnknownNameError: Nobody offers it; names near ones, and broken plugins.
            DuplicateNameError: Several distributions do.
        """
        return self._claim(kind, name)[0]

    def owner(self, kind: Kind, name: str) -> PluginInfo:
        """The plugin that offers a part; raises as `spec` does."""
        return self._claim(kind, name)[1]

    def conflicts(self) -> tuple[DuplicateNameError, ...]:
        """The names that several distributions claim, as the errors that using them raises."""
        return tuple(
            DuplicateNameError(kind, name, [info.origin for _, info in claims])
            for (kind, name), claims in sorted(self._claims.items())
            if len(claims) > 1
        )

    def missing(self, spec: Spec) -> tuple[str, ...]:
        """The packages that a spec needs and that are not installed."""
        return tuple(name for name in spec.needs if not _installed(name))

    def load(self, kind: Kind, name: str) -> Any:
        """Import the target of a part.

        Raises:
            PluginLoadError: A needed package is missing, or importing failed.
        """
        spec, info = self._claim(kind, name)
        if missing := self.missing(spec):
            hint = spec.install or f"pip install {' '.join(missing)}"
            raise PluginLoadError(
                f"the {kind} {name!r} needs {', '.join(missing)}, which is not installed: {hint}",
                plugin=name,
                distribution=info.origin,
            )
        module, _, attribute = spec.target.partition(":")
        try:
            found: Any = importlib.import_module(module)
            for part in attribute.split("."):
                found = getattr(found, part)
        except (Exception, SystemExit) as error:
            raise PluginLoadError(
                f"the {kind} {name!r} of {info.origin} cannot be imported from {spec.target!r}: "
                f"{type(error).__name__}: {error}. Report it to the authors of {info.origin}, or "
                f"set {DISABLE_VARIABLE}={info.name} to go without it.",
                plugin=name,
                distribution=info.origin,
            ) from error
        return found

    def create(self, kind: Kind, name: str, options: dict[str, Any]) -> Any:
        """Load a part and call it with the user's options.

        Raises:
            ConfigError: An option is unknown or missing; the accepted ones are named.
        """
        factory = self.load(kind, name)
        try:
            # Reading a signature takes 0.2 ms, and bulk runs make all parts anew for every prompt.
            if (kind, name) not in self._signatures:
                self._signatures[kind, name] = inspect.signature(factory)
            self._signatures[kind, name].bind(**options)
        except TypeError as error:
            accepted = ", ".join(inspect.signature(factory).parameters) or "none"
            raise ConfigError(
                f"the {kind} {name!r} does not take these options: {error}. It takes: {accepted}."
            ) from error
        return factory(**options)

    def _claim(self, kind: Kind, name: str) -> tuple[Spec, PluginInfo]:
        claims = self._claims.get((kind, name))
        if not claims:
            hints = [text for text in (shipped.hint(kind, name), self._hint()) if text]
            raise UnknownNameError(kind, name, self.names(kind), hint=" ".join(hints))
        if len(claims) > 1:
            raise DuplicateNameError(kind, name, [info.origin for _, info in claims])
        return claims[0]

    def _hint(self) -> str:
        lines = [
            f"The plugin {p.name!r} of {p.origin} is broken and may be what offers it: {p.error}"
            for p in self._plugins
            if p.error
        ]
        off = [p.name for p in self._plugins if p.disabled]
        if off:
            lines.append(f"Disabled by {DISABLE_VARIABLE}: {', '.join(off)}.")
        return " ".join(lines)

    # --- filling ------------------------------------------------------------------------------

    def _discover(self) -> None:
        disabled = {
            name.strip() for name in os.environ.get(DISABLE_VARIABLE, "").split(",") if name.strip()
        }
        self._add(_import("pizza.builtin"), _builtin_info())
        points = importlib.metadata.entry_points(group=hookspecs.ENTRY_POINT_GROUP)
        ordered = sorted(points, key=lambda p: (p.dist.name if p.dist else "", p.name))
        for point in ordered:
            if point.value == "pizza.builtin":
                continue
            info = PluginInfo(
                name=point.name,
                module=point.value,
                distribution=point.dist.name if point.dist else "",
                version=point.dist.version if point.dist else "",
            )
            if disabled & {point.name, info.distribution, "*"}:
                self._plugins.append(replace(info, disabled=True))
                continue
            try:
                plugin = point.load()
            except (Exception, SystemExit) as error:  # a stranger's import may fail in any way
                problem = f"{type(error).__name__}: {error}"
                self._plugins.append(replace(info, error=problem))
                continue
            try:
                self._add(plugin, info)
            except PluginError as error:
                self._plugins.append(replace(info, error=str(error)))

    def _add(self, plugin: Any, info: PluginInfo) -> None:
        """Register one plugin whole or not at all."""
        key = f"{info.distribution}:{info.name}:{len(self._plugins)}"
        _check_hooks(plugin, info)
        try:
            self._manager.register(plugin, name=key)
        except (pluggy.PluginValidationError, ValueError) as error:
            raise PluginContractError(
                f"the plugin {info.name!r} of {info.origin} was refused: {error}"
            ) from error
        try:
            specs = self._collect(plugin, info)
        except PluginError:
            self._manager.unregister(plugin)
            raise
        done = replace(info, specs=tuple(specs))
        self._plugins.append(done)
        for kind, spec in specs:
            self._claims.setdefault((kind, spec.name), []).append((spec, done))

    def _collect(self, plugin: Any, info: PluginInfo) -> list[tuple[Kind, Spec]]:
        found: list[tuple[Kind, Spec]] = []
        for kind, (hook, spec_type) in _HOOKS.items():
            for implementation in getattr(self._manager.hook, hook).get_hookimpls():
                if implementation.plugin is not plugin:
                    continue
                found += [
                    (kind, spec) for spec in _call(implementation.function, hook, spec_type, info)
                ]
        names = [(kind, spec.name) for kind, spec in found]
        if twice := sorted({n for n in names if names.count(n) > 1}):
            raise PluginContractError(
                f"the plugin {info.name!r} of {info.origin} registers the {twice[0][0]} "
                f"{twice[0][1]!r} twice."
            )
        return found


def _call(function: Any, hook: str, spec_type: type[Spec], info: PluginInfo) -> Sequence[Spec]:
    try:
        result = function()
    except (Exception, SystemExit) as error:  # a stranger's hook may fail in any way
        raise PluginContractError(
            f"{hook} of the plugin {info.name!r} ({info.origin}) failed: "
            f"{type(error).__name__}: {error}"
        ) from error
    if inspect.iscoroutine(result):
        result.close()
        raise PluginContractError(f"{hook} of {info.origin} is async; hooks are plain functions.")
    if isinstance(result, (str, bytes)) or not isinstance(result, Iterable):
        raise PluginContractError(
            f"{hook} of {info.origin} returned {result!r}; expected a list of {spec_type.__name__}."
        )
    specs = list(result)
    for spec in specs:
        if not isinstance(spec, spec_type):
            raise PluginContractError(
                f"{hook} of {info.origin} returned {spec!r}; expected {spec_type.__name__} values."
            )
    return specs


def _check_hooks(plugin: Any, info: PluginInfo) -> None:
    """Refuse hooks that pizza does not have, and hooks that lack the marker."""
    known = {hook for hook, _ in _HOOKS.values()}
    marker = f"{hookspecs.PROJECT}_impl"
    for name in dir(plugin):
        # Statically: a module with lazy attributes must not be made to import its heavy parts.
        value = inspect.getattr_static(plugin, name, None)
        marked = hasattr(value, marker)
        looks = name.startswith(_HOOK_PREFIX) and inspect.isroutine(value)
        if marked and name not in known:
            raise PluginContractError(
                f"the plugin {info.name!r} of {info.origin} implements the unknown hook {name!r}; "
                f"known: {', '.join(sorted(known))}."
            )
        if looks and not marked and name in known:
            raise PluginContractError(
                f"{name} of the plugin {info.name!r} ({info.origin}) lacks the decorator "
                "@pizza.hookspecs.hookimpl."
            )


def _builtin_info() -> PluginInfo:
    from pizza import __version__

    return PluginInfo(
        name="builtin",
        module="pizza.builtin",
        distribution="pizza-attribution",
        version=__version__,
    )


def _import(name: str) -> ModuleType:
    return importlib.import_module(name)


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False
