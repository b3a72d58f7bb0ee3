# SPDX-License-Identifier: Apache-2.0
"""The Responses endpoint."""

from __future__ import annotations

from typing import Any

from pizza.completion import Completion, Request
from pizza.errors import BadRequestError
from pizza_openai import wire
from pizza_openai.chat import messages
from pizza_openai.endpoint import Endpoint

_FINISH = {"max_output_tokens": "length", "content_filter": "content_filter"}


class ResponsesEndpoint(Endpoint):
    """``/responses``; nothing is stored at the server. It takes no seed and no stop strings."""

    kind = "responses"
    path = "/responses"

    def body(self, request: Request) -> dict[str, Any]:
        """Input messages, length, temperature and log-probabilities."""
        generation = request.generation
        if generation.stop:
            raise BadRequestError(
                f"{self.errors.name}: the Responses endpoint takes no stop strings: leave out "
                "stop=, or use api='chat'.",
                backend=self.errors.name,
            )
        body: dict[str, Any] = {
            "model": self.model,
            "input": messages(request),
            "max_output_tokens": generation.max_tokens,
            "temperature": generation.temperature,
            "store": False,
        }
        if request.logprobs:
            body["include"] = ["message.output_text.logprobs"]
            if self.top(request):
                body["top_logprobs"] = self.top(request)
        return self.settings(request, body)

    def read(self, content: bytes, request: Request) -> Completion:
        """All text of the answer's messages; other items (reasoning) are skipped."""
        answer = self.decode(wire.response, content)
        if answer.error is not None:
            raise self._reported(answer.error)
        if answer.output is None:
            raise self.errors.malformed("it holds no output")
        parts = [
            part for item in answer.output if item.type == "message" for part in item.content or ()
        ]
        finish = "stop"
        if answer.status == "incomplete" and answer.incomplete_details is not None:
            reason = answer.incomplete_details.reason or ""
            finish = _FINISH.get(reason, reason or "incomplete")
        if not parts and finish == "stop":
            raise self.errors.malformed("its output holds no message")
        refusal = next((part.refusal for part in parts if part.refusal), None)
        if refusal or finish == "content_filter":
            raise self.errors.refused(refusal or "the content filter stopped the output")
        written = [part for part in parts if part.type == "output_text"]
        complete = all(part.logprobs or not part.text for part in written)
        tokens = [token for part in written for token in part.logprobs or ()]
        return self.finished(
            request,
            text="".join(part.text or "" for part in written),
            tokens=tokens if complete else None,
            finish_reason=finish,
            usage=answer.usage,
            model=answer.model,
        )
