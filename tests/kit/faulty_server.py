"""A model server that fails as the model's name says: python faulty_server.py PORT TEXT.

Written on bare sockets, since a library would not let it break the protocol.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys

from upstreams import chunk, event, stream_of

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
MODELS = json.dumps({"object": "list", "data": [{"id": "m"}]}).encode()


def piece(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if head.startswith(b"get"):
        length = str(len(MODELS)).encode()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n")
        writer.write(b"content-length: " + length + b"\r\n\r\n" + MODELS)
        await writer.drain()
        writer.close()
        return
    size = int(head.partition(b"content-length: ")[2].split(b"\r\n")[0])
    body = json.loads(await reader.readexactly(size))
    fault = body["model"]
    if fault == "silent":
        await asyncio.sleep(60)
    if fault == "rude":
        writer.write(b"\x16\x03\x01\x02\x00\x01 this is not HTTP at all\r\n\r\n" * 50)
    else:
        words = [word + " " for word in sys.argv[2].split(" ")]
        if not body.get("stream"):
            said = {"role": "assistant", "content": "".join(words)}
            whole = {"choices": [{"index": 0, "message": said, "finish_reason": "stop"}]}
            data = json.dumps(whole).encode()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n")
            writer.write(b"content-length: %d\r\n\r\n" % len(data) + data[: len(data) // 2])
        else:
            writer.write(HEAD)
            for part in stream_of(words[:60], None):
                writer.write(piece(event(part)))
        await writer.drain()
        if fault == "kill":
            await asyncio.sleep(0.7)  # so that other callers have their first words, too
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "hang":
            await asyncio.sleep(60)
        if fault == "half":
            data = event(chunk({"content": words[60]}))
            writer.write(f"{len(data):x}\r\n".encode() + data[: len(data) // 2])
        if fault == "garbage":
            writer.write(piece(b"data: \xff\xfe{]\n\n" + os.urandom(2_000)))
    await writer.drain()
    writer.close()


async def main() -> None:
    server = await asyncio.start_server(answer, "127.0.0.1", int(sys.argv[1]))
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
