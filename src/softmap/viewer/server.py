"""The map's server: a page, its script and style, and the answers to its questions, for the reader at this machine alone.

What listens on 127.0.0.1 can be asked by every page that a browser has open, and by every program of the machine. So
each request is looked at before anything answers it (`Guard`):

1. Its Host is this server's own name and port: a name that was made to point here (DNS rebinding) is another.
2. It comes from this page, or from the reader's own typing: Origin and Sec-Fetch-Site say so (Fetch Metadata,
   https://www.w3.org/TR/fetch-metadata/). A link from elsewhere opens the page only with the token in it.
3. It has the token of an address that was not used yet, or the cookie that the first visit left (`keys`).

Every answer forbids the page whatever does not come from here (Content Security Policy, https://www.w3.org/TR/CSP3/).
Questions are answered elsewhere (`answers.py`); one whose asker has gone is cancelled.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from softmap.errors import ParameterError, RecordingError, SoftmapError
from softmap.viewer.answers import QUESTIONS
from softmap.viewer.asking import BusyError
from softmap.viewer.keys import Keys, Link
from softmap.viewer.parameters import as_json
from softmap.viewer.shipped import OPENSEADRAGON_STYLE, STATIC, read, source_of

if TYPE_CHECKING:
    from importlib.abc import Traversable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from softmap.viewer.answers import Answer
    from softmap.viewer.asking import Worker

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        f"style-src 'self' {source_of(OPENSEADRAGON_STYLE)}",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "font-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
"""What every answer has."""
FILES = {
    "/": ("index.html", "text/html"),
    "/static/softmap.js": ("softmap.js", "text/javascript"),
    "/static/softmap.css": ("softmap.css", "text/css"),
}
"""All files that are given away: each one's address, its name in the package and its type."""
NAMES = ("127.0.0.1", "localhost")
"""What this machine may be called."""
LONGEST = 8192
"""Characters of an address, at most."""
MOST = 32
"""Parameters of an address, at most."""
ANOTHER = "Enter, where `softmap view` runs, prints another; in Python view.url is another each time."
SHOWN = f"Open the address that `softmap view` or rec.view() printed; it opens in one browser. {ANOTHER}"
ONWARD = (
    '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0;url=/">'
    '<link rel="icon" href="data:,"><title>softmap</title>'
)
"""Goes on to the page from within, which a redirect of a link from elsewhere does not: it would come without a cookie."""

log = logging.getLogger(__name__)


def application(worker: Worker, keys: Keys, port: int, static: Traversable = STATIC) -> Starlette:
    """The server as an ASGI application.

    Args:
        worker: who answers the questions.
        keys: the links and cookies that let somebody in.
        port: where it listens.
        static: the folder of the page's files.

    Raises:
        RecordingError: a file of the page is not there.
    """
    questions = Questions(worker)
    pages = [Route(path, _page(static, *what), methods=["GET"]) for path, what in FILES.items()]
    app = Starlette(
        routes=[*pages, Route("/ask/{question}", questions.answer, methods=["GET"])],
        middleware=[Middleware(Guard, keys=keys, port=port)],
        exception_handlers={HTTPException: _unknown},
    )
    app.router.redirect_slashes = False
    app.state.questions = questions
    return app


class Guard:
    """Lets through what the reader of this machine asks, and gives every answer its headers."""

    def __init__(self, app: ASGIApp, keys: Keys, port: int) -> None:
        self.app = app
        self.keys = keys
        self.cookie = f"softmap-{port}"
        self.hosts = {f"{name}:{port}" for name in NAMES} | (set(NAMES) if port == 80 else set())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or have it answered."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        cookie: str | None = None

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault("cache-control", "no-store")
                if cookie is not None:
                    headers.append("set-cookie", f"{self.cookie}={cookie}; HttpOnly; Path=/; SameSite=Strict")
            await send(message)

        answering: ASGIApp
        request = Request(scope)
        try:
            params = self._check(request)
            token = params.pop("token", None)
            cookie = self._admit(request, token)
            answering = self.app if token is None or scope["path"] != "/" else _onward(request)
            scope["params"], scope["admitted"] = params, True
        except _Refused as refused:
            answering = refusal(scope, *refused.args)
        await answering(scope, receive, send_with_headers)

    def _check(self, request: Request) -> dict[str, str]:
        """Refuse what is none of this server's business; the parameters of what is."""
        scope = request.scope
        if scope["method"] not in ("GET", "HEAD"):
            raise _Refused(405, ParameterError("method", "GET or HEAD", scope["method"], "Nothing is written here."))
        host = request.headers.get("host", "")
        if host not in self.hosts:
            raise _Refused(421, ParameterError("Host", " or ".join(sorted(self.hosts)), host or "none", SHOWN))
        params = _params(scope)
        self._check_sender(request, host, "token" in params)
        return params

    def _admit(self, request: Request, token: str | None) -> str | None:
        """Refuse who has neither a link nor the cookie; the cookie that a link becomes, for who comes by one."""
        cookie = request.cookies.get(self.cookie)
        known = cookie is not None and self.keys.knows(cookie)
        link = None if token is None else self.keys.look(token)
        if link is Link.FRESH and token is not None:
            # who asks for the headers only shows no page: the link is left to who will
            return self.keys.use(token) if request.method == "GET" else None
        if link is Link.USED and not known:
            used = ParameterError("address", "one that opens for the first time", "one that was opened", ANOTHER)
            raise _Refused(403, used)
        if link is Link.UNKNOWN or not known:
            got = "none" if token is None and cookie is None else "another"
            raise _Refused(403, ParameterError("address", "the token it was printed with", got, SHOWN))
        return None

    @staticmethod
    def _check_sender(request: Request, host: str, has_token: bool) -> None:
        """Refuse what another page sends, but for a link to this page that has its token."""
        origin, kind = request.headers.get("origin"), request.headers.get("sec-fetch-dest")
        hint = f"Another page may not ask here. {SHOWN}"
        if origin is not None and origin != f"http://{host}":
            raise _Refused(403, ParameterError("Origin", f"http://{host}", origin, hint))
        is_link = has_token and kind == "document" and request.scope["path"] == "/"
        if not is_link and not _is_own(request):
            site = request.headers["sec-fetch-site"]
            raise _Refused(403, ParameterError("Sec-Fetch-Site", "same-origin or none", site, hint))


