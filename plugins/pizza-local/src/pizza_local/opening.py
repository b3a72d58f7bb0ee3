# SPDX-License-Identifier: Apache-2.0
"""Opening a model by name: from a folder or the hub, onto a device, in a precision."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from pizza.errors import CapabilityError, ConfigError, PizzaError
from pizza.specs import BackendSettings
from pizza_local.backend import LocalBackend

_DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "auto": "auto",
}
_CLASSES = (
    ("ForSequenceClassification", "AutoModelForSequenceClassification"),
    ("ForMaskedLM", "AutoModelForMaskedLM"),
    ("ForConditionalGeneration", "AutoModelForSeq2SeqLM"),
    ("ForCausalLM", "AutoModelForCausalLM"),
    ("LMHeadModel", "AutoModelForCausalLM"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Options of the backend ``local``.

    Attributes:
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``, or ``"auto"``: the first
            accelerator there is.
        device_map: As `transformers` takes it, e.g. ``"auto"``: shard over several devices.
            Instead of ``device``.
        dtype: ``"float32"`` (the default), ``"float64"``, ``"bfloat16"``, ``"float16"``, or
            ``"auto"``: as the weights were saved. Low precision spoils signed scores first.
        tf32: Whether matrix products on NVIDIA GPUs may be rounded to TF32.
        quantization: ``"8bit"`` or ``"4bit"`` (bitsandbytes), or ``None``.
        revision: Branch, tag or commit on the hub.
        trust_remote_code: Whether a model may run code of its own from the hub.
        chat: Whether prompts go through the chat template; ``None`` = where there is one.
        stacked: False: never use the fast gradients of GPT-2 and Llama shapes.
    """

    device: str = "cpu"
    device_map: Any = None
    dtype: str = "float32"
    tf32: bool = False
    quantization: str | None = None
    revision: str | None = None
    trust_remote_code: bool = False
    chat: bool | None = None
    stacked: bool = True


async def open_backend(settings: BackendSettings) -> LocalBackend:
    """Open a model of transformers.

    Args:
        settings: ``model`` is a folder or a name on the hub; options are those of `Options`.

    Raises:
        ConfigError: An option that means nothing, a device that is not there, a model that cannot
            be found, or one that would run code of its own.
        CapabilityError: A kind of model that is not known.
    """
    if settings.base_url is not None:
        raise ConfigError(
            f"the backend 'local' runs models in this process and has no base_url "
            f"{settings.base_url!r}. For a server use the backend 'openai'."
        )
    known = {field.name for field in fields(Options)}
    if unknown := sorted(set(settings.options) - known):
        raise ConfigError(
            f"the backend 'local' has no option {', '.join(map(repr, unknown))}; it has "
            f"{', '.join(sorted(known))}."
        )
    options = _checked(settings.options)
    # Loading reads gigabytes: not on the loop.
    return await asyncio.to_thread(_open, settings.model, options)


def _checked(given: Mapping[str, Any]) -> Options:
    """Options of the right types: the text ``"false"`` would count as true.

    Raises:
        ConfigError: One is of another type.
    """
    options = Options(**given)
    kinds: tuple[tuple[type, str, tuple[str, ...]], ...] = (
        (bool, "true or false", ("tf32", "trust_remote_code", "stacked")),
        (str, "a text", ("device", "dtype")),
    )
    for kind, what, names in kinds:
        for name in names:
            if not isinstance(getattr(options, name), kind):
                raise ConfigError(
                    f"the option {name!r} of the backend 'local' is {what}, not "
                    f"{getattr(options, name)!r}."
                )
    if options.chat is not None and not isinstance(options.chat, bool):
        raise ConfigError(
            f"the option 'chat' of the backend 'local' is true, false or left out, not "
            f"{options.chat!r}."
        )
    return options


def _open(model: str, options: Options) -> LocalBackend:
    dtype = _dtype(options)
    device = _device(options)
    with _quietly(), _explained(model):
        import transformers

        common = {"revision": options.revision, "trust_remote_code": options.trust_remote_code}
        config = transformers.AutoConfig.from_pretrained(model, **common)
        loader = getattr(transformers, _class_of(config, model))
        tokenizer = transformers.AutoTokenizer.from_pretrained(model, **common)
        placement = _placement(options)
        loaded, report = loader.from_pretrained(
            model, config=config, dtype=dtype, output_loading_info=True, **common, **placement
        )
        _complete(report, model)
        loaded.eval()
        if not placement:
            loaded.to(device)
    name = Path(model).name if Path(model).is_dir() else model
    backend = LocalBackend(loaded, tokenizer, name=name, chat=options.chat, stacked=options.stacked)
    if options.tf32:
        _allow_tf32(backend)
    return backend


