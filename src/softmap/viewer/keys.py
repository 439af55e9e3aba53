"""What lets a browser in: links that work once, and the cookies that they become.

A link stands on a terminal, in a browser's history and in the file that opens a browser, so its token is worth nothing once
it was used. The cookie is another secret, made for one browser, and never shown. Only digests of both are kept: neither
can be read from a traceback or a repr.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from enum import Enum
from typing import TypeVar

T = TypeVar("T")
LINKS = 256
"""Links, used or not, and cookies that are remembered, at most; the oldest is forgotten first."""


class Link(Enum):
    """What a link's token is to this server."""

    FRESH = "fresh"
    USED = "used"
    UNKNOWN = "unknown"


class Keys:
    """The links and cookies of one server. Links are made in any thread, and used in the server's."""

    def __init__(self) -> None:
        self._links: OrderedDict[bytes, Link] = OrderedDict()
        self._cookies: OrderedDict[bytes, None] = OrderedDict()

    def make_link(self) -> str:
        """Return the token of a new link."""
        token = secrets.token_urlsafe(32)
        _remember(self._links, token, Link.FRESH)
        return token

    def look(self, token: str) -> Link:
        """Return what a token is, without using it."""
        return self._links.get(_digest(token), Link.UNKNOWN)

    def use(self, token: str) -> str:
        """Use up a fresh link; return the cookie that the browser gets for it."""
        self._links[_digest(token)] = Link.USED
        cookie = secrets.token_urlsafe(32)
        _remember(self._cookies, cookie, None)
        return cookie

    def knows(self, cookie: str) -> bool:
        """Return whether a cookie was made here."""
        return _digest(cookie) in self._cookies


def _remember(known: OrderedDict[bytes, T], secret: str, as_what: T) -> None:
    known[_digest(secret)] = as_what
    while len(known) > LINKS:
        known.popitem(last=False)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode(errors="replace")).digest()
