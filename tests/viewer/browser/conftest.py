"""The map in Chromium, as its readers have it: the real server, real recordings, one page for each test."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from by_blocks import make_pieces
from recorded.builders import ORIGIN, make_layer, make_recording, make_two_texts
from viewer.browser.hostile import HOSTILE, make_hostile
from viewer.browser.reading import Reader
from viewer.pages import SOURCES, chromium

import softmap
from softmap import masks
from softmap.recorded import RecordedSequence, Recording
from softmap.viewer.export import export_html
from softmap.viewer.launch import View


@pytest.fixture(scope="package")  # no longer: where Playwright runs, no test can have an event loop of its own
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="package")
def serve():
    """A view of a recording; one for each recording."""
    views = {}

    def serve(recording):
        if id(recording) not in views:
            views[id(recording)] = recording, View(recording)
        return views[id(recording)][1]

    yield serve
    for _, view in views.values():
        view.close()


@pytest.fixture
def show(browser, serve):
    """Open the map of a recording, or of a view, as it is at an address; in the end nothing may have gone wrong."""
    readers = []

    def show(what, address="", *, view=None, **options):
        reader = Reader(browser.new_context(**{"viewport": {"width": 1280, "height": 720}} | options))
        readers.append(reader)
        reader.open(view or serve(what), address)
        return reader

    yield show
    for reader in readers:
        reader.close()
    assert [trouble for reader in readers for trouble in reader.troubles] == []


@pytest.fixture(scope="session")
def sentence(bundled):
    """all-MiniLM-L6-v2 on three words."""
    return softmap.record("I love learning", model=bundled)


@pytest.fixture(scope="session")
def causal():
    """Small heads of a decoder, one layer of which has a bias, a soft cap and learnt sinks."""
    of = {"queries": 40, "queries_of": "tokens", "keys_of": "tokens", "d_k": 8, "difference": 1e-6}
    layers = (make_layer(0, number=0, **of), make_layer(1, number=1, sinks=True, softcap=1.5, **of))
    return Recording(ORIGIN, (RecordedSequence(layers, make_pieces(40)),))


@pytest.fixture(scope="session")
def two_texts():
    return make_two_texts()


@pytest.fixture(scope="session")
def statistics():
    """Only what was counted while the model ran; no q, no k."""
    return make_recording(queries=30, keep=("summary",))


@pytest.fixture(scope="session")
def textless():
    """Queries and keys that are no tokens of a text, and not as many."""
    of = {"queries": 20, "keys": 30, "mask": masks.full(), "part": "encoder"}
    return Recording(ORIGIN, (RecordedSequence((make_layer(0, number=0, **of),), None),))


@pytest.fixture(scope="session")
def long():
    """Two layers of four heads on 700 tokens, of which each sees the 400 before it."""
    return make_recording(queries=700, d_k=64, mask=masks.causal() & masks.sliding_window(400))


@pytest.fixture(scope="session")
def file(long, tmp_path_factory):
    """It in a file that has head 1.2 whole, of head 0.1 an overview and rows, and of the others thumbnails."""
    path = tmp_path_factory.mktemp("file") / "map.html"
    page = sum(each.stat().st_size for each in SOURCES.parent.joinpath("static").glob("softmap.*"))
    with pytest.warns(UserWarning, match=r"does not hold head 0\.1 whole"):
        export_html(long, path, heads=[(1, 2), (0, 1)], rows=[650, 7], limit=(page + 700_000) / 1e6)
    return SimpleNamespace(url=path.as_uri())


@pytest.fixture(scope="session")
def hostile():
    """Tokens of all kinds that are dangerous or hard to show, one of them of 10,000 characters."""
    return make_hostile((*HOSTILE, "x" * 10_000))
