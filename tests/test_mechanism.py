"""The mechanism against torch's own attention, stage by stage, and for every kind of array."""

from __future__ import annotations

import inspect
from dataclasses import FrozenInstanceError

import array_api_strict
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch.nn.functional import linear, scaled_dot_product_attention

from softmap import Steps, self_attention

STAGES = ("x", "q", "k", "v", "scores", "scaled", "weights", "output")
BIASES = {"b_q": np.array([1.0, -2.0, 0.5]), "b_k": np.array([0.5, 1.0, 3.0]), "b_v": np.array([1.0, -1.0])}
SEEDS = st.integers(0, 2**32 - 1)
SCALES = st.none() | st.floats(0.01, 2)
SCORES = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 6), st.just(3)),
    elements=st.sampled_from([-1e4, 0, 1e4]) | st.floats(-100, 100),
)


def over(*strategies, **named):
    """Run a test over many examples, without a time limit on each: torch's first call is slow."""
    return lambda test: settings(deadline=None, max_examples=60)(given(*strategies, **named)(test))


@st.composite
def heads(draw, square=False):
    """The arguments of one head; q, k and v have a variance near 1, as a trained layer's have."""
    d_model, d_k, d_v = [draw(st.integers(1, 16))] * 3 if square else [draw(st.integers(1, 16)) for _ in range(3)]
    tokens = draw(st.integers(1, 12))
    shapes = {"x": (tokens, d_model), "w_q": (d_model, d_k), "w_k": (d_model, d_k), "w_v": (d_model, d_v)}
    if square or draw(st.booleans()):
        shapes |= {"b_q": (d_k,), "b_k": (d_k,), "b_v": (d_v,)}
    normal = np.random.default_rng(draw(SEEDS)).standard_normal
    return {name: normal(shape) / (d_model**0.5 if name[0] == "w" else 1) for name, shape in shapes.items()}


def a_head(d_k=3, **biases):
    shapes = {"x": (5, 4), "w_q": (4, d_k), "w_k": (4, d_k), "w_v": (4, 2)}
    normal = np.random.default_rng(7).standard_normal
    return {name: normal(shape) for name, shape in shapes.items()} | biases


def in_torch(head):
    return {name: torch.from_numpy(array) for name, array in head.items()}


def assert_close(ours, theirs, within=1e-12):
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=within)


def assert_same_steps(ours, theirs, stages=STAGES, within=1e-12):
    for stage in stages:
        assert_close(getattr(ours, stage), getattr(theirs, stage), within)


# Against torch


@over(heads(), st.booleans(), SCALES)
def test_output_is_torch_scaled_dot_product_attention(head, causal, scale):
    head = in_torch(head)
    q, k, v = (linear(head["x"], head[f"w_{letter}"].T, head.get(f"b_{letter}"))[None] for letter in "qkv")
    theirs = scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale)[0]
    assert_close(self_attention(**head, causal=causal, scale=scale).output, theirs)


@over(heads(square=True), st.booleans())
def test_output_and_weights_are_torch_multihead_attention_with_one_head(head, causal):
    head = in_torch(head)
    x = head["x"]
    attention = torch.nn.MultiheadAttention(x.shape[1], num_heads=1, dtype=torch.float64)
    with torch.no_grad():
        attention.in_proj_weight.copy_(torch.cat([head[f"w_{letter}"].T for letter in "qkv"]))
        attention.in_proj_bias.copy_(torch.cat([head[f"b_{letter}"] for letter in "qkv"]))
        attention.out_proj.weight.copy_(torch.eye(x.shape[1]))
        attention.out_proj.bias.zero_()
        future = torch.ones(len(x), len(x), dtype=torch.bool).triu(1) if causal else None
        output, weights = attention(x, x, x, attn_mask=future, need_weights=True)
    steps = self_attention(**head, causal=causal)
    assert_close(steps.output, output)
    assert_close(steps.weights, weights)


