"""What several test modules share: the bundled model, and small random models with tokenizers of every kind.

Nothing here is downloaded, and no test sees the Hugging Face cache of the machine it runs on.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

import pytest

HOME = tempfile.mkdtemp(prefix="softmap-tests-")
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_CACHE", "HF_MODULES_CACHE"):
    os.environ.pop(variable, None)
os.environ |= {"HF_HOME": HOME, "HF_HUB_OFFLINE": "1"}  # read when transformers is first imported
os.environ.setdefault("OMP_NUM_THREADS", "1")  # small matrices gain nothing from more, and lose where cores are shared

MARKS = ("[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]")  # padding at 1, as RoBERTa has it
TEXT = "the cat sat on a mat i love learning it is un ##believ ##able ##ability don t ' . , ! ?"
CORPUS = [
    "The cat sat on the mat, and I love learning.",
    "unbelievable unbelievability don't",
    "我爱学习。 你好吗？",
] * 4


def _wordpiece():
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    vocabulary = {piece: i for i, piece in enumerate([*MARKS, *TEXT.split()])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def _byte_level():
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=list(MARKS), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS[:2], trainer)
    return tokenizer


def _metaspace():
    from tokenizers import Tokenizer, models, pre_tokenizers

    singles = sorted({char for text in CORPUS for char in text if not char.isspace()})
    pieces = [*MARKS, "▁", "▁I", "▁love", "ing", "学习", *singles]
    tokenizer = Tokenizer(models.Unigram([(piece, -float(i)) for i, piece in enumerate(pieces)], unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer


BACKENDS = {"wordpiece": _wordpiece, "byte level": _byte_level, "metaspace": _metaspace}


@pytest.fixture(scope="session")
def bundled():
    """The packaged all-MiniLM-L6-v2. Whoever changes it puts it back."""
    from softmap import models

    return models.load()


@pytest.fixture(scope="session")
def make_tokenizer():
    """A small fast tokenizer: ``wordpiece`` as BERT's, ``byte level`` as RoBERTa's, ``metaspace`` as XLM-R's.

    It puts marks around each text, as BERT's does, or none, as GPT-2's.
    """
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    def make(kind="wordpiece", limit=64, *, marks=True):
        backend = BACKENDS[kind]()
        if marks:
            backend.post_processor = processors.TemplateProcessing(
                single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 0), ("[SEP]", 2)]
            )
        names = ("cls_token", "pad_token", "sep_token", "unk_token", "mask_token")
        return PreTrainedTokenizerFast(
            tokenizer_object=backend, model_max_length=limit, **dict(zip(names, MARKS, strict=True))
        )

    return make


@pytest.fixture(scope="session")
def make_model(make_tokenizer):
    """A small random model of any architecture, with a tokenizer, that never was in a file."""
    import torch
    from transformers import AutoConfig, AutoModel

    from softmap.models import LoadedModel

    def make(architecture="bert", *, tokenizer=None, dtype=torch.float32, **changes):
        tokenizer = tokenizer or make_tokenizer()
        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        limits = {"vocab_size": len(tokenizer), "max_position_embeddings": 66}
        marks = {"pad_token_id": 1, "cls_token_id": 0, "sep_token_id": 2, "bos_token_id": 0, "eos_token_id": 2}
        spread = {"initializer_range": 0.25}  # wide enough for heads that look at some words more than at others
        torch.manual_seed(len(architecture))
        model = AutoModel.from_config(
            AutoConfig.for_model(architecture, **{**sizes, **limits, **marks, **spread, **changes})
        )
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):  # 0 in a new model, which would hide a bias left out
                torch.nn.init.normal_(parameter, std=0.1)
        return LoadedModel(model.to(dtype).eval(), tokenizer, f"a small {architecture}")

    return make


@pytest.fixture
def make_directory(make_model, tmp_path):
    """A new directory with a small random model and its tokenizer in it, as save_pretrained writes them."""

    def make(architecture="bert", **changes):
        loaded = make_model(architecture, **changes)
        directory = tmp_path / architecture
        loaded.model.save_pretrained(directory)
        loaded.tokenizer.save_pretrained(directory)
        return directory

    return make


@pytest.fixture(scope="session")
def run_through():
    """Record a text as its story is told of it: with what is inside each layer."""
    from softmap.models.record import record_inside
    from softmap.tokens import tokenize

    def run(loaded, text, **options):
        return record_inside(loaded, tokenize(loaded, text, **options))

    return run
