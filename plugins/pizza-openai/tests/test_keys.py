# SPDX-License-Identifier: Apache-2.0
"""Keys go to the server and nowhere else."""

import logging
import traceback

import pytest
from pizza_openai.keys import KeyRing

from pizza.errors import AuthError, ConfigError

KEY = "sk-proj-Zx9QwErTyUiOpAsDfGhJkLzXcVbNm1234567890"
OPENAI = "https://api.openai.com/v1"


async def test_a_missing_key_is_reported_before_anything_is_sent(backend, ask):
    async with backend("gpt-4o-mini", base_url=OPENAI) as opened:
        with pytest.raises(AuthError, match="OPENAI_API_KEY"):
            await opened.answer(ask())
        assert opened.count_tokens(ask()) > 0  # an estimate needs no key


async def test_other_servers_get_a_placeholder(stub, backend, ask, chat):
    stub.reply(chat(text="5"))
    async with backend() as opened:
        await opened.answer(ask(logprobs=False))
    assert stub.requests[0].headers["authorization"] == "Bearer no-key"


async def test_the_key_of_the_environment_is_used(stub, backend, ask, chat, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
    stub.reply(chat(text="5"))
    async with backend() as opened:
        await opened.answer(ask(logprobs=False))
    assert stub.requests[0].headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_function_is_asked_for_every_request(stub, backend, ask, chat, asynchronous):
    keys = iter(["first-key-of-two", "second-key-of-two"])

    async def later():
        return next(keys)

    stub.reply(chat(text="5"))
    async with backend(api_key=later if asynchronous else lambda: next(keys)) as opened:
        for _ in range(2):
            await opened.answer(ask(logprobs=False))
    sent = [r.headers["authorization"] for r in stub.requests]
    assert sent == ["Bearer first-key-of-two", "Bearer second-key-of-two"]


def broken():
    raise RuntimeError(f"no access with {KEY}")


@pytest.mark.parametrize(
    ("source", "named"),
    [(broken, "RuntimeError"), (lambda: "", "str"), (lambda: 5, "int"), ("kéy", "ASCII")],
)
async def test_a_key_that_is_none_is_an_auth_error(stub, backend, ask, source, named):
    with pytest.raises(AuthError, match=named) as caught:
        async with backend(api_key=source) as opened:
            await opened.answer(ask())
    assert KEY not in shown(caught.value)
    assert stub.requests == []


def test_something_else_is_no_key():
    with pytest.raises(ConfigError, match="int"):
        KeyRing(5, placeholder=True)


def shown(error: BaseException) -> str:
    """All that a traceback or a careless logger could print of an exception and its relatives."""
    texts, seen = [], set()
    queue = [error]
    while queue:
        one = queue.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        texts += [str(one), repr(one), repr(one.args), repr(getattr(one, "body", None))]
        queue += [one.__cause__, one.__context__]
    return "\n".join([*texts, *traceback.format_exception(error)])


ECHOES = [
    f"Incorrect API key provided: {KEY}. Find it at https://platform.openai.com.",
    f"Incorrect API key provided: sk-proj-{'*' * 30}7890.",
    f"Incorrect API key provided: {KEY[:8]}...{KEY[-4:]}.",
    f"Token ending in {KEY[-8:]} is not valid; header was 'Bearer {KEY}'",
]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500])
@pytest.mark.parametrize("echo", ECHOES)
@pytest.mark.parametrize("http", ["aiohttp", "httpx"])
async def test_no_part_of_the_key_is_shown(stub, backend, ask, caplog, status, echo, http):
    stub.reply((status, {"error": {"message": echo, "code": "invalid_api_key"}}, {}))
    with caplog.at_level(logging.DEBUG):
        async with backend(api_key=KEY, http=http) as opened:
            with pytest.raises(Exception, match=str(status)) as caught:
                await opened.answer(ask())
            described = f"{opened!r} {opened.identity} {opened.name} {opened._keys!r}"
    text = shown(caught.value) + caplog.text + described
    for part in (KEY, KEY[:12], KEY[-6:], KEY[10:20], "7890."):
        assert part not in text


async def test_a_wrong_key_is_sent_once(stub, backend, ask):
    stub.reply((401, {"error": {"message": "Incorrect API key provided."}}, {}))
    async with backend(api_key=KEY) as opened:
        with pytest.raises(AuthError, match="OPENAI_API_KEY"):
            await opened.answer(ask())
    assert len(stub.requests) == 1


async def test_secrets_in_the_base_url_and_headers_are_not_part_of_the_identity(backend):
    url = "http://user:password@127.0.0.1:9/v1/?token=abcdef"
    headers = {"x-secret": "hush"}
    async with backend(base_url=url, default_headers=headers, api_key=KEY) as opened:
        text = f"{opened!r} {opened.identity} {opened._options!r}"
    assert opened.identity == "openai http://127.0.0.1:9/v1 chat some-model"
    for secret in ("user", "password", "abcdef", "hush", KEY):
        assert secret not in text


async def test_headers_of_the_user_are_sent(stub, backend, ask, chat):
    stub.reply(chat(text="5"))
    options = {"default_headers": {"x-team": "pizza"}, "organization": "org-1", "project": "p-1"}
    async with backend(**options) as opened:
        await opened.answer(ask(logprobs=False))
    sent = stub.requests[0].headers
    assert (sent["x-team"], sent["openai-organization"], sent["openai-project"]) == (
        "pizza",
        "org-1",
        "p-1",
    )
    assert not [name for name in sent if name in ("x-stainless-os", "x-stainless-runtime")]
