# SPDX-License-Identifier: Apache-2.0
"""Writing: transformers' own generation, with seeds, stop strings, batches and cancellation."""

from __future__ import annotations

import contextlib
import json
import threading
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pizza.errors import BadRequestError
from pizza_local.counts import Counts
from pizza_local.kinds.base import Job, Kind, Written

_PLAIN: dict[str, Any] = {
    "num_beams": 1,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
}
"""What models bring along for chatting is turned off: 0 is greedy, and scores are the model's."""

_MOST = 32
_POSITIONS = 4096


class GeneratingKind(Kind):
    """Models that write token by token."""

    def complete(self, jobs: Sequence[Job], counts: Counts, stop: threading.Event) -> list[Written]:
        """See `Kind.complete`. Sampled outputs are drawn one by one, each from its own seed."""
        done: list[Written | None] = [None] * len(jobs)
        together: dict[Any, list[int]] = {}
        for place, job in enumerate(jobs):
            generation = job.generation
            alone = place if generation.temperature > 0 else None
            room = self._room(job)
            extra = json.dumps(dict(generation.extra), sort_keys=True, default=str)
            alike = (alone, room, generation.stop, extra)
            together.setdefault(alike, []).append(place)
        for (_, room, _, _), places in together.items():
            # Neighbours in length go together: little padding.
            places.sort(key=lambda place: len(jobs[place].encoding.ids))
            longest = max(len(jobs[place].encoding.ids) for place in places) + room
            most = max(1, min(_MOST, _POSITIONS // longest))

            def work(chunk: slice, places: list[int] = places, room: int = room) -> list[Written]:
                return self._write([jobs[place] for place in places[chunk]], room, counts, stop)

            each_bytes = self._bytes_per_position() * longest
            key = ("generate", longest)
            for chunk, written in self.chunks.run(key, len(places), each_bytes, most, work, stop):
                for place, one in zip(places[chunk], written, strict=True):
                    done[place] = one
        return [one for one in done if one is not None]

    def _room(self, job: Job) -> int:
        """New tokens that may be written."""
        limit = self.limit
        wanted = job.generation.max_tokens
        return wanted if limit is None else min(wanted, limit - self._read(job))

    @abstractmethod
    def _read(self, job: Job) -> int:
        """Positions that the prompt takes of those that are written to."""

    @abstractmethod
    def _new(self, sequence: Tensor, width: int) -> Tensor:
        """The ids that were written, of one row of what generation returned."""

    def _bytes_per_position(self) -> int:
        config = self.network.model.config
        width = int(getattr(config, "hidden_size", 1024))
        layers = max(1, len(self.network.blocks))
        return 8 * width * layers * self.network.table.element_size()

    def _write(
        self, jobs: Sequence[Job], room: int, counts: Counts, stop: threading.Event
    ) -> list[Written]:
        first = jobs[0].generation
        device = self.network.device
        pad = self._pad()
        width = max(len(job.encoding.ids) for job in jobs)
        left = self.network.model.config.is_encoder_decoder is not True
        rows, masks = [], []
        for job in jobs:
            ids, gap = list(job.encoding.ids), [pad] * (width - len(job.encoding.ids))
            real, none = [1] * len(ids), [0] * len(gap)
            rows.append(gap + ids if left else ids + gap)
            masks.append(none + real if left else real + none)
        sound = _Sound(len(jobs), device)
        with torch.no_grad(), _seeded(jobs[0], device):
            sequences = self.network.model.generate(
                input_ids=torch.tensor(rows, device=device),
                attention_mask=torch.tensor(masks, device=device),
                generation_config=self._config(first, room, pad),
                stopping_criteria=[_Stop(stop)],
                logits_processor=[sound],
                tokenizer=self.encoder.tokenizer,
            )
        written = [
            replace(self._finished(self._new(row, width), job, room), finite=not broken)
            for row, job, broken in zip(sequences, jobs, sound.broken.tolist(), strict=True)
        ]
        steps = max((len(one.ids) for one in written), default=0)
        counts.forward(len(jobs) * width)
        for _ in range(steps - 1):
            counts.forward(len(jobs))
        return written

    def _config(self, generation: Any, room: int, pad: int) -> Any:
        from transformers import GenerationConfig

        own = self.network.model.generation_config
        options: dict[str, Any] = {
            **_PLAIN,
            "do_sample": generation.temperature > 0,
            "max_new_tokens": room,
            "pad_token_id": pad,
            "eos_token_id": own.eos_token_id,
            "bos_token_id": own.bos_token_id,
            "decoder_start_token_id": getattr(own, "decoder_start_token_id", None),
        }
        if generation.temperature > 0:
            options |= {"temperature": generation.temperature, "top_k": 0, "top_p": 1.0}
        if generation.stop:
            options["stop_strings"] = list(generation.stop)
        make: Any = GenerationConfig
        known = make()
        if unknown := sorted(name for name in generation.extra if not hasattr(known, name)):
            raise BadRequestError(
                f"transformers knows no generation argument {', '.join(map(repr, unknown))} "
                "(Generation.extra).",
                backend=self.network.name,
            )
        try:
            return make(**options | dict(generation.extra))
        except (TypeError, ValueError) as error:
            raise BadRequestError(
                f"transformers does not generate with Generation.extra="
                f"{dict(generation.extra)!r}: {error}",
                backend=self.network.name,
            ) from error

    def _pad(self) -> int:
        tokenizer = self.encoder.tokenizer
        for found in (tokenizer.pad_token_id, tokenizer.eos_token_id):
            if found is not None:
                return int(found)
        return 0

    def _ends(self) -> frozenset[int]:
        own = self.network.model.generation_config.eos_token_id
        return frozenset([own] if isinstance(own, int) else own or ())

    def _finished(self, new: Tensor, job: Job, room: int) -> Written:
        ids = new.tolist()
        ends = self._ends()
        for position, index in enumerate(ids):
            if index in ends:
                return Written(ids=tuple(ids[:position]), finish_reason="stop")
        ids = ids[:room]
        for mark in job.generation.stop:
            at = self.text(ids).find(mark)
            if at >= 0:
                return Written(ids=self._cut(ids, at), finish_reason="stop")
        return Written(ids=tuple(ids), finish_reason="length")

    def _cut(self, ids: Sequence[int], at: int) -> tuple[int, ...]:
        """The tokens that end before code point ``at`` of the text."""
        kept = 0
        while kept < len(ids) and len(self.text(ids[: kept + 1])) <= at:
            kept += 1
        return tuple(ids[:kept])


class _Stop:
    """Ends a generation whose caller is gone."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        done = self._stop.is_set()
        return torch.full((len(input_ids),), done, dtype=torch.bool, device=input_ids.device)


class _Sound:
    """Remembers which rows of a batch had a NaN among their logits; changes nothing."""

    def __init__(self, n_rows: int, device: torch.device) -> None:
        self.broken = torch.zeros(n_rows, dtype=torch.bool, device=device)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.broken |= scores.isnan().any(-1).to(self.broken.device)
        return scores


@contextlib.contextmanager
def _seeded(job: Job, device: torch.device) -> Iterator[None]:
    """Draws of a seeded job are its own, and nobody else's draws change for it."""
    generation = job.generation
    if generation.temperature == 0 or generation.seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(generation.seed + job.sample)
        yield
