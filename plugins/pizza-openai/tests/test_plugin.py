# SPDX-License-Identifier: Apache-2.0
"""What the distribution registers, and what that costs."""

import importlib
import subprocess
import sys

import pytest
from pizza_openai.backend import OpenAIBackend
from pizza_openai.batch import OpenAIBatchBackend
from pizza_openai.plugin import pizza_register_backends

from pizza.capability import Capability
from pizza.errors import ConfigError, UnknownNameError
from pizza.specs import BackendSettings


def test_registering_loads_neither_openai_nor_an_http_library():
    code = (
        "import sys, pizza_openai.plugin as p; p.pizza_register_backends();"
        "print([m for m in ('openai', 'aiohttp', 'httpx2', 'numpy', 'tiktoken')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_specs_name_backends_that_can_be_imported():
    specs = {spec.name: spec for spec in pizza_register_backends()}
    for name, made in (("openai", OpenAIBackend), ("openai-batch", OpenAIBatchBackend)):
        spec = specs.pop(name)
        module, _, attribute = spec.target.partition(":")
        assert getattr(importlib.import_module(module), attribute) is made
        assert spec.key_variable == "OPENAI_API_KEY"
        assert Capability.SCORE in spec.offers
    assert not specs


def opened(**options):
    return OpenAIBackend(BackendSettings(model="m", base_url="http://h/v1", options=options))


def test_an_unknown_option_gets_the_nearest_known_one():
    with pytest.raises(UnknownNameError, match="organization"):
        opened(organisation="x")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"api": "edits"}, "'responses'"),
        ({"http": "curl"}, "'httpx'"),
        ({"price": "cheap"}, "'0.15/0.60'"),
        ({"price": (1, -1)}, "per million"),
        ({"default_headers": ["a"]}, "mapping"),
    ],
)
def test_an_option_that_is_not_accepted_says_what_is(options, named):
    with pytest.raises(ConfigError, match=named):
        opened(**options)


@pytest.mark.parametrize("url", ["127.0.0.1:8000/v1", "ftp://h/v1", "http://", "http://h:x/v1"])
def test_a_base_url_that_is_none_is_refused(url):
    with pytest.raises(ConfigError, match="base URL"):
        OpenAIBackend(BackendSettings(model="m", base_url=url))