def _complete(report: Mapping[str, Any], model: str) -> None:
    """Refuse weights that were not there: transformers draws them at random and goes on.

    Raises:
        ConfigError: Some were not.
    """
    missing = sorted(report["missing_keys"])
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ConfigError(
            f"{model} has no weights for {', '.join(missing[:3])}{more}: what they compute would "
            "be random. Give the folder of a whole model, or load it yourself and pass "
            "pizza_local.LocalBackend(model, tokenizer)."
        )


def _class_of(config: Any, model: str) -> str:
    for architecture in getattr(config, "architectures", None) or ():
        for ending, loader in _CLASSES:
            if architecture.endswith(ending):
                return loader
    found = ", ".join(getattr(config, "architectures", None) or ()) or config.model_type
    raise CapabilityError(
        f"{model} is saved as {found}, which is none of the kinds that can be explained: "
        f"{', '.join(ending for ending, _ in _CLASSES)}. Load it yourself and pass "
        "pizza_local.LocalBackend(model, tokenizer).",
        needed="gradients",
        backend=model,
    )


def _dtype(options: Options) -> Any:
    if options.dtype not in _DTYPES:
        raise ConfigError(f"dtype is one of {', '.join(_DTYPES)}, not {options.dtype!r}.")
    return _DTYPES[options.dtype]


def _device(options: Options) -> torch.device:
    if options.device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(options.device)
    except RuntimeError as error:
        raise ConfigError(
            f"there is no device {options.device!r}: use cpu, cuda, cuda:1, mps or auto."
        ) from error
    if device.type == "cuda" and not torch.cuda.is_available():
        built = "this torch is built without CUDA" if not torch.version.cuda else "no GPU is found"
        raise ConfigError(
            f"device={options.device!r} was asked for and {built}. Use device=cpu, or install a "
            "torch with CUDA (https://pytorch.org)."
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"there is no {options.device!r}: there are {torch.cuda.device_count()} GPUs."
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device='mps' was asked for and there is none here. Use device=cpu.")
    return device


def _placement(options: Options) -> dict[str, Any]:
    placement: dict[str, Any] = {}
    if options.device_map is not None:
        placement["device_map"] = options.device_map
    if options.quantization is not None:
        from transformers import BitsAndBytesConfig

        if options.quantization not in ("8bit", "4bit"):
            raise ConfigError(f"quantization is '8bit' or '4bit', not {options.quantization!r}.")
        make: Any = BitsAndBytesConfig
        placement["quantization_config"] = make(
            load_in_8bit=options.quantization == "8bit", load_in_4bit=options.quantization == "4bit"
        )
        placement.setdefault("device_map", {"": str(_device(options))})
    return placement


def _allow_tf32(backend: LocalBackend) -> None:
    """Torch has one setting for the process: it is put back when the model is closed."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    backend.on_close(lambda: torch.set_float32_matmul_precision(before))


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """No progress bars of transformers on somebody's terminal."""
    from transformers.utils import logging

    noise: Any = logging

    shown = noise.is_progress_bar_enabled()
    noise.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            noise.enable_progress_bar()


@contextlib.contextmanager
def _explained(model: str) -> Iterator[None]:
    """Errors of loading, in words that say what to do.

    Raises:
        ConfigError: In place of what others raise.
    """
    try:
        yield
    except PizzaError:
        raise
    except ImportError as error:
        raise ConfigError(f"{model} needs a package that is missing: {error}") from error
    # Damaged files fail in the words of whoever reads them.
    except Exception as error:
        text = str(error)
        if "trust_remote_code" in text:
            raise ConfigError(
                f"{model} wants to run code of its own, which is refused. If you trust it, open "
                "it with trust_remote_code=true."
            ) from error
        what = text.strip().rstrip(".") or type(error).__name__
        raise ConfigError(
            f"{model} cannot be loaded: {what}. Give a folder with config.json, weights and "
            "tokenizer, or a name on the hub."
        ) from error
