# SPDX-License-Identifier: Apache-2.0
"""The stacked engine against autograd through the model itself."""

import threading

import pytest
import torch
import transformers
from pizza_local.chunks import Chunks, Stopped
from pizza_local.counts import Counts
from pizza_local.gradients.problem import Problem
from pizza_local.gradients.stacked import Stacked, gpt2
from support import tiny

from pizza.errors import ConfigError

pytestmark = pytest.mark.torch

CPU = torch.device("cpu")
FAMILIES = {
    "gpt2": lambda: tiny.gpt2(),
    "gpt2-untied": lambda: tiny.gpt2(tie_word_embeddings=False),
    "gpt2-scaled": lambda: tiny.gpt2(scale_attn_by_inverse_layer_idx=True),
    "gpt2-relu": lambda: tiny.gpt2(activation_function="relu", n_inner=48),
    "llama": lambda: tiny.llama(),
    "llama-tied": lambda: tiny.llama(tie_word_embeddings=True),
    "llama-biased": lambda: tiny.llama(attention_bias=True, mlp_bias=True),
    "llama-wide-heads": lambda: tiny.llama(head_dim=16),
    "llama-ungrouped": lambda: tiny.llama(num_key_value_heads=4),
    "llama-yarn": lambda: tiny.llama(
        rope_parameters={
            "rope_type": "yarn",
            "rope_theta": 1e4,
            "factor": 4.0,
            "original_max_position_embeddings": 32,
        }
    ),
    "llama-dynamic": lambda: tiny.llama(
        max_position_embeddings=6,
        rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0},
    ),
    "mistral-sliding": lambda: tiny.decoder("Mistral", sliding_window=4).double(),
    "mistral-full": lambda: tiny.decoder("Mistral", sliding_window=None).double(),
    "qwen2": lambda: tiny.decoder("Qwen2").double(),
    "qwen2-partly-sliding": lambda: tiny.decoder(
        "Qwen2", use_sliding_window=True, sliding_window=3, max_window_layers=1
    ).double(),
    "qwen3": lambda: tiny.decoder("Qwen3").double(),
    "gemma": lambda: tiny.decoder("Gemma").double(),
}
POSITIONS = torch.tensor([4, 7, 8, 10])


def tolerance(model):
    """Relative to the largest; transformers rounds to fp32 within its RMSNorm."""
    if model.dtype == torch.float32:
        return 1e-5
    return 1e-9 if model.config.model_type == "gpt2" else 2e-6


class LogProb:
    def __init__(self, targets):
        self.targets = targets

    def each(self, logits):
        picked = self.targets.expand(logits.shape[:-1]).unsqueeze(-1)
        return logits.log_softmax(-1).gather(-1, picked).squeeze(-1)

    def weights(self, each):
        return torch.ones_like(each)


class Prob(LogProb):
    """The whole is the product."""

    def each(self, logits):
        return super().each(logits).exp()

    def weights(self, each):
        return each.prod(-1, keepdim=True) / each


class Entropy(LogProb):
    """The whole is the sum of squares, so that weights are of both kinds of sizes."""

    def each(self, logits):
        return -(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1)

    def weights(self, each):
        return 2 * each


FUNCTIONS = [LogProb, Prob, Entropy]


def whole(function, each):
    if isinstance(function, Prob):
        return each.prod()
    return (each**2).sum() if isinstance(function, Entropy) else each.sum()


def body_of(model):
    body = model.base_model
    return (body.h, body.ln_f) if hasattr(body, "h") else (body.layers, body.norm)


def logits_from(model, layer, hidden, positions):
    """The model's logits when ``hidden`` enters a layer."""
    if layer == 0:
        return model(inputs_embeds=hidden, use_cache=False).logits[:, positions]
    blocks, norm = body_of(model)
    module = [*blocks, norm][layer]
    handle = module.register_forward_pre_hook(lambda _, args: (hidden, *args[1:]))
    try:
        return model(inputs_embeds=torch.zeros_like(hidden), use_cache=False).logits[:, positions]
    finally:
        handle.remove()


