"""Requests that are too large end before they are read, and answers forbid the browser to ask other servers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
_TOO_LARGE = 413  # the status of HTTP
# The page's own scripts and styles are inline or from this server; images may be data.
_POLICY = (
    b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; form-action 'self'; base-uri 'self'; "
    b"frame-ancestors 'self'; object-src 'none'"
)
_HEADERS = [(b"content-security-policy", _POLICY), (b"referrer-policy", b"no-referrer")]
_CLOSE = (b"connection", b"close")


class _TooLarge(Exception):
    """A request whose body is longer than it said."""


class Guard:
    """An ASGI application around another one.

    Args:
        app: The other one.
        most: Bytes of a request's body that are accepted.
    """

    def __init__(self, app: Callable[..., Awaitable[None]], most: int):
        self.app, self.most = app, most

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request; see the ASGI specification."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        names = dict(scope["headers"])
        length = names.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self.most:
            await _refuse(send)
            return
        total, started = 0, False
        unread = length != b"0" or b"transfer-encoding" in names

        async def counted() -> Message:
            nonlocal total, unread
            message = await receive()
            unread = unread and bool(message.get("more_body"))
            total += len(message.get("body", b""))
            if total > self.most:
                raise _TooLarge
            return message

        async def with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                # An answer to a request that is not read to its end closes the connection: no one needs the rest.
                close = [_CLOSE] if unread else []
                message["headers"] = [*message.get("headers", []), *_HEADERS, *close]
            await send(message)

        try:
            await self.app(scope, counted, with_headers)
        except _TooLarge:
            if not started:
                await _refuse(send)


async def _refuse(send: Send) -> None:
    headers = [(b"content-type", b"text/plain"), _CLOSE]
    await send({"type": "http.response.start", "status": _TOO_LARGE, "headers": headers})
    await send({"type": "http.response.body", "body": b"The request is too large."})
