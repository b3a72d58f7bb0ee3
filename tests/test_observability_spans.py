# SPDX-License-Identifier: Apache-2.0
"""Spans of real runs, as OpenTelemetry's own SDK exports them."""

import asyncio
import json
import logging
import re

import pytest
from support.server import served_model

import pizza
from pizza import bulk

trace = pytest.importorskip("opentelemetry.trace", reason="installed with the group 'optional'")
sdk = pytest.importorskip("opentelemetry.sdk.trace", reason="installed with the group 'optional'")
attributes = pytest.importorskip("opentelemetry.semconv._incubating.attributes.gen_ai_attributes")

from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: E402
from opentelemetry.sdk.trace.export.in_memory_span_exporter import (  # noqa: E402
    InMemorySpanExporter,
)

PROMPT = "Quagmire zeppelins outnumber xylophones. How many zeppelins?"
OTHER = "Kumquats bewilder ostriches. How many kumquats?"
SECRET_WORDS = re.compile("(?i)quagmire|zeppelin|outnumber|xylophone|kumquat|bewilder|ostrich")
SHORT = {"generation": pizza.Generation(max_tokens=4, seed=7), "evidence": "complete"}


class Spans:
    """What was exported."""

    def __init__(self, exporter):
        self._exporter = exporter

    @property
    def all(self):
        return self._exporter.get_finished_spans()

    def named(self, start):
        return [span for span in self.all if span.name.startswith(start)]

    @property
    def text(self):
        return "\n".join(span.to_json() for span in self.all)


@pytest.fixture
def spans(monkeypatch):
    """A tracer provider for one test: the API allows one per process."""
    monkeypatch.delenv("PIZZA_LOG_CONTENT", raising=False)
    exporter = InMemorySpanExporter()
    provider = sdk.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield Spans(exporter)
    provider.shutdown()


def options(server):
    return {
        "model": f"openai:{server.model}",
        "base_url": server.base_url,
        "api_key": "sk-observed",
        "retry": pizza.RetryPolicy(attempts=9, wait_initial_s=0.001, wait_max_s=0.01),
    }


async def test_attempts_are_children_of_their_attribution(spans, model_server):
    async with pizza.Session(**options(model_server)) as session, asyncio.TaskGroup() as group:
        tasks = [group.create_task(session.attribute(p, **SHORT)) for p in (PROMPT, OTHER)]
    parents = spans.named("pizza.attribution")
    assert sorted(s.attributes["pizza.calls"] for s in parents) == sorted(
        task.result().calls for task in tasks
    )
    for parent in parents:
        children = [s for s in spans.all if s.parent and s.parent.span_id == parent.context.span_id]
        assert len(children) == parent.attributes["pizza.calls"]
        assert {s.context.trace_id for s in children} == {parent.context.trace_id}
        name = parent.attributes["pizza.attribution.id"]
        assert {s.attributes["pizza.attribution.id"] for s in children} == {name}
        used = sum(s.attributes[attributes.GEN_AI_USAGE_INPUT_TOKENS] for s in children)
        assert used == parent.attributes["pizza.input_tokens"]


async def test_names_are_those_of_the_conventions(spans, model_server):
    async with pizza.Session(**options(model_server)) as session:
        await session.submit(
            pizza.Request(
                prompt=pizza.Prompt.of(PROMPT),
                kind="complete",
                generation=pizza.Generation(max_tokens=4, seed=7),
            )
        )
    (span,) = spans.all
    known = {
        value
        for name, value in vars(attributes).items()
        if name.startswith("GEN_AI_") and isinstance(value, str)
    }
    ours = {name for name in span.attributes if name.startswith("gen_ai.")}
    assert ours <= known
    assert span.name == f"chat {model_server.model}"
    assert span.kind is trace.SpanKind.CLIENT
    expected = {
        attributes.GEN_AI_OPERATION_NAME: attributes.GenAiOperationNameValues.CHAT.value,
        attributes.GEN_AI_PROVIDER_NAME: attributes.GenAiProviderNameValues.OPENAI.value,
        attributes.GEN_AI_REQUEST_MODEL: model_server.model,
        attributes.GEN_AI_REQUEST_MAX_TOKENS: 4,
        attributes.GEN_AI_REQUEST_SEED: 7,
        attributes.GEN_AI_USAGE_INPUT_TOKENS: model_server.stats["prompt_tokens"],
        attributes.GEN_AI_USAGE_OUTPUT_TOKENS: model_server.stats["completion_tokens"],
    }
    assert {name: span.attributes[name] for name in expected} == expected
    assert re.fullmatch("req_[0-9a-f]{32}", span.attributes["pizza.server_request.id"])