def autograd(model, points, positions, function, level="token", layer=0):
    values, gradients = [], []
    for point in points:
        hidden = point[None].clone().requires_grad_()
        each = function.each(logits_from(model, layer, hidden, positions))[0]
        wanted = each if level == "token" else [whole(function, each)]
        gradients.append(
            torch.stack([torch.autograd.grad(x, hidden, retain_graph=True)[0][0] for x in wanted])
        )
        values.append(each.detach())
    return torch.stack(values), torch.stack(gradients)


def points_of(model, n=3, length=12, seed=1):
    torch.manual_seed(seed)
    ids = torch.randint(4, 384, (n, length))
    return model.get_input_embeddings()(ids).detach()


def targets_of(n):
    return torch.arange(n) * 37 % 384


def run(engine, points, positions, function, **settings):
    settings.setdefault("counts", Counts())
    return engine.gradients(positions, Problem(points=points, function=function, **settings))


def collect(engine, points, *arguments, **settings):
    slices, values, gradients = zip(*run(engine, points, *arguments, **settings), strict=True)
    covered = [i for chunk in slices for i in range(chunk.start, chunk.stop)]
    assert covered == list(range(len(points)))
    return torch.cat(values), torch.cat(gradients)


def assert_close(got, want, rtol):
    assert got.shape == want.shape
    assert got.dtype == want.dtype
    assert want.abs().max() > 0
    assert (got - want).abs().max() <= rtol * want.abs().max()


def engine_of(model, chunks=None):
    engine = Stacked.for_model(model, chunks or Chunks(CPU))
    assert engine is not None
    return engine


# --- correct ------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_agrees_with_autograd(family, level):
    model = FAMILIES[family]()
    points = points_of(model)
    function = Prob(targets_of(4))

    got = collect(engine_of(model), points, POSITIONS, function, level=level)

    want = autograd(model, points, POSITIONS, function, level)
    assert_close(got[0], want[0], tolerance(model))
    assert_close(got[1], want[1], tolerance(model))


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("layer", [1, 2, 3])
@pytest.mark.parametrize("family", ["gpt2", "llama", "mistral-sliding", "qwen3"])
def test_hidden_states_of_any_layer(family, layer, level):
    model = FAMILIES[family]()
    points = points_of(model) * 3
    function = LogProb(targets_of(4))

    _, got = collect(engine_of(model), points, POSITIONS, function, level=level, layer=layer)

    _, want = autograd(model, points, POSITIONS, function, level, layer)
    assert_close(got, want, tolerance(model))


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("make", FUNCTIONS)
def test_any_function(make, level):
    model = tiny.gpt2()
    points = points_of(model)
    function = make(targets_of(4))

    got = collect(engine_of(model), points, POSITIONS, function, level=level)

    want = autograd(model, points, POSITIONS, function, level)
    assert_close(got[0], want[0], 1e-9)
    assert_close(got[1], want[1], 1e-9)


@pytest.mark.parametrize("positions", [[0], [11], [0, 11], [3, 4, 5, 6], list(range(12))], ids=str)
@pytest.mark.parametrize("level", ["token", "sequence"])
def test_any_positions(positions, level):
    model = tiny.gpt2()
    points = points_of(model)
    positions = torch.tensor(positions)
    function = LogProb(targets_of(len(positions)))

    _, got = collect(engine_of(model), points, positions, function, level=level)

    assert_close(got, autograd(model, points, positions, function, level)[1], 1e-9)


@pytest.mark.parametrize("family", ["gpt2", "llama", "mistral-sliding", "qwen3", "gemma"])
def test_single_precision(family):
    model = FAMILIES[family]().float()
    points = points_of(model)
    function = LogProb(targets_of(4))

    _, got = collect(engine_of(model), points, POSITIONS, function)

    assert_close(got, autograd(model, points, POSITIONS, function)[1], 1e-5)


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3", "gemma"])
def test_bfloat16_is_as_near_the_truth_as_autograd(family):
    model = FAMILIES[family]().bfloat16()
    points = points_of(model)
    function = LogProb(targets_of(4))

    got = collect(engine_of(model), points, POSITIONS, function)[1].double()
    peer = autograd(model, points, POSITIONS, function)[1].double()

    truth = autograd(model.double(), points.double(), POSITIONS, function)[1]
    assert (got - truth).norm() <= 1.3 * (peer - truth).norm()
    assert (got - truth).norm() <= 0.1 * truth.norm()


