"""A server that speaks OpenAI's chat completions over loopback, and does to each request what its script says.

    with StubTeacher(lambda request: right() if request.attempt else status(500)) as stub: ...

`stub.requests` has every request that came, and `stub.billed` what a provider would bill: the tokens of each answer
that was sent to its end, or was cut."""

import hashlib
import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKENS_IN, TOKENS_OUT = 100, 20
"""That the stub counts for each answer, whatever its length."""
GOOD = (
    'A red ball rolls.\n<answer>{"dimensional_scores": {"subject": 2, "dynamics": 1, "camera": "N/A", '
    '"environment": 2, "style": 2}, "overall_score": 4.20}</answer>'
)


@dataclass(frozen=True, slots=True)
class StubRequest:
    """A request that came."""

    body: dict
    headers: dict
    number: int
    """Of all requests."""
    attempt: int
    """How often the same body came before."""

    @property
    def key(self):
        """Equal for equal bodies."""
        return digest(self.body)

    @property
    def texts(self):
        """The parts of the message that are text."""
        return [part["text"] for part in self.body["messages"][0]["content"] if part["type"] == "text"]


def digest(body):
    asked = {name: value for name, value in body.items() if name not in ("stream", "stream_options")}
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


@dataclass(slots=True)
class StubTeacher:
    """The server. `script` maps a StubRequest to a function of its handler."""

    script: object
    requests: list = field(default_factory=list)
    answered: list = field(default_factory=list)
    """Keys of the requests whose answer was sent to its end."""
    billed: dict = field(default_factory=lambda: {"tokens_in": 0, "tokens_out": 0})
    lock: object = field(default_factory=threading.Lock)
    server: object = None
    ended: object = field(default_factory=threading.Event)

    def __enter__(self):
        stub = self

        class Handler(_Handler):
            teacher = stub

        self.server = _Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.server.shutdown()
        self.server.server_close()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    def _taken(self, body, headers):
        with self.lock:
            attempt = sum(each.key == digest(body) for each in self.requests)
            request = StubRequest(body, headers, len(self.requests), attempt)
            self.requests.append(request)
        return request

    def bill(self, request, *, ended=True, tokens_in=TOKENS_IN, tokens_out=TOKENS_OUT):
        with self.lock:
            self.billed["tokens_in"] += tokens_in
            self.billed["tokens_out"] += tokens_out
            if ended:
                self.answered.append(request.key)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """A client that was killed is no news."""


class _Handler(BaseHTTPRequestHandler):
    teacher = None
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        request = self.teacher._taken(body, {k.lower(): v for k, v in self.headers.items()})
        self.teacher.script(request)(self, request)

    def log_message(self, *_):
        """Nothing on standard error."""

    def start_stream(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def event(self, data):
        line = f"data: {data if isinstance(data, str) else json.dumps(data)}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        self.wfile.flush()

    def end_stream(self):
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()


def chunk(content=None, *, finish=None, **extra):
    delta = {"role": "assistant", **({"content": content} if content is not None else {}), **extra}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "stub-1", "choices": [choice]}


def right(text=GOOD, *, thinking=None, finish="stop", usage=True, seconds=0.0, tokens_out=TOKENS_OUT):
    """Answer, in a few pieces."""

    def act(handler, request):
        time.sleep(seconds)
        handler.start_stream()
        if thinking:
            handler.event(chunk(reasoning_content=thinking))
        third = max(1, len(text) // 3)
        for start in range(0, len(text), third):
            handler.event(chunk(text[start : start + third]))
        handler.event(chunk(finish=finish))
        if usage:
            handler.event(
                chunk()
                | {
                    "choices": [],
                    "usage": {
                        "prompt_tokens": TOKENS_IN,
                        "completion_tokens": tokens_out,
                        "total_tokens": TOKENS_IN + tokens_out,
                    },
                }
            )
        handler.event("[DONE]")
        handler.teacher.bill(request, tokens_out=tokens_out)
        handler.end_stream()

    return act


def hang(handler, _request):
    """Answer nothing until the server ends."""
    handler.teacher.ended.wait()


def status(code, *, message="no", headers=(), kind=None):
    """Refuse with a status."""

    def act(handler, _request):
        body = json.dumps({"error": {"message": message, "code": kind, "type": kind}}).encode()
        handler.send_response(code)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            **dict(headers),
        }.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return act


def cut(text="A red b", *, politely=False):
    """Break off in the middle of an answer: by closing the connection, or by an end of the stream without a finish."""

    def act(handler, request):
        handler.start_stream()
        handler.event(chunk(text))
        handler.teacher.bill(request, ended=False)
        if politely:
            handler.end_stream()
        handler.close_connection = True

    return act


def rubbish(content=b"<html>502 Bad Gateway</html>", *, kind="text/html", stream=False):
    """Answer 200 with what is no chat completion."""

    def act(handler, _request):
        if stream:
            handler.start_stream()
            handler.event(content.decode())
            handler.end_stream()
            return
        handler.send_response(200)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    return act


def flood(pieces=100_000):
    """Answer without end."""

    def act(handler, request):
        handler.start_stream()
        handler.teacher.bill(request, ended=False)
        for _ in range(pieces):
            handler.event(chunk("and so on " * 100))

    return act
