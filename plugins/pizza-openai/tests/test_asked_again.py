# SPDX-License-Identifier: Apache-2.0
"""What a server teaches is counted, and kept within caps and rates: one attempt, one request.

Everything goes through a session, over real HTTP, to a server that counts.
"""

import asyncio

import pytest
from pizza_openai.backend import OpenAIBackend

import pizza
from pizza.errors import (
    AskAgainError,
    BadRequestError,
    BudgetExceededError,
    CapabilityError,
    PizzaError,
    RetriesExhaustedError,
)
from pizza.specs import BackendSettings
from pizza.testing.clock import ManualClock

PRICE = (1_000_000.0, 1_000_000.0)  # a dollar a token
QUICK = pizza.RetryPolicy(wait_initial_s=0.001, attempts=2)


@pytest.fixture
def session(stub):
    def made(*, api="chat", price=None, retry=QUICK, **settings):
        options = {"api": api} | ({} if price is None else {"price": price})
        return pizza.Session(
            "openai:some-model",
            base_url=stub.url,
            backend_options=options,
            retry=retry,
            **settings,
        )

    return made


def refusal(message, **error):
    return (400, {"error": {"message": message, **error}}, {})


@pytest.fixture
def ignores_the_length(chat):
    """Does not know max_completion_tokens, and writes nine tokens where that is what it gets."""

    def reply(request):
        written = min(request.body.get("max_tokens", 9), 9)
        return chat(*[("x", -0.1, {"x": -0.1})] * written, usage=(3, written))

    return reply


@pytest.fixture
def refuses_fields(chat):
    """Refuses what it does not know, one field at a time."""

    def reply(request):
        for name in ("seed", "temperature", "max_completion_tokens"):
            if name in request.body:
                return refusal(f"Unsupported parameter: '{name}' is not supported.", param=name)
        if request.body.get("top_logprobs", 0) > 5:
            return refusal("top_logprobs is greater than the max allowed: 5")
        return chat(("x", -0.1, {"x": -0.1}), usage=(3, 1))

    return reply


def echoes_nothing(request):
    """A Completions server that ignores echo, and gives prompt_logprobs."""
    choice = {"text": "!", "finish_reason": "length"}
    if "prompt_logprobs" in request.body:
        rows = [{"7": {"logprob": -1.0, "rank": 1, "decoded_token": t}} for t in ("A:", " five")]
        choice["prompt_logprobs"] = [None, *rows]
    return {"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}


def refuses_echo(request):
    """The same with a 400."""
    if "echo" in request.body:
        return refusal("Unrecognized request argument supplied: echo")
    return echoes_nothing(request)


def after_the_first(reply, accepted):
    """A session's first request goes alone; this one teaches nothing, and many learn at once."""
    first = True

    def made(request):
        nonlocal first
        answer = accepted if first else reply(request)
        first = False
        return answer

    return made


async def outcomes(opened, requests):
    async def outcome(request):
        try:
            return await opened.submit(request)
        except PizzaError as error:
            return error

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(outcome(request)) for request in requests]
    return [task.result() for task in tasks]


def questions(ask, n, **more):
    return [ask(f"A: #{i}", **more) for i in range(n)]


# --- caps --------------------------------------------------------------------------------------


async def test_a_cap_holds_while_a_server_ignores_the_length(
    stub, session, ask, chat, ignores_the_length
):
    short = chat(*[("x", -0.1, {"x": -0.1})] * 2, usage=(3, 2))
    stub.reply(after_the_first(ignores_the_length, short))
    limits = pizza.Limits(max_concurrency=50)
    async with session(limits=limits, budget=pizza.Budget(max_calls=100)) as opened:
        results = await outcomes(opened, questions(ask, 130, max_tokens=2))
        assert opened.statistics.calls == len(stub.requests) == 100
        thrown_away = [b for b in stub.bodies[1:] if "max_completion_tokens" in b]
        used = opened.statistics.usage.completion_tokens
    answered = [result for result in results if not isinstance(result, PizzaError)]
    assert all(result.text == "xx" for result in answered)
    assert len(thrown_away) > 20
    assert len(answered) == 100 - len(thrown_away) >= 50
    assert used == 9 * len(thrown_away) + 2 * len(answered)
    refused = [result for result in results if isinstance(result, PizzaError)]
    assert {type(result) for result in refused} == {BudgetExceededError}


