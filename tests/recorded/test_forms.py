"""Masks and biases in files: every kind says the same when it is read back, and what no file can hold is refused."""

from __future__ import annotations

import functools
import operator
import time

import pytest
import torch
from builders import ORIGIN, assert_same_layers, make_layer
from hypothesis import given, settings
from hypothesis import strategies as st

from softmap import biases, masks
from softmap.errors import RecordingError, ShapeError
from softmap.masks import Mask, Spans
from softmap.recorded import forms, parts
from softmap.recorded.entries import Arrays, Entry
from softmap.recorded.storage import Writer, load

OFFSETS = st.sampled_from([0, 3, -2])


def there_and_back(mask, queries, keys):
    """A mask as it is read back, its JSON, and its arrays."""
    written, arrays = forms.write_mask(mask, queries, keys)
    left = dict(arrays)
    entry = Entry(written, "mask", "manifest.json")
    back = forms.read_mask(entry, queries, keys, Arrays(left, entry, ""))
    assert not left, "every array is read"
    return back, written, arrays


def assert_same_mask(back, mask, queries, keys):
    assert torch.equal(back.strip(range(queries), range(keys)), mask.strip(range(queries), range(keys)))
    assert back.offset == mask.offset
    for span, own in zip(back.spans(queries, keys)[:2], mask.spans(queries, keys)[:2], strict=True):
        assert len(span) == len(own) == queries


