# SPDX-License-Identifier: Apache-2.0
"""How a server is set up: its address, speed, limits and faults."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from statistics import NormalDist

from pizza_embedded.faults import FaultPlan, uniform
from pizza_embedded.ratelimit import Style
from pizza_embedded.server.batch_options import BatchOptions

DEFAULT_MODEL = "embedded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """How long an answer takes at least, seconds.

    Attributes:
        mean_s: The mean.
        sigma: Standard deviation of the logarithm; 0 = always the mean.
        seed: Of the draws.
    """

    mean_s: float = 0.0
    sigma: float = 0.0
    seed: int = 0

    @classmethod
    def parse(cls, text: str) -> Latency:
        """Read ``"0.3"`` or ``"lognormal:MEAN,SIGMA"``.

        Raises:
            ValueError: The text is not of that form.
        """
        kind, colon, rest = text.partition(":")
        parts = rest.split(",") if colon else [text]
        try:
            values = [float(part) for part in parts]
        except ValueError:
            values = []
        wanted = 2 if colon else 1
        known = not colon or kind == "lognormal"
        if not known or len(values) != wanted or not all(0 <= v < math.inf for v in values):
            raise ValueError(f"the latency {text!r} is not SECONDS or lognormal:MEAN,SIGMA.")
        return cls(mean_s=values[0], sigma=values[1] if colon else 0.0)

    def seconds(self, key: str, attempt: int) -> float:
        """The latency of one attempt at a body: the same in every run."""
        if not self.mean_s or not self.sigma:
            return self.mean_s
        # The open interval: the quantile of 0 would be minus infinity.
        draw = max(uniform("latency", self.seed, key, attempt), 2.0**-53)
        location = math.log(self.mean_s) - self.sigma**2 / 2
        return math.exp(NormalDist(location, self.sigma).inv_cdf(draw))


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """Everything that a server can be told.

    Attributes:
        host: Address to listen on.
        port: Port; 0 = a free one.
        model_name: What the model is called in requests.
        weights: Folder of other weights, or ``None`` for those of the package.
        latency: How long answers take.
        rpm: Requests per minute, or ``None``.
        tpm: Tokens per minute, or ``None``. A request is charged for its prompt and the longest
            output that it allows before it is answered, as OpenAI does it.
        rate_style: How the limits are enforced; see `pizza_embedded.ratelimit.make_quota`.
        rate_burst_s: Capacity of the limits' buckets, seconds' worth; ``None`` = the style's own.
        rate_headers: Whether answers say what the limits are and when to come back.
        refund_tokens: Whether tokens that were charged and not used are given back.
        faults: What goes wrong, and how often.
        api_key: The only key that is let in; ``None`` = everybody is.
        cache_bytes: Room for rendered answers. An answer that a repeat of its request would get
            again costs the model nothing the second time.
        batches: How batches behave.
    """

    host: str = "127.0.0.1"
    port: int = 0
    model_name: str = DEFAULT_MODEL
    weights: Path | None = None
    latency: Latency = field(default_factory=Latency)
    rpm: float | None = None
    tpm: float | None = None
    rate_style: Style = "minute"
    rate_burst_s: float | None = None
    rate_headers: bool = True
    refund_tokens: bool = False
    faults: FaultPlan = field(default_factory=FaultPlan)
    api_key: str | None = field(default=None, repr=False)
    cache_bytes: int = 64 << 20
    batches: BatchOptions = field(default_factory=BatchOptions)
