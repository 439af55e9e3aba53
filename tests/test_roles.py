"""What each head does: on attention of which it is known, and against scores written out in loops."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import softmap
from softmap import AttentionMatrix, biases, masks, measures
from softmap.errors import ParameterError, RecordingError
from softmap.matrix.lazy import StageView
from softmap.measures import NEAR
from softmap.recorded import Origin, OtherLayer, RecordedLayer, RecordedSequence, Recording
from softmap.roles import SCORES, HeadTable, heads
from softmap.tensors import largest
from softmap.tokens import Tokens

N = 40
SURE = 30.0  # e^30: next to such a logit nothing else has weight


def text(ids, special=(), pieces=None):
    """Tokens of these ids, some of them special."""
    ids = tuple(map(int, ids))
    pieces = tuple(f"t{i}" for i in ids) if pieces is None else tuple(pieces)
    count = len(pieces)
    spans, special = tuple((i, i + 1) for i in range(count)), tuple(i in special for i in range(count))
    return Tokens("x" * count, ids, pieces, spans, tuple(range(count)), special, (False,) * count)


def layer(q, k, mask, *, summary=True, keep=True, **options):
    """A layer of these queries and keys, (heads, tokens, d_k)."""
    q, k = torch.as_tensor(q, dtype=torch.float32), torch.as_tensor(k, dtype=torch.float32)
    own = {"scale": 1.0, "softcap": None, "sinks": None, "bias": None}
    own |= {name: options.pop(name) for name in own if name in options}
    matrix = AttentionMatrix(q, k, mask=mask, **own)
    return RecordedLayer(
        path=options.pop("path", "layers.0.attention"),
        kind=options.pop("kind", "self"),
        part="decoder",
        shape=matrix.shape,
        q=q if keep else None,
        k=k if keep else None,
        v=None,
        mask=mask,
        summary=matrix.summary() if summary is True else summary or None,
        logsumexp=torch.as_tensor(matrix.summary(top=0, cells=0).logsumexp).double() if summary is True else None,
        largest=(largest(q), largest(k)),
        **{"queries_of": "tokens", "keys_of": "tokens"} | options,
        **own,
    )


def attending(logits, mask, **options):
    """A layer whose scores are these numbers, (heads, queries, keys): all heads share the keys."""
    logits = np.asarray(logits, dtype=np.float32)
    return layer(logits, np.eye(logits.shape[-1], dtype=np.float32)[None], mask, **options)


def recording(*layers, tokens=None, **options):
    origin = Origin("a/model", "SomeModel", None, "float32", "float32", {})
    return Recording(origin, (RecordedSequence(layers, tokens),), **options)


def looking(where, n=N):
    """Logits of a head that puts its weight, in equal parts, where it is said to, and anywhere where that is nowhere."""
    query, key = np.meshgrid(np.arange(n), np.arange(n), indexing="ij")
    return np.where(where(query, key), SURE, 0.0)


def one_head(logits, mask, tokens, **options):
    (head,) = heads(recording(attending(logits[None], mask, **options), tokens=tokens)).rows
    return head


# Heads of which it is known what they do

IDS = np.random.default_rng(0).integers(0, 12, N)  # every token several times
REPEATED = np.tile(np.random.default_rng(1).permutation(N // 2), 2)  # a random sequence, twice
PATTERNS = {
    "previous token": ("previous", lambda i, j: j == i - 1, IDS),
    "itself": ("itself", lambda i, j: j == i, IDS),
    "same token": ("same", lambda i, j: (IDS[j] == IDS[i]) & (j != i), IDS),
    "induction": ("induction", lambda i, j: (j == i - N // 2 + 1) & (i >= N // 2), REPEATED),
    "sink": ("sink", lambda i, j: j == 0, IDS),
    "local": ("near", lambda i, j: abs(i - j) <= 3, IDS),
    "broad": ("spread", lambda i, j: i < 0, IDS),
}


@pytest.mark.parametrize("mask", [masks.causal(), masks.full()], ids=repr)
@pytest.mark.parametrize("role", PATTERNS)
def test_head_is_named_by_what_it_does(role, mask):
    score, where, ids = PATTERNS[role]
    head = one_head(looking(where), mask, text(ids))
    assert head.role == role
    assert getattr(head, score) == pytest.approx(1, abs=0.04 if role in ("same token", "induction") else 1e-4)


def test_next_token_head_is_named():
    head = one_head(looking(lambda i, j: j == i + 1), masks.full(), text(IDS))
    assert (head.role, round(head.next, 4)) == ("next token", 1)


def test_head_that_is_confined_to_a_window_is_local_though_its_weights_are_equal():
    head = one_head(np.zeros((N, N)), masks.sliding_window(3), text(IDS))
    assert (head.role, round(head.near, 4), round(head.spread, 4)) == ("local", 1, 1)


def test_special_tokens_are_sinks_wherever_they_stand():
    head = one_head(looking(lambda i, j: j == N - 1), masks.full(), text(IDS, special={0, N - 1}))
    assert head.role == "sink"
    assert (head.sink, head.special, head.first) == pytest.approx((1, 1, 0), abs=1e-4)


def test_learnt_sink_is_a_sink():
    head = one_head(np.zeros((N, N)), masks.causal(), text(IDS), sinks=torch.tensor([SURE]))
    assert head.role == "sink"
    assert (head.sink, head.first, head.entropy) == pytest.approx((1, 0, 0), abs=1e-6)


def test_special_tokens_are_no_occurrences_of_a_word():
    """[SEP] at 2 and 5: who looks from one to the other, or from a word to the [SEP] after it, looks at a sink."""
    ids, special = [7, 8, 1, 7, 9, 1, 8, 7] * 5, {i for i in range(N) if i % 8 in (2, 5)}
    tokens = text(ids, special)
    head = one_head(looking(lambda i, j: np.isin(j % 8, (2, 5))), masks.full(), tokens)
    assert head.role == "sink"
    assert (head.same, head.induction) == pytest.approx((0, 0), abs=1e-6)


def test_induction_counts_the_queries_whose_token_came_before():
    table = heads(recording(attending(looking(PATTERNS["induction"][1])[None], masks.causal()), tokens=text(REPEATED)))
    assert table.layers[0].queries["induction"] == N // 2
    assert table.layers[0].queries["previous"] == N - 1
    assert table.rows[0].induction == pytest.approx(1, abs=1e-5)


def test_head_that_does_a_little_of_everything_has_no_name():
    head = one_head(looking(lambda i, j: (j == i - 1) | (j == i // 2) | (j == 0)), masks.causal(), text(IDS))
    assert head.role is None


@pytest.mark.parametrize(("share", "role"), [(0.79, "local"), (0.81, "previous token")])
def test_previous_token_head_is_the_one_explain_calls_so(share, role):
    before = looking(lambda i, j: j == i - 1)
    logits = np.where(before > 0, np.log(share / (1 - share) * (N - 1)), 0)
    assert one_head(logits, masks.full(), text(IDS)).role == role


def test_score_names_no_head_where_equal_weights_score_as_much():
    """Of a text of one word each head looks at that word; of a short one, each is near."""
    same = heads(recording(attending(np.zeros((1, N, N)), masks.causal()), tokens=text([3] * N)))
    assert same.rows[0].same == pytest.approx(1 - np.mean(1 / np.arange(2, N + 1)), abs=1e-6)
    assert same.rows[0].role == "broad"
    short = looking(lambda i, j: abs(i - j) <= 3, n=8)
    assert one_head(short, masks.full(), text(range(8))).role != "local"


def test_few_queries_name_no_head():
    tokens = text([*range(N - 3), 0, 1, 2])
    head = one_head(looking(lambda i, j: j == i - N + 3), masks.causal(), tokens)
    assert head.same == pytest.approx(1, abs=1e-5)
    assert head.role == "broad"
    tokens = text([*range(N - 4), 0, 1, 2, 3])
    assert one_head(looking(lambda i, j: j == i - N + 4), masks.causal(), tokens).role == "same token"


def test_heads_that_share_keys_have_roles_of_their_own():
    logits = np.stack([looking(PATTERNS[role][1]) for role in ("previous token", "sink", "broad", "itself")])
    keys = np.stack([np.eye(N), np.eye(N)[::-1]])
    turned = np.concatenate([logits[:2], logits[2:, :, ::-1]])
    table = heads(recording(layer(turned, keys, masks.causal()), tokens=text(IDS)))
    assert [head.role for head in table.rows] == ["previous token", "sink", "broad", "itself"]


def test_bundled_model_has_the_heads_that_are_known():
    words = "The committee, which had met twice before, finally agreed that the old bridge should be rebuilt."
    recorded = softmap.record(words)
    table = softmap.heads(recorded)
    assert (table.model, table.tokens) == (recorded.origin.model, len(recorded.tokens))
    told = [(each.layer, each.path, each.kind, each.part) for each in table.layers]
    assert told == [(each.number, each.path, each.kind, each.part) for each in recorded.layers]
    assert table["role"].shape == (6, 12)
    assert table["role"][0, 2] == "previous token"
    assert table["previous"][0, 2] > 0.95
    assert table.best("previous", 1)[0] is table.rows[2]
    sink = table.best("sink", 1)[0]
    assert (sink.layer, sink.head, sink.role) == (4, 5, "sink")
    weights = recorded[4, 5].dense().numpy()
    assert sink.special == pytest.approx(weights[:, [0, -1]].sum(1).mean(), abs=1e-5)


# Every score, against loops over the dense matrix


def by_loops(weights, seen, tokens, *, learnt):
    """Scores of one head, what equal weights would score, and over how many queries each is a mean."""
    n = len(weights)
    count = seen.sum(1)
    ids, special = tokens.ids, tokens.special
    kinds = {
        "first": lambda i, j: j == 0,
        "special": lambda i, j: special[j],
        "previous": lambda i, j: j == i - 1,
        "next": lambda i, j: j == i + 1,
        "itself": lambda i, j: j == i,
        "same": lambda i, j: ids[i] == ids[j] and i != j and not special[i] and not special[j],
        "induction": lambda i, j: (
            1 <= j < i and ids[j - 1] == ids[i] and not (special[i] or special[j] or special[j - 1])
        ),
    }
    found = {}
    for name, kind in kinds.items():
        places = [[j for j in range(n) if seen[i, j] and kind(i, j)] for i in range(n)]
        able = [i for i in range(n) if places[i]]
        score = [sum(weights[i, j] for j in places[i]) for i in able]
        found[name] = score, [len(places[i]) / count[i] for i in able]
    either = [[j for j in range(n) if seen[i, j] and (j == 0 or special[j])] for i in range(n)]
    able = [i for i in range(n) if either[i] or learnt]
    rest = 1 - weights.sum(1) if learnt else np.zeros(n)
    sink = [sum(weights[i, j] for j in either[i]) + rest[i] for i in able]
    found["sink"] = sink, [len(either[i]) / max(count[i], 1) for i in able]
    near = [[j for j in range(n) if abs(i - j) <= NEAR] for i in range(n)]
    able = [i for i in range(n) if count[i]]
    found["near"] = [weights[i, near[i]].sum() for i in able], [len(near[i]) / n for i in able]
    able = [i for i in range(n) if count[i] > 1]
    entropy = [-sum(w * np.log(w) for w in weights[i] if w > 0) for i in able]
    most = [np.log(count[i]) for i in able]
    found["entropy"] = entropy, most
    able = [i for i in range(n) if count[i] > seen[i, i]]
    found["distance"] = [sum(weights[i, j] * abs(i - j) for j in range(n)) for i in able], [np.nan]
    scores = {
        name: (np.mean(score) if score else np.nan, np.mean(uniform) if score else np.nan, len(score))
        for name, (score, uniform) in found.items()
    }
    scores["spread"] = (scores["entropy"][0] / scores["entropy"][1], 1 if entropy else np.nan, len(entropy))
    return scores


MASKS = {
    "full": masks.full(),
    "causal": masks.causal(),
    "window": masks.sliding_window(2, 1),
    "strict": masks.from_function(lambda i, j: j < i),
    "scattered": masks.from_function(lambda i, j: (3 * i + 5 * j) % 4 > 0),
    "prefix": masks.causal() | masks.prefix(3),
}


@given(
    ids=st.lists(st.integers(0, 4), min_size=1, max_size=14),
    special=st.sets(st.integers(0, 13), max_size=3),
    mask=st.sampled_from(sorted(MASKS)),
    kv_heads=st.sampled_from([1, 2, 4]),
    seed=st.integers(0, 99),
    sinks=st.booleans(),
    biased=st.booleans(),
    summary=st.booleans(),
    strip=st.sampled_from([1, 20, 1 << 22]),
)
@settings(max_examples=120, deadline=None)
@pytest.mark.slow
def test_scores_are_those_of_loops_over_the_dense_matrix(
    ids, special, mask, kv_heads, seed, sinks, biased, summary, strip
):
    random, n = np.random.default_rng(seed), len(ids)
    q, k = random.normal(size=(4, n, 6)) * 2, random.normal(size=(kv_heads, n, 6))
    options = {"sinks": torch.tensor([0.5, -1, 2, 0]) if sinks else None}
    options["bias"] = biases.alibi([0.5, 0.25, 0.1, 0.0]) if biased else None
    own, tokens = layer(q, k, MASKS[mask], summary=summary, **options), text(ids, special)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measures, "STRIP", strip)
        (found,) = heads(recording(own, tokens=tokens)).layers
    seen = MASKS[mask].strip(range(n), range(n)).numpy()
    for head, weights in zip(found.heads, own.matrix.dense().double().numpy(), strict=True):
        expected = by_loops(weights, seen, tokens, learnt=sinks)
        for name in SCORES:
            got = getattr(head, name), found.uniform[name], found.queries[name]
            assert got == pytest.approx(expected[name], abs=2e-5, nan_ok=True), name


def test_large_scores_are_told_to_the_rounding_of_a_pass():
    """Each row's logsumexp is in the hundreds, where float32 keeps four decimals of it."""
    random = np.random.default_rng(5)
    own = layer(random.normal(size=(2, N, 16)) * 100, random.normal(size=(1, N, 16)), masks.causal())
    assert own.logsumexp[:, N // 2 :].min() > 100
    table = heads(recording(own, tokens=text(IDS)))
    weights = own.matrix.dense().numpy()
    same = np.tril(IDS[:, None] == IDS, -1)
    np.testing.assert_allclose(table["previous"][0], weights.diagonal(-1, 1, 2).mean(1), atol=1e-3)
    np.testing.assert_allclose(table["same"][0], (weights * same).sum((1, 2)) / same.any(1).sum(), atol=1e-3)


def test_tokens_without_ids_are_compared_by_their_pieces():
    pieces = [f"p{i % 10}" for i in range(N)]
    by_pieces = one_head(looking(lambda i, j: i % 10 == j % 10), masks.causal(), text([], pieces=pieces))
    by_ids = one_head(looking(lambda i, j: i % 10 == j % 10), masks.causal(), text([i % 10 for i in range(N)]))
    assert by_pieces.same == by_ids.same > 0.5
    assert by_pieces.induction == by_ids.induction


def test_nothing_of_the_size_of_all_pairs_is_made_of_a_text_of_one_word():
    """Its pairs of equal tokens are all there are: 2,048² of them, of which a tile at a time is looked at."""
    n, sizes = 2048, []
    random = torch.Generator().manual_seed(0)
    own = layer(*(torch.randn(4, n, 8, generator=random) for _ in range(2)), masks.causal())
    take = StageView.__getitem__

    def watched(matrix, index):
        tile = take(matrix, index)
        sizes.append(tile.numel())
        return tile

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StageView, "__getitem__", watched)
        table = heads(recording(own, tokens=text([5] * n)))
    assert 0 < max(sizes) <= 1 << 22
    assert len(sizes) > 8
    weights = own.matrix[0].dense().double()
    assert table.rows[0].same == pytest.approx(float((weights.sum() - weights.trace()) / (n - 1)), abs=1e-5)


