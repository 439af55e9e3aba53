"""Another address of a map for each Enter in the terminal, for an address lets in one browser."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from softmap.viewer.launch import View

PAUSE = 1.0
"""Seconds after which it is looked again whether the terminal is this job's."""


def print_more(view: View) -> bool:
    """Print another address at each Enter, while the process lives. Return whether there is a terminal to press it in."""
    if sys.stdin is None or sys.stdin.closed or not sys.stdin.isatty():
        return False
    threading.Thread(target=_listen, args=(view, sys.stdin.fileno()), name="softmap-more", daemon=True).start()
    return True


def _listen(view: View, terminal: int) -> None:
    if hasattr(signal, "SIGTTIN"):  # which would stop a job in the background that reads
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTTIN])
    while True:
        try:
            if not os.read(terminal, 4096):
                return
        except OSError:  # it is in the background
            time.sleep(PAUSE)
            continue
        click.echo(view.url)