@pytest.mark.parametrize("tokens", [1, 2, 9, 64])
def test_q_k_and_v_have_the_very_bits_of_a_torch_linear_layer(tokens):
    torch.manual_seed(tokens)
    x = torch.randn(tokens, 48)
    layers = {letter: torch.nn.Linear(48, 16) for letter in "qkv"}
    weights = {f"w_{letter}": layer.weight.T for letter, layer in layers.items()}
    biases = {f"b_{letter}": layer.bias for letter, layer in layers.items()}
    steps = self_attention(x, **weights, **biases)
    assert all(torch.equal(getattr(steps, letter), layer(x)) for letter, layer in layers.items())


# Dtypes


@over(heads(), st.sampled_from(["numpy", "torch"]))
def test_float32_is_within_rounding_of_float64(head, library):
    narrow = {name: array.astype(np.float32) for name, array in head.items()}
    wide = {name: array.astype(np.float64) for name, array in narrow.items()}
    steps = self_attention(**(narrow if library == "numpy" else in_torch(narrow)))
    assert_same_steps(steps, self_attention(**wide), ("q", "k", "v", "weights", "output"), within=3e-5)


@pytest.mark.parametrize(
    ("of_x", "of_weights", "returned"),
    [
        (torch.float16, torch.float16, torch.float32),
        (torch.bfloat16, torch.bfloat16, torch.float32),
        (torch.bfloat16, torch.float16, torch.float32),
        (torch.float32, torch.bfloat16, torch.float32),
        (torch.float32, torch.float32, torch.float32),
        (torch.float32, torch.float64, torch.float64),
        (torch.float16, torch.float64, torch.float64),
        (torch.float64, torch.float64, torch.float64),
    ],
)
def test_torch_returns_the_widest_dtype_given_and_at_least_float32(of_x, of_weights, returned):
    head = {name: array.to(of_x if name == "x" else of_weights) for name, array in in_torch(a_head()).items()}
    steps = self_attention(**head)
    assert {getattr(steps, stage).dtype for stage in STAGES} == {returned}


@pytest.mark.parametrize(("given", "returned"), [("f2", "f4"), ("f4", "f4"), ("f8", "f8")])
def test_numpy_returns_the_dtype_given_and_at_least_float32(given, returned):
    steps = self_attention(**{name: array.astype(given) for name, array in a_head().items()})
    assert {getattr(steps, stage).dtype for stage in STAGES} == {np.dtype(returned)}


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_halves_are_computed_in_float32(half):
    halves = {name: array.to(half) for name, array in in_torch(a_head()).items()}
    singles = {name: array.float() for name, array in halves.items()}
    assert_same_steps(self_attention(**halves), self_attention(**singles), within=1e-6)


# Kinds of array


class OnlyArray:
    """As a pandas frame: NumPy can read it."""

    def __init__(self, array):
        self._array = array

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self._array, dtype=dtype)


class OnlyDlpack:
    """As an array of a library that softmap does not know."""

    def __init__(self, array):
        self.__dlpack__ = array.__dlpack__
        self.__dlpack_device__ = array.__dlpack_device__


KINDS = {
    "numpy": (np.asarray, np.ndarray),
    "torch": (torch.from_numpy, torch.Tensor),
    "array_api_strict": (array_api_strict.asarray, type(array_api_strict.asarray(1.0))),
    "__array__": (OnlyArray, np.ndarray),
    "__dlpack__": (OnlyDlpack, np.ndarray),
}


