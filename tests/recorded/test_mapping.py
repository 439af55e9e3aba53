"""How much memory a large recording takes: to be opened, to be looked at in one place, and to be written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is told as Linux tells it")

MEMORY = """
import json, resource, sys
import torch
from softmap import AttentionMatrix, masks
from softmap.errors import RecordingError
from softmap.recorded import Origin, RecordedLayer, RecordedSequence
from softmap.recorded.storage import Writer, load

path, found = sys.argv[1], {}


def size(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name + ":"))


def layer(tokens):
    q, k, v = (torch.rand(heads, tokens, 64) for heads in (16, 4, 4))
    logsumexp = torch.full((16, tokens), 5.0, dtype=torch.float64)
    names = ("layers.0", "self", "decoder", (16, tokens, tokens), q, k, v)
    return RecordedLayer(*names, masks.causal(), 0.1, None, None, None, None, logsumexp, (1.0, 1.0))


def write(path, count, tokens):
    with Writer(path) as writer:
        layers = [writer.add([layer(tokens)])[0] for _ in range(count)]
        grown = size("RssAnon")
        writer.finish(Origin("m", "M", None, "float32", "float32", {}), [RecordedSequence(tuple(layers), None)])
    return grown


def warm_up(name):  # whatever is imported and kept once
    write(name, 1, 10)
    load(name)[0][0, 2:5, :7]


"""
WRITE = f"""{MEMORY}
warm_up(path + "/written")
start = size("RssAnon")
print(json.dumps({{"grown by writing": write(path + "/large", 3, 16384) - start}}))
"""
READ = f"""{MEMORY}
warm_up(path + "/read")
start, files = size("VmRSS"), size("RssFile")
recording = load(path + "/large")
found["grown by opening"] = size("VmRSS") - start
tile = recording[1][3, 1000:1010, :500]
found["read by a tile"] = size("RssFile") - files
recording.layers[1].q.sum()
found["read by all of q"] = size("RssFile") - files
resource.setrlimit(resource.RLIMIT_AS, (size("VmSize") + (50 << 20), resource.RLIM_INFINITY))
try:
    load(path + "/large")
except RecordingError as error:
    found["refused"] = str(error)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def memory(tmp_path_factory):
    """Bytes that two processes tell of: the one that wrote a recording of 294 MB, and the one that read it."""
    path, found = tmp_path_factory.mktemp("large"), {}
    for code in (WRITE, READ):  # one after the other: pages that were written are not counted as read
        ran = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
        found |= json.loads(ran.stdout)
    return found


LAYER = (16 + 4 + 4) * 16384 * 64 * 4


@pytest.mark.slow
def test_opening_reads_none_of_the_arrays(memory):
    assert memory["grown by opening"] < 4 << 20


def test_a_tile_reads_its_own_place_alone(memory):
    rows = 16 * 16384 * 8  # the logsumexp of all of them
    assert memory["read by a tile"] < rows + (4 << 20)
    assert memory["read by all of q"] > 60 << 20  # so that what is not read would be seen


def test_writing_holds_one_layer(memory):
    assert memory["grown by writing"] < 1.2 * LAYER


def test_file_that_cannot_be_mapped_is_named(memory):
    assert (
        "layer-000.safetensors: expected a file that can be mapped to memory, got unable to mmap" in memory["refused"]
    )
