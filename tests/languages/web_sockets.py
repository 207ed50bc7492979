"""The WebSockets of ROOM with the client library `websockets`.

web_sockets.py ADDR: the gateway of a server without a configuration.
"""

import asyncio
import json
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

ADDRESS = sys.argv[1]
PATIENCE = 20


def room(name, who):
    return connect(f"ws://{ADDRESS}/ROOM/{name}/?from={who}", compression=None, max_size=None)


async def heard(member):
    """Returns the next thing said; who is here does not count."""
    while True:
        said = json.loads(await asyncio.wait_for(member.recv(), PATIENCE))
        if "here" not in said:
            return said


async def members_hear_each_other_in_order():
    async with room("lobby", "ann") as ann, room("lobby", "bob") as bob:
        for n in range(200):
            await ann.send(f"message {n}")
        for member in (ann, bob):
            for n in range(200):
                said = await heard(member)
                assert (said["from"], said["text"]) == ("ann", f"message {n}"), said
    async with room("lobby", "late") as late:
        texts = [(await heard(late))["text"] for _ in range(100)]
        assert texts == [f"message {n}" for n in range(100, 200)], texts


async def fragments_pings_and_auto_responses_are_answered():
    async with room("parts", "ann") as ann:
        await ann.send(["in ", "three ", "parts"])
        assert (await heard(ann))["text"] == "in three parts"
        await asyncio.wait_for(await ann.ping(b"x"), PATIENCE)
        await ann.send("ping")
        while (said := await asyncio.wait_for(ann.recv(), PATIENCE)) != "pong":
            assert "here" in json.loads(said), said


async def a_close_is_answered_with_its_code():
    for code in (1000, 3000, 4999):
        ann = await room("close", "ann")
        await ann.close(code, "enough")
        assert (ann.close_code, ann.close_reason) == (code, "enough"), ann.close_code


async def what_is_not_taken_closes_the_socket():
    for sent in ("x" * 20_000, b"bytes"):
        async with room("refused", "ann") as ann:
            await ann.send(sent)
            try:
                while True:
                    await asyncio.wait_for(ann.recv(), PATIENCE)
            except ConnectionClosed as closed:
                assert closed.rcvd.code == 4000, closed


async def an_object_that_opens_none_answers_as_it_does():
    try:
        await connect(f"ws://{ADDRESS}/COUNTER/x/")
        raise AssertionError("COUNTER opened a WebSocket")
    except InvalidStatus as refused:
        assert refused.response.status_code == 200, refused


async def hundreds_of_members_hear_one():
    members = [await room("crowd", f"m{n}") for n in range(200)]
    await members[0].send("all of you")
    for member in members:
        assert (await heard(member))["text"] == "all of you"
    await asyncio.gather(*(member.close() for member in members))


async def main():
    tests = [
        members_hear_each_other_in_order,
        fragments_pings_and_auto_responses_are_answered,
        a_close_is_answered_with_its_code,
        what_is_not_taken_closes_the_socket,
        an_object_that_opens_none_answers_as_it_does,
        hundreds_of_members_hear_one,
    ]
    for test in tests:
        await asyncio.wait_for(test(), 120)
        print("ok", test.__name__)


asyncio.run(main())
