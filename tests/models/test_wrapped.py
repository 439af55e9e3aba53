"""Models inside of something else, and models that are run past their own hooks."""

from __future__ import annotations

import copy

import peft
import pytest
import torch
from decoders import assert_same_weights, eager, ids_of
from sentence_transformers import CrossEncoder, SentenceTransformer, SparseEncoder
from sentence_transformers.base.modules import Router, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from sentence_transformers.sparse_encoder.modules import MLMTransformer, SpladePooling
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, pipeline
from transformers.utils import logging

import softmap
from softmap.errors import ModelError
from softmap.models import LoadedModel
from softmap.models.load import packaged_directory

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # of what peft asks transformers for

TEXT = "I love learning"
TEXTS = [f"{'word ' * ((7 * i) % 11)}number {i}" for i in range(40)]


@pytest.fixture(autouse=True)
def without_progress():
    logging.disable_progress_bar()
    yield
    logging.enable_progress_bar()


def a_transformer():
    return Transformer(str(packaged_directory()))


@pytest.fixture(scope="module")
def sentences():
    """A SentenceTransformer around the bundled model."""
    transformer = a_transformer()
    return SentenceTransformer(modules=[transformer, Pooling(transformer.get_embedding_dimension())])


@pytest.fixture(scope="module")
def expected(bundled):
    return softmap.record(TEXT, bundled)


def assert_same(rec, expected):
    assert len(rec.layers) == len(expected.layers)
    for layer, other in zip(rec.layers, expected.layers, strict=True):
        torch.testing.assert_close(layer.matrix.dense(), other.matrix.dense(), atol=2e-6, rtol=0)


def test_sentence_transformer_is_recorded_with_its_own_tokenizer(sentences, expected):
    rec = softmap.record(TEXT, sentences)
    assert_same(rec, expected)
    assert rec.tokens == expected.tokens
    assert softmap.explain(TEXT, model=sentences, layer=3, head=1).tokens == expected.tokens


@pytest.mark.parametrize("inner", [False, True])
def test_encode_is_recorded_with_its_tokens(sentences, expected, inner):
    before = sentences.encode(TEXT)
    options = {"tokenizer": sentences.tokenizer} if inner else {}
    with softmap.recording(sentences[0].auto_model if inner else sentences, **options) as rec:
        assert sentences.encode(TEXT) == pytest.approx(before, abs=1e-6)
    assert_same(rec, expected)
    assert rec.tokens.ids == expected.tokens.ids
    assert rec.tokens.pieces == expected.tokens.pieces


@pytest.mark.parametrize("second", ["You love learning", "You love learning more than that"])
def test_second_text_that_is_encoded_is_refused(sentences, second):
    with pytest.raises(ModelError, match=r"a second text.*batch_size=len\(texts\)"), softmap.recording(sentences):  # noqa: PT012
        sentences.encode([TEXT])
        sentences.encode([second])


def test_texts_that_are_encoded_in_several_batches_are_refused_with_the_way_out(sentences):
    with pytest.raises(ModelError, match=r"got 8 in a second batch.*batch_size=len\(texts\)"):  # noqa: SIM117  # encode's
        with softmap.recording(sentences):
            sentences.encode(TEXTS)


def test_texts_that_are_encoded_in_one_batch_are_recorded_in_the_order_they_are_given(sentences, bundled):
    before = sentences.encode(TEXTS, batch_size=40)
    with softmap.recording(sentences) as rec:
        output = sentences.encode(TEXTS, batch_size=40)
    assert output == pytest.approx(before, abs=1e-5)
    for i in (0, 3, 17, 39):
        alone = softmap.record(TEXTS[i], bundled)
        assert rec.batch(i).tokens.ids == alone.tokens.ids
        assert_same(rec.batch(i), alone)
    assert "_input_length" not in vars(sentences)
    assert "forward" not in vars(sentences[0].auto_model)


def test_text_is_read_with_the_prompt_that_encode_puts_before_it(sentences):
    prompted = SentenceTransformer(modules=list(sentences), prompts={"ask": "ask: "}, default_prompt_name="ask")
    rec = softmap.record(TEXT, prompted)
    with softmap.recording(prompted) as encoded:
        prompted.encode(TEXT)
    assert rec.tokens.text == f"ask: {TEXT}"
    assert rec.tokens.ids == encoded.tokens.ids
    assert_same(rec, encoded)


def test_cross_encoder_and_sparse_encoder_are_recorded(bundled, tmp_path):
    for kind, auto in (("pairs", AutoModelForSequenceClassification), ("sparse", AutoModelForMaskedLM)):
        auto.from_config(bundled.model.config).save_pretrained(tmp_path / kind)
        bundled.tokenizer.save_pretrained(tmp_path / kind)
    pairs = CrossEncoder(str(tmp_path / "pairs"))
    with softmap.recording(pairs) as rec:
        pairs.predict([("a", "b"), (TEXT, "you love it")])
    given = pairs.tokenizer(TEXT, "you love it", return_tensors="pt")
    assert rec.batch(1).tokens.ids == tuple(given["input_ids"][0].tolist())
    assert_same(rec.batch(1), softmap.record(given, pairs))
    sparse = SparseEncoder(modules=[MLMTransformer(str(tmp_path / "sparse")), SpladePooling()])
    with softmap.recording(sparse) as rec:
        sparse.encode(TEXT)
    assert_same(rec, softmap.record(TEXT, sparse))


