"""Talks in a room: socket_room.py ADDR NAME TEXT...

Opens a WebSocket to the object NAME of the namespace ROOM, says each TEXT there, and prints what it hears until
it has heard them all. ADDR is HOST:PORT or unix:PATH.
"""

import asyncio
import json
import pathlib
import sys

import capnp

# `-> stream` and the C++ names import what is installed beside pycapnp.
INSTALLED = str(pathlib.Path(capnp.__file__).parent.parent)
SCHEMA = pathlib.Path(__file__).parent.parent.parent / "schema"
stubborn = capnp.load(str(SCHEMA / "stubborn.capnp"), imports=[INSTALLED])


class Heard(stubborn.WebSocket.Server):
    """The direction that this side receives."""

    def __init__(self):
        self.messages = asyncio.Queue(100)
        self.parts = b""

    async def sendText(self, text, **_):
        await self.messages.put((self.parts + text.encode()).decode())
        self.parts = b""

    async def sendBinary(self, bytes, **_):
        await self.messages.put(self.parts + bytes)
        self.parts = b""

    async def sendPart(self, bytes, **_):
        self.parts += bytes  # the beginning of a message that is too large for one call

    async def close(self, code, reason, **_):
        await self.messages.put(None)


async def main(address, name, *texts):
    if address.startswith("unix:"):
        stream = await capnp.AsyncIoStream.create_unix_connection(address[len("unix:") :])
    else:
        host, port = address.rsplit(":", 1)
        stream = await capnp.AsyncIoStream.create_connection(host=host, port=port)
    server = capnp.TwoPartyClient(stream).bootstrap().cast_as(stubborn.Server)

    request = server.namespace("ROOM").namespace.getByName(name).stub.fetch_request()
    request.url = "http://do/?from=python&limit=0"
    (upgrade,) = request.init("headers", 1)
    upgrade.name, upgrade.value = "upgrade", b"websocket"
    heard = Heard()
    request.webSocket = heard
    outcome = await request.send()
    assert outcome.which() == "response", outcome.error.message
    print(f"opened: {outcome.response.status}")

    # Dropping this before `close` would be a lost link.
    socket = outcome.response.webSocket
    for text in texts:
        await socket.sendText(text=text)  # returns when there is room for more
    waiting = len(texts)
    while waiting and (message := await heard.messages.get()) is not None:
        told = json.loads(message)
        if "text" in told:
            print(f"{told.get('from', 'somebody')}: {told['text']}")
            waiting -= 1
    await socket.close(code=1000, reason="that was all")
    while await heard.messages.get() is not None:
        pass
    print("closed")


asyncio.run(capnp.run(main(*sys.argv[1:])))
