"""A head's map as a picture, and what a notebook shows of a matrix."""

from __future__ import annotations

import base64
import io
import re
import time

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.image import imread
from recorded.builders import make_recording

import softmap
from softmap import masks
from softmap.errors import ParameterError, RecordingError
from softmap.viewer import stills
from softmap.viewer.stills import Look, as_figure, as_html, floor_of, save_still


def picture_of(figure):
    """The numbers that are drawn, whether as a picture or as cells."""
    (axes,) = (axes for axes in figure.axes if axes.get_label() == "map")
    (drawn,) = axes.images or axes.collections
    return np.ma.filled(drawn.get_array(), np.nan), drawn, [text.get_text() for text in axes.texts]


def test_a_small_matrix_has_its_tokens_and_its_numbers():
    recording = make_recording(queries=6)
    weights, _, texts = picture_of(as_figure(recording, layer=1, head=2))
    expected = recording[1, 2].dense().numpy()
    assert np.allclose(np.nan_to_num(weights), expected, atol=5e-4)
    assert np.array_equal(np.isnan(weights), np.triu(np.ones((6, 6), dtype=bool), 1))
    assert texts.count("word3") == 2
    numbers = [text for text in texts if "%" in text]
    assert len(numbers) == 21
    assert numbers[11] == f"{100 * expected[4, 1]:.0f}%"


def test_a_middling_matrix_has_its_tokens_alone(encoder):
    _, _, texts = picture_of(as_figure(encoder, layer=3, head=1))
    assert texts.count("[CLS]") == 2
    assert not any(re.fullmatch(r"<?[\d.]+%", text) for text in texts)


def test_a_large_matrix_is_blocks_with_the_numbers_of_tokens(tmp_path):
    recording = make_recording(queries=1500)
    weights, drawn, texts = picture_of(as_figure(recording, layer=0, head=0))
    assert weights.shape == (750, 750)
    assert np.allclose(weights[300, 100], recording[0, 0][600:602, 200:202].max(), rtol=1e-3)
    assert "400" in texts
    assert (drawn.norm.vmin, drawn.norm.vmax) == (floor_of(1500), 1)
    save_still(recording, tmp_path / "map.png", layer=0, head=0)
    pixels = imread(tmp_path / "map.png")
    assert pixels.shape[0] > 750


def test_looks_are_those_of_the_page(encoder):
    look = Look(how="mean", scale="log", palette="cividis", sinks="hidden")
    weights, drawn, _ = picture_of(as_figure(encoder, layer=3, head=1, look=look))
    assert drawn.cmap(0.5) == colormaps["cividis"](0.5)
    assert drawn.norm.vmin == floor_of(encoder[3].keys)
    assert np.isnan(weights[:, 0]).all()
    assert floor_of(4096) == 1e-5
    rescaled, _, _ = picture_of(as_figure(encoder, layer=3, head=1, look=Look(sinks="rescaled")))
    assert np.allclose(np.nansum(rescaled, axis=1), 1, atol=2e-3)


@pytest.mark.parametrize(("kind", "first"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_every_kind_is_the_same_each_time(tmp_path, kind, first):
    paths = [tmp_path / f"{name}.{kind}" for name in ("one", "other")]
    for path in paths:
        save_still(make_recording(), path, layer=0, head=1)
    one, other = (path.read_bytes() for path in paths)
    assert one == other
    assert one.startswith(first)


def test_tokens_stay_text_in_svg(tmp_path):
    save_still(make_recording(), tmp_path / "map.svg", layer=0, head=1)
    assert ">word3</text>" in (tmp_path / "map.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"path": "map.jpg"}, ParameterError, "ends in .png, .svg, .pdf"),
        ({"layer": 9}, ParameterError, "layer"),
        ({"head": 9}, ParameterError, "head"),
    ],
)
def test_a_wrong_option_is_refused(tmp_path, options, error, said):
    options = {"path": "map.png"} | options
    with pytest.raises(error, match=said):
        save_still(make_recording(), tmp_path / options.pop("path"), **options)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_look_is_refused():
    with pytest.raises(ParameterError, match="viridis or cividis or ink"):
        Look(palette="jet")


def test_statistics_alone_have_no_map(tmp_path):
    with pytest.raises(RecordingError, match="q and k"):
        save_still(make_recording(keep=("summary",)), tmp_path / "map.png", layer=0, head=0)


def picture_in(html):
    """The colours of the picture in a notebook's output."""
    (data,) = re.findall('src="data:image/png;base64,([^"]+)"', html)
    return imread(io.BytesIO(base64.b64decode(data)), format="png")


def test_a_notebook_shows_every_weight_of_a_page():
    x, w_q, w_k, _ = softmap.example()
    matrix = softmap.AttentionMatrix(x @ w_q, x @ w_k, mask=masks.causal())
    html = matrix._repr_html_()
    colors = picture_in(html)
    assert colors.shape == (3, 3, 4)
    assert colors[0, 1, 3] == 0  # what may not be seen is nothing
    assert np.allclose(colors[1, 1], colormaps["viridis"](float(matrix[1, 1])), atol=3e-3)
    assert "AttentionMatrix(shape (3, 3)" in html


def test_a_notebook_shows_blocks_of_what_is_larger_and_nothing_of_several_heads():
    q, k = np.random.default_rng(0).standard_normal((2, 4, 2048, 8), dtype=np.float32)
    matrix = softmap.AttentionMatrix(q, k)
    assert matrix._repr_html_() is None
    html = matrix[1]._repr_html_()
    assert picture_in(html).shape[:2] == (256, 256)
    assert "the largest weight of each 8 × 8" in html


def test_a_notebook_waits_for_no_picture_of_a_very_long_matrix():
    q = np.zeros((40_000, 2), dtype=np.float32)
    assert softmap.AttentionMatrix(q, q)._repr_html_() is None


@pytest.mark.timed
def test_a_page_is_shown_at_once():
    q, k = np.random.default_rng(0).standard_normal((2, 512, 64), dtype=np.float32)
    as_html(softmap.AttentionMatrix(q, k))
    start = time.perf_counter()
    as_html(softmap.AttentionMatrix(q, k))
    assert time.perf_counter() - start < 0.5


def test_numbers_are_rounded_as_those_on_the_page():
    said = [stills._percent(weight) for weight in (0.125, 0.625, 0.0625, 0.0995, 0.09949, 1.0, 0.0004)]
    assert said == ["13%", "63%", "6.3%", "10%", "9.9%", "100%", "<0.1%"]
