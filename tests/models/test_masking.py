"""What models ask masks for becomes softmap's masks: against transformers' own dense masks."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import masking_utils as library

from softmap.errors import ModelError
from softmap.mechanism import PAGE
from softmap.models.interface import _mask
from softmap.models.masking import agree, both, join


def own(values: list[list[int]]) -> torch.Tensor:
    return torch.tensor(values)


@st.composite
def functions(draw, batch, length):
    """A mask function as models compose them, for sequences of so many positions."""
    ids = draw(st.lists(st.lists(st.integers(-1, 2), min_size=length, max_size=length), min_size=batch, max_size=batch))
    packed = own([sorted(max(0, i) for i in row) for row in ids])
    positions = torch.stack(
        [torch.cat([torch.arange(int(n)) for n in row.unique(return_counts=True)[1]]) for row in packed]
    )
    window, chunk = draw(st.integers(1, 9)), draw(st.integers(1, 7))
    left = own([draw(st.integers(0, length)) for _ in range(batch)])
    causal = library.causal_mask_function
    return draw(
        st.sampled_from(
            [
                causal,
                library.bidirectional_mask_function,
                library.sliding_window_causal_mask_function(window),
                library.sliding_window_bidirectional_mask_function(window),
                library.chunked_causal_mask_function(chunk, left),
                library.or_masks(causal, library.blockwise_overlay(own(ids))),
                library.and_masks(
                    library.sliding_window_overlay(window),
                    library.or_masks(causal, library.blockwise_overlay(own(ids))),
                ),
                library.packed_sequence_compatibility_function(causal, positions, packed),
                library.packed_sequence_compatibility_function(
                    library.sliding_window_causal_mask_function(window), positions, packed
                ),
                library.packed_sequence_compatibility_function(
                    library.chunked_causal_mask_function(chunk, torch.zeros(batch, dtype=torch.int64)),
                    positions,
                    packed,
                ),
                library.and_masks(causal, lambda b, h, q, k: (q + k) % 3 != 0),
            ]
        )
    )


@given(data=st.data(), batch=st.integers(1, 3), length=st.integers(1, 24))
@settings(max_examples=200, deadline=None)
def test_every_mask_that_models_compose_is_the_librarys_own(data, batch, length):
    function = data.draw(functions(batch, length))
    valid = torch.tensor(
        data.draw(st.lists(st.lists(st.booleans(), min_size=length, max_size=length), min_size=batch, max_size=batch))
    )
    valid = data.draw(st.sampled_from([None, valid]))
    first = data.draw(st.integers(0, length - 1))
    asked = {
        "q_length": length - first,
        "kv_length": length,
        "q_offset": first,
        "mask_function": function,
        "attention_mask": valid,
    }
    expected = library.sdpa_mask(batch, allow_is_causal_skip=False, **asked)
    mask = _mask(**asked)
    for item in range(batch):
        found = both(mask.rule(item).build(mask.rows, mask.keys), mask.padding(item, mask.keys))
        strip = found.strip(range(length - first), range(length))
        assert torch.equal(strip, expected[item if len(expected) > 1 else 0, 0])
        start, stop, exact = found.spans(length - first, length)
        inside = (torch.arange(length) >= start[:, None]) & (torch.arange(length) < stop[:, None])
        assert not bool((strip & ~inside).any())
        assert not exact or torch.equal(strip, inside)


@pytest.mark.parametrize(
    "function",
    [
        library.causal_mask_function,
        library.sliding_window_causal_mask_function(8),
        library.chunked_causal_mask_function(8, torch.zeros(1, dtype=torch.int64)),
        library.sliding_window_bidirectional_mask_function(8),
    ],
)
def test_masks_of_the_library_have_exact_spans_so_that_blocks_are_skipped(function):
    mask = _mask(q_length=64, kv_length=64, mask_function=function)
    assert mask.rule(0).build(mask.rows, mask.keys).spans(64, 64).exact


def test_function_whose_name_no_longer_says_what_it_does_is_noticed():
    mask = _mask(q_length=20, kv_length=20, mask_function=lambda b, h, q, k: k < q)
    claimed = _mask(q_length=20, kv_length=20, mask_function=library.causal_mask_function).rule(0)
    assert not agree(mask, 0, claimed.build(mask.rows, mask.keys), mask.rows, mask.keys)
    assert agree(mask, 0, mask.asking(0).build(mask.rows, mask.keys), mask.rows, mask.keys)


def test_function_that_wants_single_numbers_is_given_them():
    mask = _mask(
        q_length=5, kv_length=5, mask_function=lambda b, h, q, k: torch.where(q >= k, True, False), use_vmap=True
    )
    assert torch.equal(mask.visible(0, torch.arange(5)[:, None], torch.arange(5)), torch.ones(5, 5).tril().bool())


def test_runs_that_continue_each_other_are_one_causal_mask():
    pieces = [
        (
            rows,
            range(rows.stop),
            _mask(
                q_length=len(rows), kv_length=rows.stop, q_offset=rows.start, mask_function=library.causal_mask_function
            ).rule(0),
        )
        for rows in (range(5), range(5, 6), range(6, 9))
    ]
    assert repr(join(pieces, range(9))) == "causal(offset=0)"


def test_runs_that_see_all_keys_so_far_do_not_see_later_ones():
    rule = _mask(q_length=3, kv_length=3, mask_function=library.bidirectional_mask_function).rule(0)
    mask = join([(range(3), range(3), rule), (range(3, 5), range(5), rule)], range(5))
    expected = torch.ones(5, 5).bool()
    expected[:3, 3:] = False
    assert torch.equal(mask.strip(range(5), range(5)), expected)


def test_bias_that_a_model_adds_to_its_mask_stays_as_it_is_where_all_is_visible():
    mask = _mask(q_length=700, kv_length=700, mask_function=library.bidirectional_mask_function)
    bias = torch.randn(1, 2, 3, 3)
    assert (bias + mask) is bias


def test_mask_that_a_model_adds_to_its_bias_hides_the_same_keys():
    valid = torch.tensor([[1, 1, 0, 1]])
    mask = _mask(q_length=4, kv_length=4, mask_function=library.causal_mask_function, attention_mask=valid)
    hidden = (torch.zeros(1, 1, 4, 4) + mask) < -1e30
    assert torch.equal(~hidden[0, 0], torch.ones(4, 4).tril().bool() & valid.bool())


def test_no_mask_beyond_a_page_is_made_for_a_model_that_handles_it():
    mask = _mask(q_length=PAGE + 1, kv_length=PAGE + 1, mask_function=library.causal_mask_function)
    with pytest.raises(ModelError, match="matrix of queries x keys"):
        torch.zeros(1, 1, 1, 1) + mask
