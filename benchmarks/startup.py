"""How long the commands take, as whole processes, next to transformers doing the bare forward pass.

python -m benchmarks.startup
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from importlib.metadata import version

ROUNDS = 7
SOFTMAP = [sys.executable, "-c", "from softmap.cli import main; main()"]
PEER = """
from transformers import AutoModel, AutoTokenizer
from softmap.models.load import packaged_directory
directory = packaged_directory()
tokenizer, model = AutoTokenizer.from_pretrained(directory), AutoModel.from_pretrained(directory)
model.set_attn_implementation("eager")
model(**tokenizer("I love learning", return_tensors="pt"), output_attentions=True).attentions[0]
"""
COMMANDS = {
    "transformers 5, eager attentions of the same sentence": [sys.executable, "-c", PEER],
    'softmap explain "I love learning"': [*SOFTMAP, "explain", "I love learning"],
    "softmap explain --example": [*SOFTMAP, "explain", "--example"],
    "softmap --help": [*SOFTMAP, "--help"],
}


def main() -> None:
    """Run the commands in turn, so that a slow moment of the machine meets them all, and print medians."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, command in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
            times[name].append(time.perf_counter() - start)
    peer = statistics.median(times[next(iter(COMMANDS))])
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
    print(
        f"Python {platform.python_version()}, {packages}, {os.cpu_count()} cores; medians of {ROUNDS} whole processes"
    )
    for name, taken in times.items():
        median = statistics.median(taken)
        print(
            f"{name:55} {median:6.2f} s   {median / peer:5.2f} of the peer's   ({min(taken):.2f} to {max(taken):.2f})"
        )


if __name__ == "__main__":
    main()
