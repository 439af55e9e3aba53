"""The map in Chromium, next to other viewers of attention, on the same recordings in one run.

python -m benchmarks.viewer                     up to 131,072 tokens
python -m benchmarks.viewer --quick             128 and 1,024 tokens
python -m benchmarks.viewer --scripts FOLDER    with what bertviz loads from elsewhere: npm install --prefix FOLDER
                                                requirejs@2.3.6 d3@5.7.0 jquery@2.2.4

The peers are measured where they are installed: pip install --no-deps bertviz circuitsvis inspectus; pip install ipython.
"""

from __future__ import annotations

import contextlib
import random
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.viewer.chromium import Traffic, chromium, new_page, renderer_memory, stand_still
from benchmarks.viewer.pages import VIEWERS

if TYPE_CHECKING:
    from playwright.sync_api import Page

QUICK = "--quick" in sys.argv
SCRIPTS = Path(sys.argv[sys.argv.index("--scripts") + 1]) / "node_modules" if "--scripts" in sys.argv else None
BESIDE = (128, 1_024) if QUICK else (128, 512, 1_024, 4_096)
"""Tokens at which all viewers are tried."""
ALONE = () if QUICK else (16_384, 65_536, 131_072)
"""Tokens at which softmap is."""
PATIENCE = 30.0
"""Seconds after which a page is given up."""
STEPS = 60

SETTLED = "() => document.querySelector('.map').softmapMap.settled()"
SHOW = """
async ([left, top, width]) => {
  const { viewer, settled } = document.querySelector('.map').softmapMap;
  const size = viewer.world.getItemAt(0).source.dimensions;
  const bounds = viewer.viewport.getBounds();
  const height = (width * bounds.height) / bounds.width;
  const start = performance.now();
  viewer.viewport.fitBounds(bounds.clone === undefined ? bounds : Object.assign(bounds.clone(), {
    x: left / size.x, y: top / size.x, width: width / size.x, height: height / size.x }), true);
  viewer.forceRedraw();
  await settled();
  return performance.now() - start;
}
"""


def main() -> None:
    """Print both tables."""
    with tempfile.TemporaryDirectory() as folder:
        recordings = {tokens: Path(folder, f"{tokens}.softmap") for tokens in (*BESIDE, *ALONE)}
        for tokens, path in recordings.items():
            _python("recordings", str(tokens), str(path))
        print("| until the page stands still, its weight, its renderer's memory | " + _columns(BESIDE))
        print("| --- |" + " --- |" * len(BESIDE))
        for viewer, (package, _) in VIEWERS.items():
            if find_spec(package):
                cells = [_peer(viewer, recordings[tokens], Path(folder, "page.html")) for tokens in BESIDE]
                print(f"| {viewer} | {' | '.join(cells)} |", flush=True)
        print(f"| softmap | {' | '.join(_standing(recordings[tokens]) for tokens in BESIDE)} |\n", flush=True)

        print("| softmap | ready | first exact tile | a step, median | 95th percentile | longest | renderer |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        for tokens, path in recordings.items():
            print(f"| {tokens:,} | {_looking(path, tokens)} |", flush=True)


def _columns(lengths: tuple[int, ...]) -> str:
    return " | ".join(f"{tokens:,}" for tokens in lengths) + " |"


def _python(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"benchmarks.viewer.{module}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=module == "recordings")


def _peer(viewer: str, recording: Path, file: Path) -> str:
    """What another viewer's page takes."""
    done = _python("pages", viewer, str(recording), str(file))
    if done.returncode:
        return "out of memory" if "emory" in done.stderr else "failed: " + done.stderr.strip().splitlines()[-1]
    weight = file.stat().st_size
    with chromium() as browser:
        page, traffic = new_page(browser, SCRIPTS), Traffic()
        traffic.follow(page)
        with contextlib.suppress(Exception):  # given up, or the renderer ran out of memory
            page.goto(file.as_uri(), wait_until="commit", timeout=1000 * PATIENCE)
            seconds = stand_still(page, traffic, PATIENCE)
            drawn = not traffic.failed and page.locator("svg, canvas, img").count() > 0
            return _told(seconds if drawn else None, weight, renderer_memory(browser))
        return _told(None, weight, 0)


def _told(seconds: float | None, weight: int, memory: float) -> str:
    time = "draws nothing" if seconds is None else f"{seconds:.2f} s"
    return f"{time}, {weight / 1e6:,.1f} MB" + (f", {memory:,.0f} MiB" if memory else "")


@contextlib.contextmanager
def _served(recording: Path) -> Iterator[str]:
    """The address of a recording's map."""
    command = [sys.executable, "-m", "softmap", "view", str(recording), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        try:
            yield next(found[0] for line in server.stdout if (found := re.search(r"http://\S+", line)))
        finally:
            server.terminate()


def _standing(recording: Path) -> str:
    with _served(recording) as address, chromium() as browser:
        page, traffic = new_page(browser, None), Traffic()
        traffic.follow(page)
        page.goto(address, wait_until="commit")
        seconds = stand_still(page, traffic, PATIENCE)
        return _told(seconds, traffic.weight, renderer_memory(browser))


def _looking(recording: Path, tokens: int) -> str:
    """Seconds until the map is there, and what looking around in it takes."""
    with _served(recording) as address, chromium() as browser:
        page = new_page(browser, None)
        page.goto(address, wait_until="commit")
        page.wait_for_selector(".map canvas")
        page.evaluate(SETTLED)
        ready: float = page.evaluate("performance.now()")
        cells = min(40, tokens)
        first = _show(page, tokens - cells, tokens - cells, cells)
        times = [_show(page, *box) for box in _walk(tokens)]
        memory = renderer_memory(browser)
    p95 = statistics.quantiles(times, n=20)[-1]
    shown = (ready / 1000, first, statistics.median(times), p95, max(times), memory)
    return "{:.2f} s | {:.0f} ms | {:.0f} ms | {:.0f} ms | {:.0f} ms | {:.0f} MiB".format(*shown)


def _show(page: Page, left: float, top: float, width: float) -> float:
    """Milliseconds until all tiles of a rectangle of the map are there."""
    took: Any = page.evaluate(SHOW, [left, top, width])
    return float(took)


def _walk(tokens: int) -> Iterator[tuple[float, float, float]]:
    """Rectangles, each a step from the one before: nearer, farther, or half a screen aside."""
    draw = random.Random(0)
    left, top, width = 0.0, 0.0, float(tokens)
    for _ in range(STEPS):
        step = draw.choice(("nearer", "nearer", "farther", "aside", "aside"))
        if step == "nearer" and width > 32:
            left, top, width = left + draw.random() * width / 2, top + draw.random() * width / 2, width / 2
        elif step == "farther":
            left, top, width = left - width / 2, top - width / 2, min(2 * width, tokens)
        else:
            left, top = left + draw.uniform(-0.5, 0.5) * width, top + draw.uniform(-0.5, 0.5) * width
        left, top = (min(max(0.0, place), tokens - width) for place in (left, top))
        yield left, top, width


if __name__ == "__main__":
    main()