class _Refused(Exception):  # noqa: N818
    """A request that is not let through: its status, and the error to tell."""

    def __init__(self, status: int, error: SoftmapError) -> None:
        super().__init__(status, error)


def _is_own(request: Request) -> bool:
    """Whether a browser says that this page or its reader sent it; programs say nothing."""
    return request.headers.get("sec-fetch-site") in (None, "same-origin", "none")


def _onward(request: Request) -> Response:
    """To the page without the token, which is used: so it is in no bookmark and in no picture."""
    return RedirectResponse("/", 303) if _is_own(request) else HTMLResponse(ONWARD)


def _params(scope: Scope) -> dict[str, str]:
    """The parameters of an address that is not too long."""
    if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > LONGEST:
        raise _Refused(414, ParameterError("address", f"{LONGEST} characters", "more", "Ask for less at a time."))
    try:
        return read_query(scope["query_string"])
    except ParameterError as error:
        raise _Refused(400, error) from error


class Questions:
    """What is being asked."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.pending: set[asyncio.Future[Answer]] = set()

    def close(self) -> None:
        """Let nobody wait any more. Called in the server's thread, as it ends."""
        for future in self.pending:
            future.cancel()

    async def answer(self, request: Request) -> Response:
        """The answer to one question, or the error that it ended in."""
        scope, name = request.scope, request.path_params["question"]
        try:
            answered = asyncio.wrap_future(self.worker.submit(name, scope["params"]))
            await self._done_or_gone(answered, request)
            if answered.cancelled():
                got, hint = "one who left, or a server that ends", "Start it again."
                return refusal(scope, 503, RecordingError("question", "an asker who waits", got, hint))
            return respond(answered.result())
        except SoftmapError as error:
            return refusal(scope, _status(name, error), error)
        except OSError as error:
            got, hint = error.strerror or str(error), "Open it again once they are there."
            return refusal(scope, 410, RecordingError("recording", "files that can be read", got, hint))
        except Exception as error:
            log.exception("softmap could not answer %s", name)
            got, hint = f"{type(error).__name__}: {error}", "This is softmap's mistake; the server goes on."
            return refusal(scope, 500, SoftmapError(f"question {name!r}", "an answer", got, hint))

    async def _done_or_gone(self, answered: asyncio.Future[Any], request: Request) -> None:
        """Wait for the answer; cancel it where the asker leaves before it is there."""
        gone: asyncio.Future[Any] = asyncio.ensure_future(_gone(request))
        self.pending.add(answered)
        try:
            await asyncio.wait((answered, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.pending.discard(answered)
            gone.cancel()
            answered.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def read_query(raw: bytes) -> dict[str, str]:
    """The parameters of an address.

    Raises:
        ParameterError: what is not percent-encoded UTF-8; too many; one that is given twice.
    """
    hint = "As a browser writes it: ?layer=3&head=1"
    try:
        pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MOST)
    except UnicodeError as error:
        raise ParameterError("parameters", "percent-encoded UTF-8", "another encoding", hint) from error
    except ValueError as error:
        raise ParameterError("parameters", f"at most {MOST}", "more", hint) from error
    params = dict(pairs)
    if len(params) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ParameterError("parameters", "each of them once", f"{twice!r} several times", hint)
    return params


def respond(answer: Answer) -> Response:
    """An answer over HTTP: JSON, or numbers with their dtype and shape in two headers."""
    if isinstance(answer, dict):
        return Response(json.dumps(answer, allow_nan=False), media_type="application/json")
    shape = ",".join(map(str, answer.array.shape))
    headers = {"softmap-dtype": answer.array.dtype.name, "softmap-shape": shape}
    return Response(answer.array.tobytes(), headers=headers, media_type="application/octet-stream")


def refusal(scope: Scope, status: int, error: SoftmapError) -> Response:
    """An error: as JSON to a question, else as a page of plain text."""
    headers = {405: {"allow": "GET, HEAD"}, 503: {"retry-after": "1"}}.get(status)
    if not scope["path"].startswith("/ask/"):
        return PlainTextResponse(f"softmap: {error}\n", status, headers)
    return Response(json.dumps(as_json(error)), status, headers, media_type="application/json")


def _status(name: str, error: SoftmapError) -> int:
    if isinstance(error, BusyError):
        return 503
    if isinstance(error, RecordingError):
        return 409
    return 400 if name in QUESTIONS else 404


def _page(folder: Traversable, name: str, media_type: str) -> Any:
    """What answers with a file of the package, or says that it has not changed."""
    content = read(name, folder).encode()
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'

    async def give(request: Request) -> Response:
        headers = {"etag": etag, "cache-control": "no-cache"}
        known = [each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")]
        return (
            Response(status_code=304, headers=headers) if etag in known else Response(content, 200, headers, media_type)
        )

    return give


async def _unknown(request: Request, error: Exception) -> Response:
    """The router's own answer to addresses that it does not know."""
    told = ParameterError("address", "/, or /ask/ and a question", request.scope["path"], SHOWN)
    return refusal(request.scope, getattr(error, "status_code", 404), told)
