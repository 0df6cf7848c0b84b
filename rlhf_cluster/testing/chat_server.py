"""An OpenAI-compatible HTTP server on 127.0.0.1 whose model is two functions: for tests of judges and critics."""

from __future__ import annotations

import json
import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Write = Callable[[str], str]
"""Prompt -> reply."""
FirstToken = Callable[[str], Mapping[str, float]]
"""Prompt -> probabilities of first tokens by their text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Answered instead of the model's reply."""

    status: int
    body: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    path: str
    authorization: str | None
    body: Mapping[str, Any]


class ChatServer:
    """`with ChatServer(...) as server:` serves `server.url`, with `/chat/completions` and `/completions` below it."""

    def __init__(
        self,
        *,
        write: Write = lambda prompt: "yes",
        first_token: FirstToken = lambda prompt: {"A": 0.5, "B": 0.5},
        refusals: Iterable[Refusal] = (),
    ) -> None:
        """`refusals` come first, one a request."""
        self.asked: list[Asked] = []
        self._write = write
        self._first_token = first_token
        self._refusals = deque(refusals)
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> ChatServer:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, asked: Asked) -> tuple[int, str]:
        """Status and body."""
        with self._lock:
            self.asked.append(asked)
            refusal = self._refusals.popleft() if self._refusals else None
        if refusal is not None:
            return refusal.status, refusal.body
        return 200, json.dumps({"choices": [self._choice(asked)]})

    def _choice(self, asked: Asked) -> dict[str, Any]:
        is_chat = asked.path.endswith("/chat/completions")
        prompt = asked.body["messages"][-1]["content"] if is_chat else asked.body["prompt"]
        if not asked.body.get("logprobs"):
            reply = self._write(prompt)
            return {"message": {"role": "assistant", "content": reply}} if is_chat else {"text": reply}
        logprobs = {token: math.log(p) for token, p in self._first_token(prompt).items()}
        likeliest = max(logprobs, key=logprobs.__getitem__)
        if not is_chat:
            return {"text": likeliest, "logprobs": {"top_logprobs": [logprobs]}}
        tops = [{"token": token, "logprob": logprob} for token, logprob in logprobs.items()]
        content = [{"token": likeliest, "logprob": logprobs[likeliest], "top_logprobs": tops}]
        return {"message": {"content": likeliest}, "logprobs": {"content": content}}


def _handler(server: ChatServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            asked = Asked(path=self.path, authorization=self.headers.get("authorization"), body=body)
            status, answer = server.answer(asked)
            content = answer.encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """The tests' output is not for this."""

    return Handler