# What is missing is said


def test_statistics_alone_give_what_follows_from_them():
    tokens = text(IDS, special={N - 1})
    logits = np.stack([looking(PATTERNS["sink"][1]), looking(PATTERNS["broad"][1]), looking(PATTERNS["itself"][1])])
    whole = heads(recording(attending(logits, masks.full()), tokens=tokens))
    alone = heads(recording(attending(logits, masks.full(), keep=False), tokens=tokens))
    assert [head.role for head in alone.rows] == ["sink", "broad", None]
    for name in SCORES:
        if name in ("entropy", "spread", "sink", "first", "special", "distance"):
            np.testing.assert_array_equal(alone[name], whole[name])
        else:
            assert np.isnan(alone[name]).all(), name
    assert alone.notes == ("The layer: q and k were not kept: no previous, next, itself, near, same, induction.",)


def test_statistics_that_lack_something_are_said_to():
    whole = attending(np.zeros((1, N, N)), masks.causal())
    partly = whole.matrix.summary(entropy=False, received=False, distance=False)
    (head,) = (table := heads(recording(replace(whole, summary=partly, q=None, k=None), tokens=text(IDS)))).rows
    assert np.isnan([getattr(head, name) for name in SCORES]).all()
    assert table.notes == (
        "The layer: neither q and k nor entropy was kept: no entropy, spread; neither q and k nor received was kept: "
        "no first, special, sink; neither q and k nor distance was kept: no distance; "
        "q and k were not kept: no previous, next, itself, near, same, induction.",
    )
    again = heads(recording(replace(whole, summary=partly), tokens=text(IDS)))
    np.testing.assert_allclose(again["entropy"], heads(recording(whole, tokens=text(IDS)))["entropy"])


