"""Take the documentation's pictures of the map: python -m scripts.make_screenshots

It needs Chromium. Three words, a paragraph, and 65,536 tokens read by a small Llama with random weights.
"""

from __future__ import annotations

import argparse
import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from playwright.sync_api import sync_playwright
from scripts.make_small_llama import a_text, make_tokenizer
from transformers import LlamaConfig, LlamaModel

import softmap
from softmap.viewer.launch import View

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from softmap.recorded import Recording

IMAGES = Path(__file__).parents[1] / "docs" / "images"
SENTENCE = "I love learning"
PARAGRAPH = (
    "The cat that the dog chased ran up the tree, because it was afraid. Attention lets each word look at every other: "
    "a verb at its subject, a pronoun at the name it stands for, and some words at nothing but the full stop."
)
SIZE = (1280, 720)


class Shot(NamedTuple):
    """One picture.

    Attributes:
        name: of its file.
        state: the address of what it shows.
        dark: whether the page is dark.
        size: of the window, pixels.
    """

    name: str
    state: str
    dark: bool = False
    size: tuple[int, int] = SIZE


SHORT = (
    Shot("view-text", "layer=3&head=1&query=2&key=3"),
    Shot("view-text-dark", "layer=3&head=1&query=2&key=3", dark=True),
    Shot("view-sentence", "layer=3&head=1&query=2&view=sentence"),
    Shot("view-steps", "layer=3&head=1&query=2&key=3&view=steps"),
    Shot("view-phone", "layer=3&head=1&query=2&key=3", size=(844, 390)),
)
MIDDLE = (
    Shot("view-paragraph", "layer=3&head=1&query=15&scale=log"),
    Shot("view-paragraph-dark", "layer=3&head=1&query=15&view=steps&scale=log", dark=True),
)
LONG = (
    Shot("view-long", ""),
    Shot("view-long-dark", "box=60000,60000,40&query=60020&key=60010", dark=True),
)


def main() -> None:
    """Take them all."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter).parse_args()
    logging.disable()
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("Chromium is needed: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        take(browser, softmap.record(SENTENCE), SHORT)
        take(browser, softmap.record(PARAGRAPH), MIDDLE)
        take(browser, a_long_recording(), LONG)
        browser.close()


def take(browser: Browser, recording: Recording, shots: tuple[Shot, ...]) -> None:
    """Take the pictures of one recording."""
    with View(recording) as view:
        for shot in shots:
            width, height = shot.size
            page = browser.new_page(
                viewport={"width": width, "height": height}, color_scheme="dark" if shot.dark else "light"
            )
            page.goto(f"{view.url}#{shot.state}")
            page.wait_for_selector(".map canvas")
            page.wait_for_load_state("networkidle")
            page.wait_for_timeout(1000)
            page.screenshot(path=IMAGES / f"{shot.name}.png")
            page.close()


def a_long_recording() -> Recording:
    """65,536 tokens, read by a small Llama with random weights."""
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=65_536,
        initializer_range=0.1,  # so that its heads have something to say
    )
    return softmap.record(a_text(tokenizer, 65_536), LlamaModel(config).eval(), tokenizer=tokenizer)


if __name__ == "__main__":
    main()
