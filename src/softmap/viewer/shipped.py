"""The page's files as they ship, and what a Content Security Policy says of a text (https://www.w3.org/TR/CSP3/)."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING

from softmap.errors import RecordingError

if TYPE_CHECKING:
    from importlib.abc import Traversable

STATIC = files("softmap.viewer").joinpath("static")
OPENSEADRAGON_STYLE = "@media (hover: none) {    .openseadragon-canvas:focus {        outline: none !important;    }}"
"""The text of the one style element that OpenSeadragon adds to the page."""


def read(name: str, folder: Traversable = STATIC) -> str:
    """A file of the page.

    Raises:
        RecordingError: it is not there.
    """
    try:
        return folder.joinpath(name).read_text(encoding="utf-8")
    except OSError as error:
        got, hint = error.strerror or str(error), "Install softmap anew; in a clone, `make page` makes it."
        raise RecordingError(f"the page's {name}", "a file of the package", got, hint) from error


def source_of(text: str) -> str:
    """A policy's name for a script or a style of this text, by its hash."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