def test_cross_attention_has_no_scores_of_places():
    own = attending(np.zeros((2, N, N)), masks.full(), kind="cross", queries_of="target")
    table = heads(recording(own, tokens=text(IDS)))
    assert table.layers[0].kind == "cross"
    for name in ("previous", "next", "itself", "near", "same", "induction", "distance"):
        assert np.isnan(table[name]).all()
    assert table["spread"] == pytest.approx(np.ones((1, 2)), abs=1e-6)
    assert table["sink"] == pytest.approx(np.full((1, 2), 1 / N), abs=1e-6)
    assert table.notes == (
        "The layer: queries and keys of cross-attention are of two texts: no previous, next, itself, near, same, "
        "induction, distance; the text has no special tokens that a query sees.",
    )


def test_layer_without_a_text_has_no_scores_of_tokens():
    own = attending(looking(PATTERNS["previous token"][1])[None], masks.full(), queries_of=None, keys_of=None)
    table = heads(recording(own))
    assert table.rows[0].role == "previous token"
    assert np.isnan([table.rows[0].same, table.rows[0].induction, table.rows[0].special]).all()
    assert table.notes == ("The layer: keys are no tokens of a text: no special, same, induction.",)
    assert table.tokens is None


def test_layer_whose_text_is_not_in_the_recording_says_so():
    table = heads(recording(attending(np.zeros((1, N, N)), masks.full()), partial="cut off after 1 complete layer"))
    assert table.notes == (
        "The layer: the text is not in the recording: no special, same, induction.",
        "The recording is not whole: cut off after 1 complete layer.",
    )