async def test_a_cap_holds_while_a_server_refuses_fields(stub, session, ask, chat, refuses_fields):
    stub.reply(after_the_first(refuses_fields, chat(("x", -0.1, {"x": -0.1}))))
    limits = pizza.Limits(max_concurrency=50)
    async with session(limits=limits, budget=pizza.Budget(max_calls=100)) as opened:
        results = await outcomes(opened, questions(ask, 300))
        assert opened.statistics.calls == len(stub.requests) == 100
    assert {type(r) for r in results if isinstance(r, PizzaError)} == {BudgetExceededError}


@pytest.mark.parametrize("reply", [echoes_nothing, refuses_echo])
async def test_a_cap_holds_while_scoring_is_found_out(stub, session, ask, reply):
    stub.reply(reply)
    limits = pizza.Limits(max_concurrency=50)
    budget = pizza.Budget(max_calls=50)
    async with session(api="completions", limits=limits, budget=budget) as opened:
        requests = [ask(f"#{i} A:", target=" five") for i in range(60)]
        results = await outcomes(opened, requests)
        assert opened.statistics.calls == len(stub.requests) == 50
    scored = [result for result in results if not isinstance(result, PizzaError)]
    assert scored
    assert {result.tokens for result in scored} == {(" five",)}


# --- rates -------------------------------------------------------------------------------------


def all_wait(statistics):
    """Whether everything that is wanted waits for its rate."""
    return statistics.queued and not statistics.in_flight


@pytest.mark.parametrize("server", ["ignores_the_length", "refuses_fields"])
async def test_a_rate_holds_while_a_server_teaches(stub, session, ask, chat, server, request):
    """The clock stands still, so that no more than the burst may be sent."""
    reply = request.getfixturevalue(server)
    stub.reply(after_the_first(reply, chat(("x", -0.1, {"x": -0.1}))))
    clock = ManualClock()
    limits = pizza.Limits(requests_per_minute=60, burst_s=30, max_concurrency=50)
    async with session(limits=limits, clock=clock) as opened, asyncio.TaskGroup() as group:
        work = group.create_task(outcomes(opened, questions(ask, 60, max_tokens=2)))
        for minute in range(1, 8):
            while not (work.done() or all_wait(opened.statistics)):  # noqa: ASYNC110
                await asyncio.sleep(0)
            sent = len(stub.requests)
            assert sent == opened.statistics.calls <= 30 + 60 * (minute - 1)
            if work.done():
                break
            await clock.advance(60)
        assert not [result for result in await work if isinstance(result, PizzaError)]
        assert opened.statistics.calls == len(stub.requests) > 60


# --- counted -----------------------------------------------------------------------------------


async def test_an_attribution_counts_every_request(stub, session, refuses_fields):
    stub.reply(refuses_fields)
    async with session() as opened:
        found = await opened.attribute("one two three", method="leave-one-out")
        assert opened.statistics.calls == len(stub.requests)
        probes = sum("prompt_logprobs" in body for body in stub.bodies)
    assert found.calls + probes == len(stub.requests)


async def test_an_answer_that_is_thrown_away_is_paid_for(stub, session, ask, ignores_the_length):
    stub.reply(ignores_the_length)
    async with session(price=PRICE, budget=pizza.Budget(max_cost=1000.0)) as opened:
        (answer,) = await outcomes(opened, questions(ask, 1, max_tokens=2))
        assert answer.text == "xx"
        assert opened.statistics.cost == pytest.approx((3 + 9) + (3 + 2))
        assert opened.statistics.usage == pizza.Usage(prompt_tokens=6, completion_tokens=11)


async def test_money_is_kept_within_its_cap(stub, session, ask, ignores_the_length):
    stub.reply(ignores_the_length)
    async with session(price=PRICE, budget=pizza.Budget(max_cost=20.0)) as opened:
        results = await outcomes(opened, questions(ask, 3, max_tokens=2))
        assert opened.statistics.calls == len(stub.requests)
    assert any(isinstance(result, BudgetExceededError) for result in results)


