# SPDX-License-Identifier: Apache-2.0
"""The application: one session for all requests, opened and closed with the server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field

import pizza
from serve.answer import Answer, refusal
from serve.rules import AskedTooMuchError, Doorman, Rules, check

_STATIC = Path(__file__).with_name("static")
_BYTES_PER_CHARACTER = 12
"""JSON may write a code point as two escapes of six bytes."""
_PAGE_HEADERS = {
    # The page shows texts of users and of the model. Scripts and styles come from here alone, so
    # a mistake in escaping would still run nothing.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}

router = APIRouter()


class Question(BaseModel, extra="forbid"):
    """What a client asks.

    Attributes:
        prompt: The text.
        units: What is scored.
        budget: Calls that it may take, the reference included. None: one per unit, leave-one-out.
    """

    prompt: str
    units: Literal["word", "sentence", "paragraph"] = "word"
    budget: int | None = Field(None, ge=1)


def create_app(open_session: Callable[[], pizza.Session], rules: Rules | None = None) -> FastAPI:
    """The application.

    Args:
        open_session: Makes the session that all requests share. It is called when the server
            starts, because a session belongs to one event loop.
        rules: What one client may ask for.
    """
    rules = rules or Rules()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_session() as session:
            app.state.session = session
            yield

    app = FastAPI(
        title="pizza",
        lifespan=lifespan,
        max_body_size=1024 + _BYTES_PER_CHARACTER * rules.max_characters,
    )
    app.state.rules = rules
    app.state.doorman = Doorman(rules.max_active)
    app.include_router(router)
    app.mount("/static", StaticFiles(directory=_STATIC), name="static")
    app.add_exception_handler(RequestValidationError, _not_a_question)
    return app


@router.get("/", include_in_schema=False)
async def page() -> FileResponse:
    """The page."""
    return FileResponse(_STATIC / "index.html", headers=_PAGE_HEADERS)


@router.get("/health")
async def health(request: Request) -> dict[str, Any]:
    """Whether it serves, how many attributions are running, and what the session has done."""
    state = request.app.state
    return {
        "status": "ok",
        "model": state.session.backend.name,
        "active": state.doorman.active,
        "statistics": asdict(state.session.statistics),
    }


@router.post(
    "/attribute",
    response_class=Answer,
    responses={
        200: {"content": {"text/event-stream": {}}},
        413: {"description": "The body is larger than any prompt that is allowed."},
        422: {"description": "The question is not one, or larger than the rules allow."},
        429: {"description": "Too many attributions are running."},
    },
)
async def attribute(question: Question, request: Request) -> Any:
    """Attribute, and stream events: ``units``, ``output``, ``scores``..., ``attribution``.

    ``error`` is the last event when something goes wrong on the way.
    """
    state = request.app.state
    rules: Rules = state.rules
    try:
        check(rules, question.prompt, question.budget)
    except AskedTooMuchError as error:
        return refusal(error)
    options = {
        "units": question.units,
        "method": "leave-one-out" if question.budget is None else "auto",
        "budget": question.budget or rules.max_calls,
    }
    return Answer(state.session, rules, state.doorman, question.prompt, options)


async def _not_a_question(_: Request, error: Exception) -> JSONResponse:
    """Every refusal looks the same, and none repeats what was sent."""
    assert isinstance(error, RequestValidationError)
    said = "; ".join(
        f"{'.'.join(str(part) for part in problem['loc'][1:]) or 'body'}: {problem['msg']}"
        for problem in error.errors()
    )
    content = {"type": "InvalidQuestion", "message": said, "try_again": False}
    return JSONResponse({"error": content}, 422)