def test_queries_of_a_part_of_the_keys_have_no_scores_of_places():
    own = attending(np.zeros((1, 5, N)), masks.causal(N - 5))
    (note,) = heads(recording(own, tokens=text(IDS, special={0}))).notes
    assert note == (
        "The layer: queries and keys are not the same tokens: no previous, next, itself, near, same, induction, distance."
    )


def test_each_reason_names_its_layers():
    tokens, logits = text(IDS, special={0}), np.zeros((1, N, N))
    plain, lean = attending(logits, masks.full()), attending(logits, masks.full(), keep=False)
    others = (OtherLayer("a", "Mamba"), OtherLayer("b", "Mamba"), OtherLayer("c", "Odd", "not through the interface"))
    table = heads(recording(plain, lean, plain, lean, attending(logits, masks.causal()), tokens=tokens, others=others))
    assert table.notes == (
        "Layers 1 and 3: q and k were not kept: no previous, next, itself, near, same, induction.",
        "Layer 4: no query sees the token after it.",
        "Not in the table: 2 layers of Mamba (no softmax attention).",
        "Not in the table: 1 layer of Odd (not through the interface).",
    )


def test_layers_that_were_picked_out_say_which_they_are():
    layers = [replace(attending(np.zeros((1, N, N)), masks.full()), number=number) for number in (2, 5)]
    table = heads(recording(*layers, tokens=text(IDS, special={0})))
    assert [row.layer for row in table.rows] == [2, 5]
    assert table.notes == ()


