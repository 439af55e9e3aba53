"""One file that works from disk: it says what the recording says, and loads nothing."""

from __future__ import annotations

import base64
import json
import re
import zlib

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from recorded.builders import ORIGIN, make_layer, make_recording, make_tokens
from viewer.pages import DRAWN, SOURCES, open_file, serve_channel

import softmap
from softmap import biases, masks
from softmap.cli import main
from softmap.errors import ParameterError, RecordingError, RowError, SizeError
from softmap.recorded import RecordedSequence, Recording
from softmap.viewer.answers import Answers
from softmap.viewer.export import export_html
from softmap.viewer.ingredients import Ingredients, Shared, _compact
from softmap.viewer.pieces import pack

RECORDINGS = {
    "causal": {},
    "full": {"mask": masks.full(), "kv_heads": 4},
    "window": {"mask": masks.causal() & masks.sliding_window(5), "kv_heads": 1},
    "not exact": {"mask": masks.padding([True, False] * 20) | masks.sliding_window(2, 0)},
    "soft cap": {"softcap": 1.5},
    "learnt sinks": {"sinks": True},
    "alibi": {"bias": biases.alibi([0.5, 0.25, 0.125, 0.0625])},
    "relative": {"bias": biases.relative(torch.linspace(-2, 2, 4 * 79).view(4, 79))},
    "dense bias": {"bias": biases.dense(torch.sin(torch.arange(4 * 40 * 40.0)).view(4, 40, 40))},
    "hidden by a bias": {"bias": biases.dense(torch.eye(40).mul(-torch.inf).nan_to_num(0.0, neginf=-torch.inf))},
    "large logits": {"scale": 20.0},
    "float16": {"dtype": torch.float16},
}


def questions(words):
    """One of each kind that has numbers."""
    words = {"words": int(words)}
    for sinks in ("shown", "hidden", "rescaled"):
        for how in ("max", "mean"):
            for zoom in (0, 2, 5):
                place = {"layer": 0, "head": 1, "zoom": zoom, "row": 0, "column": 0}
                yield "tile", place | words | {"how": how, "sinks": sinks}
        for direction in ("gives", "receives"):
            for unit in (0, 7):
                row = {"heads": "0.1,1.2", "of": "tokens", "unit": unit, "direction": direction, "sinks": sinks}
                yield "row", row | words
        yield "received", {"heads": "0.3", "sinks": sinks} | words
        yield "matrix", {"layer": 1, "sinks": sinks} | words
        for zoom, row, column in ((0, 7, 3), (0, 3, 7), (1, 3, 2), (3, 2, 0), (5, 0, 0)):
            place = {"layer": 0, "head": 3, "zoom": zoom, "row": row, "column": column}
            yield "pixel", place | words | {"sinks": sinks}
    yield "thumbs", {"layer": 1}
    yield "roles", {"layer": 1}
    yield "starts", {"of": "tokens"} | words
    yield "find", {"of": "tokens", "text": "WORD1"} | words
    yield "units", {"of": "tokens", "start": 3, "stop": 9} | words


def assert_equal(told, expected, tolerance=2e-6):
    """The same answer: numbers to the rounding of float32, or of float16 where they are that."""
    if isinstance(expected, dict):
        assert told.keys() == expected.keys()
        for name, value in expected.items():
            if isinstance(value, float):
                assert told[name] == pytest.approx(value, abs=tolerance, rel=2 * tolerance), name
            elif isinstance(value, dict):
                assert_equal(told[name], value, tolerance)
            else:
                assert told[name] == value, name
        return
    array = expected.array
    assert (told["dtype"], tuple(told["shape"])) == (array.dtype.name, array.shape)
    rounding = 1e-3 if array.dtype == np.float16 else tolerance
    np.testing.assert_allclose(numbers(told), array, atol=tolerance, rtol=rounding)


def size_of_page():
    """Bytes of the page itself, without what it shows."""
    static = SOURCES.parent.joinpath("static")
    return sum(file.stat().st_size for file in static.iterdir() if file.suffix in (".js", ".css"))


def numbers(told):
    return np.frombuffer(base64.b64decode(told["bytes"]), dtype=told["dtype"]).reshape(told["shape"])


