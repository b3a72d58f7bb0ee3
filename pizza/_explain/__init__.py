# SPDX-License-Identifier: Apache-2.0
"""One attribution, step by step: the work behind `Session.attribute`."""

from pizza._explain.checks import USUAL_METRICS
from pizza._explain.job import Job
from pizza._explain.run import explain
from pizza._explain.work import Meter

__all__ = ["USUAL_METRICS", "Job", "Meter", "explain"]
