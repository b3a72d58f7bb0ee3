# SPDX-License-Identifier: Apache-2.0
"""The documentation is complete, and what it shows runs."""

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

import pizza
from pizza import errors, hookspecs
from pizza.attribution import Attribution
from pizza.capability import Capability
from pizza.cli.app import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
DOCS = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)


def marks(page):
    """Pages about models in this process need torch."""
    return [pytest.mark.torch] if page.name == "local.md" else []


def blocks(language):
    return [
        pytest.param(
            page,
            [code for kind, code in found if kind == language],
            id=page.name,
            marks=marks(page),
        )
        for page in PAGES
        if language in dict(found := BLOCK.findall(page.read_text(encoding="utf-8")))
    ]


def commands():
    """Every command that is shown, once."""
    shown = {
        line: pytest.param(line, marks=marks(page))
        for page in PAGES
        for kind, code in BLOCK.findall(page.read_text(encoding="utf-8"))
        if kind == "sh"
        for line in code.splitlines()
        if re.match(r"pizza |echo .*\| pizza |python -c ", line)
    }
    return list(shown.values())


@pytest.mark.parametrize(("page", "programs"), blocks("python"))
def test_python_blocks_of_a_page_run_one_after_the_other(reader, page, programs):
    program = "\n\n".join(programs)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", commands())
def test_commands_run_as_they_are_written(reader, server, command):
    command = command.replace("http://127.0.0.1:8000/v1", server.base_url)
    command = command.replace("openai:my-model", f"openai:{server.model}")
    done = subprocess.run(command, shell=True, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_the_readme_starts_with_one_line_to_try_and_one_to_test():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = [code.strip() for kind, code in BLOCK.findall(readme) if kind == "sh"][:2]
    assert all("\n" not in line for line in lines)
    assert "pizza attribute" in lines[0]
    assert "torch" not in lines[0]
    assert "tox run" in lines[1]


def test_ci_runs_the_test_command_of_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    command = [code.strip() for kind, code in BLOCK.findall(readme) if kind == "sh"][1]
    assert command in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_links_between_pages_lead_somewhere():
    broken = [
        f"{page.name}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert broken == []


@pytest.mark.parametrize("name", [n for n in dir(hookspecs) if n.startswith("pizza_register_")])
def test_every_hook_is_documented(name):
    assert name in (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", pizza.__all__)
def test_every_public_name_is_documented(name):
    assert re.search(rf"`{name}\b", (ROOT / "docs" / "reference.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, value in inspect.getmembers(errors, inspect.isclass)
        if issubclass(value, errors.PizzaError)
    ],
)
def test_every_error_is_documented(name):
    assert f"`{name}`" in (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", list(Capability))
def test_every_capability_is_documented(name):
    assert f"`{name.value}`" in (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")


def test_every_command_and_option_is_documented():
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    group = typer.main.get_command(app)
    missing = [f"pizza {name}" for name in group.commands if f"pizza {name}" not in page]
    missing += [
        option
        for command in group.commands.values()
        for parameter in command.params
        for option in [*parameter.opts, *parameter.secondary_opts]
        if option.startswith("-") and option not in ("--help", "-h", "--load")
        if not re.search(rf"`[^`\n]*{option}\b", page)
    ]
    assert missing == []


def test_every_built_in_part_is_documented():
    from pizza._plugins import KINDS, Registry

    page = (ROOT / "docs" / "concepts.md").read_text(encoding="utf-8")
    registry = Registry(discover=False)
    missing = [n for kind in KINDS for n in registry.names(kind) if f"`{n}`" not in page]
    assert missing == []


def test_the_documented_result_is_one():
    page = (ROOT / "docs" / "result-format.md").read_text(encoding="utf-8")
    document = json.loads(next(code for kind, code in BLOCK.findall(page) if kind == "json"))
    attribution = Attribution.from_dict(document)
    assert attribution.to_dict() == document
    for field in document:
        assert f"`{field}" in page.partition("```\n")[2], f"{field} is not explained"


def test_a_failure_has_the_code_that_the_page_gives():
    from pizza.cli import failures

    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8").partition("## Exit codes")[2]
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}
    constants = {
        value
        for name, value in vars(failures).items()
        if name.isupper() and not name.startswith("_") and isinstance(value, int)
    }
    assert documented == constants
