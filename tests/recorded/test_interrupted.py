"""Recordings whose writing is ended: by a kill at any moment, and by a disk that takes no more."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from builders import ORIGIN, assert_same_layers, make_layer, make_recording, make_tokens

from softmap.errors import RecordingError
from softmap.recorded import RecordedSequence
from softmap.recorded.storage import Writer, load

SIZES = {"heads": 8, "kv_heads": 4, "queries": 300, "d_k": 64, "d_v": 64}
LAYERS = 6
KILLS = 30
WRITE_AND_KILL = """
import json, os, signal, sys, time
sys.path.insert(0, sys.argv[1])
from test_interrupted import layers, write

made = layers()


def child(path):
    pid = os.fork()
    if pid == 0:
        write(path, made)
        os._exit(0)
    return pid


start = time.monotonic()
os.waitpid(child(sys.argv[2]), 0)
took = time.monotonic() - start
for path, share in json.loads(sys.argv[3]):
    pid = child(path)
    time.sleep(share * took)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
"""


def layers():
    return [[make_layer(10 * i + n, keep=("qk", "v"), **SIZES) for n in range(2)] for i in range(LAYERS)]


def write(path, made):
    with Writer(path, ORIGIN) as writer:
        added = [writer.add(each) for each in made]
        sequences = [RecordedSequence(tuple(each), make_tokens(300)) for each in zip(*added, strict=True)]
        writer.finish(ORIGIN, sequences)


@pytest.mark.slow
@pytest.mark.usefixtures("posix")
def test_what_a_kill_leaves_is_whole_in_all_that_it_names(tmp_path):
    chance = random.Random(0)
    paths = [(str(tmp_path / str(i)), chance.uniform(0, 1.1)) for i in range(KILLS)]
    here = str(Path(__file__).parent)
    subprocess.run(
        [sys.executable, "-c", WRITE_AND_KILL, here, str(tmp_path / "whole"), json.dumps(paths)],
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    made, left = layers(), []
    assert load(tmp_path / "whole").partial == ""
    for path, _ in paths:
        try:
            found = load(path, partial=True, verify=True)
        except RecordingError as error:
            assert "none before it was cut off" in str(error) or "nothing there" in str(error)  # noqa: PT017
            left.append(0)
            continue
        left.append(len(found.sequences[0].layers))
        for i, sequence in enumerate(found.sequences):
            assert_same_layers(sequence.layers, [each[i] for each in made[: left[-1]]])
        assert bool(found.partial) == (found.sequences[0].tokens is None)
        assert found.partial or left[-1] == LAYERS
        named = {"manifest.json", *(f"layer-{i:03}.safetensors" for i in range(left[-1] + 1))}
        assert {name for name in os.listdir(path) if not name.startswith(".")} <= named
    assert len({count for count in left if 0 < count < LAYERS}) > 1, f"kills in the midst of it: {left}"


@contextlib.contextmanager
def largest_file(size):
    """Files that grow beyond so many bytes fail, as on a disk that is full."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("posix")
def test_disk_that_is_full_ends_a_recording_and_leaves_what_was_complete(tmp_path):
    small, large = make_layer(0), make_layer(1, keep=("qk",), **SIZES)
    with Writer(tmp_path / "run", ORIGIN) as writer:
        writer.add([small])
        with largest_file(100_000), pytest.raises(OSError, match=r"run/layer-001\.safetensors'$"):
            writer.add([large])
        assert sorted(os.listdir(tmp_path / "run")) == ["layer-000.safetensors", "manifest.json"]
        assert_same_layers(load(tmp_path / "run", partial=True).layers, [small])
        writer.add([large])  # there is room again
    assert_same_layers(load(tmp_path / "run", partial=True).layers, [small, large])


@pytest.mark.usefixtures("posix")
@pytest.mark.slow
def test_disk_that_does_not_take_the_manifest_leaves_the_one_before(tmp_path):
    layer = make_layer(queries=4000, heads=1, kv_heads=1, d_k=1, keep=("qk",), queries_of="tokens")
    sequence = RecordedSequence((layer,), make_tokens(4000))
    with Writer(tmp_path / "run", ORIGIN) as writer:
        writer.add([layer])
        with largest_file(100_000), pytest.raises(OSError, match=r"run/manifest\.json'$"):
            writer.finish(ORIGIN, [sequence])
        assert_same_layers(load(tmp_path / "run", partial=True).layers, [layer])
        writer.finish(ORIGIN, [sequence])
    assert load(tmp_path / "run").tokens == sequence.tokens


@pytest.mark.usefixtures("posix")
@pytest.mark.parametrize("size", [100_000, 100])
def test_saving_to_a_disk_that_is_full_leaves_nothing(tmp_path, size):
    recording = make_recording(keep=("qk",), **SIZES)
    with largest_file(size), pytest.raises(OSError, match=r"run/(layer-000\.safetensors|manifest\.json)'$"):
        recording.save(tmp_path / "run")
    assert os.listdir(tmp_path) == []


def test_exception_in_the_midst_leaves_what_was_complete(tmp_path):
    def record():
        with Writer(tmp_path / "run", ORIGIN) as writer:
            writer.add([make_layer()])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record()
    assert_same_layers(load(tmp_path / "run", partial=True).layers, [make_layer()])