def test_several_models_in_one_are_refused_by_name():
    halves = [a_transformer(), a_transformer()]
    both = SentenceTransformer(
        modules=[Router.for_query_document([halves[0], Pooling(384)], [halves[1], Pooling(384)])]
    )
    with pytest.raises(ModelError, match=r"query\.0\.model \(BertModel\).*model\[0\]\.sub_modules\.query\[0\]\.model"):
        softmap.record(TEXT, both)


def test_parallel_and_compiled_models_are_what_they_wrap(bundled, expected):
    parallel = torch.nn.DataParallel(bundled.model)
    compiled = torch.compile(parallel)
    for given in (parallel, compiled, pipeline("feature-extraction", model=bundled.model, tokenizer=bundled.tokenizer)):
        options = {"tokenizer": bundled.tokenizer} if isinstance(given, torch.nn.Module) else {}
        rec = softmap.record(TEXT, given, **options)
        assert_same(rec, expected)
        assert rec.tokens == expected.tokens
    assert_same(softmap.record(TEXT, LoadedModel(compiled, bundled.tokenizer, "mine")), expected)
    with softmap.recording(parallel) as rec:
        parallel(**bundled.tokenizer(TEXT, return_tensors="pt"))
    assert_same(rec, expected)
    parallel.device_ids = [0, 1]  # as on a machine with two GPUs
    with pytest.raises(ModelError, match=r"copies of it.*\.module"):
        softmap.record(TEXT, parallel)


def test_pipeline_is_recorded_as_it_runs(bundled, expected):
    pipe = pipeline("feature-extraction", model=bundled.model, tokenizer=bundled.tokenizer)
    with softmap.recording(pipe) as rec:
        pipe(TEXT)
    assert_same(rec, expected)
    assert rec.tokens.pieces == expected.tokens.pieces


def test_adapters_are_part_of_what_is_recorded(make_decoder):
    base, ids = make_decoder(), ids_of(9)
    without = eager(base, input_ids=ids).attentions
    config = peft.LoraConfig(target_modules=["q_proj", "k_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    adapted = peft.get_peft_model(base, config).eval()
    attentions = eager(adapted, input_ids=ids).attentions
    assert not torch.allclose(attentions[0], without[0], atol=1e-3)
    assert_same_weights(softmap.record(ids, adapted), attentions)
    with softmap.recording(adapted) as rec:
        adapted(input_ids=ids)
    assert_same_weights(rec.recording, attentions)
    with adapted.disable_adapter():
        assert_same_weights(softmap.record(ids, adapted), without)


@pytest.mark.parametrize("kind", ["PrefixTuningConfig", "PromptTuningConfig"])
def test_virtual_tokens_are_refused_with_the_way_that_records_them(make_decoder, kind):
    config = getattr(peft, kind)(num_virtual_tokens=4, task_type="CAUSAL_LM")
    model, ids = peft.get_peft_model(make_decoder(), config).eval(), ids_of(9)
    with pytest.raises(ModelError, match=r"virtual tokens.*recording\(peft_model\.get_base_model\(\)\)"):
        softmap.record(ids, model)
    with softmap.recording(model.get_base_model()) as rec:
        model(input_ids=ids)
    assert rec.layers[0].shape[2] == 13
    assert_same_weights(rec.recording, eager(model, input_ids=ids).attentions)


class Holder(torch.nn.Module):
    """A module of one's own with a model in it."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder


class Trainer:
    """An object with a model in it."""

    def __init__(self, model):
        self.model = model


def test_other_objects_with_a_model_in_them_are_refused_with_its_name(llama):
    with pytest.raises(ModelError, match=r"got Holder\. Give the model in it: model\.encoder"):
        softmap.record(ids_of(4), Holder(llama))
    with pytest.raises(ModelError, match=r"got Trainer\. Give the model in it: model\.model"):
        softmap.record(ids_of(4), Trainer(llama))


def test_forward_that_is_called_by_its_name_is_a_run_of_the_model(llama):
    ids = ids_of(9)
    with softmap.recording(llama) as rec:
        cache = llama.forward(input_ids=ids[:, :5], use_cache=True).past_key_values
        llama.forward(input_ids=ids[:, 5:], past_key_values=cache)
    assert rec.tokens.ids == tuple(ids[0].tolist())
    assert_same_weights(rec.recording, eager(llama, input_ids=ids).attentions)
    with pytest.raises(ModelError, match="a second text"), softmap.recording(llama):  # noqa: PT012  # the second raises
        llama(input_ids=ids)
        llama.forward(input_ids=ids)


def test_parts_that_are_run_by_hand_begin_another_run_when_they_run_again(bundled):
    x = torch.randn(1, 5, 384)
    with softmap.recording(bundled) as rec:
        bundled.model.encoder(x)
    assert len(rec) == 6
    with pytest.raises(ModelError, match="a second text"), softmap.recording(bundled):  # noqa: PT012  # the second raises
        bundled.model.encoder(x)
        bundled.model.encoder(x)
    with pytest.raises(ModelError, match="got 3 in a second batch"), softmap.recording(bundled):  # noqa: PT012  # likewise
        bundled.model.encoder(torch.randn(2, 5, 384))
        bundled.model.encoder(torch.randn(3, 5, 384))


def test_copy_of_a_model_that_is_made_in_the_block_is_a_model_of_its_own(llama):
    ids = ids_of(6)
    with softmap.recording(llama) as rec:
        twin = copy.deepcopy(llama)
        llama(input_ids=ids)
        with torch.no_grad():
            twin.lm_head.weight.zero_()
            assert not twin(input_ids=ids).logits.any()
    assert rec.layers[0].shape == (4, 6, 6)
