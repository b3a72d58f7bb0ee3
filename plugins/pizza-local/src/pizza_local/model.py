# SPDX-License-Identifier: Apache-2.0
"""`LocalModel`: one opened model, as the thread that runs it uses it. Blocking."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from pizza.abc import Findings, Inspection, InternalsMethod
from pizza.completion import Completion, Reply, Request, Usage, pack_alternatives
from pizza.errors import BackendError, NonFiniteError
from pizza_local.chunks import Chunks, check
from pizza_local.counts import Counts
from pizza_local.encoding import Encoder, Encoding
from pizza_local.findings import culprit
from pizza_local.gradients.engine import Engine
from pizza_local.kinds.base import Job, Kind, Written
from pizza_local.scoring import Scored
from pizza_local.subjects import Network
from pizza_local.viewing import make_view

Emit = Callable[[tuple[int, Reply | BackendError]], None]

_log = logging.getLogger("pizza.local")

_SAMPLES = 64
"""Numbers of each weight that go into the model's identity."""


class LocalModel:
    """Answers requests and inspections with one model. Used by one thread at a time.

    Args:
        network: The model, in evaluation mode.
        encoder: Its tokenizer.
        kind: What kind of model it is.
        chunks: Sizes of batches.
        stacked: False: never use the fast gradients.
    """

    def __init__(
        self,
        network: Network,
        encoder: Encoder,
        kind: Kind,
        chunks: Chunks,
        *,
        stacked: bool = True,
    ) -> None:
        self.network, self.encoder, self.kind, self.chunks = network, encoder, kind, chunks
        self.engine = Engine(network, chunks, stacked=stacked)
        self.counts = Counts()
        """All that was computed since the model was opened."""
        self._culprit: str | None = None

    # --- answering ----------------------------------------------------------------------------

    def answer(self, requests: Sequence[Request], stop: threading.Event, emit: Emit) -> None:
        """Answer requests; what is known is emitted at once.

        Raises:
            Stopped: The callers are gone.
        """
        jobs: dict[int, Job] = {}
        self._culprit = None
        for place, request in enumerate(requests):
            check(stop)
            try:
                jobs[place] = self._job(request)
            except BackendError as error:
                emit((place, error))
        self._complete(requests, jobs, stop, emit)
        tops = {place: self._top(requests[place]) for place in jobs}
        for top in sorted(set(tops.values())):
            places = [
                place
                for place, job in jobs.items()
                if tops[place] == top and job.target is not None and requests[place].kind == "score"
            ]
            self._score(requests, jobs, places, top, stop, emit)

    def _complete(
        self,
        requests: Sequence[Request],
        jobs: dict[int, Job],
        stop: threading.Event,
        emit: Emit,
    ) -> None:
        places = [place for place in jobs if requests[place].kind == "complete"]
        if not places:
            return
        written: dict[int, Written] = {}
        for place, one in self._each(
            places, jobs, lambda js: self.kind.complete(js, self.counts, stop)
        ):
            if isinstance(one, BackendError):
                emit((place, one))
            elif not one.finite:
                emit((place, self._not_finite(jobs[place])))
            else:
                written[place] = one
        # Probabilities come from the route by which perturbed prompts are scored.
        scored: dict[int, Scored] = {}
        wanted = [p for p in written if requests[p].logprobs and written[p].ids]
        for top in {self._top(requests[place]) for place in wanted}:
            group = [place for place in wanted if self._top(requests[place]) == top]
            again = {
                place: Job(
                    encoding=jobs[place].encoding,
                    generation=jobs[place].generation,
                    target=written[place].ids,
                )
                for place in group
            }
            for place, result in self._scored(group, again, top, stop):
                if isinstance(result, BackendError):
                    emit((place, result))
                    del written[place]
                else:
                    scored[place] = result
        for place, one in written.items():
            completion = self._completion(
                jobs[place].encoding, one.ids, scored.get(place), requests[place], one
            )
            emit((place, Reply(completion=completion)))

    def _score(
        self,
        requests: Sequence[Request],
        jobs: dict[int, Job],
        places: Sequence[int],
        top: int,
        stop: threading.Event,
        emit: Emit,
    ) -> None:
        if not places:
            return
        for place, found in self._scored(places, jobs, top, stop):
            if isinstance(found, BackendError):
                emit((place, found))
                continue
            job, request = jobs[place], requests[place]
            completion = self._completion(job.encoding, job.target or (), found, request, None)
            emit((place, Reply(completion=completion)))

    def _scored(
        self, places: Sequence[int], jobs: dict[int, Job], top: int, stop: threading.Event
    ) -> list[tuple[int, Scored | BackendError]]:
        results = self._each(places, jobs, lambda js: self.kind.score(js, top, self.counts, stop))
        return [
            (place, self._not_finite(jobs[place]))
            if isinstance(found, Scored) and np.isnan(found.logprobs).any()
            else (place, found)
            for place, found in results
        ]

    def _each(
        self,
        places: Sequence[int],
        jobs: dict[int, Job],
        work: Callable[[Sequence[Job]], Sequence[Any]],
    ) -> list[tuple[int, Any]]:
        """Results of all jobs together; a job that fails by itself does not spoil the others."""
        try:
            return list(zip(places, work([jobs[place] for place in places]), strict=True))
        except BackendError as error:
            if len(places) == 1:
                return [(places[0], error)]
        results: list[tuple[int, Any]] = []
        for place in places:
            results += self._each([place], jobs, work)
        return results

    def _job(self, request: Request) -> Job:
        encoding = self.encoder.encode(request.prompt)
        target = None
        if request.kind == "score":
            target = self.target_ids(request.target or "", request.target_ids, encoding)
        job = Job(
            encoding=encoding,
            generation=request.generation,
            sample=request.sample,
            target=target,
        )
        self.kind.check(job)
        return job

    def target_ids(
        self, text: str, ids: Sequence[int] | None, encoding: Encoding
    ) -> tuple[int, ...]:
        """Ids of a given output.

        Raises:
            BadRequestError: The model cannot give such an output.
        """
        if ids is not None:
            return self.kind.check_ids(ids, encoding)
        return self.kind.target(text, encoding)

    def _top(self, request: Request) -> int:
        wanted = request.generation.top_logprobs if request.logprobs else 0
        return min(wanted, self.network.vocabulary)

    def _completion(
        self,
        encoding: Encoding,
        ids: Sequence[int],
        found: Scored | None,
        request: Request,
        written: Written | None,
    ) -> Completion:
        texts = values = None
        if found is not None and found.top_tokens.shape[-1]:
            rows = [
                [
                    (self.kind.piece(int(token)), float(value))
                    for token, value in zip(tokens, logs, strict=True)
                ]
                for tokens, logs in zip(found.top_tokens, found.top_logprobs, strict=True)
            ]
            texts, values = pack_alternatives(rows)
        return Completion(
            text=self.kind.text(ids),
            tokens=self.kind.pieces(ids),
            token_ids=tuple(ids),
            logprobs=None if found is None or not request.logprobs else found.logprobs,
            alternative_tokens=texts,
            alternative_logprobs=values,
            finish_reason=None if written is None else written.finish_reason,
            usage=Usage(
                prompt_tokens=len(encoding.ids) + (0 if written else len(ids)),
                completion_tokens=len(ids) if written else 0,
            ),
            model=self.network.name,
        )

    def _not_finite(self, job: Job) -> NonFiniteError:
        if self._culprit is None:
            # Weights that are broken are so for every prompt: one look is enough.
            self._culprit = culprit(self.kind.subject(job.encoding, job.target or (0,)))
        return NonFiniteError(
            f"log-probabilities of {self.network.name} are NaN. {self._culprit} Open the model "
            "with dtype=float32.",
            backend=self.network.name,
        )

    # --- inspecting ---------------------------------------------------------------------------

    def inspect(
        self, inspection: Inspection, method: InternalsMethod, stop: threading.Event
    ) -> Findings:
        """Let a method look.

        Raises:
            Stopped: The caller is gone.
            BackendError: The model cannot read the prompt or give the output.
        """
        return method.inspect(make_view(self, inspection, stop))

    # --- what it is ---------------------------------------------------------------------------

    def identity(self) -> str:
        """A hash of what the answers depend on: configuration, weights (sampled), tokenizer."""
        digest = hashlib.sha256()
        config = getattr(self.network.model, "config", None)
        if config is not None:
            plain = {k: v for k, v in config.to_dict().items() if k != "_name_or_path"}
            digest.update(json.dumps(plain, sort_keys=True, default=str).encode())
        with torch.no_grad():
            for name, weight in sorted(self.network.model.state_dict().items()):
                flat = weight.detach().reshape(-1)
                step = max(1, flat.numel() // _SAMPLES)
                sample = flat[::step][:_SAMPLES].to("cpu", torch.float64).numpy()
                digest.update(f"{name}{tuple(weight.shape)}{weight.dtype}".encode())
                digest.update(sample.tobytes())
        digest.update(self.encoder.fingerprint().encode())
        return digest.hexdigest()[:32]
