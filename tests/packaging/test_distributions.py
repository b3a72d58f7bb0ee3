# SPDX-License-Identifier: Apache-2.0
"""What the built distributions hold. That they work is checked by ``tox run -e wheel``."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = [ROOT, *sorted((ROOT / "plugins").glob("*/"))]


def project(folder):
    return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """Distribution name -> names of the files in its wheel."""
    target = tmp_path_factory.mktemp("wheels")
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"),
            *("--no-build-isolation", "--wheel-dir", str(target)),
            *(str(folder) for folder in FOLDERS),
        ],
        check=True,
    )
    return {
        path.name.partition("-")[0].replace("_", "-"): zipfile.ZipFile(path).namelist()
        for path in target.glob("*.whl")
    }


def test_every_tracked_module_is_in_its_wheel_and_nothing_else(wheels):
    for folder in FOLDERS:
        source = ROOT if folder == ROOT else folder / "src"
        package = "pizza" if folder == ROOT else folder.name.replace("-", "_")
        expected = {
            path.relative_to(source).as_posix()
            for path in (source / package).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        names = {n for n in wheels[project(folder)["name"]] if ".dist-info/" not in n}
        assert names == expected


def test_types_and_licence_travel_along(wheels):
    for names in wheels.values():
        assert any(name.endswith("/py.typed") for name in names)
    assert any(name.endswith("licenses/LICENSE") for name in wheels["pizza-attribution"])


def test_the_embedded_model_is_small(wheels):
    weights = ROOT / "plugins" / "pizza-embedded" / "src" / "pizza_embedded" / "weights"
    assert sum(path.stat().st_size for path in weights.iterdir()) < 4_000_000
    assert any(name.endswith(".safetensors") for name in wheels["pizza-embedded"])


def test_versions_agree():
    import pizza

    assert project(ROOT)["version"] == pizza.__version__
    major, minor = pizza.__version__.split(".")[:2]
    for folder in FOLDERS[1:]:
        needs = next(d for d in project(folder)["dependencies"] if "pizza-attribution" in d)
        span = f">={major}.{minor},<{major}.{int(minor) + 1}"
        assert re.fullmatch(rf"pizza-attribution(\[[a-z,]+\])?{re.escape(span)}", needs)


def test_the_core_needs_nothing_heavy():
    names = {re.match(r"[\w-]+", d)[0] for d in project(ROOT)["dependencies"]}
    assert not names & {"torch", "transformers", "openai", "httpx", "sentence-transformers"}


def test_everything_that_is_installed_here_is_pinned():
    pinned = {
        line.partition("==")[0]
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line
    }
    wanted = {
        re.match(r"[\w-]+", dependency)[0].lower()
        for folder in FOLDERS
        for dependency in project(folder)["dependencies"]
    }
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for members in groups["dependency-groups"].values():
        wanted |= {re.match(r"[\w-]+", dependency)[0].lower() for dependency in members}
    assert wanted - pinned == {"pizza-attribution"}
    assert "torch==2.13.0" in (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
