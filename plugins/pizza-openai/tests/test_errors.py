# SPDX-License-Identifier: Apache-2.0
"""Every failure of the vendor's library, of HTTP and of the network gets its type."""

import inspect
import socket

import httpx2
import openai
import pytest
from pizza_openai.errors import KNOWN, Translator
from pizza_openai.keys import KeyRing

from pizza.errors import (
    AuthError,
    BackendError,
    BackendTimeoutError,
    BackendUnavailableError,
    BadRequestError,
    ContextTooLongError,
    MalformedResponseError,
    PermanentError,
    QuotaExhaustedError,
    RateLimitedError,
    RefusedError,
    TransientError,
)


@pytest.fixture(params=["aiohttp", "httpx"])
def http(request):
    return request.param


# --- completeness ------------------------------------------------------------------------------

EXCEPTIONS = [
    value
    for _, value in inspect.getmembers(openai, inspect.isclass)
    if issubclass(value, Exception)
    and value.__module__.startswith("openai")
    and not value.__name__.startswith("_")
]


def test_every_exception_class_of_openai_is_in_the_table():
    assert len(EXCEPTIONS) > 15
    assert [e.__name__ for e in EXCEPTIONS if e not in KNOWN] == []


def test_further_classes_count_as_their_base():
    from openai._exceptions import SubjectTokenProviderError

    translator = Translator(name="openai:m", url="http://h/v1", keys=KeyRing("k", placeholder=True))
    assert isinstance(translator.error(SubjectTokenProviderError("no")), PermanentError)


@pytest.mark.parametrize("status", [*range(300, 309), *range(400, 452), *range(500, 512), 529])
def test_every_status_has_a_type(status):
    translator = Translator(name="openai:m", url="http://h/v1", keys=KeyRing("k", placeholder=True))
    request = httpx2.Request("POST", "http://h/v1/chat/completions")
    response = httpx2.Response(status, request=request, headers={"x-request-id": "req_7"})
    error = translator.error(openai.APIStatusError("no", response=response, body=None))
    assert isinstance(error, TransientError | PermanentError)
    assert isinstance(error, TransientError) == (status in (408, 409, 425, 429) or status >= 500)
    assert (error.backend, error.request_id) == ("openai:m", "req_7")
    assert str(status) in str(error)


# --- answers -----------------------------------------------------------------------------------


def failed(message="no", **fields):
    return {"error": {"message": message, "type": None, "param": None, "code": None, **fields}}


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (400, failed(), BadRequestError),
        (401, failed(), AuthError),
        (403, failed(), AuthError),
        (402, failed("Insufficient credits"), QuotaExhaustedError),
        (422, {"detail": "no"}, BadRequestError),
        (429, failed("Too fast"), RateLimitedError),
        (429, failed("Pay first", code="insufficient_quota"), QuotaExhaustedError),
        (429, failed("You exceeded your current quota, please"), QuotaExhaustedError),
        (400, failed("flagged", code="content_filter"), RefusedError),
        (408, failed(), BackendUnavailableError),
        (409, failed(), BackendUnavailableError),
        (500, failed(), BackendUnavailableError),
        (502, "<html>Bad gateway</html>", BackendUnavailableError),
        (503, "", BackendUnavailableError),
        (400, "plain text", BadRequestError),
        (400, ["a", "list"], BadRequestError),
        (400, {"error": "just a text"}, BadRequestError),
        (400, {"error": None}, BadRequestError),
        (200, failed("busy", code=503), BackendUnavailableError),
        (200, failed("slow down", code="rate_limit_exceeded"), RateLimitedError),
        (200, {"error": "what?"}, MalformedResponseError),
    ],
)
async def test_an_error_answer(stub, backend, ask, http, status, body, error):
    stub.reply((status, body, {}))
    async with backend(http=http) as opened:
        with pytest.raises(error, match="some-model"):
            await opened.answer(ask())
    assert len(stub.bodies) == 1


OPENAIS = """This model's maximum context length is 8192 tokens. However, your messages resulted
in 9001 tokens. Please reduce the length of the messages."""
VLLMS = """This model's maximum context length is 2048 tokens. However, you requested 3000 tokens
(2900 in the messages, 100 in the completion)."""
NEWER = """'max_tokens' or 'max_completion_tokens' is too large: 50. This model's maximum context
length is 100 tokens and your request has 90 input tokens"""


@pytest.mark.parametrize(
    ("message", "limit", "got"),
    [
        (OPENAIS, 8192, 9001),
        (VLLMS, 2048, 3000),
        (NEWER, 100, 90),
        ("Requested tokens (600) exceed context window of 512", 512, 600),
        ("the request exceeds the available context size. try increasing it", None, None),
    ],
)
async def test_a_prompt_that_is_too_long(stub, backend, ask, message, limit, got):
    stub.reply((400, failed(message, code="context_length_exceeded"), {}))
    async with backend() as opened:
        with pytest.raises(ContextTooLongError, match="shorten") as caught:
            await opened.answer(ask())
    assert (caught.value.limit, caught.value.got) == (limit, got)


