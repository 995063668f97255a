"""Server-sent events, as OpenAI's API streams them: read from bytes cut anywhere, and written.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from kidrails_guard.errors import UpstreamError

DONE: Final = b"data: [DONE]\n\n"
HEARTBEAT: Final = b": still here\n\n"
LONGEST_EVENT: Final = 4 * 1024 * 1024

_EVENT_END: Final = re.compile(rb"\r\n\r\n|\n\n|\r\r|\r\n\n|\n\r\n|\r\n\r(?!\n)")
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")


class EventReader:
    """Gives the ``data`` of each event; bytes may be cut inside a character or a line."""

    def __init__(self) -> None:
        self._buffer = b""
        self._scanned = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take bytes; give the data of every event that is now complete.

        Raises:
            UpstreamError: an event is longer than any answer's.
        """
        self._buffer += data
        while True:
            match = _EVENT_END.search(self._buffer, self._scanned)
            # A carriage return at the very end may be half of a line end.
            if match is None or (match.end() == len(self._buffer) and self._buffer.endswith(b"\r")):
                break
            event = self._buffer[: match.start()]
            self._buffer = self._buffer[match.end() :]
            self._scanned = 0
            found = _data_of(event)
            if found is not None:
                yield found
        self._scanned = max(0, len(self._buffer) - 3)
        if len(self._buffer) > LONGEST_EVENT:
            raise UpstreamError(f"an event of more than {LONGEST_EVENT} bytes")

    def finish(self) -> Iterator[bytes]:
        """Take the end of the stream; an event without its empty line still counts if it is whole.

        The specification drops it; servers that are killed between the two line ends exist.
        """
        found = _data_of(self._buffer.rstrip(b"\r\n"))
        if self._buffer[-1:] in (b"\n", b"\r") and found is not None:
            yield found
        self._buffer = b""


def _data_of(event: bytes) -> bytes | None:
    if event.startswith(b"data: ") and b"\n" not in event and b"\r" not in event:
        return event[6:]  # as every server writes it
    lines = []
    for line in _LINE_END.split(event.removeprefix(b"\xef\xbb\xbf")):
        if line.startswith(b"data:"):
            lines.append(line[5:].removeprefix(b" "))
        elif line == b"data":
            lines.append(b"")
    return b"\n".join(lines) if lines else None


def write_event(value: Any, *, name: str | None = None) -> bytes:
    """Return one event whose data is a JSON value, with an event name where one is given."""
    data = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    head = b"" if name is None else b"event: " + name.encode() + b"\n"
    return head + b"data: " + data + b"\n\n"