def assert_same_answers(ask, answers, asked, tolerance=2e-6):
    for question, params in asked:
        expected = answers.ask(question, {key: str(value) for key, value in params.items()})
        assert_equal(ask(question, params), expected, tolerance)


@pytest.mark.parametrize("words", [False, True])
@pytest.mark.parametrize("name", RECORDINGS)
def test_the_page_computes_what_the_recording_says(browser, tmp_path, name, words):
    recording = make_recording(queries=40, **RECORDINGS[name])
    export_html(recording, tmp_path / "map.html")
    with serve_channel(browser, tmp_path / "map.html") as ask:
        # scores of hundreds are rounded to 1e-5 in float32, and the page's are not
        large = name == "large logits"
        asked = [question for question in questions(words) if not (large and question[0] == "pixel")]  # ties at 1.0
        assert_same_answers(ask, Answers(recording), asked, 5e-5 if large else 2e-6)
        assert ask.holds == ""


@pytest.mark.parametrize("words", [False, True])
def test_words_of_several_pieces_and_special_tokens(browser, tmp_path, encoder, words):
    export_html(encoder, tmp_path / "map.html")
    with serve_channel(browser, tmp_path / "map.html") as ask:
        assert_same_answers(ask, Answers(encoder), questions(words))
        for text in ("new york", "ing, and", "unbel", "me"):
            assert_same_answers(ask, Answers(encoder), [("find", {"of": "tokens", "text": text, "words": 1})])


def test_the_steps_of_a_cell(browser, tmp_path, encoder):
    export_html(encoder, tmp_path / "map.html")
    answers = Answers(encoder)
    with serve_channel(browser, tmp_path / "map.html") as ask:
        params = {"layer": 3, "head": 1, "query": 2, "key": 7, "words": 1, "lang": "zh"}
        told, expected = ask("steps", params), answers.ask("steps", {key: str(value) for key, value in params.items()})
        for section, other in zip(told.pop("sections"), expected.pop("sections"), strict=True):
            assert (section["name"], section["title"]) == (other["name"], other["title"])
            assert section["number"] == pytest.approx(other["number"], abs=2e-6, rel=2e-6)
            assert section["sentences"]
        assert told.pop("agreement")
        expected.pop("agreement")
        for one, other in zip(told.pop("top"), expected.pop("top"), strict=True):
            assert_equal(one, other)
        assert_equal(told, expected)


def test_a_text_beyond_a_page_has_an_overview_and_all_that_fits(browser, tmp_path):
    recording = make_recording(queries=700, d_k=16, mask=masks.causal() & masks.sliding_window(90))
    export_html(recording, tmp_path / "map.html", heads=[(1, 2)])
    answers = Answers(recording)
    assert answers.ask("about", {})["words_limit"] > 512
    with serve_channel(browser, tmp_path / "map.html") as ask:
        assert ask("about", {})["start"]["layer"] == 1
        assert ask("about", {})["words_limit"] == 512
        head = {"layer": 1, "head": 2, "words": 0}
        for sinks in ("shown", "hidden", "rescaled"):
            of = head | {"sinks": sinks}
            tiles = [
                of | {"zoom": zoom, "row": 0, "column": 0, "how": how} for zoom in (0, 3, 10) for how in ("max", "mean")
            ]
            tiles.append(of | {"zoom": 0, "row": 2, "column": 2})
            assert_same_answers(
                ask, answers, [("tile", params | {"how": params.get("how", "max")}) for params in tiles]
            )
            pixels = [of | {"zoom": zoom, "row": row, "column": row} for zoom, row in ((0, 600), (3, 70), (6, 3))]
            assert_same_answers(ask, answers, [("pixel", params) for params in pixels])
            row = {"heads": "1.2", "unit": 650, "sinks": sinks, "words": 1}
            assert_same_answers(ask, answers, [("row", row), ("row", row | {"direction": "receives"})])
        received = {"heads": "1.0,1.1,1.2,1.3", "words": 0}
        assert_same_answers(ask, answers, [("received", received), ("received", {"heads": "1.2", "words": 1})])
        assert "1 of 8 heads whole: 1.2." in ask.holds