async def test_a_429_carries_what_the_server_said_of_its_limits(stub, backend, ask, http):
    headers = {
        "x-ratelimit-limit-requests": "600",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "100ms",
        "retry-after-ms": "250",
        "x-request-id": "req_9",
    }
    stub.reply((429, failed("Rate limit reached"), headers))
    async with backend(http=http) as opened:
        with pytest.raises(RateLimitedError) as caught:
            await opened.answer(ask())
    assert caught.value.retry_after_s == 0.25
    assert caught.value.rate.limit_requests == 600
    assert caught.value.request_id == "req_9"


async def test_an_unknown_model_gets_the_nearest_names(stub, backend, ask):
    stub.models = ("gpt-4o", "gpt-4o-mini", "whisper-1")
    error = failed("The model `gpt-4o-mimi` does not exist", code="model_not_found")
    stub.reply((404, error, {}))
    async with backend("gpt-4o-mimi") as opened:
        for _ in range(2):
            with pytest.raises(BadRequestError, match=r"Did you mean 'gpt-4o-mini'"):
                await opened.answer(ask())
    assert sum(r.method == "GET" for r in stub.requests) == 1


async def test_a_path_that_does_not_exist_points_at_the_base_url(stub, backend, ask):
    stub.reply((404, "Not Found", {}))
    async with backend() as opened:
        with pytest.raises(BadRequestError, match=r"usually /v1"):
            await opened.answer(ask())


async def test_a_redirect_is_reported_and_not_followed(stub, backend, ask, http):
    stub.reply((307, "", {"location": "http://elsewhere.invalid/v1"}))
    async with backend(http=http) as opened:
        with pytest.raises(BadRequestError, match=r"elsewhere\.invalid"):
            await opened.answer(ask())


@pytest.mark.parametrize("message", ["x" * 100_000, "model " * 20_000, "*-" * 50_000])
async def test_long_messages_are_shortened(stub, backend, ask, message):
    stub.reply((400, failed(message), {}))
    async with backend() as opened:
        with pytest.raises(BadRequestError) as caught:
            await opened.answer(ask())
    assert len(str(caught.value)) < 1000


# --- the network -------------------------------------------------------------------------------

OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (b"", BackendUnavailableError),
        (OK + b"content-length: 100\r\n\r\n{", MalformedResponseError),
        (OK + b'transfer-encoding: chunked\r\n\r\n5\r\n{"cho\r\n', MalformedResponseError),
        (OK + b"content-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc", MalformedResponseError),
        (OK + b"transfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n", TransientError),
        (b"HTTP/1.1 OK\r\n\r\n", BackendUnavailableError),
        (b"SSH-2.0-OpenSSH_9.2\r\n", BackendUnavailableError),
        (OK + b"content-length: minus\r\n\r\n", TransientError),
        (b"HTTP/1.1 500 X\r\ncontent-length: 100\r\n\r\n{", TransientError),
    ],
)
async def test_a_broken_exchange_may_be_tried_again(stub, backend, ask, http, sent, error):
    stub.reply(sent)
    async with backend(http=http) as opened:
        with pytest.raises(error, match="some-model"):
            await opened.answer(ask())
    assert len(stub.bodies) == 1


async def test_no_answer_is_a_timeout(stub, backend, ask, http):
    stub.reply(None)
    async with backend(http=http, timeout_s=0.05) as opened:
        with pytest.raises(BackendTimeoutError, match="in time"):
            await opened.answer(ask())


async def test_nobody_listening_names_the_url_and_what_to_check(backend, ask, http):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    async with backend(base_url=url, http=http) as opened:
        with pytest.raises(BackendUnavailableError, match="check the base URL") as caught:
            await opened.answer(ask())
    assert url in str(caught.value)


async def test_an_unknown_host_names_the_url(backend, ask, http):
    async with backend(base_url="http://no-such-host.invalid/v1", http=http) as opened:
        with pytest.raises(BackendUnavailableError, match=r"http://no-such-host\.invalid/v1"):
            await opened.answer(ask())


async def test_the_original_exception_is_the_cause(stub, backend, ask):
    stub.reply((500, failed(), {}))
    async with backend() as opened:
        with pytest.raises(BackendError) as caught:
            await opened.answer(ask())
    assert isinstance(caught.value.__cause__, openai.InternalServerError)


async def test_a_proxy_from_the_environment_is_used(stub, backend, ask, chat, monkeypatch):
    monkeypatch.setenv("http_proxy", stub.url.removesuffix("/v1"))
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    stub.reply(chat(text="5"))
    async with backend(base_url="http://far-away.invalid/v1") as opened:
        await opened.answer(ask(logprobs=False))
    assert stub.requests[0].path == "http://far-away.invalid/v1/chat/completions"
