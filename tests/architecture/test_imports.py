# SPDX-License-Identifier: Apache-2.0
"""What importing costs, what resolves, and which module may import which."""

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import pizza

ROOT = Path(__file__).parents[2]
HEAVY = (
    "aiohttp",
    "aiolimiter",
    "click",
    "msgspec",
    "numpy",
    "openai",
    "opentelemetry",
    "pandas",
    "platformdirs",
    "pluggy",
    "pydantic",
    "requests",
    "rich",
    "sqlite3",
    "tenacity",
    "tiktoken",
    "torch",
    "transformers",
    "typer",
)


def loaded_after(code):
    """Names of the modules that a fresh interpreter has imported after running ``code``."""
    program = f"{code}\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def heavy_after(code, *allowed):
    names = {name.partition(".")[0] for name in loaded_after(code)}
    # What site and .pth files of this environment import is not ours.
    return sorted(
        (names & set(HEAVY)) - {n.partition(".")[0] for n in loaded_after("")} - set(allowed)
    )


def test_importing_pizza_imports_nothing_heavy():
    assert heavy_after("import pizza") == []


def test_importing_pizza_imports_none_of_its_own_parts():
    ours = {name for name in loaded_after("import pizza") if name.startswith("pizza.")}
    assert ours == {"pizza._lazy"}


def test_the_nouns_need_nothing_heavy_either():
    assert heavy_after("import pizza; pizza.Prompt, pizza.Limits, pizza.PizzaError") == []


def test_the_registry_of_what_ships_imports_no_part():
    code = "from pizza._plugins import Registry; Registry(discover=False).names('metric')"
    # numpy comes with the nouns that specs are typed with, at most; the rest is not needed.
    assert heavy_after(code, "pluggy", "numpy") == []


def test_discovering_the_shipped_plugins_imports_no_client_and_no_model():
    code = "from pizza._plugins import Registry; Registry().names('backend')"
    assert heavy_after(code, "pluggy", "numpy") == []
    weights = {"pizza_embedded.runtime", "pizza_openai.backend"}
    assert not weights & loaded_after(code)


def test_asking_for_the_version_imports_no_numbers():
    code = (
        "import sys; sys.argv = ['pizza', '--version']\n"
        "from pizza.cli import main\n"
        "try: main()\nexcept SystemExit: pass"
    )
    assert heavy_after(code, "typer", "rich", "click") == []


@pytest.mark.parametrize("name", pizza.__all__)
def test_every_public_name_resolves(name):
    assert getattr(pizza, name) is not None


def test_lazy_names_are_those_that_type_checkers_see():
    tree = ast.parse((ROOT / "pizza" / "__init__.py").read_text(encoding="utf-8"))
    guarded = next(
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    seen = {
        alias.asname or alias.name: node.module
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert sorted(seen) == sorted(pizza.__all__)
    assert dir(pizza) == sorted(pizza.__all__)
    for name, module in seen.items():
        assert getattr(pizza, name) is (
            importlib.import_module(f"{module}.{name}")
            if module == "pizza"
            else getattr(importlib.import_module(module), name)
        )


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = pizza.no_such_name


def test_imports_go_downwards_only():
    pytest.importorskip("importlinter", reason="installed with the lint group")
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_plugins_import_only_public_names():
    """Given a plugin's source -> it touches no private module of the core."""
    private = []
    for path in sorted((ROOT / "plugins").glob("*/src/**/*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            private += [
                f"{path.relative_to(ROOT)}: {name}"
                for name in names
                if name.startswith("pizza.") and any(p.startswith("_") for p in name.split("."))
            ]
    assert private == []