class Stripes(Mask):
    """A mask of one's own: runs of some keys, all but every n-th query."""

    def __init__(self, run, offset=None):
        self.run, self.offset = run, offset

    def visible(self, query, key):
        return ((key // self.run + query) % 2 == 0) & (query % 5 != 0)


@st.composite
def known_masks(draw, queries, keys, offset):
    random = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    count = st.none() | st.integers(0, 9)
    ids = [torch.randint(0, 4, (size,), generator=random) for size in (queries, keys)]
    return draw(
        st.sampled_from(
            [
                masks.full(),
                masks.causal(offset),
                masks.sliding_window(draw(count), draw(count), offset),
                masks.chunked(draw(st.integers(1, 9)), offset),
                masks.padding(torch.rand(keys, generator=random) < 0.7),
                masks.documents(*ids),
                masks.prefix(draw(st.integers(0, 9))),
                masks.dense(torch.rand(queries, keys, generator=random) < 0.5),
            ]
        )
    )


def unknown_masks(queries, keys, offset):
    return st.sampled_from(
        [
            masks.from_function(lambda q, k: (q * 7 + k) % 3 == 0),
            masks.from_function(lambda q, k: k <= q + 2),
            masks.from_function(lambda q, k: (q < 0) & (k < 0)),
            Stripes(3),
            Stripes(2, offset),
        ]
    )


def composed(leaf):
    return st.recursive(
        leaf,
        lambda inner: st.one_of(
            st.builds(lambda one, other: one & other, inner, inner),
            st.builds(lambda one, other: one | other, inner, inner),
            st.builds(lambda one: ~one, inner),
            st.builds(lambda one: one.placed(3), inner),
        ),
        max_leaves=4,
    )


SIZES = st.integers(1, 20)


@settings(max_examples=150, deadline=None)
@given(st.data(), SIZES, SIZES)
def test_masks_of_the_library_are_read_back_as_what_they_are(data, queries, keys):
    mask = data.draw(composed(known_masks(queries, keys, 3)))
    mask = mask.placed(3)
    back, written, _ = there_and_back(mask, queries, keys)
    assert_same_mask(back, mask, queries, keys)
    assert repr(back) == repr(mask)
    assert written["kind"] != "runs"


@settings(max_examples=150, deadline=None)
@given(st.data(), SIZES, SIZES)
def test_masks_of_ones_own_are_read_back_as_what_they_come_to(data, queries, keys):
    leaf = known_masks(queries, keys, 3) | unknown_masks(queries, keys, 3)
    mask = (data.draw(composed(leaf)) & data.draw(unknown_masks(queries, keys, 3))).placed(3)
    back, written, arrays = there_and_back(mask, queries, keys)
    assert_same_mask(back, mask, queries, keys)
    assert written == {"kind": "runs", "offset": mask.offset}
    assert list(arrays) == ["mask.edges"]
    again, _, _ = there_and_back(back, queries, keys)
    assert_same_mask(again, mask, queries, keys)


@settings(max_examples=100, deadline=None)
@given(st.data(), SIZES, SIZES)
def test_runs_answer_every_question_alike(data, queries, keys):
    mask = data.draw(unknown_masks(queries, keys, 3))
    runs, _, _ = there_and_back(mask, queries, keys)
    seen = mask.strip(range(queries), range(keys))
    rows, columns = (
        range(*sorted((data.draw(st.integers(0, size)), data.draw(st.integers(0, size))))) for size in (queries, keys)
    )
    assert torch.equal(runs.strip(rows, columns), seen[rows.start : rows.stop, columns.start : columns.stop])
    place = torch.randperm(queries)[:, None], torch.randperm(keys)
    assert torch.equal(runs.visible(*place), seen[place])
    start, stop, exact = runs.spans(queries, keys)
    for query in range(queries):
        places = seen[query].nonzero()[:, 0].tolist()
        assert (int(start[query]), int(stop[query])) == ((places[0], places[-1] + 1) if places else (0, 0))
    counts = seen.sum(1)
    assert exact == bool((counts == stop - start).all())


def test_mask_of_one_range_for_each_query_needs_no_booleans_when_it_is_read():
    mask = masks.from_function(lambda query, key: (key <= query) & (key > query - 40))
    back, _, arrays = there_and_back(mask, 300, 300)
    assert back.spans(300, 300).exact
    assert len(arrays["mask.edges"]) == 600
    assert repr(back) == "runs(300 for 300 queries)"


def test_mask_of_ones_own_with_exact_spans_is_not_asked_for_booleans():
    class Window(Mask):
        def visible(self, query, key):
            raise AssertionError("asked for booleans")

        def spans(self, queries, keys):
            place = torch.arange(queries)
            return Spans((place - 3).clamp(min=0), place + 1, exact=True)

    back, _, _ = there_and_back(Window(), 200, 200)
    assert torch.equal(back.strip(range(200), range(200)), masks.sliding_window(3).strip(range(200), range(200)))


def test_runs_fit_their_own_matrix_alone():
    back, _, _ = there_and_back(Stripes(3), 8, 12)
    with pytest.raises(ShapeError, match=r"runs\(.*\): expected shape \(12, 8\), .* got shape \(8, 12\)"):
        back.check(12, 8)


def test_large_matrix_of_booleans_is_written_as_its_runs():
    seen = torch.arange(700) <= torch.arange(700)[:, None]
    back, written, _ = there_and_back(masks.dense(seen), 700, 700)
    assert written["kind"] == "runs"
    assert torch.equal(back.strip(range(700), range(700)), seen)


def test_page_of_booleans_is_written_as_bits():
    seen = torch.rand(512, 512) < 0.5
    back, _, arrays = there_and_back(masks.dense(seen), 512, 512)
    assert arrays["mask.bits"].numel() == 512 * 512 / 8
    assert torch.equal(back.matrix, seen)


def test_page_of_any_mask_is_written():
    back, _, _ = there_and_back(masks.from_function(lambda query, key: (query + key) % 2 == 0), 512, 512)
    assert int(back.strip(range(1), range(512)).sum()) == 256


def test_mask_of_too_many_runs_is_refused():
    mask = masks.from_function(lambda query, key: (query + key) % 40 == 0)
    with pytest.raises(RecordingError, match="at most 16 runs of keys that a query sees, got more than 16") as caught:
        forms.write_mask(mask, 20_000, 20_000)  # 500 in each row: it is refused before the last of them is looked at
    assert "statistics_only=True" in caught.value.hint
    forms.write_mask(masks.from_function(lambda query, key: (query + key) % 64 == 0), 1000, 1000)  # 16 in most of them


def test_masks_composed_too_deep_are_written_as_their_runs():
    deep = functools.reduce(operator.or_, [masks.prefix(1)] * 40)
    back, written, _ = there_and_back(deep, 5, 5)
    assert written["kind"] == "runs"
    assert torch.equal(back.strip(range(5), range(5)), deep.strip(range(5), range(5)))


@pytest.mark.parametrize(
    "bias",
    [
        biases.alibi([0.5, 0.25, 0.1, 0.0]),
        biases.alibi(torch.rand(4, dtype=torch.float64), offset=0),
        biases.relative(torch.randn(4, 5)),
        biases.relative(torch.randn(4, 6, dtype=torch.float16), zero=1, offset=0),
        biases.dense(torch.randn(9, 9)),
        biases.dense(torch.randn(4, 9, 9, dtype=torch.float64)),
        biases.dense(torch.full((1, 9, 9), -torch.inf).triu(1)),
    ],
    ids=repr,
)
def test_bias_comes_back(tmp_path, bias):
    layer = make_layer(bias=bias, d_k=16)
    with Writer(tmp_path / "run", ORIGIN) as writer:
        writer.add([layer])
    (back,) = load(tmp_path / "run", partial=True).layers
    assert_same_layers([back], [layer])
    assert torch.equal(back.matrix.dense(), layer.matrix.dense())


def test_bias_of_ones_own_is_refused():
    with pytest.raises(RecordingError, match=r"from_function\(.*\): expected a bias of numbers: .*, got _FromFunction"):
        parts.write_layer(make_layer(bias=biases.from_function(lambda head, query, key: (query - key) * 0.5)))


def read(written, arrays, queries=4, keys=4):
    entry = Entry(written, "mask", "manifest.json")
    return forms.read_mask(entry, queries, keys, Arrays(dict(arrays), entry, ""))


@pytest.mark.parametrize(
    ("written", "arrays"),
    [
        ({"kind": "sorted"}, {}),
        ({"kind": ["full"]}, {}),
        ({}, {}),
        ("full", {}),
        ({"kind": "full", "offset": None}, {}),
        ({"kind": "causal", "offset": "0"}, {}),
        ({"kind": "causal", "offset": 1 << 70}, {}),
        ({"kind": "sliding_window", "left": -1, "right": 0, "offset": None}, {}),
        ({"kind": "chunked", "size": 0, "offset": None}, {}),
        ({"kind": "padding"}, {}),
        ({"kind": "padding"}, {"mask.valid": torch.ones(5, dtype=torch.bool)}),
        ({"kind": "padding"}, {"mask.valid": torch.tensor([1, 2, 0, 0], dtype=torch.uint8).view(torch.bool)}),
        ({"kind": "documents", "same": False}, {"mask.queries": torch.zeros(4, dtype=torch.int64)}),
        ({"kind": "documents", "same": True}, {"mask.queries": torch.zeros(4)}),
        ({"kind": "prefix", "n": 1.5}, {}),
        ({"kind": "dense"}, {"mask.bits": torch.zeros(16, dtype=torch.uint8)}),
        ({"kind": "and", "of": [{"kind": "full"}], "offset": None}, {}),
        ({"kind": "not", "of": [{"kind": "causal", "offset": 1}], "offset": 2}, {}),
        *(
            ({"kind": "runs", "offset": None}, {"mask.edges": torch.tensor(edges, dtype=torch.int64)})
            for edges in ([1], [2, 1], [0, 2, 2, 3], [3, 6], [18, 20], [-2, 1])
        ),
    ],
)
def test_masks_that_make_no_sense_are_refused(written, arrays):
    with pytest.raises(RecordingError, match=r"manifest\.json: mask"):
        read(written, arrays)


def test_mask_that_does_not_fit_the_layer_is_refused():
    with pytest.raises(RecordingError, match=r"mask: expected as many queries as keys, or an offset \(causal\(\)\)"):
        read({"kind": "causal", "offset": None}, {}, queries=3)


def test_masks_nested_without_end_are_refused():
    written = {"kind": "full"}
    for _ in range(100):
        written = {"kind": "not", "of": [written], "offset": None}
    with pytest.raises(RecordingError, match="at most 32 in each other, got more"):
        read(written, {})


def test_large_matrix_of_bits_is_refused():
    with pytest.raises(RecordingError, match="at most 262,144 booleans, got 1,000,000"):
        read({"kind": "dense"}, {"mask.bits": torch.zeros(125_000, dtype=torch.uint8)}, 1000, 1000)


def nested(kind, depth, leaf):
    """A balanced composition of two parts each, so deep."""
    for _ in range(depth):
        leaf = {"kind": kind, "of": [leaf, leaf] if kind != "not" else [leaf], "offset": None}
    return leaf


@pytest.mark.parametrize("kind", ["and", "or"])
@pytest.mark.parametrize("depth", [8, 15, 20])
def test_mask_of_too_many_parts_is_refused_at_once(kind, depth):
    entry = Entry(nested(kind, depth, {"kind": "prefix", "n": 3}), "layers[0].mask", "manifest.json")
    started = time.perf_counter()
    with pytest.raises(RecordingError, match=r"layers\[0\].mask.*at most 128 masks composed to one"):
        forms.read_mask(entry, 9, 9, Arrays({}, entry, ""))
    assert time.perf_counter() - started < 0.5


def test_mask_of_too_many_parts_in_one_list_is_refused_at_once():
    entry = Entry({"kind": "and", "of": [{"kind": "full"}] * 10**6, "offset": None}, "mask", "manifest.json")
    started = time.perf_counter()
    with pytest.raises(RecordingError, match="at most 128 masks"):
        forms.read_mask(entry, 9, 9, Arrays({}, entry, ""))
    assert time.perf_counter() - started < 0.5


def test_mask_of_as_many_parts_as_there_may_be_is_read():
    mask = functools.reduce(operator.or_, [masks.prefix(i) & masks.causal() for i in range(16)])
    assert mask.parts == 32
    back, _, _ = there_and_back(mask, 24, 24)
    assert_same_mask(back, mask, 24, 24)


@pytest.mark.parametrize("depth", [33, 40, 5000])
def test_masks_too_deep_in_each_other_are_refused_and_do_not_recurse_to_death(depth):
    entry = Entry(nested("not", depth, {"kind": "full"}), "mask", "manifest.json")
    with pytest.raises(RecordingError, match="at most 32 in each other"):
        forms.read_mask(entry, 9, 9, Arrays({}, entry, ""))