def test_what_is_not_held_is_said(browser, tmp_path):
    recording = make_recording(queries=700, d_k=64)
    limit = (size_of_page() + 250_000) / 1e6  # q and k of one head would take 400,000 bytes
    with pytest.warns(UserWarning, match=r"does not hold head 0\.1 whole: what comes .* within 0\.\d+ MB\."):
        size = export_html(recording, tmp_path / "map.html", heads=[(0, 1)], rows=[7, 650], limit=limit)
    assert size == (tmp_path / "map.html").stat().st_size <= 1e6 * limit
    answers, head = Answers(recording), {"layer": 0, "head": 1, "words": 0}
    with serve_channel(browser, tmp_path / "map.html") as ask:
        tile = head | {"zoom": 3, "row": 0, "column": 0, "how": "max", "sinks": "shown"}
        row = {"heads": "0.1", "unit": 650, "words": 0}
        assert_same_answers(ask, answers, [("tile", tile), ("row", row), ("thumbs", {"layer": 1})])
        refused = {
            ("tile", "zoom"): ("tile", tile | {"zoom": 0}, "from 8 × 8 tokens in a pixel on"),
            ("tile", "head"): ("tile", tile | {"layer": 1}, "no map of layer 1, head 1. It holds 0.1."),
            ("row",): ("row", row | {"unit": 9}, "It holds those of the tokens 7, 650."),
            ("column",): ("row", row | {"direction": "receives"}, "who looks at a token"),
            ("steps",): ("steps", head | {"query": 7, "key": 1}, "does not hold the steps"),
            ("matrix",): ("matrix", {"layer": 0, "words": 0}, "not hold all heads"),
            ("received",): ("received", {"heads": "0.1", "words": 0, "sinks": "rescaled"}, "what is received"),
        }
        for question, params, said in refused.values():
            assert said in ask(question, params)["refused"]
        pixel = ask("pixel", head | {"zoom": 3, "row": 80, "column": 0, "sinks": "shown"})
        expected = answers.ask("pixel", {k: str(v) for k, v in (head | {"zoom": 3, "row": 80, "column": 0}).items()})
        assert (pixel["at"], pixel["partial"]) == (None, True)
        assert pixel["max"] == pytest.approx(expected["max"], rel=1e-3)
        assert ask.holds == "This file holds no head whole, of 8. It holds thumbnails, and of 0.1 an overview."


def test_of_heads_that_are_not_held_thumbnails_answer_for_the_coarsest_pixels(browser, tmp_path):
    recording = make_recording(queries=700, d_k=16)
    export_html(recording, tmp_path / "map.html", heads=[(1, 2)])
    answers, head = Answers(recording), {"layer": 0, "head": 3, "words": 0, "sinks": "shown"}
    with serve_channel(browser, tmp_path / "map.html") as ask:
        tile = head | {"zoom": 4, "row": 0, "column": 0, "how": "max"}
        assert_same_answers(ask, answers, [("tile", tile)])
        for other in ({"zoom": 3}, {"zoom": 5}, {"how": "mean"}, {"sinks": "hidden"}, {"words": 1}):
            assert "no map of layer 0, head 3. It holds 1.2." in ask("tile", tile | other)["refused"]
        place = {"zoom": 4, "row": 43, "column": 40}
        expected = answers.ask("pixel", {key: str(value) for key, value in (head | place).items()})
        pixel = {"rows": [688, 700], "keys": [640, 656], "mean": None, "at": None, "partial": True}
        assert ask("pixel", head | place) == pixel | {"max": pytest.approx(expected["max"], rel=1e-3)}
        unseen = ask("pixel", head | place | {"row": 3})
        assert (unseen["max"], unseen["partial"]) == (None, False)
        assert ask("pixel", head | place | {"words": 1})["max"] is None