def test_one_token_has_nothing_to_look_at():
    table = heads(recording(attending(np.zeros((1, 1, 1)), masks.causal()), tokens=text([4])))
    (head,) = table.rows
    assert head.role is None
    assert (head.first, head.itself, head.near) == (1, 1, 1)
    assert np.isnan([head.entropy, head.spread, head.previous, head.distance, head.same]).all()


# The table


@pytest.fixture(scope="module")
def table():
    """Two layers of different numbers of heads."""
    names = ("previous token", "sink", "broad")
    first = attending(np.stack([looking(PATTERNS[name][1]) for name in names]), masks.causal(), path="first")
    second = attending(np.stack([looking(PATTERNS[name][1]) for name in ("itself", "sink")]), masks.causal())
    return heads(recording(first, second, tokens=text(IDS)))


def test_table_gives_a_score_of_all_heads_as_an_array(table):
    assert [(head.layer, head.head, head.path) for head in table.rows[:4]] == [
        *((0, i, "first") for i in range(3)),
        (1, 0, "layers.0.attention"),
    ]
    found = table["previous"]
    assert found.shape == (2, 3)
    assert found[0, 0] == table.rows[0].previous
    assert np.isnan(found[1, 2])
    assert table["role"].tolist() == [["previous token", "sink", "broad"], ["itself", "sink", None]]