async def test_a_run_is_one_trace_with_its_failures_and_no_word_of_a_prompt(spans, tmp_path):
    pytest.importorskip("pyarrow", reason="installed with the extra 'bulk'")
    rows = [{"id": "quiet", "prompt": PROMPT}, {"id": "long", "prompt": f"{OTHER} " * 400}]
    with served_model(faults="500=0.2,seed=2") as server:
        summary = await bulk.run(rows, tmp_path / "run", options=SHORT, **options(server))
    assert (summary.done, summary.failed) == (1, 1)
    (run,) = spans.named("pizza.run")
    assert run.parent is None
    assert {s.context.trace_id for s in spans.all} == {run.context.trace_id}
    told = ("reason", "done", "failed", "rows")
    assert [run.attributes[f"pizza.run.{n}"] for n in told] == ["finished", 1, 1, 2]
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert run.attributes["pizza.run.id"] == manifest["id"]
    by_row = {s.attributes["pizza.row.id"]: s for s in spans.named("pizza.attribution")}
    assert by_row.keys() == {"quiet", "long"}
    assert {s.parent.span_id for s in by_row.values()} == {run.context.span_id}
    assert by_row["quiet"].status.is_ok
    assert by_row["long"].attributes["error.type"] == "ContextTooLongError"
    attempts = spans.named("chat ")
    assert len(attempts) == summary.spent.calls
    failed = [s for s in attempts if not s.status.is_ok]
    assert {s.attributes["error.type"] for s in failed} == {
        "ServerFaultError",
        "ContextTooLongError",
    }
    assert all(s.events[0].name == "exception" for s in failed)
    assert not SECRET_WORDS.search(spans.text)
    assert "sk-observed" not in spans.text


async def test_content_is_told_to_who_asks(spans, monkeypatch, model_server):
    monkeypatch.setenv("PIZZA_LOG_CONTENT", "1")
    async with pizza.Session(**options(model_server)) as session:
        made = await session.attribute(PROMPT, **SHORT)
    asked = [json.loads(s.attributes["gen_ai.input.messages"]) for s in spans.named("chat ")]
    whole = [{"role": "user", "parts": [{"type": "text", "content": PROMPT}]}]
    assert whole in asked
    wrote = [json.loads(s.attributes["gen_ai.output.messages"]) for s in spans.named("chat ")]
    assert made.output.text in [m[0]["parts"][0]["content"] for m in wrote]


class Sent(logging.Handler):
    """Sets an event when a request is sent."""

    def __init__(self):
        super().__init__(logging.DEBUG)
        self.event = asyncio.Event()

    def emit(self, record):
        if getattr(record, "pizza_event", None) == "sent":
            self.event.set()


async def test_a_cancelled_attribution_ends_its_spans(spans, caplog):
    sent = Sent()
    logger = logging.getLogger("pizza.scheduler")
    logger.addHandler(sent)
    caplog.set_level(logging.DEBUG, "pizza.scheduler")
    with served_model(latency="30") as server:
        async with pizza.Session(**options(server)) as session:
            task = asyncio.create_task(session.attribute(PROMPT, **SHORT))
            await sent.event.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    logger.removeHandler(sent)
    assert {s.attributes["error.type"] for s in spans.all} == {"CancelledError"}
    assert len(spans.named("chat ")) == len(spans.named("pizza.attribution")) == 1


async def test_an_estimate_has_no_spans_of_requests(spans, model_server):
    pytest.importorskip("pyarrow", reason="installed with the extra 'bulk'")
    await bulk.estimate([{"prompt": PROMPT}], options=SHORT, **options(model_server))
    assert spans.all == ()


async def test_without_a_provider_there_is_no_span(monkeypatch, model_server):
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    async with pizza.Session(**options(model_server)) as session:
        made = await session.attribute(PROMPT, **SHORT)
    assert made.calls > 1
    assert trace.get_current_span() is trace.INVALID_SPAN
