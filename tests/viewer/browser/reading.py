"""What a reader does with the page, and sees of it."""

from __future__ import annotations

import re
import time
from urllib.parse import parse_qsl, urlencode, urlsplit

import numpy as np
import pytest

MAP = "document.querySelector('.softmap .map').softmapMap"
WEIGHTS = f"""([rows, keys]) => rows.map((row) => keys.map((key) => {MAP}.weightAt(row, key)))"""
PLACE = f"""([row, key, rows, keys]) => {{
  const {{ viewport, element }} = {MAP}.viewer;
  const middle = Object.assign(viewport.getCenter(), {{ x: (key + 0.5) / keys, y: (row + 0.5) / keys }});
  const at = viewport.pixelFromPointNoRotate(middle, true);
  const box = element.getBoundingClientRect();
  return [at.x + box.left, at.y + box.top];
}}"""
COLOURS = f"""(places) => {{
  const canvas = {MAP}.viewer.drawer.canvas;
  const copy = Object.assign(document.createElement("canvas"), {{ width: canvas.width, height: canvas.height }});
  const pen = copy.getContext("2d", {{ willReadFrequently: true }});
  pen.drawImage(canvas, 0, 0);
  const box = canvas.getBoundingClientRect();
  const scale = canvas.width / box.width;
  return places.map(([x, y]) => [...pen.getImageData((x - box.left) * scale, (y - box.top) * scale, 1, 1).data]);
}}"""
SHADES = """() => Object.fromEntries([...document.querySelectorAll(".reader .unit")].map((unit) =>
  [unit.dataset.unit, Number((unit.style.backgroundColor.match(/[/,]\\s*([\\d.]+)\\)$/) ?? [0, 0])[1])]))"""
STILL = """() => new Promise((resolve) => {
  const still = () => { watch.disconnect(); resolve(); };
  let timer = setTimeout(still, 120);
  setTimeout(still, 5000);
  const watch = new MutationObserver(() => { clearTimeout(timer); timer = setTimeout(still, 120); });
  watch.observe(document.body, { subtree: true, childList: true, attributes: true, characterData: true });
})"""
POWERS = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")