def test_best_heads_come_in_falling_order(table):
    best = table.best("previous", 3)
    assert [(head.layer, head.head) for head in best] == [(0, 0), (0, 2), (0, 1)]
    assert best[0].previous >= best[1].previous >= best[2].previous
    assert len(table.best("first", 100)) == 5
    assert table.best("next") == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda table: table.best("duplicate"), "name: expected a score: entropy, spread, sink, first"),
        (lambda table: table["heads"], "name: expected a score: role, entropy, spread, sink, first"),
        (lambda table: table.best("same", 0), "k: expected a whole number of at least 1, got 0. It is how many heads"),
        (lambda table: table.best("same", True), "k: expected a whole number of at least 1, got True."),
    ],
)
def test_what_the_table_lacks_is_refused(table, call, message):
    with pytest.raises(ParameterError) as refusal:
        call(table)
    assert str(refusal.value).startswith(message)


def test_json_has_everything_and_null_for_what_is_missing(table):
    data = json.loads(table.json())
    assert (data["format"], data["version"], data["model"], data["tokens"]) == ("softmap.heads", 1, "a/model", N)
    head = data["layers"][1]["heads"][0]
    assert head["role"] == "itself"
    assert head["next"] is None
    assert head["itself"] == table.rows[3].itself
    assert set(head) == {"layer", "head", "path", "role", *SCORES}
    assert data["layers"][0]["queries"]["previous"] == N - 1
    assert data["layers"][0]["least"]["sink"] == pytest.approx((1 + data["layers"][0]["uniform"]["sink"]) / 2)
    assert data["layers"][0]["least"]["next token"] is None
    assert data["notes"] == list(table.notes)


def test_repr_counts_the_roles(table):
    assert repr(table) == ("HeadTable('a/model', 5 heads in 2 layers: 1 previous token, 1 itself, 2 sink, 1 broad)")


def test_heads_without_a_role_are_counted_as_nothing_clear():
    mixed = heads(recording(attending(np.zeros((2, 3, 3)), masks.full()), tokens=text([1, 2, 3])))
    assert repr(mixed).endswith("2 heads in 1 layers: 2 nothing clear)")


def test_table_without_layers_has_no_scores():
    assert HeadTable("a/model", None, (), ())["entropy"].shape == (0, 0)


def test_note_says_whether_it_is_of_all_layers_and_lists_several():
    lean = attending(np.zeros((1, N, N)), masks.full(), keep=False)
    plain = attending(np.zeros((1, N, N)), masks.full())
    tokens = text(IDS, special={0})
    lost = "q and k were not kept: no previous, next, itself, near, same, induction."
    assert heads(recording(lean, tokens=tokens)).notes == (f"The layer: {lost}",)
    assert heads(recording(lean, lean, tokens=tokens)).notes == (f"All layers: {lost}",)
    assert heads(recording(lean, lean, lean, plain, tokens=tokens)).notes == (f"Layers 0, 1 and 2: {lost}",)


def test_refusal_of_a_score_says_where_they_are_explained(table):
    with pytest.raises(ParameterError, match=r"got 'heads'\. docs/explanation/heads\.md says what each of them is\.$"):
        table["heads"]


def test_progress_counts_layers():
    own, told = attending(np.zeros((1, N, N)), masks.causal()), []
    heads(recording(own, own, tokens=text(IDS)), progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 2), (2, 2)]


def test_batch_of_several_sequences_is_refused():
    one = RecordedSequence((attending(np.zeros((1, N, N)), masks.causal()),), text(IDS))
    with pytest.raises(RecordingError, match="Take one"):
        heads(replace(recording(*one.layers, tokens=one.tokens), sequences=(one, one)))
