# SPDX-License-Identifier: Apache-2.0
"""A model that computes in the worker, as a distribution on the path: answers with where it is.

A prompt with the word "deadly" ends the process that explains it.
"""

import os

import numpy as np

from pizza.abc import Backend
from pizza.capability import Capability
from pizza.completion import Completion, Reply, Usage
from pizza.hookspecs import hookimpl
from pizza.specs import BackendSpec


class GpuEcho(Backend):
    name = "gpu-echo"
    identity = "gpu-echo"
    capabilities = frozenset({Capability.COMPLETE, Capability.LOGPROBS})

    def __init__(self, settings):
        pass

    async def answer(self, request):
        if "deadly" in request.prompt.text:
            os._exit(1)
        import ray

        node = ray.get_runtime_context().get_node_id()
        tokens = (node, " ", os.environ.get("CUDA_VISIBLE_DEVICES", "none"), " ", str(os.getpid()))
        return Reply(
            completion=Completion(
                text="".join(tokens),
                tokens=tokens,
                logprobs=-np.arange(5.0),
                finish_reason="stop",
                usage=Usage(prompt_tokens=5, completion_tokens=5),
            )
        )


@hookimpl
def pizza_register_backends():
    return [
        BackendSpec(
            name="gpu-echo",
            target="gpu_echo:GpuEcho",
            needs=("torch",),
            offers=GpuEcho.capabilities,
            default_model="m",
        )
    ]