@pytest.mark.parametrize("family", ["gpt2", "mistral"])
def test_attention_in_several_blocks_of_queries(family):
    model = (
        tiny.gpt2(n_positions=512)
        if family == "gpt2"
        else tiny.decoder("Mistral", sliding_window=50, max_position_embeddings=512).double()
    )
    points = points_of(model, n=2, length=400)
    positions = torch.tensor([250, 380, 398])
    function = LogProb(targets_of(3))

    for level in ("token", "sequence"):
        _, got = collect(engine_of(model), points, positions, function, level=level)

        _, want = autograd(model, points, positions, function, level)
        assert_close(got, want, tolerance(model))


def test_eager_attention_gives_the_same():
    model = tiny.llama()
    model.set_attn_implementation("eager")
    points = points_of(model)
    function = LogProb(targets_of(4))

    _, got = collect(engine_of(model), points, POSITIONS, function)

    assert_close(got, autograd(model, points, POSITIONS, function)[1], 2e-6)


@pytest.mark.parametrize("layer", [-1, 4])
def test_layers_that_are_not_there(layer):
    model = tiny.gpt2()

    with pytest.raises(ConfigError, match="1 to 2"):
        collect(engine_of(model), points_of(model), POSITIONS, LogProb(targets_of(4)), layer=layer)


# --- in chunks ----------------------------------------------------------------------------------


