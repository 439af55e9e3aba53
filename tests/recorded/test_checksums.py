"""Checksums of recordings too large to be read when they are opened: compared beside what is looked at."""

from __future__ import annotations

import time

import pytest
from builders import make_recording
from click.testing import CliRunner

import softmap
from softmap.cli import main
from softmap.errors import RecordingError
from softmap.recorded import manifest, reader
from softmap.viewer.answers import Answers


@pytest.fixture
def large(tmp_path, monkeypatch):
    """The folder of a recording that counts as large."""
    make_recording(layers=3).save(tmp_path / "run.softmap")
    monkeypatch.setattr(reader, "VERIFIED", 10)
    return tmp_path / "run.softmap"


def damage(folder, layer):
    """Flip one bit of a layer's numbers."""
    file = folder / f"layer-00{layer}.safetensors"
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)


def wait_for(layer, state):
    end = time.monotonic() + 20
    while layer.checksum.state != state:
        assert time.monotonic() < end, layer.checksum.state
        time.sleep(0.005)


def test_file_is_compared_from_when_it_is_first_looked_at(large):
    rec = softmap.load(large)
    assert rec.verified == (0, 3)
    rec[1].dense()
    wait_for(rec.layers[1], "compared")
    assert rec.verified == (1, 3)
    assert [layer.checksum.state for layer in rec.layers] == ["not yet", "compared", "not yet"]


def test_damaged_file_is_refused_from_when_it_is_known(large):
    damage(large, 1)
    rec = softmap.load(large)
    answers = Answers(rec, layer=0, head=0)
    rec[1]
    wait_for(rec.layers[1], "wrong")
    tile = {"head": "0", "zoom": "0", "row": "0", "column": "0"}
    asks = [
        lambda: rec[1],
        lambda: rec[1, 0],
        lambda: rec.row(1),
        lambda: rec.top(1, layer=1),
        rec.to_arrow,
        lambda: softmap.heads(rec),
        lambda: softmap.explain(rec, layer=1, head=0),
        lambda: answers.ask("tile", {"layer": "1", **tile}),
        lambda: answers.ask("thumbs", {"layer": "1"}),
        lambda: answers.ask("received", {"heads": "0.1,1.0"}),
    ]
    for ask in asks:
        with pytest.raises(RecordingError, match=r"layer-001\.safetensors: expected the SHA-256 .* may be wrong\."):
            ask()
    answers.ask("tile", {"layer": "0", **tile})
    rec[0].dense()
    assert rec.verified[1] == 3


def test_answer_that_was_computed_while_the_damage_was_found_is_not_given(large, monkeypatch):
    damage(large, 1)
    rec = softmap.load(large)
    answers = Answers(rec, layer=0, head=0)
    monkeypatch.setattr(type(rec.layers[1].checksum), "look", _compare_second_time([]))
    with pytest.raises(RecordingError):
        answers.ask("thumbs", {"layer": "1"})


def _compare_second_time(calls):
    def look(self):
        calls.append(self)
        if len(calls) > 1 and self.state == "not yet":
            self.compare()
        if self._error is not None:
            raise RecordingError(*self._error.args)

    return look


def test_page_and_info_say_what_is_known(large):
    shown = CliRunner().invoke(main, ["info", str(large)]).stdout
    assert "0 of 3 files are verified; the others as they are looked at, or by --verify" in " ".join(shown.split())
    assert "all files are as they were written" in CliRunner().invoke(main, ["info", str(large), "--verify"]).stdout
    rec = softmap.load(large)
    answers = Answers(rec, layer=0, head=0)
    assert answers.ask("about", {})["verified"][1] == 3
    answers.ask("thumbs", {"layer": "2"})
    wait_for(rec.layers[2], "compared")
    assert answers.ask("about", {})["verified"][0] >= 1


def test_small_recording_is_compared_at_once_and_one_in_memory_has_nothing_to_compare(tmp_path):
    made = make_recording()
    assert made.verified == (0, 0)
    made.save(tmp_path / "run")
    assert softmap.load(tmp_path / "run").verified == (2, 2)
    unread = softmap.load(tmp_path / "run", verify=False)
    unread[0].dense()
    assert [layer.checksum.state for layer in unread.layers] == ["never", "never"]


def test_manifest_that_is_too_large_is_refused_before_it_is_read(tmp_path):
    make_recording().save(tmp_path / "run")
    with (tmp_path / "run" / "manifest.json").open("r+b") as file:
        file.truncate(3 << 30)  # zeros that take no room
    started = time.monotonic()
    with pytest.raises(RecordingError, match=r"a manifest of at most 134,217,728 bytes, got 3,221,225,472"):
        softmap.load(tmp_path / "run")
    assert time.monotonic() - started < 1


def test_manifest_larger_than_is_read_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "LARGEST_BYTES", 3000)
    with pytest.raises(RecordingError, match="a manifest of at most 3,000 bytes"):
        make_recording(layers=8).save(tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("value", [float("inf"), float("nan"), float("-inf")])
def test_statistics_that_are_no_numbers_name_no_head(tmp_path, value):
    from softmap.viewer.export import export_html

    rec = make_recording()
    for layer in rec.layers:
        for part in (layer.summary.entropy, layer.summary.received, layer.summary.top.weights):
            part.fill_(value)
    rec.save(tmp_path / "run")
    opened = softmap.load(tmp_path / "run")
    assert all(head.role is None or abs(head.near) <= 1 for head in softmap.heads(opened).rows)
    assert not any(head.role == "broad" for head in softmap.heads(opened).rows)
    assert export_html(opened, tmp_path / "map.html") > 0


def test_sinks_that_are_no_numbers_are_refused(tmp_path):
    rec = make_recording(sinks=True)
    rec.layers[0].sinks.fill_(float("inf"))
    with pytest.raises(RecordingError, match="sinks that are finite"):
        rec.save(tmp_path / "run")
