"""Recording a small Llama, next to what one would do without softmap: seconds, and memory above the model's.

python -m benchmarks.record            up to 65,536 tokens, some minutes on two cores
python -m benchmarks.record --quick    512 and 2,048 tokens

Each figure is of a process of its own, which runs out of memory at 14 GiB. The peers are transformers, and where they are
installed TransformerLens and nnsight.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from typing import NamedTuple

QUICK = "--quick" in sys.argv
LENGTHS = (512, 2_048) if QUICK else (512, 2_048, 4_096, 8_192, 16_384, 65_536)
LIMIT = 14 << 30
DENSE = 16_384
"""Tokens beyond which nothing that stores the matrix is tried: there it runs out of memory already."""

SETUP = """
import json, resource, sys, tempfile, time, torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import logging
logging.set_verbosity_error()
tokens, folder = int(sys.argv[1]), sys.argv[2]
torch.manual_seed(0)
config = LlamaConfig(vocab_size=1000, hidden_size=512, intermediate_size=1376, num_hidden_layers=4,
                     num_attention_heads=8, num_key_value_heads=2, max_position_embeddings=131072)
language_model = LlamaForCausalLM(config).eval()
model = language_model.model
ids = torch.randint(0, 1000, (1, tokens))
"""
MEASURE = f"""
resource.setrlimit(resource.RLIMIT_AS, ({LIMIT}, {LIMIT}))
status = lambda name: next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if name in line)
with torch.no_grad():
    run(ids[:, :64], folder + "/warm")
    before, start = status("VmRSS"), time.perf_counter()
    kept = run(ids, folder + "/run")
    print(json.dumps([time.perf_counter() - start, status("VmHWM") - before]))
"""


class Way(NamedTuple):
    """One way to do it.

    Attributes:
        name: as the table names it.
        code: what defines `run`.
        dense: whether it stores the matrix.
        package: what it needs beside transformers and softmap.
    """

    name: str
    code: str
    dense: bool = False
    package: str = "softmap"


WAYS = (
    Way(
        "transformers, sdpa: no attentions",
        """
model.set_attn_implementation("sdpa")
run = lambda ids, folder: model(ids, use_cache=False)
""",
    ),
    Way(
        "transformers, eager: output_attentions",
        """
model.set_attn_implementation("eager")
run = lambda ids, folder: model(ids, use_cache=False, output_attentions=True).attentions
""",
        dense=True,
    ),
    Way(
        "TransformerLens: patterns",
        """
from tokenizers import Tokenizer, models
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoTokenizer, PreTrainedTokenizerFast
home = tempfile.mkdtemp()
config.architectures = ["LlamaForCausalLM"]
config.save_pretrained(home)
words = Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1}, unk_token="<s>"))
PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token="</s>", pad_token="</s>").save_pretrained(home)
bridge = TransformerBridge.boot_transformers(
    home, hf_model=language_model, tokenizer=AutoTokenizer.from_pretrained(home)
)
patterns = lambda name: name.endswith("hook_pattern")
run = lambda ids, folder: bridge.run_with_cache(ids, names_filter=patterns, return_type=None)[1]
""",
        dense=True,
        package="transformer_lens",
    ),
    Way(
        "nnsight: weights of eager",
        """
from nnsight import NNsight, save
model.set_attn_implementation("eager")
traced = NNsight(model)
def run(ids, folder):
    with traced.trace(ids, use_cache=False):
        kept = save([layer.self_attn.source.attention_interface_1.output[1] for layer in traced.layers])
    return kept
""",
        dense=True,
        package="nnsight",
    ),
    Way(
        "softmap: q, k, v and all statistics",
        """
from softmap import record
run = lambda ids, folder: record(ids, model)
""",
    ),
    Way(
        "softmap: the same, into files",
        """
from softmap import record
run = lambda ids, folder: record(ids, model, out=folder)
""",
    ),
    Way(
        "softmap: q, k, v alone",
        """
from softmap import record
run = lambda ids, folder: record(ids, model, summary=False)
""",
    ),
)


def main() -> None:
    """Print the table."""
    print(f"| what | {' | '.join(f'{tokens:,}' for tokens in LENGTHS)} |\n| --- |{' --- |' * len(LENGTHS)}")
    for way in WAYS:
        if find_spec(way.package):
            cells = [_cell(way, tokens) for tokens in LENGTHS]
            print(f"| {way.name} | {' | '.join(cells)} |", flush=True)


def _cell(way: Way, tokens: int) -> str:
    """Seconds and MiB of one run."""
    if way.dense and tokens > DENSE:
        return "–"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", SETUP + way.code + MEASURE, str(tokens), folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        out_of_memory = any(word in done.stderr for word in ("MemoryError", "can't allocate", "not enough memory"))
        return "out of memory" if out_of_memory else "failed: " + done.stderr.strip().splitlines()[-1]
    seconds, mib = json.loads(done.stdout.splitlines()[-1])
    return f"{seconds:.2f} s, {mib:,.0f} MiB"


if __name__ == "__main__":
    main()
