"""The compiled modules' own functions: they refuse what does not fit instead of reading beyond it."""

from __future__ import annotations

import pytest
import torch
from test_fused import compiled, every_set, normal

from softmap.kernels import fused


def arguments(**changes):
    """What a module's own sweep takes, for 4 heads on 2, 10 queries and 12 keys, with `changes`."""
    grid = {"row_edges": torch.tensor([0, 5, 10]), "key_edges": torch.tensor([0, 4, 12])}
    cells = {name: torch.empty(4, 2, 2) for name in ("cell_sum", "cell_max")}
    rows = {name: torch.empty(4, 10) for name in ("entropy", "signed_distance", "distance")}
    return {
        "q": normal(4, 10, 8), "k": normal(2, 12, 8), "v": normal(2, 12, 3), "scale": 1.0, "softcap": 0.0,
        "sinks": torch.zeros(4), "start": torch.zeros(10, dtype=torch.int64), "stop": torch.full((10,), 12),
        "offset": 0, "added": None, "logsumexp": torch.empty(4, 10, dtype=torch.float64),
        "output": torch.empty(4, 10, 3), "top_weights": torch.empty(4, 10, 5),
        "top_keys": torch.empty(4, 10, 5, dtype=torch.int64), "received": torch.empty(4, 12),
        "threads": 1, "interruptible": False,
    } | rows | grid | cells | changes  # fmt: skip


def added(value):
    return {"added": lambda *place: value}


KNOWN = {name: torch.zeros(4, 10).double() for name in ("known_high", "known_low")}
CELLS_ALONE = dict.fromkeys(
    ("v", "logsumexp", "output", "top_weights", "top_keys", "received", "entropy", "distance", "signed_distance")
)
WRONG = [
    {"q": normal(4, 10, 9)}, {"q": normal(3, 10, 8)}, {"q": normal(10, 8)}, {"q": normal(4, 0, 8)},
    {"q": normal(4, 10, 0), "k": normal(2, 12, 0)}, {"q": normal(4, 10, 8).double()}, {"q": normal(4, 10, 16)[..., ::2]},
    {"q": None}, {"q": [1.0]}, {"q": torch.zeros(4, 10, 8, dtype=torch.int32)},
    {"k": normal(2, 0, 8)}, {"k": normal(0, 12, 8)}, {"k": normal(2, 11, 8)}, {"k": normal(2, 8, 12).mT},
    {"v": normal(1, 12, 3)}, {"v": normal(2, 11, 3)}, {"v": normal(2, 12, 4)}, {"v": None},
    {"sinks": torch.zeros(3)}, {"start": torch.zeros(9, dtype=torch.int64)}, {"stop": torch.full((11,), 12)},
    {"stop": torch.full((10,), 13)}, {"start": torch.full((10,), -1)},
    {"logsumexp": torch.empty(4, 9, dtype=torch.float64)}, {"logsumexp": torch.empty(4, 10)},
    {"output": torch.empty(4, 10, 2)}, {"output": torch.empty(4, 10, 3).double()},
    {"output": torch.empty(4, 3, 10).mT}, {"entropy": torch.empty(2, 10)}, {"entropy": torch.empty(4, 20)[:, ::2]},
    {"distance": None}, {"signed_distance": torch.empty(4, 9)}, {"top_weights": torch.empty(4, 10, 4)},
    {"top_keys": None}, {"top_keys": torch.empty(4, 10, 5, dtype=torch.int32)},
    {"top_weights": torch.empty(4, 10, 65), "top_keys": torch.empty(4, 10, 65, dtype=torch.int64)},
    {"received": torch.empty(4, 10)}, {"received": torch.empty(2, 12)}, {"row_edges": torch.tensor([0, 10])},
    {"row_edges": None}, {"row_edges": torch.tensor([0, 5, 11])}, {"row_edges": torch.tensor([1, 5, 10])},
    {"row_edges": torch.tensor([0, 0, 10])}, {"key_edges": torch.tensor([0, 13, 12])},
    {"key_edges": torch.tensor([12])}, {"key_edges": torch.tensor([], dtype=torch.int64)}, {"key_edges": None},
    {"seen": torch.ones(10, dtype=torch.bool)}, {"known_high": torch.zeros(4, 10).double()},
    KNOWN | {"known_low": torch.zeros(4, 12).double()}, KNOWN,
    KNOWN | CELLS_ALONE | {"cell_sum": None, "cell_max": None, "row_edges": None, "key_edges": None},
    {"cell_max": None}, {"cell_sum": torch.empty(4, 2, 3)}, {"threads": "two"}, {"unknown": 1},
    added(None), added(torch.zeros(10, 11)), added(torch.zeros(9, 12)), added(torch.zeros(12)), added("zeros"),
]  # fmt: skip


def described(changes) -> str:
    def value(x):  # the same in every process: no address
        return tuple(x.shape) if isinstance(x, torch.Tensor) else x.__name__ if callable(x) else x

    return " ".join(f"{name} {value(x)}" for name, x in changes.items())


@every_set
@compiled
@pytest.mark.parametrize("changes", WRONG, ids=described)
def test_a_module_refuses_arrays_that_do_not_fit(instructions, changes):
    module = fused._module(instructions)
    with pytest.raises((TypeError, ValueError, RuntimeError)):
        module.sweep(**arguments(**changes))
    fits = arguments()
    module.sweep(**fits)
    torch.testing.assert_close(fits["received"].sum(1), torch.full((4,), 10.0), rtol=0.2, atol=0)  # less the sink


@compiled
@pytest.mark.parametrize("scale", [0.0, -1.0, 1e-30, 1e4])
def test_a_module_writes_every_number_of_its_results(scale):
    module = fused._module(fused.available()[0])
    given = arguments(scale=scale, threads=-3)
    results = ("logsumexp", "output", "entropy", "distance", "top_weights", "received", "cell_sum", "cell_max")
    for name in results:
        given[name].fill_(torch.nan)
    module.sweep(**given)
    assert not any(bool(given[name].isnan().any()) for name in results)


@compiled
def test_a_module_gives_cells_alone_where_rows_are_known():
    module = fused._module(fused.available()[0])
    given = arguments(**KNOWN, **CELLS_ALONE, k=torch.zeros(2, 12, 8), seen=torch.arange(12) != 5)
    module.sweep(**given)
    assert given["cell_sum"].tolist() == [[[20.0, 35.0]] * 2] * 4
    assert given["cell_max"].tolist() == [[[1.0, 1.0]] * 2] * 4