class Reader:
    """One page, whatever goes wrong in it, and what it asks."""

    def __init__(self, context):
        self.context, self.page = context, context.new_page()
        self._heard, self._expected, self.asked, self._awaited = [], (), [], set()
        self.page.set_default_timeout(15_000)
        self.page.on("pageerror", lambda error: self._heard.append(f"error: {error}"))
        self.page.on("dialog", self.refuse_dialog)
        self.page.on("console", self._hear)
        self.page.on("request", self._note)
        for ended in ("requestfinished", "requestfailed"):
            self.page.on(ended, self._end)

    def close(self):
        self.context.close()

    @property
    def troubles(self):
        """What went wrong, but for what was expected to."""
        return [trouble for trouble in self._heard if not any(words in trouble for words in self._expected)]

    def expect_trouble(self, *words):
        """That the console says of some requests that they failed, by what it says; sooner or later, and often."""
        self._expected += words

    def refuse_dialog(self, dialog):
        """No text of a recording may ever open one."""
        self._heard.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def open(self, view, address=""):
        self.page.goto(f"{view.url}#{address}" if address else view.url)
        self.page.wait_for_selector(".softmap:not([aria-busy]) .map")
        self.settle()

    def go(self, **state):
        """Write an address into the bar: what is not named in it is as usual."""
        self.page.evaluate("(hash) => { location.hash = hash; }", urlencode(state))
        self.page.evaluate("() => new Promise((resolve) => setTimeout(resolve))")
        self.settle()

    def settle(self):
        """Until all of the map is there, and drawn."""
        self.page.evaluate(f"async () => {{ await {MAP}.settled(); }}")
        self.page.evaluate(
            "() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))"
        )

    def rest(self):
        """Until nothing on the page changes any more, and nothing it asked for is on its way."""
        end = time.monotonic() + 15
        awaited = True
        while awaited or self._awaited:  # an answer that comes as the page was still is yet to be drawn
            assert time.monotonic() < end, f"the page does not rest; it awaits {self._awaited}"
            awaited = bool(self._awaited)
            self.page.evaluate(STILL)

    @property
    def state(self):
        """What the address says, once it was written."""
        self.page.wait_for_timeout(650)
        return dict(parse_qsl(urlsplit(self.page.url).fragment))

    # ---- the map

    def weights(self, rows, keys):
        """What the map shows there, as a float; NaN where it shows nothing."""
        found = self.page.evaluate(WEIGHTS, [list(rows), list(keys)])
        assert not any(weight is None for row in found for weight in row), "a tile is missing"
        return np.array(found, dtype=float)

    def place(self, row, key, size):
        """Where the middle of a cell is on the page, in pixels."""
        return self.page.evaluate(PLACE, [row, key, *size])

    def colours(self, cells, size):
        """The colours in the middle of cells, (cells, 4)."""
        return np.array(self.page.evaluate(COLOURS, [self.place(*cell, size) for cell in cells]))

    def point(self, row, key, size):
        self.page.mouse.move(*self.place(row, key, size))

    def seen(self):
        """The first row and key in the map's pane, and how many keys wide it is."""
        return self.page.evaluate(f"""() => {{
          const {{ viewport, source, world }} = {MAP}.viewer;
          const {{ x, y, width }} = viewport.getBounds(false);
          const keys = world.getItemAt(world.getItemCount() - 1).source.dimensions.x;
          return [y * keys, x * keys, width * keys];
        }}""")

    @property
    def zoom(self):
        """A pixel of the map is 2^zoom weights each way."""
        told = re.search(r"1 pixel = (\d+) ×", self.page.locator(".mapHeading .muted").inner_text())
        return int(told[1]).bit_length() - 1 if told else 0

    def card(self):
        """What the card at the pointer says in numbers."""
        facts = self.page.locator(".mapCard .facts span")
        facts.first.wait_for()
        return facts.evaluate_all("(all) => all.map((each) => each.lastChild.textContent)")

    # ---- the rest

    def choose(self, group, name):
        """Choose one of a few in the menu."""
        menu = self.page.locator("details.menu:not(.save)")
        if not menu.evaluate("(menu) => menu.open"):
            menu.locator("summary").click()
        self.page.get_by_role("radiogroup", name=group, exact=True).get_by_role("radio", name=name, exact=True).click()
        self.page.keyboard.press("Escape")
        self.settle()

    def tab(self, name):
        self.page.get_by_role("tab", name=name).click()

    def unit(self, i):
        """A word of the text."""
        return self.page.locator(f'.reader .unit[data-unit="{i}"]')

    def shades(self):
        """How strongly each word on screen is shaded, 0 to 1."""
        self.rest()
        return {int(unit): float(shade) for unit, shade in self.page.evaluate(SHADES).items()}

    def questions(self, name):
        """The parameters of all questions of a kind that were asked so far."""
        return [params for asked, params in self.asked if asked == name]

    def _note(self, request):
        self._awaited.add(request)
        place = urlsplit(request.url)
        if place.path.startswith("/ask/"):
            self.asked.append((place.path.removeprefix("/ask/"), dict(parse_qsl(place.query))))

    def _end(self, request):
        self._awaited.discard(request)

    def _hear(self, message):
        if message.type in ("error", "warning"):
            self._heard.append(f"console: {message.text}")


def said(text):
    """The number that a percentage says, as "12.3%" or "4.5·10⁻⁵%", to within its last digit."""
    digits, decimals, power = re.fullmatch(r"(\d+(?:\.(\d+))?)(?:·10([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+))?%", text).groups()
    unit = 10 ** int((power or "0").translate(POWERS)) / 100
    last = 0 if digits in ("0", "100") else 0.501 * unit * 10 ** -len(decimals or "")
    return pytest.approx(float(digits) * unit, abs=last)


def number_of(text):
    """The number that a score says: "−1.234"."""
    return float(text.replace("−", "-"))
