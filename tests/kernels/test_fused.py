"""What only the compiled kernel can get wrong: threads, locks, interrupts, memory, and the addresses it is handed."""

from __future__ import annotations

import ctypes
import math
import os
import platform
import subprocess
import sys
import textwrap
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch
from problems import assert_agree, tensors

from softmap import biases, kernels, masks
from softmap.errors import NonFiniteError, ParameterError
from softmap.kernels import added, fused
from softmap.kernels.contract import Grid, Problem, Statistics, Wanted

compiled = pytest.mark.skipif(not fused.available(), reason=fused.missing())
every_set = pytest.mark.parametrize("instructions", fused.available() or [pytest.param("none", marks=compiled)])


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def random(tokens: int = 200, heads: int = 4, d: int = 16, mask: masks.Mask | None = None) -> Problem:
    q, k = normal(heads, tokens, d), normal(max(1, heads // 2), tokens, d, seed=1)
    return Problem(q, k, masks.causal() if mask is None else mask, 0.3)


def everything(problem: Problem) -> Wanted:
    heads, queries, keys = problem.shape
    grid = Grid((0, queries // 3, queries), (0, keys // 2 + 1, keys))
    return Wanted(normal(heads // problem.group, keys, 7, seed=2), 8, True, True, True, grid)


def sweep(problem: Problem, wanted: Wanted | None = None, instructions: str | None = None) -> Statistics:
    return fused.sweep(problem, wanted or everything(problem), instructions or fused.available()[0])


def same(one: Statistics, other: Statistics) -> bool:
    """To the last bit."""
    return all(torch.equal(a, b) for a, b in zip(tensors(one), tensors(other), strict=True))


def arbitrary() -> masks.Mask:
    """A mask whose booleans the kernel has to ask Python for."""
    return masks.from_function(lambda query, key: (3 * query + 7 * key) % 5 < 3)


# ---- which modules there are


@pytest.fixture
def modules(monkeypatch):
    """The modules that seem to be built, by name."""
    built: dict[str, SimpleNamespace] = {}
    monkeypatch.setattr(fused, "_module", built.get)
    fused.available.cache_clear()
    yield built
    fused.available.cache_clear()


@pytest.mark.usefixtures("modules")
def test_without_modules_nothing_is_available_and_missing_says_what_to_do():
    assert fused.available() == ()
    assert "compiler" in fused.missing()
    assert kernels.sweep(random(), Wanted())[1:] == ("strips", fused.missing())


def test_a_module_that_the_processor_cannot_run_is_not_available(modules):
    modules["baseline"] = SimpleNamespace(runs_avx2=lambda: True, runs_avx512=lambda: False)
    modules["avx2"] = modules["avx512"] = SimpleNamespace()
    assert fused.available() == ("avx2", "baseline")


def test_a_module_that_is_not_built_is_not_available(modules):
    modules["baseline"] = SimpleNamespace(runs_avx2=lambda: True, runs_avx512=lambda: True)
    assert fused.available() == ("baseline",)


@pytest.fixture
def unloadable(modules, monkeypatch):
    """AVX-512's module is there but does not load; AVX2's is, on a processor that has both."""

    def module(name):
        if name == "avx512":
            fused._broken[name] = "undefined symbol: zmm"
        return modules.get(name)

    monkeypatch.setattr(fused, "_broken", {})
    monkeypatch.setattr(fused, "_module", module)
    modules["baseline"] = SimpleNamespace(runs_avx2=lambda: True, runs_avx512=lambda: True)
    modules["avx2"] = SimpleNamespace(sweep=lambda **arguments: None)


@pytest.mark.usefixtures("unloadable")
def test_a_module_that_does_not_load_is_told_in_the_record_the_report_and_where_it_is_forced(monkeypatch):
    monkeypatch.delenv(kernels.VARIABLE, raising=False)
    why = "does not load (undefined symbol: zmm)"
    assert kernels.sweep(random(), Wanted())[1:] == ("fused (avx2)", f"fused-avx512 {why}")
    assert kernels.report()[0] == ("fused-avx512", False, why)
    monkeypatch.setenv(kernels.VARIABLE, "fused-avx512")
    with pytest.raises(ParameterError, match=r"got fused-avx512: does not load \(undefined symbol: zmm\)"):
        kernels.first_choice()


@every_set
@compiled
def test_every_instruction_set_can_be_forced_and_is_named_in_the_record(monkeypatch, instructions):
    monkeypatch.setenv(kernels.VARIABLE, f"fused-{instructions}")
    problem = random()
    swept = kernels.sweep(problem, everything(problem))
    assert swept[1:] == (f"fused ({instructions})", f"SOFTMAP_KERNEL=fused-{instructions}")
    assert_agree(swept.statistics, problem, everything(problem))


# ---- threads


@compiled
@pytest.mark.parametrize("mask", [masks.causal(), arbitrary()], ids=["spans", "booleans"])
def test_the_number_of_threads_changes_no_bit(threads, mask):
    problem = random(700, mask=mask)
    threads(1)
    alone = sweep(problem)
    for count in (2, 5):
        threads(count)
        assert same(sweep(problem), alone)


@compiled
@pytest.mark.parametrize("mask", [masks.causal(), arbitrary()], ids=["spans", "booleans"])
def test_sweeps_at_the_same_time_change_no_bit(threads, mask):
    threads(2)
    work = [random(tokens, mask=mask) for tokens in (64, 129, 300, 517)] * 2
    alone = [sweep(problem) for problem in work]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            assert all(same(*pair) for pair in zip(pool.map(sweep, work), alone, strict=True))


@compiled
@pytest.mark.timed
def test_other_threads_run_during_a_sweep(threads):
    threads(1)
    problem = random(4096, d=64)
    sweeping = threading.Thread(target=sweep, args=(problem, Wanted(entropy=True)))
    sweeping.start()
    began, turns = time.perf_counter(), 0
    while sweeping.is_alive():
        turns += 1
        time.sleep(0.001)
    assert turns > (time.perf_counter() - began) * 50


# ---- the floating-point environment

UPWARD = {"x86_64": 0x800, "aarch64": 0x400000}.get(platform.machine())


def broken(query, key):
    raise ZeroDivisionError("on purpose")


@compiled
@pytest.mark.skipif(UPWARD is None or sys.platform != "linux", reason="its number is not known here")
@pytest.mark.parametrize("mask", [masks.causal(), masks.from_function(broken)], ids=["sweep", "exception"])
def test_the_rounding_mode_stays_as_it_was(mask):
    library = ctypes.CDLL("libm.so.6")
    problem = random(mask=mask)
    wanted = everything(problem)
    usual = sweep(random(), wanted)
    library.fesetround(UPWARD)
    try:
        found = sweep(problem, wanted)
    except ZeroDivisionError:
        found = usual
    finally:
        mode = library.fegetround()
        library.fesetround(0)
    assert mode == UPWARD
    assert same(found, usual)


@compiled
@pytest.mark.parametrize("flush", [False, True])
@pytest.mark.parametrize("mask", [masks.causal(), masks.from_function(broken)], ids=["sweep", "exception"])
def test_denormals_count_afterwards_as_they_did(flush, mask):
    if not torch.set_flush_denormal(flush):
        pytest.skip("this processor has no such mode")
    try:
        usual = sweep(random())
        try:
            found = sweep(random(mask=mask))
        except ZeroDivisionError:
            found = usual
        smallest = float.fromhex("0x1p-1074")
        assert (smallest * 3.0 == 0) == flush
    finally:
        torch.set_flush_denormal(False)
    assert same(found, usual)


@compiled
def test_a_mask_function_has_the_callers_floating_point_environment(threads):
    threads(3)
    smallest = torch.tensor([1e-40])
    seen = []

    def visible(query, key):
        seen.append(float(smallest * 3) > 0)
        return query >= key

    sweep(random(700, mask=masks.from_function(visible)))
    assert seen
    assert all(seen)


@compiled
@pytest.mark.parametrize("inference", [False, True])
def test_functions_have_the_callers_modes_on_every_thread(threads, inference):
    threads(3)
    seen = set()

    def visible(query, key):
        seen.add((torch.is_grad_enabled(), torch.is_inference_mode_enabled()))
        return query >= key

    def values(head, query, key):
        seen.add((torch.is_grad_enabled(), torch.is_inference_mode_enabled()))
        return (query - key).float()

    mask, problem = masks.from_function(visible), random(700)
    with torch.inference_mode(inference):
        kernels.sweep(Problem(problem.q, problem.k, mask, 0.3), Wanted())
        kernels.sweep(Problem(problem.q, problem.k, mask, 0.3, bias=biases.from_function(values)), Wanted())
    assert seen == {(False, inference)}


@compiled
def test_a_mask_that_needs_booleans_is_asked_for_nothing_else(monkeypatch):
    monkeypatch.setattr(added, "scaled", None)  # what a bias takes
    sweep(random(mask=arbitrary()))


@every_set
@compiled
def test_float16_below_its_normal_numbers_counts(instructions):
    q, k, v = (normal(1, 90, 12, seed=seed).half() for seed in (0, 1, 2))
    problem = Problem(q * 2e-5, k, masks.full(), 2e4)
    assert_agree(sweep(problem, Wanted(v * 2e-5), instructions), problem, Wanted(v * 2e-5))


# ---- what comes out of a sweep that does not end


@compiled
@pytest.mark.parametrize("count", [1, 3])
def test_an_exception_of_a_mask_function_comes_out_as_itself(threads, count):
    threads(count)
    usual = sweep(random(500))
    error = LookupError("a key that is not there")

    def fails_midway(query, key):
        if int(query.max()) > 250:
            raise error
        return query >= key

    with pytest.raises(LookupError) as caught:
        sweep(random(500, mask=masks.from_function(fails_midway)))
    assert caught.value is error
    assert "fails_midway" in [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    assert same(sweep(random(500)), usual)


def python(script: str, **environment: str) -> str:
    """What a script prints that runs in a process of its own; `sweep` and `random` are this module's."""
    prologue = f"import sys; sys.path[:0] = [{os.path.dirname(__file__)!r}]\n"
    prologue += (
        "from test_fused import Problem, Wanted, arbitrary, everything, fused, masks, normal, random, same, sweep\n"
    )
    environment = {**os.environ, **environment}
    command = [sys.executable, "-c", prologue + textwrap.dedent(script)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=500)
    assert run.returncode == 0, run.stderr
    return run.stdout


@compiled
@pytest.mark.parametrize("interrupts", [4, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.timed
def test_an_interrupt_stops_a_sweep_at_once_and_the_next_is_right(interrupts):
    script = f"""
        import os, signal, threading, time, torch
        torch.set_num_threads(2)
        usual, late = sweep(random()), []
        kinds = [random(8192, heads=8, d=64, mask=mask) for mask in (masks.causal(), arbitrary())]
        for i in range({interrupts}):
            long = kinds[i % 4 == 3]
            sent = []
            def interrupt():
                sent.append(time.perf_counter())
                os.kill(os.getpid(), signal.SIGINT)
            timer = threading.Timer(0.005 + 0.002 * (i % 50), interrupt)
            try:
                timer.start()
                for _ in range(20):
                    sweep(long, Wanted(entropy=True, received=True))
                timer.join()
                print("not interrupted")
            except KeyboardInterrupt:
                late.append(time.perf_counter() - sent[0])
            timer.join()
            assert same(sweep(random()), usual)
        print(len(late), max(late))
    """
    count, latest = python(script).split()
    assert int(count) == interrupts
    assert float(latest) < 1  # a machine with other work included; it takes a tenth


# ---- memory


@pytest.mark.slow
@compiled
@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_too_little_memory_is_a_memory_error_and_a_small_sweep_works_afterwards():
    """The limit is reached while keys are packed, while strips are set up, and while threads are."""
    script = """
        import resource, torch
        torch.set_num_threads(3)
        usual = sweep(random())
        q, k = normal(1, 200, 64), normal(1, 1 << 18, 64)  # 64 MiB to pack, 64 MiB a strip
        for mebibytes in (1, 20, 68, 100, 140, 180, 220, 400):
            used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + (mebibytes << 20), resource.RLIM_INFINITY))
            try:
                sweep(Problem(q, k, masks.full(), 0.1), Wanted(entropy=True))
                print("enough")
            except MemoryError:
                print("MemoryError")
            assert same(sweep(random()), usual)
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    """
    outcomes = python(script).split()
    assert outcomes[:3] == ["MemoryError"] * 3
    assert set(outcomes) <= {"MemoryError", "enough"}


@compiled
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is Linux's")
def test_the_peak_of_memory_grows_with_the_keys_not_their_square():
    script = """
        import re, torch
        torch.set_num_threads(2)
        def status(name):
            return int(re.search(name + r":\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 1024
        sweep(random())
        for tokens in (8192, 32768):
            problem = random(tokens, heads=1, d=64)
            wanted = everything(problem)
            open("/proc/self/clear_refs", "w").write("5")
            before = status("VmRSS")
            sweep(problem, wanted)
            print(status("VmHWM") - before)
    """
    small, large = (float(peak) for peak in python(script).split())
    assert large < 4.5 * small + 8
    assert large < 150  # MiB; a quarter of the matrix would be 1,024


# ---- addresses


VIEWS = {
    "by token": lambda heads, dtype: normal(90, heads, 8).to(dtype).transpose(0, 1),
    "turned": lambda heads, dtype: normal(heads, 8, 90).to(dtype).mT,
    "every third column": lambda heads, dtype: normal(heads, 90, 24).to(dtype)[:, :, ::3],
    "every other row": lambda heads, dtype: normal(heads, 180, 8).to(dtype)[:, 1::2],
    "cut from a larger one": lambda heads, dtype: normal(heads + 3, 99, 11).to(dtype)[1 : heads + 1, 5:95, 2:10],
    "one head for all": lambda heads, dtype: normal(1, 90, 8).to(dtype).expand(heads, 90, 8),
    "one token for all": lambda heads, dtype: normal(heads, 1, 8).to(dtype).expand(heads, 90, 8),
    "one column for all": lambda heads, dtype: normal(heads, 90, 1).to(dtype).expand(heads, 90, 8),
}


@every_set
@compiled
@pytest.mark.parametrize("view", VIEWS.values(), ids=list(VIEWS))
@pytest.mark.parametrize("dtype", fused.DTYPES, ids=str)
def test_a_view_gives_what_its_copy_gives(instructions, view, dtype):
    q, k, v = (view(heads, dtype) for heads in (4, 2, 2))
    assert not q.is_contiguous()
    packed = [tensor.contiguous() for tensor in (q, k, v)]
    one, other = (
        sweep(Problem(a, b, masks.causal(), 0.3), Wanted(c, 8, True, True, True), instructions)
        for a, b, c in ((q, k, v), packed)
    )
    assert same(one, other)


@every_set
@compiled
@pytest.mark.parametrize("dtype", fused.DTYPES, ids=str)
def test_rows_that_start_at_any_address_are_read_right(instructions, dtype):
    """No vector of theirs lies where aligned loads would need it."""
    storage = normal(3 * 70 * 13 + 1).to(dtype)[1:]
    q, k, v = storage.view(3, 1, 70, 13)
    problem = Problem(q, k, masks.full(), 0.3)
    assert_agree(sweep(problem, Wanted(v, 8), instructions), problem, Wanted(v, 8))


@every_set
@compiled
@pytest.mark.parametrize("keys", [16_385, *(pytest.param(keys, marks=pytest.mark.slow) for keys in (16_384, 18_500))])
@pytest.mark.parametrize("mask", [masks.full(), arbitrary()], ids=["spans", "booleans"])
def test_long_rows_whose_maxima_rise_have_the_reference_statistics(instructions, keys, mask):
    """Beyond 16,384 keys a strip goes by groups of 1,024, and rescales what it has at each higher maximum."""
    q, k = normal(2, 70, 4).abs(), normal(1, keys, 4, seed=1) * 0.1
    k[:, :, 0] += torch.linspace(0, 40, keys)
    q[0, :20] *= -1  # these fall
    k[:, 5000] = 3  # and a peak early on
    problem = Problem(q, k, mask, 1.0, sinks=torch.tensor([2.0, 90.0]))
    wanted = everything(problem)
    assert_agree(sweep(problem, wanted, instructions), problem, wanted)


# ---- how far numbers reach


@compiled
@pytest.mark.parametrize(
    ("size", "scale", "softcap"),
    [(1e20, 1e20, None), (1e30, 1e10, None), (1e10, 1.0, 1e-30)],
)
def test_a_scale_that_float32_cannot_fold_into_q_is_left_to_strips(monkeypatch, size, scale, softcap):
    monkeypatch.delenv(kernels.VARIABLE, raising=False)
    problem = Problem(normal(2, 9, 4) * size, normal(1, 30, 4) / (size * scale), masks.full(), scale, softcap)
    wanted = Wanted(top=3, entropy=True)
    statistics, kernel, why = kernels.sweep(problem, wanted)
    assert (kernel, why) == ("strips", "a scale beyond float32's reach")
    assert_agree(statistics, problem, wanted)


@compiled
def test_a_scale_above_one_is_no_reason_to_refuse():
    q, k = normal(2, 9, 1), normal(1, 30, 1)
    assert fused.refusal(Problem(q, k, masks.full(), 1e3, softcap=0.5), Wanted()) is None
    assert fused.refusal(Problem(q * 1e-30, k * 1e-30, masks.full(), 1e40), Wanted()) is not None  # no float32 itself
    assert fused.refusal(Problem(q, k, masks.full(), 1.0, softcap=1e30), Wanted()) is not None  # q / 1e30 loses digits


@every_set
@compiled
def test_a_row_of_the_lowest_number_is_spread_evenly(instructions):
    lowest = torch.finfo(torch.float32).min
    bias = torch.zeros(3, 50)
    bias[0] = lowest  # nothing else in this row
    bias[1, 10:] = lowest  # hides
    bias[2] = -torch.inf  # empty
    problem = Problem(normal(1, 3, 6), normal(1, 50, 6), masks.full(), 0.3, bias=biases.dense(bias))
    found = sweep(problem, Wanted(top=64, entropy=True, received=True), instructions)
    assert float(found.entropy[0, 0]) == pytest.approx(math.log(50), abs=1e-5)
    torch.testing.assert_close(found.top.weights[0, 0, :50], torch.full((50,), 1 / 50))
    assert found.top.keys[0, 0, :50].tolist() == list(range(50))
    torch.testing.assert_close(found.received[0, 10:], torch.full((40,), 1 / 50))
    assert bool((found.top.weights[0, 1, 10:] == 0).all())
    assert float(found.logsumexp[0, 2]) == -torch.inf


@compiled
def test_a_bias_beyond_reach_is_refused_with_a_way_out():
    bias = torch.zeros(3, 50)
    bias[1, 2] = 2e38
    problem = Problem(normal(1, 3, 6), normal(1, 50, 6), masks.full(), 0.3, bias=biases.dense(bias))
    with pytest.raises(NonFiniteError, match=r"bias: expected numbers up to 1e\+38, got 2e\+38\. Subtract a constant"):
        sweep(problem, Wanted())


@compiled
@pytest.mark.parametrize("others", [-3e38, torch.finfo(torch.float32).min])
def test_a_row_whose_numbers_all_lie_below_reach_and_differ_is_refused_with_a_way_out(others):
    bias = torch.zeros(3, 50)
    bias[1] = others
    bias[1, 1] = -1.5e38
    problem = Problem(normal(1, 3, 6), normal(1, 50, 6), masks.full(), 0.3, bias=biases.dense(bias))
    with pytest.raises(NonFiniteError, match=r"bias: expected numbers down to -1e\+38 .* got -3.*Hide keys by −inf"):
        sweep(problem, Wanted())


@every_set
@compiled
def test_the_lowest_number_beside_one_in_reach_hides(instructions):
    bias = torch.full((3, 50), torch.finfo(torch.float32).min)
    bias[:, 1] = -0.9e38
    problem = Problem(normal(1, 3, 6), normal(1, 50, 6), masks.full(), 0.3, bias=biases.dense(bias))
    assert sweep(problem, Wanted(top=1), instructions).top.weights[0, :, 0].tolist() == [1.0] * 3


@compiled
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_whose_sum_may_overflow_are_left_to_strips(monkeypatch, dtype):
    monkeypatch.delenv(kernels.VARIABLE, raising=False)
    q, k, v = normal(1, 4, 8).to(dtype), torch.zeros(1, 64, 8, dtype=dtype), torch.full((1, 64, 8), 1e38, dtype=dtype)
    statistics, kernel, why = kernels.sweep(Problem(q, k, masks.full(), 1.0), Wanted(v))
    assert (kernel, why) == ("strips", "values whose sum may overflow float32")
    torch.testing.assert_close(statistics.output, v[:, :4].float())
    assert fused.refusal(Problem(q, k, masks.full(), 1.0), Wanted(v * 1e-3)) is None


@compiled
@pytest.mark.parametrize("turned", [False, True], ids=["q", "k"])
def test_denormals_beside_numbers_that_make_them_count_are_left_to_strips(monkeypatch, turned):
    monkeypatch.delenv(kernels.VARIABLE, raising=False)
    small, large = torch.full((1, 5, 1), 5e-39), torch.tensor([0.0, 1e38, -1e38, 1e37, 0.0])[None, :, None]
    q, k = (large, small.clone()) if turned else (small, large)
    k[0, 0] = 0
    problem = Problem(q, k, masks.full(), 0.6)
    statistics, kernel, why = kernels.sweep(problem, Wanted(top=3, entropy=True))
    assert (kernel, why) == ("strips", "numbers so large that denormals count beside them")
    assert_agree(statistics, problem, Wanted(top=3, entropy=True))


@compiled
def test_large_numbers_are_no_reason_to_refuse_where_denormals_do_not_count():
    q, k = normal(2, 9, 4), normal(1, 30, 4)
    q[:, 0] = 0  # the first tokens tell nothing
    assert fused.refusal(Problem(q * 1e15, k, masks.full(), 1e-13), Wanted()) is None
    assert fused.refusal(Problem(q * 1e-39, k, masks.full(), 1.0), Wanted()) is None
    assert fused.refusal(Problem(q * 1e-39, k * 1e15, masks.full(), 1e16), Wanted()) is not None  # by its scale