@pytest.mark.parametrize(("make", "returned"), KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_every_kind_returns_its_own_and_the_same_numbers(make, returned, causal, biased):
    head = a_head(**BIASES) if biased else a_head()
    steps = self_attention(**{name: make(array) for name, array in head.items()}, causal=causal)
    assert {type(getattr(steps, stage)) for stage in STAGES} == {returned}
    assert_same_steps(steps, self_attention(**head, causal=causal))


@over(heads(), st.booleans(), SCALES)
def test_numpy_and_torch_give_the_same(head, causal, scale):
    options = {"causal": causal, "scale": scale}
    assert_same_steps(self_attention(**in_torch(head), **options), self_attention(**head, **options))


def check_device(device):
    steps = self_attention(**{name: array.to(device) for name, array in in_torch(a_head()).items()}, causal=True)
    assert {getattr(steps, stage).device.type for stage in STAGES} == {device}
    assert_close(steps.output.cpu(), self_attention(**a_head(), causal=True).output)


def test_torch_stays_on_the_cpu():
    check_device("cpu")


def test_torch_stays_on_the_gpu(cuda):
    check_device(cuda)


@pytest.mark.parametrize("causal", [False, True])
def test_gradients_flow_to_every_torch_input(causal):
    head = in_torch(a_head(**BIASES))
    inputs = [array.requires_grad_() for array in head.values()]
    assert torch.autograd.gradcheck(
        lambda *arrays: self_attention(**dict(zip(head, arrays, strict=True)), causal=causal).output, inputs
    )


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_changing_the_input_afterwards_leaves_the_steps_as_they_are(library):
    head = a_head() if library == "numpy" else in_torch(a_head())
    steps = self_attention(**head, causal=True)
    for array in head.values():
        array[...] = 0
    assert_same_steps(steps, self_attention(**a_head(), causal=True))


def test_self_attention_is_one_screen_of_code():
    assert len(inspect.getsource(self_attention).splitlines()) <= 60


# The formulas


@over(heads(), SCALES)
def test_every_stage_follows_its_formula(head, scale):
    steps = self_attention(**head, scale=scale)
    for letter in "qkv":
        assert_close(getattr(steps, letter), head["x"] @ head[f"w_{letter}"] + head.get(f"b_{letter}", 0))
    assert_close(steps.x, head["x"], within=0)
    assert_close(steps.scores, [[sum(query * key) for key in steps.k] for query in steps.q])
    assert_close(steps.scaled, steps.scores * steps.scale, within=0)
    exponentials = np.exp(steps.scaled)
    assert_close(steps.weights, exponentials / exponentials.sum(axis=1, keepdims=True))
    assert_close(steps.output, [sum(w * value for w, value in zip(row, steps.v, strict=True)) for row in steps.weights])


@over(heads(), st.booleans(), SCALES)
def test_weights_are_in_0_to_1_and_each_row_sums_to_one(head, causal, scale):
    weights = self_attention(**head, causal=causal, scale=scale).weights
    assert ((weights >= 0) & (weights <= 1)).all()
    assert_close(weights.sum(axis=1), 1)


@pytest.mark.parametrize("d_k", [1, 3, 64])
def test_scale_is_one_over_the_root_of_d_k_unless_given(d_k):
    head = a_head(d_k=d_k)
    assert (self_attention(**head).d_k, self_attention(**head).scale) == (d_k, pytest.approx(d_k**-0.5, rel=1e-15))
    assert (self_attention(**head, scale=0.3).d_k, self_attention(**head, scale=0.3).scale) == (d_k, 0.3)


@over(SCORES, st.floats(-100, 100))
def test_adding_a_constant_to_a_row_of_scores_changes_no_weight(scores, shift):
    shifted = scores + shift * np.arange(len(scores))[:, None]
    assert_close(Steps.from_scores(shifted, d_k=1).weights, Steps.from_scores(scores, d_k=1).weights, within=1e-11)


@over(heads(), SEEDS)
def test_permuting_the_tokens_permutes_every_stage(head, seed):
    order = np.random.default_rng(seed).permutation(len(head["x"]))
    steps, permuted = self_attention(**head), self_attention(**head | {"x": head["x"][order]})
    for stage in ("q", "k", "v", "output"):
        assert_close(getattr(permuted, stage), getattr(steps, stage)[order])
    for stage in ("scores", "scaled", "weights"):
        assert_close(getattr(permuted, stage), getattr(steps, stage)[order][:, order])


@pytest.mark.parametrize("make", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize("factor", [1, 1e4, 1e300])
@over(scores=SCORES)
def test_extreme_scores_give_finite_rows_that_sum_to_one(make, factor, scores):
    steps = Steps.from_scores(make(scores * factor), 1, make(np.eye(3)))
    assert_close(steps.weights.sum(-1), 1)
    assert_close(steps.output, steps.weights)


# Causal


@over(heads(), SCALES)
def test_causal_gives_the_future_no_weight(head, scale):
    steps, full = self_attention(**head, scale=scale, causal=True), self_attention(**head, scale=scale)
    future = np.triu(np.ones(steps.scores.shape, dtype=bool), 1)
    assert (steps.weights[future] == 0).all()
    assert (steps.scaled[future] == -np.inf).all()
    assert_close(steps.scaled[~future], full.scaled[~future])
    assert_close(steps.scores, full.scores)
    assert (steps.weights[0] == np.eye(len(future))[0]).all()


@over(heads(), st.data())
def test_a_causal_row_is_that_of_the_text_cut_after_it(head, data):
    row = data.draw(st.integers(0, len(head["x"]) - 1))
    cut = self_attention(**head | {"x": head["x"][: row + 1]})
    assert_close(self_attention(**head, causal=True).output[row], cut.output[row])


# Steps


@over(heads(), st.booleans(), SCALES)
def test_starting_from_qkv_or_from_scores_gives_the_same_later_stages(head, causal, scale):
    options = {"causal": causal, "scale": scale}
    whole = self_attention(**head, **options)
    from_qkv = Steps.from_qkv(whole.q, whole.k, whole.v, **options)
    from_scores = Steps.from_scores(whole.scores, whole.d_k, whole.v, **options)
    assert_same_steps(from_qkv, whole, STAGES[1:])
    assert_same_steps(from_scores, whole, STAGES[4:])
    assert (from_qkv.x, from_scores.x, from_scores.q, from_scores.k) == (None, None, None, None)
    assert (from_qkv.d_k, from_qkv.scale) == (from_scores.d_k, from_scores.scale) == (whole.d_k, whole.scale)


@over(st.integers(1, 9), st.integers(1, 9), st.integers(1, 16), SEEDS)
def test_queries_of_one_sequence_may_look_at_keys_of_another(queries, keys, d_k, seed):
    random = np.random.default_rng(seed)
    q, k, v = (torch.from_numpy(random.standard_normal((size, d_k))) for size in (queries, keys, keys))
    steps = Steps.from_qkv(q, k, v)
    assert tuple(steps.weights.shape) == (queries, keys)
    assert_close(steps.output, scaled_dot_product_attention(q[None], k[None], v[None])[0])


def test_without_v_there_is_no_output():
    whole = self_attention(**a_head())
    for steps in (Steps.from_qkv(whole.q, whole.k), Steps.from_scores(whole.scores, 3)):
        assert (steps.v, steps.output) == (None, None)
        assert_close(steps.weights, whole.weights)


def test_steps_are_frozen():
    with pytest.raises(FrozenInstanceError):
        self_attention(**a_head()).weights = None


def test_repr_shows_shapes_and_no_numbers():
    assert repr(self_attention(**a_head(d_k=4))) == (
        "Steps(x (5, 4), q (5, 4), k (5, 4), v (5, 2), scores (5, 5), scaled (5, 5), weights (5, 5), output (5, 2), "
        "d_k=4, scale=0.5)"
    )
    assert repr(Steps.from_scores(torch.ones(2, 3), 64)) == (
        "Steps(scores (2, 3), scaled (2, 3), weights (2, 3), d_k=64, scale=0.125)"
    )


def test_steps_compare_without_an_error():
    assert self_attention(**a_head()) != self_attention(**a_head())
