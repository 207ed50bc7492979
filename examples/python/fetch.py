"""Calls an object: fetch.py ADDR NAMESPACE NAME URL

Shows what the object answers; then an error of an object of the namespace PROBE, and a forged id, with
their flags; then a long body each way. ADDR is HOST:PORT or unix:PATH.
"""

import asyncio
import hashlib
import pathlib
import sys

import capnp

# `-> stream` and the C++ names import what is installed beside pycapnp.
INSTALLED = str(pathlib.Path(capnp.__file__).parent.parent)
SCHEMA = pathlib.Path(__file__).parent.parent.parent / "schema"
stubborn = capnp.load(str(SCHEMA / "stubborn.capnp"), imports=[INSTALLED])
byte_stream = capnp.load(str(SCHEMA / "byte-stream.capnp"), imports=[INSTALLED])

FLAGS = ["remote", "retryable", "overloaded", "reset", "delivered"]


async def main(address, namespace, name, url):
    if address.startswith("unix:"):
        stream = await capnp.AsyncIoStream.create_unix_connection(address[len("unix:") :])
    else:
        host, port = address.rsplit(":", 1)
        stream = await capnp.AsyncIoStream.create_connection(host=host, port=port)
    server = capnp.TwoPartyClient(stream).bootstrap().cast_as(stubborn.Server)

    # Nothing is awaited before the fetch: all of it costs one round trip.
    stub = server.namespace(namespace).namespace.getByName(name).stub
    outcome = await stub.fetch(url=url)
    await show("fetched", outcome)

    probe = server.namespace("PROBE").namespace
    await show("thrown", await probe.getByName(name).stub.fetch(url="http://do/throw?message=boom"))
    await show("forged", await probe.get(bytes(32)).stub.fetch(url="http://do/"))

    stub = probe.getByName(name).stub
    await show("uploaded", await upload(stub, "http://do/upload", (bytes(1000) for _ in range(1000))))
    download = await stub.fetch(url="http://do/stream?bytes=1000000&chunk=10000")
    data = await body(download.response.body)
    print(f"downloaded: {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}")


async def show(what, outcome):
    """Prints the answer, or the error: it is data, with flags to decide by."""
    if outcome.which() == "response":
        response = outcome.response
        print(f"{what}: {response.status} {(await body(response.body)).decode()}")
        return
    error = outcome.error
    flags = " ".join(f"{flag}={str(getattr(error, flag)).lower()}" for flag in FLAGS)
    print(f"{what}: {error.kind} {flags}: {error.message}")


async def upload(stub, url, chunks):
    """Sends a long body: the server pulls it, as fast as the object reads."""
    request = stub.fetch_request()
    request.method = "POST"
    request.url = url
    request.body.rest = Source(chunks)
    return await request.send()


class Source(stubborn.BodySource.Server):
    """A body that is sent piece by piece."""

    def __init__(self, chunks):
        self.chunks = chunks

    async def pumpTo(self, sink, **_):
        for chunk in self.chunks:
            await sink.write(bytes=chunk)  # returns when there is room for more
        await sink.end()  # without it, the body would count as cut short


async def body(body):
    """Receives a body, a long one too."""
    sink = Sink()
    if body._has("rest"):
        await body.rest.pumpTo(sink=sink)
        if not sink.ended:
            raise EOFError("the body was cut short")
    return bytes(body.prefix) + b"".join(sink.chunks)


class Sink(byte_stream.ByteStream.Server):
    """Takes the pieces of a body. Not returning from `write` holds back the sender."""

    def __init__(self):
        self.chunks = []
        self.ended = False

    async def write(self, bytes, **_):
        self.chunks.append(bytes)

    async def end(self, **_):
        self.ended = True


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    asyncio.run(capnp.run(main(*sys.argv[1:])))
