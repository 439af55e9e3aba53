"""A recorder that is killed, or whose disk is full: what it wrote by then opens, and is right."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch

import softmap
from softmap.errors import RecordingError

LAYERS, TOKENS = 16, 1024
RECORDER = f"""
import resource, sys, torch
from transformers import LlamaConfig, LlamaModel
import softmap
torch.manual_seed(0)
torch.set_num_threads(1)
model = LlamaModel(LlamaConfig(vocab_size=50, hidden_size=32, intermediate_size=32, num_hidden_layers={LAYERS},
                               num_attention_heads=4, num_key_value_heads=2)).eval()
ids = torch.arange({TOKENS})[None] % 50
if len(sys.argv) > 2:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
print("ready", flush=True)
softmap.record(ids, model, out=sys.argv[1], progress=lambda done, total: print(done, flush=True))
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The recording that nobody interrupted, and how long a layer takes."""
    path = tmp_path_factory.mktemp("whole") / "run.softmap"
    with subprocess.Popen([sys.executable, "-c", RECORDER, str(path)], stdout=subprocess.PIPE, text=True) as run:
        moments = [time.monotonic() for _ in run.stdout]
    assert run.returncode == 0
    return softmap.load(path), (moments[-1] - moments[1]) / (LAYERS - 1)


@pytest.mark.slow
def test_recorder_that_is_killed_leaves_its_complete_layers(whole, tmp_path):
    expected, seconds = whole
    chance, found = random.Random(0), set()
    for i in range(20):
        path = tmp_path / f"{i}.softmap"
        with subprocess.Popen([sys.executable, "-c", RECORDER, str(path)], stdout=subprocess.PIPE, text=True) as run:
            for _ in range(chance.randint(1, LAYERS)):  # "ready", and a line for each layer
                run.stdout.readline()
            time.sleep(chance.uniform(0, seconds))
            run.send_signal(signal.SIGKILL)
        if not path.exists():
            found.add(0)
            continue
        with contextlib.suppress(RecordingError):  # it was done already
            assert len(softmap.load(path).layers) == LAYERS
            continue
        with pytest.raises(RecordingError, match="partial=True"):
            softmap.load(path)
        opened = softmap.load(path, partial=True)
        assert opened.partial
        layers = opened.sequences[0].layers if opened.sequences else ()
        found.add(len(layers))
        for layer, complete in zip(layers, expected.layers, strict=False):
            assert torch.equal(layer.q, complete.q)
            assert torch.equal(layer.summary.received, complete.summary.received)
    assert len(found) > 3  # moments that differ


@pytest.mark.slow
def test_full_disk_is_told_as_such_and_what_was_written_opens(tmp_path):
    path = tmp_path / "run.softmap"
    command = [sys.executable, "-c", RECORDER, str(path), "300000"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert run.returncode == 1
    assert "RecordingError" in run.stderr.splitlines()[-1]
    assert "a place that can be written to" in run.stderr.splitlines()[-1]
    assert not path.exists()  # not even one layer fitted


@pytest.mark.parametrize(
    ("syncs", "layers", "said"),
    [(0, 0, "Nothing is left"), (3, 0, "Nothing is left"), (7, 1, "opens with partial=True")],
)
def test_recording_that_a_full_disk_ends_says_what_is_left_of_it(tmp_path, monkeypatch, syncs, layers, said):
    path, sync, done = tmp_path / "run.softmap", os.fsync, []

    def fill(descriptor):
        if len(done) == syncs:
            raise OSError(errno.ENOSPC, "No space left on device")
        done.append(sync(descriptor))

    monkeypatch.setattr(os, "fsync", fill)
    with pytest.raises(RecordingError, match=rf"a place that can be written to.*No space left.*{said}"):
        softmap.record("I love learning", out=path)
    assert path.exists() == bool(layers)
    if layers:
        assert len(softmap.load(path, partial=True)) == layers
