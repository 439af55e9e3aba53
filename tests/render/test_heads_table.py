"""How the table of heads is printed."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

import softmap
from softmap.render.heads import SIGNS, as_html, as_text
from softmap.roles import NAMED_BY, SCORES, Head, HeadTable, LayerHeads

NAMES = [*NAMED_BY, None]


def made(layers=6, heads=12, *, missing=(), kinds=("self",), **changes):
    """A table whose heads have the roles in turn."""
    random, found = np.random.default_rng(0), []
    for layer in range(layers):
        row = []
        for head in range(heads if isinstance(heads, int) else heads[layer]):
            role = NAMES[(7 * layer + head) % len(NAMES)]
            scores = dict.fromkeys(SCORES, np.nan) | {
                name: random.uniform(0, 0.4) for name in SCORES if name not in missing
            }
            if role:
                scores[NAMED_BY[role]] = random.uniform(0.9, 0.99)
            row.append(Head(layer=layer, head=head, path=f"layers.{layer}", role=role, **scores))
        queries = {name: 0 if name in missing else 1000 + layer for name in SCORES}
        least = {role: np.inf if name in missing else 0.5 for role, name in NAMED_BY.items()}
        kind = kinds[layer % len(kinds)]
        found.append(LayerHeads(layer, f"layers.{layer}", kind, "decoder", tuple(row), {}, queries, least))
    own = {"model": "a/model", "tokens": 1234, "layers": tuple(found), "notes": ()}
    return HeadTable(**own | changes)


def without_role(table, role):
    """The same heads, of which none has this role."""
    layers = []
    for layer in table.layers:
        heads = [Head(**vars(head) | {"role": None if head.role == role else head.role}) for head in layer.heads]
        layers.append(LayerHeads(**vars(layer) | {"heads": tuple(heads)}))
    return HeadTable(**vars(table) | {"layers": tuple(layers)})


def printed(table, width=80, **options):
    file = io.StringIO()
    Console(file=file, width=width, legacy_windows=False, **options).print(table)
    return file.getvalue()


def map_of(table, width):
    """The signs of the map, layer by layer."""
    signs = "".join(sign for sign, _ in SIGNS.values()) + "·"
    rows = {layer.layer: "" for layer in table.layers}
    for line in as_text(table, width).split("      role ")[0].splitlines():
        found = re.match(rf"\s*(?:self |cross )?(\d+) +((?:[{signs}] *)+)", line)
        if found and not re.match(r"\s*layer", line):
            rows[int(found[1])] += found[2].replace(" ", "")
    return [rows[layer.layer] for layer in table.layers]


@pytest.mark.parametrize("size", [(6, 12), (32, 32), (2, 40), (3, 64), (2, 128), (1, 1)])
@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_map_shows_every_head_once_and_fits(size, width):
    table = made(*size)
    signs = {None: "·"} | {role: sign for role, (sign, _) in SIGNS.items()}
    assert map_of(table, width) == ["".join(signs[head.role] for head in layer.heads) for layer in table.layers]
    assert all(cell_len(line) <= min(width, 100) for line in as_text(table, width).splitlines())


def test_numbers_of_heads_stand_over_their_signs():
    for heads, labels in ((12, range(12)), (32, range(0, 32, 5)), (64, range(0, 64, 10))):
        lines = as_text(made(2, heads), 80).splitlines()
        (ruler,) = [i for i, line in enumerate(lines) if line.strip().startswith("layer")]
        signs = [match.start() for match in re.finditer("[^ ]", lines[ruler + 1][8:])]
        for label in labels:
            place = signs[label]
            assert str(label) in lines[ruler][8:][max(0, place - 1) : place + 2]


def test_means_of_a_layer_stand_beside_its_heads():
    table = made()
    line = next(line for line in as_text(table).splitlines() if line.strip().startswith("3 "))
    heads = table.layers[3].heads
    means = [np.mean([getattr(head, name) for head in heads]) for name in ("spread", "sink", "distance")]
    assert line.split()[-3:] == [f"{means[0]:.0%}", f"{means[1]:.0%}", f"{means[2]:.1f}"]


def test_each_role_has_its_heads_counted_and_the_strongest_named():
    table = made()
    named = sorted((head for head in table.rows if head.role == "induction"), key=lambda head: -head.induction)
    line = next(line for line in as_text(table).splitlines() if " induction " in line)
    assert line.startswith(
        f"   I  induction{len(named):>12}   L{named[0].layer}H{named[0].head} {named[0].induction:.0%}"
    )
    nothing = sum(head.role is None for head in table.rows)
    assert f"   ·  nothing clear {nothing:>7}\n" in as_text(table)


def test_role_that_no_head_has_shows_who_comes_closest():
    table = without_role(made(), "induction")
    best = table.best("induction", 3)
    shown = "  ".join(f"L{head.layer}H{head.head} {head.induction:.0%}" for head in best)
    assert f"   I  induction           ·   at most {shown}\n" in as_text(table)


def test_score_that_is_missing_is_a_dash():
    table = without_role(made(missing=("same", "distance")), "same token")
    text = as_text(table)
    assert "   =  same token          ·   –\n" in text
    assert all(line.endswith(" –") for line in text.splitlines() if re.match(r"\s+[0-5] ", line))


def test_score_that_tells_too_little_to_name_a_head_is_said_to():
    table = without_role(made(), "local")
    layers = tuple(LayerHeads(**vars(layer) | {"least": layer.least | {"local": np.inf}}) for layer in table.layers)
    assert "   L  local               ·   –  too few tokens to tell\n" in as_text(
        HeadTable(**vars(table) | {"layers": layers})
    )


def test_layers_of_two_kinds_say_which_they_are():
    lines = as_text(made(4, kinds=("self", "cross"))).splitlines()
    assert [line.split()[:2] for line in lines[4:8]] == [["self", "0"], ["cross", "1"], ["self", "2"], ["cross", "3"]]
    assert map_of(made(4, kinds=("self", "cross")), 80) == map_of(made(4), 80)


def test_layers_may_have_different_numbers_of_heads():
    table = made(2, (3, 5))
    assert [len(row) for row in map_of(table, 80)] == [3, 5]
    assert "2 layers (down) of 3 or 5 heads (across)" in as_text(table)


def test_notes_and_counted_queries_are_printed():
    text = as_text(made(notes=("The layer: something is missing.",)), 100)
    assert "Means over the queries that can look there: of the same token over 1,000 to 1,005 and of" in text
    assert text.endswith("\n  The layer: something is missing.\n")


def test_piped_output_has_no_escape_codes():
    assert "\x1b" not in printed(made())
    assert "\x1b" not in str(made())


def test_terminal_colours_the_roles():
    red, green, blue = SIGNS["induction"][1]
    assert f"48;2;{red};{green};{blue}" in printed(made(), force_terminal=True, color_system="truecolor")
    assert "48;" not in printed(made(), force_terminal=True, color_system="truecolor", no_color=True)


def test_text_is_data():
    table = made(model="a<b>\x1b[31mc", notes=("<script>\x07",))
    assert "a<b>\\x1b[31mc" in as_text(table)
    page = as_html(table)
    assert "a&lt;b&gt;\\x1b" in page
    assert "<script>" not in page
    assert "\x07" not in page


def test_notebook_gets_the_map_in_colour():
    assert "background-color: #d55e00" in made()._repr_html_()


def test_recording_of_no_layers_is_an_empty_table():
    assert "0 layers" in str(made(layers=0))


def test_real_model_prints_within_its_page():
    table = softmap.heads(softmap.record("I love learning"))
    assert "L0H2 100%" in str(table)
    assert map_of(table, 80)[0][2] == "←"