@pytest.mark.parametrize("words", [False, True])
@pytest.mark.parametrize("name", ["causal", "learnt sinks", "hidden by a bias"])
def test_of_a_short_text_every_weight_is_held_of_heads_whose_steps_are_not(browser, tmp_path, name, words):
    recording = make_recording(queries=40, d_k=512, **RECORDINGS[name])
    export_html(recording, tmp_path / "map.html", limit=(size_of_page() + 100_000) / 1e6)
    answers = Answers(recording)
    with serve_channel(browser, tmp_path / "map.html") as ask:
        assert (
            ask.holds
            == "This file holds no head whole, of 8. It holds the weights alone in float16, without their steps."
        )
        for question, params in questions(words):
            if question == "steps" or (question == "pixel" and params["zoom"] > 0):  # ties in float16 for the largest
                continue
            told, expected = ask(question, params), answers.ask(question, {key: str(params[key]) for key in params})
            if params.get("sinks") == "rescaled":
                assert "choose sinks shown or hidden" in told["refused"]
            elif question == "pixel" and expected["at"] is not None:
                at = expected["at"] | {"score": None, "scaled": None}
                assert_equal(told, expected | {"at": at}, 1e-3)
            else:
                assert_equal(told, expected, 1e-3)
        steps = {"layer": 0, "head": 1, "query": 7, "key": 1, "words": 0}
        assert "does not hold the steps" in ask("steps", steps)["refused"]


def test_two_texts_and_none(browser, tmp_path):
    encoder = {"queries": 9, "queries_of": "tokens", "keys_of": "tokens", "part": "encoder"}
    cross = {"queries": 5, "keys": 9, "queries_of": "target", "keys_of": "tokens", "kind": "cross"}
    layers = tuple(make_layer(n, number=n, mask=masks.full(), **of) for n, of in enumerate((encoder, cross)))
    both = Recording(ORIGIN, (RecordedSequence(layers, make_tokens(9), make_tokens(5)),))
    numbered = tuple(make_layer(n, number=n, queries=6, keys=20) for n in (3, 7))
    neither = Recording(ORIGIN, (RecordedSequence(numbered, None),))
    for recording, layer in ((both, 1), (neither, 7)):
        export_html(recording, tmp_path / "map.html")
        place = {"layer": layer, "head": 1, "zoom": 0, "words": 1}
        asked = [
            ("tile", place | {"row": 0, "column": 0, "how": "max", "sinks": "hidden"}),
            ("pixel", place | {"row": 4, "column": 3}),
            ("row", {"heads": f"{layer}.1", "unit": 2, "words": 1}),
            ("received", {"heads": f"{layer}.0", "words": 1}),
        ]
        with serve_channel(browser, tmp_path / "map.html") as ask:
            assert_same_answers(ask, Answers(recording), asked)


HOSTILE = "</script><script>alert(1)</script> <img src=x onerror=alert(2)> <!-- \u2028 ]]> &lt;b> '\" end"


def test_a_file_opens_from_disk_and_no_text_runs_in_it(browser, tmp_path, bundled):
    recording = softmap.record(HOSTILE, model=bundled)
    export_html(recording, tmp_path / "map.html", layer=3, head=1)
    with open_file(browser, tmp_path / "map.html") as page:
        page.wait_for_function(DRAWN)
        assert page.title().startswith("</script><script>alert(1)</script>")
        assert page.locator(".softmap .panel").inner_text().count("onerror") == 1
        page.goto((tmp_path / "map.html").as_uri() + "#view=steps&query=2&key=3")
        assert page.locator("img").count() == 0


def test_a_long_file_opens_from_disk(browser, tmp_path):
    export_html(make_recording(queries=700), tmp_path / "map.html", heads=[(1, 2)])
    with open_file(browser, tmp_path / "map.html") as page:
        page.wait_for_function(DRAWN)
        assert "holds 1 of 8 heads whole" in page.locator(".softmap .holds").inner_text()


def test_no_text_of_the_recording_stands_in_the_file_as_it_is(tmp_path, bundled):
    export_html(softmap.record(HOSTILE, model=bundled), tmp_path / "map.html")
    text = (tmp_path / "map.html").read_text(encoding="utf-8")
    assert "<img src=x" not in text
    assert "<script>alert" not in text
    assert (
        text.count("<script")
        == text.count("</script>")
        == len(re.findall('<script type="(?:module|application/octet-stream)"', text))
    )
    (policy,) = re.findall('content-security-policy" content="([^"]*)"', text)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy


def test_all_of_a_page_is_held_and_biases_of_many_layers_once(tmp_path):
    slopes = biases.alibi([0.5, 0.25, 0.125, 0.125])
    export_html(make_recording(layers=3, queries=20, bias=slopes), tmp_path / "map.html")
    names = re.findall('data-piece="([^"]+)"', (tmp_path / "map.html").read_text(encoding="utf-8"))
    assert sum(name.startswith("q/") for name in names) == 12
    assert sum(name.startswith("k/") for name in names) == sum(name.startswith("v/") for name in names) == 6
    assert sum(name.startswith("bias/") for name in names) == 3
    assert sum(name.startswith("mask/") for name in names) == 1
    assert len(names) == len(set(names))


