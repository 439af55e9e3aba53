"""Masks against plain NumPy booleans, their spans, and what is refused."""

from __future__ import annotations

import functools
import operator
import sys
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from softmap import AttentionMatrix, masks
from softmap.errors import ArrayKindError, DtypeError, ParameterError, ShapeError, SoftmapError
from softmap.masks import Block, Mask

OFFSETS = st.integers(-8, 30)
COUNTS = st.none() | st.integers(0, 12)


def leaves(queries, keys, offset):
    """A mask, and its whole matrix of booleans by other means."""
    place = np.arange(queries)[:, None] + (offset or 0)
    key = np.arange(keys)[None, :]
    own = st.sampled_from([offset, None])  # given here, or to the whole

    def matrix(seen):
        return np.broadcast_to(seen, (queries, keys))

    def window(left, right, at):
        seen = (key >= place - (10**6 if left is None else left)) & (key <= place + (10**6 if right is None else right))
        return masks.sliding_window(left, right, at), matrix(seen)

    def padding(valid):
        return masks.padding(valid), matrix(np.array(valid) == 1)

    def documents(ids, key_ids):
        return masks.documents(ids, key_ids), matrix(np.array(ids)[:, None] == np.array(key_ids))

    def function(n):
        every = masks.from_function(lambda q, k: (q * 7 + k) % n == 0)
        return every, matrix((np.arange(queries)[:, None] * 7 + key) % n == 0)

    def dense(seed):
        seen = np.random.default_rng(seed).random((queries, keys)) < 0.5
        return masks.dense(seen), seen

    def ids(n):
        return st.lists(st.integers(-2, 3), min_size=n, max_size=n)

    return st.one_of(
        st.just((masks.full(), matrix(np.ones((1, 1), bool)))),
        st.builds(lambda at: (masks.causal(at), matrix(key <= place)), own),
        st.builds(window, COUNTS, COUNTS, own),
        st.builds(lambda n, at: (masks.chunked(n, at), matrix(place // n == key // n)), st.integers(1, 9), own),
        st.builds(padding, st.lists(st.integers(0, 1), min_size=keys, max_size=keys)),
        st.builds(documents, ids(queries), ids(keys)),
        st.builds(documents, ids(queries).map(sorted), ids(keys).map(sorted)),
        st.builds(lambda n: (masks.prefix(n), matrix(key < n)), st.integers(0, 30)),
        st.builds(function, st.integers(1, 4)),
        st.builds(dense, st.integers(0, 99)),
    )


@st.composite
def compositions(draw, leaf, depth=3):
    sign = draw(st.sampled_from("&|~ ")) if depth else " "
    if sign == " ":
        return draw(leaf)
    mask, matrix = draw(compositions(leaf, depth - 1))
    if sign == "~":
        return ~mask, ~matrix
    other_mask, other_matrix = draw(compositions(leaf, depth - 1))
    join = operator.and_ if sign == "&" else operator.or_
    return join(mask, other_mask), join(matrix, other_matrix)


@st.composite
def problems(draw):
    queries, keys = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    offset = draw(OFFSETS if queries != keys else st.none() | OFFSETS)
    mask, matrix = draw(compositions(leaves(queries, keys, offset)))
    return mask.placed(offset), matrix


def part_of(draw, n):
    start = draw.draw(st.integers(0, n - 1))
    return range(start, draw.draw(st.integers(start + 1, n)))


@settings(max_examples=150, deadline=None)
@given(problems(), st.data())
def test_every_answer_of_a_mask_agrees_with_its_booleans(problem, draw):
    mask, matrix = problem
    queries, keys = matrix.shape
    mask.check(queries, keys)
    strip = mask.strip(range(queries), range(keys))
    assert strip.dtype == torch.bool
    np.testing.assert_array_equal(strip, matrix)
    one_by_one = mask.visible(torch.arange(queries).repeat_interleave(keys), torch.arange(keys).repeat(queries))
    np.testing.assert_array_equal(one_by_one, matrix.ravel())

    start, stop, exact = mask.spans(queries, keys)
    assert start.dtype == stop.dtype == torch.int64
    assert start.shape == stop.shape == (queries,)
    assert bool(((start < stop) & (start >= 0) & (stop <= keys) | (start == 0) & (stop == 0)).all())
    within = (np.arange(keys) >= start.numpy()[:, None]) & (np.arange(keys) < stop.numpy()[:, None])
    assert not (matrix & ~within).any(), "a visible key outside its span"
    if exact:
        np.testing.assert_array_equal(matrix, within)

    rows, block = part_of(draw, queries), part_of(draw, keys)
    np.testing.assert_array_equal(mask.strip(rows, block), matrix[rows.start : rows.stop, block.start : block.stop])
    seen = matrix[rows.start : rows.stop]
    reach = mask.key_range(rows, queries, keys)
    assert not np.delete(seen, list(reach), axis=1).any()
    if exact and seen.any():
        columns = seen.any(axis=0).nonzero()[0]
        assert reach == range(columns[0], columns[-1] + 1)
    tile = seen[:, block.start : block.stop]
    assert mask.block(rows, block, queries, keys) == (
        Block.ALL if tile.all() else Block.SOME if tile.any() else Block.NONE
    )


EXACT = {
    "full": masks.full(),
    "causal": masks.causal(),
    "after": ~masks.causal(),
    "window": masks.sliding_window(3, 2),
    "chunks": masks.chunked(4),
    "causal chunks": masks.causal() & masks.chunked(4),
    "padding right": masks.padding([1] * 9 + [0] * 3) & masks.causal(),
    "padding left": masks.padding([0] * 3 + [1] * 9) & masks.causal(),
    "only padding": ~masks.padding([1] * 9 + [0] * 3),
    "nothing valid": masks.padding([0] * 12),
    "packed": masks.causal() & masks.documents([5] * 4 + [-1] * 6 + [2] * 2),
    "prefix LM": masks.causal() | masks.prefix(5),
    "no prefix": masks.causal() | masks.prefix(0),
    "twice not": ~~masks.sliding_window(3, 2),
}


@pytest.mark.parametrize("mask", EXACT.values(), ids=EXACT)
def test_spans_of_masks_of_practice_are_exact(mask):
    assert mask.spans(12, 12).exact


INEXACT = {
    "outside a window": ~masks.sliding_window(2, 2),
    "holes": masks.padding([1, 0, 1] * 4),
    "scattered documents": masks.documents([0, 1] * 6),
    "sinks and a window": masks.prefix(1) | masks.sliding_window(2),
    "function": masks.from_function(lambda query, key: query == key),
    "dense": masks.dense(np.eye(12, dtype=bool)),
    "dense and more": masks.prefix(3) | masks.dense(np.eye(12, dtype=bool)),
    "dense and less": masks.prefix(3) & masks.dense(np.eye(12, dtype=bool)),
}


@pytest.mark.parametrize("mask", INEXACT.values(), ids=INEXACT)
def test_spans_that_leave_something_out_say_so(mask):
    assert not mask.spans(12, 12).exact


def test_a_document_in_pieces_that_no_query_belongs_to_leaves_the_spans_exact():
    mask = masks.documents([1, 1], [0, 1, 1, 0])
    assert mask.spans(2, 4).exact
    assert mask.key_range(range(2), 2, 4) == range(1, 3)


def test_a_document_without_keys_sees_nothing():
    start, stop, exact = masks.documents([7, 0], [1, 0, 1]).spans(2, 3)
    assert (start.tolist(), stop.tolist(), exact) == ([0, 1], [0, 2], True)


def test_key_range_of_rows_that_see_nothing_is_empty():
    assert masks.padding([0, 0]).key_range(range(2), 2, 2) == range(0)
    assert masks.causal(-2).key_range(range(2), 2, 2) == range(0)
    assert masks.sliding_window(1, offset=50).key_range(range(2), 2, 2) == range(0)


LONG = {
    "causal": masks.causal(),
    "window": masks.sliding_window(1023),
    "composition": (masks.causal() | masks.prefix(9)) & ~masks.chunked(4096) & masks.padding(np.ones(200_000, bool)),
    "documents": masks.documents(np.arange(200_000) // 1000),
    "function": masks.from_function(lambda query, key: key <= query),
}


@pytest.mark.parametrize("mask", LONG.values(), ids=LONG)
def test_a_long_sequence_costs_what_its_length_does(mask):
    n = 200_000  # n x n booleans would be 40 GB
    mask.spans(n, n)
    with torch.profiler.profile(profile_memory=True) as profile:
        mask.spans(n, n)
        mask.key_range(range(100, 200), n, n)
        mask.strip(range(n - 16, n), range(n - 1024, n))
    allocated = sum(max(event.self_cpu_memory_usage, 0) for event in profile.events())
    assert allocated < 1000 * n


def test_a_strip_of_a_dense_mask_is_the_callers_memory():
    matrix = np.random.default_rng(0).random((64, 64)) < 0.5
    mask = masks.dense(matrix)
    assert mask.strip(range(64), range(64)).data_ptr() == matrix.ctypes.data
    assert mask.strip(range(1, 20), range(5, 60)).data_ptr() == matrix[1:, 5:].ctypes.data


def test_padding_and_documents_keep_a_copy():
    valid, ids = np.array([True, True]), np.array([0, 0])
    padding, documents = masks.padding(valid), masks.documents(ids)
    valid[:], ids[0] = False, 1
    assert padding.strip(range(2), range(2)).all()
    assert documents.strip(range(2), range(2)).all()


def test_a_mask_of_ones_own_needs_only_visible():
    class Diagonal(Mask):
        def visible(self, query, key):
            return query == key

    mask = Diagonal() & masks.prefix(2)
    assert mask.offset is None
    np.testing.assert_array_equal(mask.strip(range(3), range(3)), np.diag([True, True, False]))
    assert not mask.spans(3, 3).exact
    assert mask.block(range(1), range(1, 3), 3, 3) == Block.NONE
    assert mask.block(range(1, 2), range(1, 2), 3, 3) == Block.ALL
    mask.check(3, 5)


@pytest.mark.parametrize("past", [0, 6])
def test_masks_of_models_are_those_of_transformers(past):
    from transformers import masking_utils as theirs

    n, no_padding, packed = 12, torch.zeros(1, dtype=torch.int64), torch.tensor([[0] * 5 + [1] * 7])
    pairs = [
        (masks.causal(past), theirs.causal_mask_function),
        (masks.sliding_window(3, offset=past), theirs.sliding_window_causal_mask_function(4)),
        (masks.sliding_window(4, 4, past), theirs.sliding_window_bidirectional_mask_function(4)),
        (masks.causal(past) & masks.chunked(4), theirs.chunked_causal_mask_function(4, no_padding)),
        (masks.documents(packed[0, past:], packed[0]), theirs.packed_sequence_mask_function(packed)),
        (masks.padding(packed[0]), theirs.padding_mask_function(packed.bool())),
    ]
    for ours, function in pairs:
        seen = function(0, 0, torch.arange(past, n)[:, None], torch.arange(n)).expand(n - past, n)
        assert torch.equal(ours.strip(range(n - past), range(n)), seen), ours


def test_an_offset_given_once_holds_for_the_whole_composition():
    whole = masks.causal() & (masks.chunked(4, offset=8) | masks.sliding_window(1)) & ~masks.sliding_window(0, 0)
    assert whole.offset == 8
    alone = [masks.causal(8), masks.chunked(4, 8) | masks.sliding_window(1, offset=8), ~masks.sliding_window(0, 0, 8)]
    apart = functools.reduce(operator.and_, alone)
    np.testing.assert_array_equal(whole.strip(range(3), range(11)), apart.strip(range(3), range(11)))
    whole.check(3, 11)


def test_two_offsets_in_a_composition_are_refused():
    with pytest.raises(
        ParameterError, match=r"one offset in the whole of causal\(offset=1\) \| chunked\(4, offset=2\)"
    ):
        masks.causal(1) | masks.chunked(4, 2)
    with pytest.raises(ParameterError, match="got 1 and 0"):
        (masks.causal(1) & masks.prefix(3)) & ~masks.causal(0)


@pytest.mark.parametrize(
    "mask", [masks.causal(), masks.sliding_window(1), masks.chunked(2), masks.full() & ~masks.causal()]
)
def test_queries_and_keys_that_differ_ask_for_an_offset(mask):
    with pytest.raises(ShapeError, match=r"3 queries and 10 keys\. .*offset=7 if .* last tokens, offset=0 if .* first"):
        mask.check(3, 10)
    with pytest.raises(ShapeError, match="as many queries as keys, or an offset"):
        mask.spans(3, 10)
    mask.check(3, 3)
    mask.placed(7).check(3, 10)


@pytest.mark.parametrize(
    "mask", [masks.full(), masks.prefix(3), masks.padding([1] * 10), masks.documents([0] * 3, [0] * 10)]
)
def test_masks_that_do_not_count_from_the_query_need_no_offset(mask):
    mask.check(3, 10)
    assert mask.offset is None
    assert mask.placed(4) is mask


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (masks.padding([1, 1]), r"padding\(valid\): expected 3 entries, one for each of the keys, got 2 in valid"),
        (masks.documents([0, 0]), r"3 entries, one for each of the queries, got 2 in ids"),
        (masks.documents([0] * 3, [0]), r"3 entries, one for each of the keys, got 1 in key_ids"),
        (masks.dense(torch.ones(3, 2) > 0), r"dense\(visible\): expected shape \(3, 3\).* got shape \(3, 2\)"),
        (~(masks.full() | masks.padding([1])), "got 1 in valid"),
    ],
)
def test_a_matrix_of_another_size_is_refused(mask, message):
    with pytest.raises(ShapeError, match=message):
        mask.check(3, 3)
    with pytest.raises(ShapeError, match=message):
        mask.spans(3, 3)


SQUARE = np.ones((2, 2))
REFUSED = {
    "negative window": (lambda: masks.sliding_window(-1), ParameterError, "left: .* at least 0, got -1"),
    "float window": (lambda: masks.sliding_window(2.0), ParameterError, r"left: .* got 2\.0"),
    "negative look ahead": (lambda: masks.sliding_window(1, -2), ParameterError, "right: .* got -2"),
    "bool as a count": (lambda: masks.prefix(True), ParameterError, "n: .* got True"),
    "numpy bool as a count": (lambda: masks.prefix(np.True_), ParameterError, "n: .* got .*True"),
    "no count": (lambda: masks.prefix(None), ParameterError, "n: .* got None"),
    "no size": (lambda: masks.chunked(0), ParameterError, "size: .* at least 1, got 0"),
    "size as text": (lambda: masks.chunked("8"), ParameterError, "size: .* got '8'"),
    "float offset": (lambda: masks.causal(0.5), ParameterError, r"offset: .* got 0\.5.* keys − queries"),
    "bool offset": (lambda: masks.causal(True), ParameterError, "offset: .* got True"),
    "offset beyond int64": (lambda: masks.causal(2**70), ParameterError, "offset: "),
    "padding as floats": (lambda: masks.padding([1.0, 0.0]), DtypeError, r"float32.*give valid == 0"),
    "padding of a batch": (lambda: masks.padding([[1, 0]]), ShapeError, r"shape \(1, 2\).* valid\[0\]"),
    "no padding": (lambda: masks.padding([]), ShapeError, r"at least one entry, got shape \(0,\)"),
    "padding as token ids": (lambda: masks.padding([101, 7]), ParameterError, "got 101.* ids != padding id"),
    "padding as text": (lambda: masks.padding("110"), ArrayKindError, "got builtins.str"),
    "ragged padding": (lambda: masks.padding([[1], [1, 0]]), ArrayKindError, "a list of numbers"),
    "padding as words": (lambda: masks.padding(["a"]), ArrayKindError, "a list of numbers"),
    "sparse padding": (lambda: masks.padding(torch.ones(3).to_sparse()), ArrayKindError, r"to_dense\(\)"),
    "ids as floats": (lambda: masks.documents([0.0, 1.0]), DtypeError, "ids: expected integers.* 0, 0, 0, 1, 1"),
    "ids as booleans": (lambda: masks.documents([True, False]), DtypeError, r"ids: .* padding\(valid\)"),
    "key ids as floats": (lambda: masks.documents([0], [1.0]), DtypeError, "key_ids: expected integers"),
    "ids beyond int64": (lambda: masks.documents([2**80]), ArrayKindError, "a list of numbers"),
    "ids of a batch": (lambda: masks.documents(torch.zeros(1, 4, dtype=torch.int64)), ShapeError, r"ids\[0\]"),
    "ids of a cube": (lambda: masks.documents(np.zeros((1, 1, 4), int)), ShapeError, "one entry for each token"),
    "mask to add": (lambda: masks.dense(np.where(SQUARE > 0, 0, -np.inf)), DtypeError, "give mask == 0"),
    "mask of 0 and 1": (lambda: masks.dense(SQUARE.astype(int)), DtypeError, r"int64.* mask\.bool\(\)"),
    "mask of a batch": (lambda: masks.dense(SQUARE[None, None] > 0), ShapeError, r"got shape \(1, 1, 2, 2\)"),
    "mask as a list": (lambda: masks.dense([[True]]), ArrayKindError, "visible: .* got builtins.list"),
    "function that is a matrix": (lambda: masks.from_function(SQUARE > 0), ArrayKindError, r"ndarray.* dense\(\)"),
    "function of flex attention": (
        lambda: masks.from_function(lambda b, h, q, k: q >= k),
        ParameterError,
        r"f\(query_index, key_index\), got f\(b, h, q, k\)\. Of a mask_mod",
    ),
    "and with a matrix": (
        lambda: masks.full() & torch.ones(2, 2),
        ArrayKindError,
        r"another mask, got Tensor\. masks\.dense",
    ),
    "a tensor on the left": (lambda: (torch.ones(2) > 0) & masks.full(), ArrayKindError, "another mask, got Tensor"),
    "an array on the left": (lambda: (SQUARE > 0) | masks.full(), ArrayKindError, "another mask, got ndarray"),
    "or with None": (lambda: masks.full() | None, ArrayKindError, "another mask, got NoneType"),
    "and as a word": (lambda: masks.causal() and masks.full(), ParameterError, "one & other"),
    "not as a word": (lambda: not masks.causal(), ParameterError, "&, | or ~"),
}


@pytest.mark.parametrize(("make", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_mask_is_refused(make, error, message):
    with pytest.raises(error, match=message) as raised:
        make()
    assert isinstance(raised.value, SoftmapError)


@pytest.mark.parametrize(
    ("f", "error", "message"),
    [
        (lambda query, key: query - key, DtypeError, "booleans from f, got torch.int64.* key <= query"),
        (lambda query, key: True, DtypeError, "booleans from f, got bool"),
        (lambda query, key: (query >= key).T[:3], ShapeError, r"shape \(2, 4\).* got shape \(3, 2\)"),
    ],
)
def test_a_function_that_gives_no_booleans_of_the_strip_is_refused(f, error, message):
    with pytest.raises(error, match=message):
        masks.from_function(f).strip(range(2), range(4))


def arange(n):
    return torch.arange(n, device="cpu")


@pytest.mark.parametrize(
    ("spans", "error", "message"),
    [
        (masks.Spans(arange(3), arange(4) + 1, True), ShapeError, r"start in the spans of Own: .* got shape \(3,\)"),
        (masks.Spans(arange(4), arange(5), True), ShapeError, r"stop in the spans of Own: .* got shape \(5,\)"),
        (masks.Spans(arange(4) - 1, arange(4), True), ParameterError, "start in .* keys from 0 to 4, got -1 to 2"),
        (masks.Spans(arange(4), arange(4) + 2, True), ParameterError, r"stop in .* got 2 to 5\. .*clamp\(0, 4\)"),
        (masks.Spans(arange(4).float(), arange(4), True), ArrayKindError, "start in .* got torch.float32 on cpu"),
        (masks.Spans([0] * 4, arange(4), True), ArrayKindError, "start in .* got list"),
        ((0, 4), ArrayKindError, "Own: expected Spans from spans, got tuple"),
    ],
)
def test_spans_of_a_mask_of_ones_own_that_do_not_fit_are_refused(spans, error, message):
    class Own(Mask):
        def visible(self, query, key):
            return key <= query

        def spans(self, queries, keys):
            return spans

        def __repr__(self):
            return "Own"

    with pytest.raises(error, match=message):
        Own().spans(4, 4)
    with pytest.raises(error, match=message):
        AttentionMatrix(np.ones((4, 2)), np.ones((4, 2)), mask=Own()).summary()


def test_a_function_may_depend_on_one_index_only():
    mask = masks.from_function(lambda query, key: key == 1)
    np.testing.assert_array_equal(mask.strip(range(2), range(3)), [[False, True, False]] * 2)


def test_a_function_without_a_signature_is_taken():
    assert masks.from_function(torch.ge).strip(range(2), range(2)).tolist() == [[True, False], [True, True]]


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor, list, tuple], ids=["numpy", "torch", "list", "tuple"])
def test_vectors_come_in_any_kind(kind):
    assert masks.padding(kind([1, 0])).strip(range(1), range(2)).tolist() == [[True, False]]
    assert masks.documents(kind([3, 4])).strip(range(1), range(2)).tolist() == [[True, False]]


@pytest.mark.parametrize("huge", [sys.maxsize, 10**30])
def test_a_window_beyond_every_sequence_is_no_limit(huge):
    mask = masks.sliding_window(huge, huge)
    assert mask.spans(3, 3).exact
    assert mask.strip(range(3), range(3)).all()
    assert masks.chunked(huge).strip(range(3), range(3)).all()
    assert masks.prefix(huge).spans(3, 3).stop.tolist() == [3, 3, 3]


def test_spans_lie_on_the_cpu_wherever_new_tensors_do():
    mask = masks.causal() & masks.documents([0, 0, 1]) & masks.padding([1, 1, 0]) | masks.prefix(1)
    with torch.device("meta"):
        assert mask.spans(3, 3).start.device.type == "cpu"


@pytest.mark.parametrize(
    ("mask", "told"),
    [
        (masks.full(), "full()"),
        (masks.causal(), "causal()"),
        (masks.causal(offset=-3), "causal(offset=-3)"),
        (masks.sliding_window(4, None, 2), "sliding_window(4, None, offset=2)"),
        (masks.chunked(8), "chunked(8)"),
        (masks.chunked(8, 1), "chunked(8, offset=1)"),
        (masks.padding([1, 1, 0]), "padding(2 of 3 keys)"),
        (masks.documents([0, 0, 4]), "documents(2 in 3 keys)"),
        (masks.prefix(5), "prefix(5)"),
        (masks.dense(np.ones((2, 3), bool)), "dense((2, 3))"),
        (masks.from_function(operator.ge), "from_function(ge)"),
        (~masks.causal() & (masks.full() | masks.prefix(1)), "(~causal() & (full() | prefix(1)))"),
    ],
)
def test_repr_is_what_one_would_write(mask, told):
    assert repr(mask) == told


@pytest.mark.parametrize(
    ("seen", "error", "message"),
    [
        (torch.ones(2, 4), DtypeError, "Own: expected a tensor of booleans from visible, got torch.float32"),
        (True, DtypeError, "Own: expected a tensor of booleans from visible, got bool"),
        (torch.ones(3, dtype=torch.bool), ShapeError, r"Own: expected booleans of shape \(2, 4\).* index by index"),
    ],
)
def test_what_a_mask_of_ones_own_gives_must_be_booleans_of_the_indices(seen, error, message):
    class Own(masks.Mask):
        def visible(self, query, key):
            return seen

        def __repr__(self):
            return "Own"

    with pytest.raises(error, match=message):
        Own().strip(range(2), range(4))


@pytest.mark.parametrize("offset", [2**62, 2**63, 2**64, -(2**63)])
def test_offset_beyond_every_sequence_is_refused_with_its_range(offset):
    for make in (
        masks.causal,
        lambda offset: masks.sliding_window(1, 0, offset),
        lambda offset: masks.chunked(2, offset),
    ):
        with pytest.raises(
            ParameterError, match=rf"a whole number from -1152921504606846976 to 1152921504606846976 .* got {offset}"
        ):
            make(offset)


@pytest.mark.parametrize("operation", [operator.and_, operator.or_])
@pytest.mark.parametrize("others", [masks.prefix(3), masks.causal(2)])
def test_masks_are_composed_up_to_a_number_and_refused_beyond(operation, others):
    mask = masks.causal()
    for _ in range(127):
        mask = operation(mask, others)
    assert mask.parts == 128
    assert mask.spans(9, 9).start.shape == (9,)
    assert repr(mask)
    for composed in (lambda: operation(mask, others), lambda: operation(others, mask), lambda: operation(mask, mask)):
        with pytest.raises(ParameterError, match="at most 128 composed to one"):
            composed()


def test_mask_composed_with_itself_again_and_again_is_refused_at_once():
    started = time.perf_counter()
    with pytest.raises(ParameterError, match="at most 128"):
        functools.reduce(lambda mask, _: ~(mask & mask), range(40), masks.causal())
    assert time.perf_counter() - started < 0.5


def many(count):
    return functools.reduce(operator.and_, [masks.causal()] * count)


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        (
            lambda: masks.dense(torch.ones(2, 3, 4, dtype=torch.bool)),
            "visible: expected 2 dimensions (queries, keys), got shape (2, 3, 4). "
            "One matrix for all heads; heads that differ are matrices of their own.",
        ),
        (
            lambda: masks.dense(torch.ones(3, 4, dtype=torch.bool)).check(3, 5),
            "dense(visible): expected shape (3, 5), as q and k have it, got shape (3, 4). "
            "Its rows are queries, its columns keys.",
        ),
        (
            lambda: masks.sliding_window(1).check(3, 10),
            "sliding_window(1, 0): expected as many queries as keys, or an offset, got 3 queries and 10 keys. "
            "Say at which key query 0 stands: offset=7 if the queries are the last tokens, offset=0 if they are the first.",
        ),
        (
            lambda: masks.padding([True, False]).check(3, 3),
            "padding(valid): expected 3 entries, one for each of the keys, got 2 in valid. Give one entry for each key.",
        ),
        (
            lambda: masks.documents([True, False]),
            "ids: expected integers, got booleans. Which tokens are real is said by padding(valid).",
        ),
        (
            lambda: masks.documents(torch.tensor(3)),
            "ids: expected 1 dimension with at least one entry, got shape (). Give one entry for each token.",
        ),
        (
            lambda: many(128) & masks.causal(),
            "masks: expected at most 128 composed to one, got 128 & 1. "
            "One mask can say what many do: documents(ids), dense(booleans), or from_function(f).",
        ),
    ],
)
def test_refusal_of_a_mask_says_what_was_expected_what_came_and_what_to_do(refused, message):
    with pytest.raises(SoftmapError) as caught:
        refused()
    assert str(caught.value) == message


def test_padding_answers_in_the_shape_of_query_and_key():
    query, key = torch.arange(3)[:, None], torch.arange(2)[None]
    assert masks.padding([True, False]).visible(query, key).tolist() == [[True, False]] * 3


def test_answer_of_a_shape_that_does_not_fit_names_those_that_were_asked_for():
    mask = masks.from_function(lambda query, key: torch.ones(7, dtype=torch.bool))
    with pytest.raises(ShapeError, match=r"got shape \(7,\) for indices of shapes \(3, 1\), \(1, 2\)\."):
        mask.visible(torch.arange(3)[:, None], torch.arange(2)[None])