# --- the end of it -----------------------------------------------------------------------------


async def test_it_uses_up_no_attempt_and_waits_for_nothing(stub, session, ask, refuses_fields):
    stub.reply(refuses_fields)
    once = pizza.RetryPolicy(attempts=1, wait_initial_s=1e6, wait_max_s=1e6)
    async with session(retry=once, clock=ManualClock()) as opened:
        (answer,) = await outcomes(opened, questions(ask, 1))
        assert answer.text == "x"
        assert opened.statistics.calls == len(stub.requests) == 5


async def test_a_server_that_refuses_every_way_is_left(stub, session, ask):
    def reply(request):
        name = "max_tokens" if "max_tokens" in request.body else "max_completion_tokens"
        return refusal(f"Unsupported parameter: '{name}'.")

    stub.reply(reply)
    async with session() as opened:
        (error,) = await outcomes(opened, questions(ask, 1))
        assert opened.statistics.calls == len(stub.requests) == 5
    assert type(error) is BadRequestError
    assert "Unsupported parameter" in str(error)


async def test_a_server_that_knows_neither_length_is_taken_as_it_is(stub, session, ask, chat):
    """It ignores one field and refuses the other: what it writes is too long, and all there is."""

    def reply(request):
        if "max_tokens" in request.body:
            return refusal("Unsupported parameter: 'max_tokens'.")
        return chat(*[("x", -0.1, {"x": -0.1})] * 9, usage=(3, 9))

    stub.reply(reply)
    async with session() as opened:
        answers = await outcomes(opened, questions(ask, 1, max_tokens=2))
        answers += await outcomes(opened, questions(ask, 2, max_tokens=2)[1:])
        assert opened.statistics.calls == len(stub.requests) == 4
    assert [answer.text for answer in answers] == ["x" * 9, "x" * 9]


async def test_a_server_that_scores_in_no_way_says_so(stub, session, ask):
    stub.reply({"choices": [{"text": "!"}], "usage": {"prompt_tokens": 3, "completion_tokens": 1}})
    async with session(api="completions") as opened:
        (error,) = await outcomes(opened, [ask("A:", target=" five")])
        assert opened.statistics.calls == len(stub.requests) == 2
        assert opened.statistics.usage.total_tokens == 4  # of the one that another way followed
    assert isinstance(error, CapabilityError)
    assert "echo" in str(error)
    assert "prompt_logprobs" in str(error)


async def test_an_attempt_is_one_request(stub, ask, refuses_fields):
    stub.reply(refuses_fields)
    backend = OpenAIBackend(BackendSettings(model="some-model", base_url=stub.url))
    try:
        for sent in range(1, 5):
            with pytest.raises(AskAgainError, match="HTTP 400") as caught:
                await backend.answer(ask())
            assert isinstance(caught.value.__cause__, BadRequestError)
            assert caught.value.usage is None
            assert len(stub.requests) == sent
        assert (await backend.answer(ask())).completion.text == "x"
    finally:
        await backend.aclose()


async def test_a_backend_that_asks_for_ever_is_given_up(stub, session, ask, chat):
    """What was learned is forgotten each time: the scheduler alone keeps the bound."""

    class Forgetful(OpenAIBackend):
        async def answer(self, request):
            self._learned.max_tokens_field = "max_completion_tokens"
            return await super().answer(request)

    stub.reply(chat(*[("x", -0.1, {})] * 9, usage=(3, 9)))
    backend = Forgetful(BackendSettings(model="some-model", base_url=stub.url))
    try:
        async with pizza.Session(backend) as opened:
            (error,) = await outcomes(opened, questions(ask, 1, max_tokens=2))
            assert opened.statistics.calls == len(stub.requests) == 5
            assert opened.statistics.usage.completion_tokens == 45
    finally:
        await backend.aclose()
    assert isinstance(error, RetriesExhaustedError)
    assert "ignores max_completion_tokens" in str(error)
