"""What the page says where a recording, or the server, goes away while it is open."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from by_blocks import HALF
from playwright.sync_api import expect
from recorded.builders import make_recording

from softmap import masks
from softmap.recorded.storage import load
from softmap.viewer.launch import View


class Unreadable(masks.Mask):
    """A causal mask in a file that can be read until it is told not to."""

    error = None

    def visible(self, query, key):
        if self.error is not None:
            raise self.error
        return key <= query


def heads_of(recording, layer, head):
    return recording[layer, head].dense().numpy().astype(float)


def test_recording_whose_folder_is_deleted_is_shown_on(show, tmp_path):
    made = make_recording(queries=30)
    made.save(tmp_path / "run.softmap")
    with View(load(tmp_path / "run.softmap")) as view:
        reader = show(None, "words=0&layer=0&head=0", view=view)
        shutil.rmtree(tmp_path / "run.softmap")
        reader.go(words=0, layer=1, head=3, query=4, view="steps")
        reader.page.locator(".told").wait_for()
        shown = np.where(np.tri(30, dtype=bool), heads_of(made, 1, 3), np.nan)
        np.testing.assert_allclose(reader.weights(range(30), range(30)), shown, **HALF)
        expect(reader.page.locator(".notice")).to_be_hidden()


def test_files_that_can_not_be_read_are_said_to_be_so_and_the_page_goes_on(show):
    mask = Unreadable()
    recording = make_recording(queries=30, mask=mask)
    with View(recording) as view:
        reader = show(None, "words=0&layer=0&head=0", view=view)
        reader.page.wait_for_load_state("networkidle")
        before = reader.weights(range(30), range(30))
        mask.error = OSError(5, "Input/output error")
        reader.page.locator('.cell[data-layer="0"][data-head="2"]').click()
        notice = reader.page.locator(".notice")
        expect(notice).to_contain_text("expected files that can be read, got Input/output error")
        notice.get_by_role("button", name="Dismiss").click()
        expect(notice).to_be_hidden()
        mask.error = None
        reader.page.locator('.cell[data-layer="0"][data-head="0"]').click()
        reader.settle()
        np.testing.assert_array_equal(reader.weights(range(30), range(30)), before)
        expect(notice).to_be_hidden()
        reader.page.locator('.cell[data-layer="0"][data-head="2"]').click()  # it is asked for again
        reader.settle()
        shown = np.where(np.tri(30, dtype=bool), heads_of(recording, 0, 2), np.nan)
        np.testing.assert_allclose(reader.weights(range(30), range(30)), shown, **HALF)
        reader.expect_trouble("status of 410", "Input/output error")


def test_command_that_is_interrupted_ends_though_a_page_is_open(show, tmp_path):
    make_recording(queries=30).save(tmp_path / "run.softmap")
    command = [sys.executable, "-c", "from softmap.cli import main; main()", "view", "--no-browser"]
    with subprocess.Popen([*command, tmp_path / "run.softmap"], stdout=subprocess.PIPE, text=True) as process:
        reader = show(None, "words=0&layer=0&head=0", view=SimpleNamespace(url=process.stdout.readline().strip()))
        reader.page.wait_for_load_state("networkidle")  # thumbnails that still come would be answered 503
        assert reader.weights([0], [0]) == 1
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(10) == 130
        finally:
            process.kill()  # or leaving the block would wait for it
    reader.page.locator('.cell[data-layer="0"][data-head="2"]').click()
    expect(reader.page.locator(".notice")).to_contain_text("The server does not answer any more")
    reader.expect_trouble("ERR_CONNECTION_", "does not answer any more")


@pytest.mark.parametrize(("lang", "words"), [("en", "The server does not answer any more"), ("zh", "服务器不再回答")])
def test_server_that_ended_is_said_once_and_not_asked_on_and_on(show, lang, words):
    view = View(make_recording(queries=300))
    reader = show(None, f"words=0&layer=0&head=0&lang={lang}", view=view)
    reader.page.wait_for_load_state("networkidle")
    before = reader.weights(range(0, 300, 7), range(0, 300, 7))
    view.close()
    asked = len(reader.asked)
    reader.page.locator('.cell[data-layer="1"][data-head="2"]').click()
    notice = reader.page.locator(".notice")
    expect(notice).to_contain_text(words)
    reader.page.wait_for_timeout(1500)
    assert len(reader.asked) - asked < 10
    assert re.search(r"softmap view|rec\.view", notice.inner_text())
    notice.get_by_role("button").click()
    reader.page.wait_for_timeout(300)
    expect(notice).to_be_hidden()
    reader.page.locator('.cell[data-layer="0"][data-head="0"]').click()  # what was shown is still there
    reader.page.wait_for_timeout(500)
    np.testing.assert_array_equal(reader.weights(range(0, 300, 7), range(0, 300, 7)), before)
    reader.expect_trouble("ERR_CONNECTION_", "does not answer any more")
