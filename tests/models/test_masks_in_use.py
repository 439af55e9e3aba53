"""Models that use their mask themselves, write numbers of their own into it, or have an attention function of their own."""

from __future__ import annotations

import pytest
import torch
from makers import SIZES, Example, build, configure
from transformers import AttentionInterface
from transformers import masking_utils as library
from verify import EAGER, difference_of_output
from zoo import ENTRIES

import softmap
from softmap.errors import ModelError
from softmap.mechanism import PAGE
from softmap.models import attending
from softmap.models.chosen import chosen_strip, runs_of
from softmap.models.implementations import for_all_queries
from softmap.models.interface import _mask, _model_mask
from softmap.models.masking import ModelMask
from softmap.models.numbers import Numbers

BY_NAME = {entry.name: entry for entry in ENTRIES}
VALID = torch.tensor([[1, 1, 0, 1], [1, 1, 1, 1]])


def asked(queries=4, keys=4, **more):
    return {
        "batch_size": 2,
        "q_length": queries,
        "kv_length": keys,
        "mask_function": library.causal_mask_function,
    } | more


USES = {
    "index": lambda mask: mask[:, 0],
    "slice": lambda mask: mask[..., :3],
    "method": lambda mask: mask.masked_fill(torch.ones(4, 4).triu().bool(), -7),
    "reshape": lambda mask: mask.reshape(2, 16),
    "cat": lambda mask: torch.cat([mask, mask], dim=-1),
    "where": lambda mask: torch.where(mask == 0, 1.0, 2.0),
    "comparison": lambda mask: mask != 0,
    "product": lambda mask: 2.0 * mask,
    "difference": lambda mask: 1.0 - mask,
    "sum": lambda mask: torch.ones(2, 1, 4, 4) + mask,
    "another dtype": lambda mask: mask.to(torch.bfloat16),
    "not": lambda mask: mask.logical_not(),
    "parts": lambda mask: torch.stack([*mask]),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_mask_does_what_the_tensor_of_the_models_own_mask_function_does(use):
    own = library.eager_mask(**asked(attention_mask=VALID.bool()))
    found = use(_mask(**asked(attention_mask=VALID)))
    assert found.dtype == use(own).dtype
    assert torch.equal(found, use(own))


def test_model_that_was_set_to_sdpa_is_given_booleans():
    mask = _model_mask("sdpa", asked(attention_mask=VALID))
    assert mask.dtype == torch.bool
    own = library.sdpa_mask(**asked(attention_mask=VALID.bool()), allow_is_causal_skip=False)
    assert torch.equal(mask & torch.ones(4, 4, dtype=torch.bool), own)
    assert torch.equal(~mask, ~own)


def test_dtype_of_the_mask_is_the_models():
    mask = _mask(**asked(dtype=torch.bfloat16))
    assert mask.dtype == mask[:].dtype == torch.bfloat16
    assert float(mask[0, 0, 0, 1]) == torch.finfo(torch.bfloat16).min


def test_outline_of_a_mask_is_known_at_any_length():
    mask = _mask(**asked(9000, 9000))
    assert (tuple(mask.shape), mask.ndim, mask.dim(), mask.size(-1)) == ((2, 1, 9000, 9000), 4, 4, 9000)
    assert (mask.dtype, mask.is_floating_point(), len(mask)) == (torch.float32, True, 2)
    assert mask.to("cpu") is mask.contiguous() is mask
    assert mask != None  # noqa: E711  # what some models ask
    assert not hasattr(mask, "no_name_of_a_tensor")


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_use_of_a_mask_beyond_a_page_is_refused(use):
    with pytest.raises(ModelError, match=r"at most 512 x 512.*matrix of queries x keys"):
        use(_mask(**asked(PAGE + 1, PAGE + 1, attention_mask=torch.zeros(2, PAGE + 1))))


def test_one_query_of_a_long_cache_is_no_matrix():
    assert _mask(**asked(1, 9000, q_offset=8999))[..., -1].shape == (2, 1, 1)


@pytest.mark.parametrize(
    "write", [lambda mask: mask.masked_fill_(torch.ones(4, 4).bool(), 0), lambda mask: mask.__setitem__(0, 1)]
)
def test_writing_into_a_mask_is_refused(write):
    with pytest.raises(ModelError, match="write to it"):
        write(_mask(**asked()))


def test_writing_into_a_part_of_a_mask_is_noticed():
    mask = _mask(**asked())
    assert not mask.is_written_to
    mask[:, 0].zero_()
    assert mask.is_written_to


def test_mask_of_one_row_holds_for_all_queries():
    mask = for_all_queries("sdpa", _mask(**asked(1, 4, q_offset=2, attention_mask=VALID)), 3)
    assert isinstance(mask, ModelMask)
    assert torch.equal(mask.seen()[0, 0], torch.tensor([[True, True, False, False]] * 3))
    both_ways = for_all_queries("eager", _mask(**asked(1, 4, mask_function=library.bidirectional_mask_function)), 3)
    assert repr(both_ways.rule(0).build(both_ways.rows, both_ways.keys)) == "full()"


# Numbers


@pytest.mark.parametrize("hidden", [-torch.inf, torch.finfo(torch.float32).min, -1e9, -65504.0, -10000.0])
def test_numbers_that_leave_no_weight_hide(hidden):
    matrix = torch.zeros(1, 5, 5).masked_fill(torch.ones(5, 5).triu(1).bool(), hidden)
    assert torch.equal(~Numbers(matrix).hidden(bound=40.0)[0], torch.ones(5, 5).tril().bool())


@pytest.mark.parametrize("number", [-100.0, -10000.0])
def test_numbers_that_may_leave_a_weight_are_added(number):
    matrix = torch.zeros(1, 5, 5).masked_fill(torch.ones(5, 5).triu(1).bool(), number)
    assert not bool(Numbers(matrix).hidden(bound=-number / 2).any())


def test_row_of_one_number_hides_nothing_but_where_it_swallows_every_score():
    rows = torch.tensor([[-10000.0], [torch.finfo(torch.float32).min], [-torch.inf]]).expand(3, 4)[None]
    assert Numbers(rows).hidden(bound=10.0).all(-1).tolist() == [[False, True, True]]


def test_bounds_between_which_no_number_lies_read_a_mask_once():
    numbers = Numbers(torch.zeros(1, 3, 3).masked_fill(torch.ones(3, 3).triu(1).bool(), -10000.0))
    assert numbers.hidden(1.0) is numbers.hidden(2000.0)
    assert numbers.hidden(6000.0) is not numbers.hidden(1.0)


@pytest.mark.parametrize("hidden", [-1e9, -65504.0, -10000.0, -torch.inf])
def test_mask_of_a_models_own_numbers_is_causal_and_trims_padding(hidden):
    entry = BY_NAME["kosmos-2, its text"]
    model, inputs = entry.make()
    model.set_attn_implementation("sdpa")
    seen = torch.ones(21, 21).tril().bool() & inputs["attention_mask"].bool()[:, None]
    model.model._prepare_decoder_attention_mask = lambda *_: torch.zeros(2, 1, 21, 21).masked_fill(
        ~seen[:, None], hidden
    )
    recorded = softmap.record(inputs, model)
    assert [len(sequence.tokens) for sequence in recorded.sequences] == [21, 16]
    assert {repr(layer.mask) for layer in recorded.sequences[1].layers} == {"causal(offset=0)"}
    if hidden == -torch.inf:  # of which eager attention makes NaN where nothing is seen, and the next layer's keys
        model.set_attn_implementation("eager")
        with pytest.raises(ModelError, match="finite numbers in q and k"):
            softmap.record(inputs, model)


@pytest.mark.parametrize("name", ["kosmos-2, its text", "layoutlm", "markuplm"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_left_out_where_a_model_makes_its_own_mask(name, side):
    model, inputs = BY_NAME[name].make()
    mask = torch.ones(2, 21).long()
    mask[1, slice(0, 5) if side == "left" else slice(16, 21)] = 0
    recorded = softmap.record(inputs | {"attention_mask": mask}, model)
    assert [len(sequence.tokens) for sequence in recorded.sequences] == [21, 16]
    for layer in recorded.sequences[1].layers:
        assert layer.shape[1:] == (16, 16)
        assert float(layer.matrix.dense().sum(-1).sub(1).abs().max()) < 1e-5


# Keys that an indexer chooses


def test_chosen_keys_are_runs_linear_in_their_number():
    chosen = torch.tensor([[3, 0, 1], [5, -1, 9], [2, 2, 4]])
    expected = torch.zeros(3, 6).bool()
    expected[0, [0, 1, 3]] = expected[1, 5] = expected[2, [2, 4]] = True
    assert torch.equal(runs_of(chosen, 6).strip(range(3), range(6)), expected)
    assert torch.equal(chosen_strip(chosen, torch.arange(3), 6), expected)
    assert len(runs_of(chosen, 6).edges) == 2 * 5


@pytest.mark.parametrize("name", ["deepseek_v32", "glm_moe_dsa"])
def test_no_query_sees_more_keys_than_its_indexer_chose(name):
    model, inputs = BY_NAME[name].make()
    for sequence in softmap.record(inputs, model).sequences:
        for layer in sequence.layers:
            seen = layer.mask.strip(*map(range, layer.shape[1:])).sum(1)
            assert int(seen.max()) == 4
            assert layer.difference < 1e-5


@pytest.mark.parametrize("name", ["doge", "deepseek_v32", "t5gemma2", "lasr_encoder", "layoutlm"])
def test_models_that_use_their_mask_compute_what_they_do_with_sdpa(name):
    model, inputs = BY_NAME[name].make()
    model.set_attn_implementation("sdpa")
    with torch.no_grad():
        own = model(**inputs)
    with softmap.recording(model):
        ours = model(**inputs)
    assert difference_of_output(ours, own, inputs) <= 1e-5


def test_model_whose_mask_function_differs_by_dtype_is_recorded_as_it_was_found():
    front = {"num_mel_bins": 8, "subsampling_conv_channels": 4, "conv_kernel_size": 3}
    model = build("nemotron", configure("nemotron_asr_streaming_encoder", **SIZES, **front))
    model.set_attn_implementation("sdpa")
    mask = torch.ones(2, 90).long()
    inputs = {"input_features": torch.randn(2, 90, 8), "attention_mask": mask}
    with torch.no_grad():
        own = model(**inputs)
    with softmap.recording(model) as recorded:
        ours = model(**inputs)
    assert torch.allclose(own[0], ours[0], atol=1e-4)
    assert all(layer.difference < 1e-4 for layer in recorded.sequences[0].layers)


# The function that a class passes


@pytest.mark.parametrize("name", ["timesfm", "phi4_multimodal, its pictures"])
def test_each_layer_is_compared_with_the_function_that_its_class_passes(name):
    model, inputs = BY_NAME[name].make()
    for sequence in softmap.record(inputs, model).sequences:
        assert all(layer.difference < 1e-5 for layer in sequence.layers)


def test_interface_of_the_library_is_put_back():
    own = AttentionInterface.get_interface
    model, inputs = BY_NAME["bert"].make()
    with softmap.recording(model):
        assert AttentionInterface.get_interface is not own
        other, given = BY_NAME["gpt2"].make()
        with softmap.recording(other):
            other(**given)
        assert AttentionInterface.get_interface is not own
        model(**inputs)
    assert AttentionInterface.get_interface is own


# Whose fault it is


def bert() -> Example:
    return BY_NAME["bert"].make()


@pytest.mark.parametrize("broken", ["rows_to_compare", EAGER])
def test_what_goes_wrong_in_softmap_is_not_blamed_on_the_inputs(monkeypatch, broken):
    def fail(*_args, **_kwargs):
        raise AttributeError("no such thing")

    model, inputs = bert()
    if broken == EAGER:
        monkeypatch.setattr(attending, "eager_function", lambda module: fail)
        monkeypatch.setattr("transformers.models.bert.modeling_bert.eager_attention_forward", fail)
    else:
        monkeypatch.setattr("softmap.models.comparing.rows_to_compare", fail)
    with pytest.raises(ModelError) as refusal:
        softmap.record(inputs, model)
    assert "no such thing" in str(refusal.value)
    assert "raised while softmap read this attention" in str(refusal.value)
    assert "inputs belong" not in str(refusal.value)


def test_what_goes_wrong_in_a_model_is_still_told_as_its_inputs():
    model, _ = bert()
    with pytest.raises(ModelError, match="Check that these inputs belong to this model"):
        softmap.record({"input_ids": torch.ones(1, 4).long(), "token_type_ids": torch.full((1, 4), 99)}, model)