def test_a_bias_is_a_number_for_each_distance_where_it_can_be():
    table = biases.relative(torch.randn(2, 25), zero=3)
    assert _compact(table, 1, 9, 17).shape == (25,)
    assert np.array_equal(
        _compact(biases.dense(table.strip(range(2), range(9), range(17))), 1, 9, 17), _compact(table, 1, 9, 17)
    )
    places = biases.dense(torch.randn(9, 17))
    assert np.array_equal(_compact(places, 0, 9, 17), places.strip(range(1), range(9), range(17))[0])
    beyond = biases.from_function(lambda head, query, key: (query * key) * 0.5 + head)
    assert _compact(beyond, 0, 9, 600) is None


def test_float64_stays_float64():
    layer = make_layer(queries=9, dtype=torch.float64)
    ingredients = Ingredients(layer, 0, (), Shared())
    held = ingredients.of_head(1) | ingredients.values(1)
    assert {array.dtype for name, array in held.items() if name[0] in "qkv"} == {np.dtype(np.float64)}
    np.testing.assert_array_equal(held["q/0.1"], layer.q[1])


@pytest.mark.parametrize(("size", "known"), [(1.0, True), (1e6, False)])
def test_page_finds_the_logsumexp_of_large_scores_itself_in_its_own_rounding(size, known):
    layer = make_layer(queries=600, scale=size)
    held = Ingredients(layer, 0, (), Shared()).of_head(0)
    assert np.isfinite(held["logsumexp/0.0"]).mean() == pytest.approx(float(known), abs=0.01)
    assert np.isfinite(held["logsumexp/0.0/rest"]).mean() == pytest.approx(float(known), abs=0.01)


