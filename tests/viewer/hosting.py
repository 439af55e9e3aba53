"""A notebook's part: a comm whose messages are kept, and a page that shows widgets and speaks to the real ones over HTTP."""

from __future__ import annotations

import base64
import json
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread

from comm.base_comm import BaseComm

PAGE = """<!doctype html><meta charset="utf-8"><title>host</title><link rel="stylesheet" href="/softmap.css">
<link rel="icon" href="data:,"><body><script type="module">
const listening = new Set();
for (const target of [document, window, MediaQueryList.prototype]) {
  const { addEventListener, removeEventListener } = target;
  target.addEventListener = function (type, listener, options) {
    const own = { target: this, type, listener };
    listening.add(own);
    options?.signal?.addEventListener("abort", () => listening.delete(own));
    return addEventListener.call(this, type, listener, options);
  };
  target.removeEventListener = function (type, listener, options) {
    for (const each of listening) if (each.type === type && each.listener === listener) listening.delete(each);
    return removeEventListener.call(this, type, listener, options);
  };
}
class Model {
  constructor(name) {
    this.name = name;
    this.listeners = new Set();
  }
  get() {}
  on(event, listener) {
    this.listeners.add(listener);
  }
  off(event, listener) {
    this.listeners.delete(listener);
  }
  async send(message) {
    const response = await fetch(`/send/${this.name}`, { method: "POST", body: JSON.stringify(message) });
    for (const { content, buffers } of await response.json()) {
      const views = buffers.map((text) => new DataView(Uint8Array.from(atob(text), (char) => char.charCodeAt(0)).buffer));
      for (const listener of [...this.listeners]) listener(content, views);
    }
  }
}
const { default: widget } = await import("/softmap.js");
window.listening = listening;
window.shown = {};
window.show = (name, model = new Model(name)) => {
  const el = document.createElement("div");
  document.body.append(el);
  const close = widget.render({ model, el });
  window.shown[name] = { model, el, close: () => { close(); el.remove(); } };
};
window.ready = true;
</script>"""


class KeptComm(BaseComm):
    """A comm to no front end: what would go there is kept."""

    def __init__(self, *arguments, **options):
        self.sent = []
        super().__init__(*arguments, **options)

    def publish_msg(self, msg_type, data=None, metadata=None, buffers=None, **keys):
        self.sent.append((msg_type, data, buffers or []))

    @property
    def answers(self):
        """What the widget itself has said, with its buffers."""
        return [(data["content"], buffers) for _, data, buffers in self.sent if data.get("method") == "custom"]


def tell(widget, message):
    """A message as the front end sends it."""
    widget.comm.handle_msg({"content": {"data": {"method": "custom", "content": message}}, "buffers": []})


@contextmanager
def hosted(widgets):
    """The address of a page in which `show(name)` shows one of these widgets."""
    locks = {name: Lock() for name in widgets}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_GET(self):
            widget = next(iter(widgets.values()))
            found = {
                "/": ("text/html", PAGE),
                "/softmap.js": ("text/javascript", widget._esm),
                "/softmap.css": ("text/css", widget._css),
            }
            self._give(*found[self.path])

        def do_POST(self):
            widget = widgets[self.path.removeprefix("/send/")]
            message = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with locks[self.path.removeprefix("/send/")]:
                before = len(widget.comm.answers)
                tell(widget, message)
                said = widget.comm.answers[before:]
            buffers = [[base64.b64encode(each).decode() for each in buffers] for _, buffers in said]
            answers = [{"content": content, "buffers": each} for (content, _), each in zip(said, buffers, strict=True)]
            self._give("application/json", json.dumps(answers))

        def _give(self, kind, text):
            body = text.encode()
            self.send_response(200)
            self.send_header("content-type", f"{kind}; charset=utf-8")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()
