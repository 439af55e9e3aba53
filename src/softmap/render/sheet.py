"""A sheet that a figure is drawn on, in inches from its top left corner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

from softmap.escaping import escaped
from softmap.render.fonts import quiet_fonts
from softmap.render.lines import break_lines

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, MUTED, RULE, ACCENT = "#1a1d23", "#747b88", "#cfd4dc", "#c2410c"


class Drawing(Figure):
    """A figure whose missing glyphs are told of once, by `choose_fonts`, not one by one at every drawing."""

    def draw(self, renderer: Any) -> None:
        with quiet_fonts():
            super().draw(renderer)

    def get_tightbbox(self, *arguments: Any, **options: Any) -> Any:
        with quiet_fonts():
            return super().get_tightbbox(*arguments, **options)


class Sheet:
    """A figure that is drawn on in inches; its height is known when all is drawn."""

    def __init__(self, width: float) -> None:
        self.figure = Drawing()
        self.width = width
        FigureCanvasAgg(self.figure)
        self.ground = self.figure.add_axes((0, 0, 1, 1), label="sentence")
        self.ground.set_axis_off()
        self._ruler = RendererAgg(1, 1, 720)  # type: ignore[no-untyped-call]
        self._places: list[tuple[Axes, float, float, float, float]] = []

    def measure(self, text: str, size: float, weight: str = "normal") -> float:
        """How wide a text is."""
        font = FontProperties(size=size, weight=weight)
        with quiet_fonts():
            return float(self._ruler.get_text_width_height_descent(escaped(text), font, False)[0]) / 720  # type: ignore[no-untyped-call]

    def write(self, x: float, y: float, text: str, size: float, **look: Any) -> None:
        """Set a text on the baseline y."""
        self.ground.text(x, y, escaped(text), size=size, **{"color": MUTED, **look})

    def write_lines(self, x: float, y: float, text: str, size: float, width: float) -> float:
        """Set a text in lines of at most this width; returns the baseline after the last."""
        lines = break_lines(text, lambda line: self.measure(line, size) <= width)
        for i, line in enumerate(lines):
            self.write(x, y + i * size / 52, line, size)
        return y + len(lines) * size / 52

    def axes(self, name: str, left: float, top: float, width: float, height: float) -> Axes:
        """A place for a matrix."""
        axes = self.figure.add_axes((0, 0, 1, 1), label=name)
        axes.set_axis_off()
        self._places.append((axes, left, top, width, height))
        return axes

    def finish(self, height: float) -> None:
        """Make the sheet as large as what is on it."""
        self.figure.set_size_inches(self.width, height)
        self.ground.set(xlim=(0, self.width), ylim=(height, 0))
        for axes, left, top, width, tall in self._places:
            axes.set_position((left / self.width, 1 - (top + tall) / height, width / self.width, tall / height))
