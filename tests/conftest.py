"""What several test modules share: the bundled model, and small random models with tokenizers of every kind.

Nothing here is downloaded, and no test sees the Hugging Face cache of the machine it runs on.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile

import hypothesis
import pytest
from vocabularies import BACKENDS, MARKS

HOME = tempfile.mkdtemp(prefix="softmap-tests-")
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_CACHE", "HF_MODULES_CACHE"):
    os.environ.pop(variable, None)
os.environ |= {"HF_HOME": HOME, "HF_HUB_OFFLINE": "1"}  # read when transformers is first imported
os.environ.setdefault("OMP_NUM_THREADS", "1")  # small matrices gain nothing from more, and lose where cores are shared

for name in (
    "SIGINT",
    "SIGHUP",
    "SIGTERM",
):  # a job in the background ignores them, and so would the commands it starts
    number = getattr(signal, name, None)
    if number is not None and signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, lambda *_: None)

hypothesis.settings.register_profile("softmap", deadline=None)  # a busy machine is no fault
hypothesis.settings.load_profile("softmap")

NEEDS = {"browser": "browser", "cuda": "gpu", "triton": "gpu", "compiler": "compiler"}
"""The marker that a test has because it asks for a fixture, by the fixture's name."""


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items):
    """Mark what a test needs, so that no test can miss its marker."""
    for item in items:
        for fixture in NEEDS.keys() & set(getattr(item, "fixturenames", ())):
            item.add_marker(NEEDS[fixture])


@pytest.fixture(scope="module")
def browser():
    """Chromium, without a network."""
    from viewer.pages import chromium

    with chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def posix():
    """What Windows lacks: pipes in a folder, limits of a process, Ctrl-C as a signal."""
    if os.name != "posix":
        pytest.skip("needs what POSIX has of pipes, limits and signals")


@pytest.fixture(scope="session")
def cuda():
    """An NVIDIA GPU, by torch's name for it."""
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU")
    return "cuda"


@pytest.fixture(scope="session")
def triton():
    return pytest.importorskip("triton", reason="needs Triton: `make test-triton` installs it")


@pytest.fixture(scope="session")
def compiler():
    """The path of a C++ compiler."""
    for name in filter(None, (os.environ.get("CXX"), "c++", "g++", "clang++")):
        if path := shutil.which(name):
            return path
    return pytest.skip("needs a C++ compiler: install g++ or clang++, or name one in CXX")


@pytest.fixture(scope="session")
def bundled():
    """The packaged all-MiniLM-L6-v2. Whoever changes it puts it back."""
    from softmap import models

    return models.load()


@pytest.fixture(scope="session")
def make_tokenizer():
    """A small fast tokenizer: ``wordpiece`` as BERT's, ``byte level`` as RoBERTa's, ``metaspace`` as XLM-R's.

    Others are in vocabularies.py. It puts marks around each text, as BERT's does, or none, as GPT-2's.
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


@pytest.fixture(scope="session")
def make_decoder():
    """A small random decoder, by the name of its architecture."""
    from decoders import SIZES
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    def make(kind="llama", **changes):
        import torch

        torch.manual_seed(0)
        config = CONFIG_MAPPING[kind](**SIZES | changes)
        return AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()

    return make


@pytest.fixture(scope="session")
def llama(make_decoder):
    return make_decoder()


@pytest.fixture(scope="session")
def make_seq2seq():
    """A small random encoder-decoder, by the name of its architecture."""
    from decoders import VOCABULARY
    from transformers import AutoModelForSeq2SeqLM, AutoModelForSpeechSeq2Seq
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    bart = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 4, "init_std": 0.3}
    bart |= {"decoder_attention_heads": 4, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "vocab_size": VOCABULARY}
    bart |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
    bart |= {"forced_eos_token_id": None}
    t5 = {"d_model": 32, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 4}
    t5 |= {"vocab_size": VOCABULARY, "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    sounds = {"num_mel_bins": 8, "max_source_positions": 10, "begin_suppress_tokens": None, "suppress_tokens": None}

    def make(kind):
        import torch

        torch.manual_seed(0)
        settings = t5 if kind == "t5" else bart | (sounds if kind == "whisper" else {})
        auto = AutoModelForSpeechSeq2Seq if kind == "whisper" else AutoModelForSeq2SeqLM
        return auto.from_config(CONFIG_MAPPING[kind](**settings), attn_implementation="eager").eval()

    return make