class AtMost(Chunks):
    """Lets so many items through at once, of whatever kind."""

    def __init__(self, n):
        super().__init__(CPU)
        self.n = n

    def size(self, key, bytes_each, most):
        return min(self.n, super().size(key, bytes_each, most))


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_chunks_change_nothing(n, level):
    model = tiny.llama()
    points = points_of(model, n=5)
    function = LogProb(targets_of(4))
    counts = Counts()

    got = collect(
        engine_of(model, AtMost(n)), points, POSITIONS, function, level=level, counts=counts
    )

    want = autograd(model, points, POSITIONS, function, level)
    assert_close(got[0], want[0], 2e-6)
    assert_close(got[1], want[1], 2e-6)
    assert counts.forward_passes == -(-5 // n)
    target_chunks = -(-4 // n) if level == "token" else 1
    assert counts.backward_passes == -(-5 // n) * target_chunks


@pytest.mark.parametrize("rows", [1, 30, 60])
def test_rows_are_bounded(rows):
    model = tiny.gpt2()
    points = points_of(model)
    function = LogProb(targets_of(4))
    counts = Counts()

    engine = Stacked(gpt2.take_apart(model), Chunks(CPU), rows)
    _, got = collect(engine, points, POSITIONS, function, counts=counts)

    assert_close(got, autograd(model, points, POSITIONS, function)[1], 1e-9)
    # A point has 5 + 8 + 9 + 11 = 33 cotangents.
    per_point = {1: 4, 30: 2, 60: 1}[rows]
    assert counts.backward_passes == 3 * per_point
    assert counts.backward_tokens == 3 * 33
    assert counts.forward_tokens == 3 * 11


@pytest.mark.parametrize(("level", "rows"), [("token", 33), ("sequence", 11)])
def test_one_forward_and_one_backward_when_all_fits(level, rows):
    model = tiny.gpt2()
    counts = Counts()

    collect(
        engine_of(model),
        points_of(model),
        POSITIONS,
        LogProb(targets_of(4)),
        level=level,
        counts=counts,
    )

    assert counts == Counts(
        forward_passes=1, backward_passes=1, forward_tokens=3 * 11, backward_tokens=3 * rows
    )


class Greedy(LogProb):
    """Runs out of memory with more than one point."""

    def each(self, logits):
        if len(logits) > 1:
            raise torch.OutOfMemoryError
        return super().each(logits)


def test_out_of_memory_halves_the_chunk():
    model = tiny.gpt2()
    points = points_of(model, n=4)

    _, got = collect(engine_of(model), points, POSITIONS, Greedy(targets_of(4)))

    want = autograd(model, points, POSITIONS, LogProb(targets_of(4)))[1]
    assert_close(got, want, 1e-9)


def test_a_set_event_stops():
    model = tiny.gpt2()
    stop = threading.Event()
    stop.set()
    counts = Counts()

    with pytest.raises(Stopped):
        collect(
            engine_of(model),
            points_of(model),
            POSITIONS,
            LogProb(targets_of(4)),
            counts=counts,
            stop=stop,
        )

    assert counts == Counts()


def test_stops_within_a_chunk():
    model = tiny.gpt2()
    stop = threading.Event()

    class Leaving(LogProb):
        def each(self, logits):
            stop.set()
            return super().each(logits)

    counts = Counts()
    with pytest.raises(Stopped):
        collect(
            engine_of(model),
            points_of(model),
            POSITIONS,
            Leaving(targets_of(4)),
            counts=counts,
            stop=stop,
        )

    assert (counts.forward_passes, counts.backward_passes) == (1, 0)


# --- leaves everything as it was ----------------------------------------------------------------


def test_the_callers_grad_mode_is_left_alone():
    model = tiny.gpt2()
    function = LogProb(targets_of(4))
    engine = engine_of(model, AtMost(1))

    with torch.inference_mode():
        points = points_of(model)
        got = []
        for _, _, gradients in run(engine, points, POSITIONS, function):
            assert torch.is_inference_mode_enabled()
            got.append(gradients)

    assert torch.is_grad_enabled()
    assert_close(torch.cat(got), autograd(model, points.clone(), POSITIONS, function)[1], 1e-9)


def test_nothing_is_left_on_the_model():
    model = tiny.llama()
    before = {name: value.clone() for name, value in model.state_dict().items()}

    collect(engine_of(model), points_of(model), POSITIONS, LogProb(targets_of(4)))

    assert all(weight.grad is None for weight in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_weights_are_read_when_used():
    model = tiny.gpt2()
    engine = engine_of(model)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.1)
    points = points_of(model)
    function = LogProb(targets_of(4))

    _, got = collect(engine, points, POSITIONS, function)

    assert_close(got, autograd(model, points, POSITIONS, function)[1], 1e-9)


# --- what it refuses ----------------------------------------------------------------------------


def one_layer_in_another_precision():
    model = tiny.gpt2()
    model.transformer.h[1].float()
    return model


def with_an_adapter():
    model = tiny.llama()
    old = model.model.layers[0].mlp.up_proj

    class LoraLinear(torch.nn.Linear):
        pass

    new = LoraLinear(old.in_features, old.out_features, bias=False).double()
    model.model.layers[0].mlp.up_proj = new
    return model


def hooked():
    model = tiny.gpt2()
    model.transformer.h[0].attn.register_forward_hook(lambda *_: None)
    return model


def with_replaced_forward():
    model = tiny.gpt2()
    module = model.transformer.h[0].mlp
    module.forward = lambda x: x
    return model


def phi():
    return transformers.PhiForCausalLM(
        transformers.PhiConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            vocab_size=384,
        )
    ).eval()


UNKNOWN = {
    "encoder-decoder": tiny.t5,
    "classifier": tiny.bert_classifier,
    "parallel attention, partial rotation": phi,
    "cross-attention": lambda: tiny.gpt2(add_cross_attention=True),
    "upcast attention": lambda: tiny.gpt2(reorder_and_upcast_attn=True),
    "unknown activation": lambda: tiny.gpt2(activation_function="laplace"),
    "partial rotation": lambda: tiny.llama(
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 1e4,
            "partial_rotary_factor": 0.5,
        }
    ),
    "bidirectional": lambda: tiny.decoder("Gemma", use_bidirectional_attention=True),
    "softcap": lambda: tiny.decoder("Gemma", attn_logit_softcapping=50.0),
    "dropout on": lambda: tiny.gpt2().train(),
    "two precisions": one_layer_in_another_precision,
    "subclassed linear": with_an_adapter,
    "hooked": hooked,
    "replaced forward": with_replaced_forward,
    "no weights": lambda: tiny.gpt2().to("meta"),
}


@pytest.mark.parametrize("kind", UNKNOWN)
def test_unknown_models_are_refused(kind):
    assert Stacked.for_model(UNKNOWN[kind](), Chunks(CPU)) is None


def test_transformers_own_listeners_are_no_obstacle():
    model = tiny.llama()
    model(torch.tensor([[5, 6]]), output_hidden_states=True)

    assert Stacked.for_model(model, Chunks(CPU)) is not None