def test_pieces_are_planes_of_bytes():
    numbers_ = np.array([[1.5, -2.0], [3.0, 1e-9]], dtype=np.float32)
    piece = pack("q/0.0", numbers_)
    planes = np.frombuffer(zlib.decompress(base64.b64decode(piece.data)), dtype=np.uint8).reshape(4, 4)
    assert np.array_equal(np.ascontiguousarray(planes.T).view(np.float32).reshape(2, 2), numbers_)
    assert json.loads(zlib.decompress(base64.b64decode(pack("index", {"a": "<"}).data))) == {"a": "<"}


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"limit": 0}, ParameterError, "megabytes"),
        ({"limit": float("nan")}, ParameterError, "megabytes"),
        ({"limit": 0.01}, SizeError, "at least 0.* MB, for the page and its text"),
        ({"heads": [(9, 0)]}, ParameterError, "layer"),
        ({"heads": [(0, 4)]}, ParameterError, "head"),
        ({"layer": 7}, ParameterError, "layer"),
        ({"rows": ["nowhere"]}, RowError, "nowhere"),
    ],
)
def test_a_wrong_option_is_refused_and_leaves_no_file(tmp_path, options, error, said):
    with pytest.raises(error, match=said):
        export_html(make_recording(), tmp_path / "map.html", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_limit_too_small_is_refused_before_the_work(tmp_path):
    doing = []
    with pytest.raises(SizeError):
        export_html(make_recording(), tmp_path / "map.html", limit=0.01, doing=doing.append)
    assert doing == []


def test_a_batch_is_refused(tmp_path):
    with pytest.raises(RecordingError, match="one sequence"):
        export_html(make_recording(batch=2), tmp_path / "map.html")


def test_statistics_alone_are_thumbnails(tmp_path):
    export_html(make_recording(keep=("summary",)), tmp_path / "map.html")
    names = re.findall('data-piece="([^"]+)"', (tmp_path / "map.html").read_text(encoding="utf-8"))
    assert "thumbs/0" in names
    assert not any(name.startswith("q/") for name in names)


@pytest.mark.slow
def test_minilm_at_its_limit_fits_whole(tmp_path, bundled):
    recording = softmap.record("learning " * 510, model=bundled)
    size = export_html(recording, tmp_path / "map.html")
    names = re.findall('data-piece="(q/[^"]+)"', (tmp_path / "map.html").read_text(encoding="utf-8"))
    assert len(names) == 72
    assert size < 25e6


def run(*arguments):
    return CliRunner().invoke(main, ["export", *map(str, arguments)])


def test_the_command_writes_a_page_and_pictures(tmp_path):
    make_recording().save(tmp_path / "run.softmap")
    done = run(
        tmp_path / "run.softmap",
        "--html",
        tmp_path / "a.html",
        "--png",
        tmp_path / "a.png",
        "--heads",
        "1.2,0.1",
        "--rows",
        "word3,:4",
    )
    assert done.exit_code == 0, done.output
    assert done.stdout == ""
    said = [line.replace(f"{tmp_path}/", "") for line in done.stderr.splitlines()]
    assert said[:3] == ["drawing a.png", "wrote a.png", "writing a.html"]
    assert re.fullmatch(r"wrote a\.html, [\d.]+ MB", said[3])
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "a.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_a_file_says_so_where_it_holds_nothing_of_some_heads(browser, tmp_path):
    recording = make_recording(queries=40, d_k=512, layers=40)
    export_html(recording, tmp_path / "map.html", limit=(size_of_page() + 130_000) / 1e6)
    with serve_channel(browser, tmp_path / "map.html") as ask:
        kinds = ask.holds.partition("It holds ")[2]
        assert kinds == "the weights alone in float16, without their steps, or nothing."


def test_heads_that_were_asked_for_and_are_not_there_are_said(tmp_path):
    make_recording(queries=40, d_k=512).save(tmp_path / "run.softmap")
    limit = (size_of_page() + 350_000) / 1e6  # for one of them
    done = run(tmp_path / "run.softmap", "--html", tmp_path / "a.html", "--heads", "1.2,0.1,0.1", "--limit", limit)
    assert done.exit_code == 0, done.output
    (said,) = (line for line in done.stderr.splitlines() if line.startswith("Warning: "))
    assert f"{tmp_path / 'a.html'} does not hold head 0.1 whole: what comes before it leaves no room" in said


def test_heads_that_no_file_can_hold_are_said_with_the_reason_alone(tmp_path):
    mask = masks.documents([i % 2 for i in range(3000)])
    with pytest.warns(UserWarning, match=r"head 0\.1 whole: documents\(.*expected at most .* got [^.]*\.$"):
        export_html(make_recording(queries=3000, mask=mask), tmp_path / "map.html", heads=[(0, 1)])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Name a file to write"),
        (("--html", "a.html", "--how", "mean"), "--how is for --png"),
        (("--png", "a.png", "--limit", "3"), "--limit is for --html"),
        (("--html", "a.html", "--heads", "3,1"), "layer.head"),
        (("--html", "no/such/a.html"), "a file that can be written"),
        (("--png", "a.jpg"), "--png writes PNG, not .jpg, which no option writes; give --png a.png"),
        (("--html", "a.JPG"), "--html writes HTML, not .jpg, which no option writes; give --png a.png"),
        (("--html", "a.png"), "--html writes HTML, not .png; give --png a.png"),
        (("--svg", "a.pdf"), "--svg writes SVG, not .pdf; give --pdf a.pdf"),
        (("--pdf", "a.htm"), "--pdf writes PDF, not .htm; give --html a.htm"),
        (("--png", "a.v2"), None),
        (("--png", "a"), None),
    ],
)
def test_the_command_says_what_is_wrong(tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    make_recording().save(tmp_path / "run.softmap")
    done = run(tmp_path / "run.softmap", *arguments)
    assert (done.exit_code == 0) == (said is None), done.output
    assert said is None or said in done.output


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("I love learning", "A text has to be recorded first: softmap record 'I love learning' --output run.softmap"),
        ("我爱学习", "softmap record '我爱学习' --output run.softmap"),
        ("I love\nlearning", "I love learning: expected the folder of a recording, got nothing of that name"),
        ("word " * 100, 'softmap record "..." --output run.softmap'),
    ],
)
def test_a_text_is_to_be_recorded_first(tmp_path, monkeypatch, text, said):
    monkeypatch.chdir(tmp_path)
    done = run(text, "--html", "a.html")
    assert done.exit_code == 1
    assert said in done.stderr
