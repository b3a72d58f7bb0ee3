# SPDX-License-Identifier: Apache-2.0
"""Discovery in isolation: broken, contested, unknown and disabled plugins."""

import importlib
import sys
import textwrap

import pytest

from pizza._plugins import Registry
from pizza.errors import (
    ConfigError,
    DuplicateNameError,
    PluginContractError,
    PluginLoadError,
    UnknownNameError,
)


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Put a distribution with one plugin module on the path; everything is undone after."""
    monkeypatch.syspath_prepend(str(tmp_path))
    made = []

    def make(name, code, *, version="1.0"):
        module = name.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(code), encoding="utf-8")
        info = tmp_path / f"{module}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8"
        )
        (info / "entry_points.txt").write_text(
            f"[pizza.plugins]\n{name} = {module}\n", encoding="utf-8"
        )
        made.append(module)
        importlib.invalidate_caches()

    yield make
    for module in made:
        sys.modules.pop(module, None)


HEAD = """
from pizza.hookspecs import hookimpl
from pizza.specs import MetricSpec, MethodSpec
SPEC = MetricSpec(name="same", target="module:attribute")
"""
GOOD = (
    HEAD
    + """
@hookimpl
def pizza_register_metrics():
    return [MetricSpec(name="shouting", target="good_one:Shouting", summary="loud")]

class Shouting:
    pass
"""
)


def plugin(registry, name):
    return next(p for p in registry.plugins if p.name == name)


def test_what_ships_is_registered_like_any_plugin():
    registry = Registry(discover=False)
    assert [p.name for p in registry.plugins] == ["builtin"]
    assert "leave-one-out" in registry.names("method")
    assert registry.owner("method", "leave-one-out").distribution == "pizza-attribution"


def test_an_installed_plugin_is_found_with_its_distribution_and_version(install):
    install("good-one", GOOD, version="2.3")
    registry = Registry()
    assert registry.spec("metric", "shouting").summary == "loud"
    assert plugin(registry, "good-one").origin == "good-one 2.3"
    assert registry.load("metric", "shouting").__name__ == "Shouting"


def test_a_plugin_that_cannot_be_imported_stops_nobody_else(install):
    install("good-one", GOOD)
    install("bad-one", "import a_package_that_is_not_there")
    registry = Registry()
    assert "ModuleNotFoundError" in plugin(registry, "bad-one").error
    assert "shouting" in registry.names("metric")
    with pytest.raises(UnknownNameError, match=r"bad-one.*is broken.*a_package_that_is_not_there"):
        registry.spec("metric", "whispering")


def test_a_plugin_that_ends_the_program_stops_nobody_else(install):
    install("quitting-one", "import sys; sys.exit(3)")
    assert "SystemExit" in plugin(Registry(), "quitting-one").error


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("@hookimpl\ndef pizza_register_colours(): return []", "unknown hook"),
        ("def pizza_register_metrics(): return []", "lacks the decorator"),
        ("@hookimpl\ndef pizza_register_metrics(): return ['x']", "expected MetricSpec"),
        ("@hookimpl\ndef pizza_register_metrics(): return None", "expected a list of MetricSpec"),
        ("@hookimpl\ndef pizza_register_metrics(): 1/0", "ZeroDivisionError"),
        ("@hookimpl\nasync def pizza_register_metrics(): return []", "is async"),
        ("@hookimpl\ndef pizza_register_metrics(session): return []", "session"),
        (
            "@hookimpl\ndef pizza_register_metrics(): return [SPEC, SPEC]",
            "twice",
        ),
        (
            "@hookimpl\ndef pizza_register_metrics(): MetricSpec(name='Not Kebab', target='m:x')",
            "Not Kebab",
        ),
    ],
)
def test_a_plugin_that_breaks_the_contract_is_kept_as_an_error(install, code, message):
    install("odd-one", HEAD + code)
    info = plugin(Registry(), "odd-one")
    assert message in info.error
    assert info.specs == ()


def test_two_distributions_that_claim_one_name_are_both_named(install):
    install("good-one", GOOD, version="2.3")
    install("rival-one", GOOD)
    registry = Registry()
    with pytest.raises(DuplicateNameError, match=r"'shouting'.*good-one 2.3.*rival-one 1.0"):
        registry.load("metric", "shouting")
    assert [c.name for c in registry.conflicts()] == ["shouting"]
    assert "leave-one-out" in registry.names("method")


@pytest.mark.parametrize("value", ["good-one", "*", "something, good-one"])
def test_disabled_plugins_are_listed_but_not_imported(install, monkeypatch, value):
    install("good-one", "raise RuntimeError('imported')")
    monkeypatch.setenv("PIZZA_DISABLE_PLUGINS", value)
    registry = Registry()
    assert plugin(registry, "good-one").disabled
    assert plugin(registry, "good-one").error is None
    with pytest.raises(UnknownNameError, match=r"Disabled by PIZZA_DISABLE_PLUGINS: .*good-one"):
        registry.spec("metric", "shouting")
    assert "leave-one-out" in registry.names("method")


def test_a_missing_package_is_named_with_the_command_that_installs_it(install):
    code = (
        HEAD
        + """
@hookimpl
def pizza_register_metrics():
    return [MetricSpec(name="heavy", target="heavy_one:X", needs=("not_installed_at_all",),
                       install="pip install heavy-one[all]")]
"""
    )
    install("heavy-one", code)
    registry = Registry()
    assert registry.missing(registry.spec("metric", "heavy")) == ("not_installed_at_all",)
    with pytest.raises(
        PluginLoadError, match=r"not_installed_at_all.*pip install heavy-one\[all\]"
    ):
        registry.load("metric", "heavy")


def test_a_target_that_is_not_there_names_the_distribution(install):
    install("good-one", GOOD.replace("good_one:Shouting", "good_one:Missing"))
    with pytest.raises(PluginLoadError, match=r"good-one 1.0 cannot be imported.*Missing"):
        Registry().load("metric", "shouting")


def test_a_fault_in_a_plugin_given_by_hand_is_raised_at_once():
    class Wrong:
        def pizza_register_metrics(self):
            return []

    with pytest.raises(PluginContractError, match="lacks the decorator"):
        Registry([Wrong()], discover=False)


def test_near_names_are_suggested():
    with pytest.raises(UnknownNameError, match="Did you mean 'leave-one-out'"):
        Registry(discover=False).spec("method", "leave-one-uot")


def test_wrong_options_name_the_accepted_ones():
    with pytest.raises(ConfigError, match="It takes: size, stride"):
        Registry(discover=False).create("method", "sliding-window", {"width": 3})


def test_a_module_with_lazy_attributes_is_not_forced_to_import_them(install):
    install(
        "lazy-one",
        GOOD.replace("good_one", "lazy_one")
        + "\ndef __getattr__(name):\n    raise RuntimeError('touched ' + name)\n"
        + "def __dir__():\n    return ['pizza_register_metrics', 'heavy_thing']\n",
    )
    assert plugin(Registry(), "lazy-one").error is None


@pytest.mark.parametrize(("kind", "name"), [("backend", "local"), ("method", "saliency")])
def test_a_name_of_a_distribution_that_is_not_installed_says_how_to_install_it(kind, name):
    with pytest.raises(UnknownNameError, match="pip install pizza-local"):
        Registry(discover=False).spec(kind, name)
