"""The cases of autobahntestsuite, an independent suite for RFC 6455, against a server that says what it hears.

conformance.py ADDR SUITE [CASE...]: the gateway of a server that exposes PROBE, the directory of the package
`autobahntestsuite`, and which cases to run (a prefix, such as 6.4), all without them.

The suite's own peer needs Python 2. Its cases only say what is sent, and what must be heard, through a dozen
methods of a peer: this is another one. Strings are bytes to the cases, so they are Latin-1 here. What needs
permessage-deflate (12, 13) is left out, as the server negotiates no extension.
"""

import asyncio
import base64
import binascii
import os
import re
import struct
import sys
import types

AT_ONCE = 8
# What a case waits before it gives up, so many times as long: a busy machine is no failure.
SLOWER = 5
# What no case takes.
PATIENCE = 240
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class States:
    """What cases import from the suite's own WebSocket library."""

    STATE_CLOSED, STATE_CONNECTING, STATE_CLOSING, STATE_OPEN = range(4)


class Utf8Validator:
    """What cases decide with which prefixes of a text are valid, and end on a character."""

    def reset(self):
        pass

    def validate(self, text):
        try:
            text.encode("latin-1").decode("utf-8")
            return (True, True)
        except UnicodeDecodeError as error:
            return (error.reason == "unexpected end of data", False)


def load(suite):
    """Returns the classes of all cases by their numbers."""
    library = {"autobahn": {}, "autobahn.websocket": {}}
    library["autobahn.websocket.protocol"] = {"WebSocketProtocol": States}
    library["autobahn.websocket.utf8validator"] = {"Utf8Validator": Utf8Validator}
    library["binascii"] = {"b2a_hex": lambda text: binascii.b2a_hex(text.encode("latin-1")).decode()}
    for name, members in library.items():
        library[name] = types.ModuleType(name)
        library[name].__dict__.update(members)
    names = [name[:-3] for name in os.listdir(f"{suite}/case") if name.endswith(".py")]
    wanted = sorted(name for name in names if re.match(r"case(\d|10)_", name) and name != "case9_9_1")
    modules = {name: types.ModuleType(name) for name in ["case", "case6_4_1", *wanted]}
    cases = {}
    before = {name: sys.modules.get(name) for name in (*library, *modules)}
    sys.modules.update(library)
    for name, module in modules.items():
        # A literal is the bytes that the file has.
        with open(f"{suite}/case/{name}.py", encoding="latin-1") as file:
            source = file.read()
        # Python 2's dialect, as far as the cases speak it.
        source = re.sub(r"^(\s*)print\b.*$", r"\1pass", source, flags=re.M)
        source = source.replace("(object, Case, )", "(Case, )").replace(") / self", ") // self")
        module.__dict__.update(xrange=range, unichr=chr)
        sys.modules[name] = module
        exec(compile(source, name, "exec"), module.__dict__)
        for value in list(module.__dict__.values()):
            found = value if isinstance(value, list) else [value]
            for case in found:
                number = re.fullmatch(r"Case(\d+(_\d+)+)", getattr(case, "__name__", ""))
                if isinstance(case, type) and number:
                    cases[tuple(map(int, number[1].split("_")))] = case
    for name, module in before.items():
        sys.modules.pop(name)
        if module is not None:
            sys.modules[name] = module
    modules["case"].Case.compare = lambda self, one, other: one == other
    return dict(sorted(cases.items()))


class Peer(asyncio.Protocol):
    """A client that does what a case says, and tells it what it hears."""

    CLOSE_STATUS_CODE_NORMAL, CLOSE_STATUS_CODE_PROTOCOL_ERROR, CLOSE_STATUS_CODE_INVALID_PAYLOAD = 1000, 1002, 1007

    def __init__(self, host, path, case):
        self.host, self.path = host, path
        self.state = States.STATE_CONNECTING
        self.factory = types.SimpleNamespace(isServer=False)
        self.connectionWasOpen = self.closedByMe = self.failedByMe = self.droppedByMe = self.wasClean = False
        self.localCloseReason = self.remoteCloseCode = None
        self.createWirelog, self.autoFragmentSize, self.txFrameStats = False, 0, {}
        self.input, self.message, self.opcode, self.streaming = bytearray(), bytearray(), None, None
        self.lost = asyncio.get_running_loop().create_future()
        self.case = case(self)

    # What a case may ask for.

    def sendFrame(self, opcode, payload="", fin=True, rsv=0, mask=None, payload_len=None, chopsize=None, sync=False):
        data = payload.encode("latin-1")
        if payload_len is not None:
            data = (data * (payload_len // max(len(data), 1) + 1))[:payload_len]
        self.txFrameStats[opcode] = self.txFrameStats.get(opcode, 0) + 1
        frame = head(opcode, len(data), fin, rsv, MASK) + masked(data, MASK)
        size = chopsize or len(frame)
        for start in range(0, len(frame), size):
            self.transport.write(frame[start:start + size])

    def sendMessage(self, payload, isBinary=False, fragmentSize=None, sync=False):
        size = fragmentSize or self.autoFragmentSize or max(len(payload), 1)
        opcode = BINARY if isBinary else TEXT
        for start in range(0, max(len(payload), 1), size):
            self.sendFrame(opcode, payload[start:start + size], fin=start + size >= len(payload))
            opcode = 0

    def beginMessage(self, isBinary=False):
        self.streaming = BINARY if isBinary else TEXT

    def beginMessageFrame(self, length):
        self.transport.write(head(self.streaming, length, False, 0, bytes(4)))
        self.streaming = 0

    def sendMessageFrameData(self, payload, sync=False):
        self.transport.write(payload.encode("latin-1"))

    def endMessage(self):
        self.sendFrame(0, "", fin=True)

    def sendCloseFrame(self, code=None, reasonUtf8=None, isReply=False):
        if self.state != States.STATE_OPEN:
            return
        self.closedByMe, self.localCloseReason = not isReply, reasonUtf8
        code = "" if code is None else struct.pack(">H", code).decode("latin-1")
        self.sendFrame(CLOSE, code + (reasonUtf8 or ""))
        self.state = States.STATE_CLOSING

    def sendClose(self, code=None, reason=None):
        self.sendCloseFrame(code, reason)

    def enableWirelog(self, enable):
        pass

    def continueLater(self, delay, then, tag=None):
        self.later(delay, then)

    def killAfter(self, delay):
        self.later(delay * SLOWER, self.fail)

    def closeAfter(self, delay):
        self.later(delay * SLOWER, self.sendClose)

    # What is behind it.

    def later(self, delay, then):
        def act():
            if self.state != States.STATE_CLOSED:
                then()
        asyncio.get_running_loop().call_later(delay, act)

    def fail(self):
        self.failedByMe, self.wasClean = True, False
        self.drop()

    def drop(self):
        self.droppedByMe = True
        self.transport.abort()

    def connection_made(self, transport):
        self.transport = transport
        key = base64.b64encode(os.urandom(16)).decode()
        transport.write(
            f"GET {self.path} HTTP/1.1\r\nHost: {self.host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())

    def data_received(self, data):
        self.input += data
        if self.state == States.STATE_CONNECTING:
            end = self.input.find(b"\r\n\r\n")
            if end < 0:
                return
            assert self.input.startswith(b"HTTP/1.1 101 "), bytes(self.input)
            del self.input[:end + 4]
            self.state, self.connectionWasOpen = States.STATE_OPEN, True
            self.case.onOpen()
        while self.state != States.STATE_CLOSED and (frame := self.frame()):
            self.hear(*frame)

    def frame(self):
        """Takes the next frame out of what came; checks what every frame must be."""
        if len(self.input) < 2:
            return None
        first, second = self.input[:2]
        assert first & 0x70 == 0 and second & 0x80 == 0, "a server sends no reserved bits and no mask"
        length, start = second, 2
        if second >= 126:
            start = 4 if second == 126 else 10
            if len(self.input) < start:
                return None
            length = int.from_bytes(self.input[2:start], "big")
        if len(self.input) < start + length:
            return None
        payload = bytes(self.input[start:start + length])
        del self.input[:start + length]
        opcode, fin = first & 0x0F, bool(first & 0x80)
        assert opcode < 8 or (fin and length < 126), "a control frame is small and whole"
        return opcode, fin, payload

    def hear(self, opcode, fin, payload):
        text = payload.decode("latin-1")
        if opcode == PING:
            self.case.onPing(text)
            self.sendFrame(PONG, text)
        elif opcode == PONG:
            self.case.onPong(text)
        elif opcode == CLOSE:
            self.hear_close(payload)
        else:
            assert (opcode == 0) == (self.opcode is not None), "a message ends before the next begins"
            self.opcode = self.opcode or opcode
            self.message += payload
            if fin:
                if self.opcode == TEXT:
                    self.message.decode("utf-8")
                message, is_binary = self.message.decode("latin-1"), self.opcode == BINARY
                self.message, self.opcode = bytearray(), None
                if self.state == States.STATE_OPEN:
                    self.case.onMessage(message, is_binary)

    def hear_close(self, payload):
        self.remoteCloseCode = int.from_bytes(payload[:2], "big") if payload else None
        payload[2:].decode("utf-8")
        self.wasClean = True
        self.sendCloseFrame(self.remoteCloseCode, isReply=True)
        # The server closes the connection first.
        self.later(2 * SLOWER, self.drop)

    def connection_lost(self, error):
        self.state = States.STATE_CLOSED
        self.case.onConnectionLost(self.failedByMe)
        self.lost.set_result(None)


MASK = bytes.fromhex("37fa213d")


def head(opcode, length, fin, rsv, mask):
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    if length < 126:
        return struct.pack(">BB", first, 0x80 | length) + mask
    if length < 1 << 16:
        return struct.pack(">BBH", first, 0x80 | 126, length) + mask
    return struct.pack(">BBQ", first, 0x80 | 127, length) + mask


def masked(data, mask):
    long = (mask * (len(data) // 4 + 1))[:len(data)]
    return (int.from_bytes(data, "big") ^ int.from_bytes(long, "big")).to_bytes(len(data), "big")


async def run(address, number, case):
    """Runs one case; returns how it went, and why."""
    host, port = address.rsplit(":", 1)
    path = f"/PROBE/{'.'.join(map(str, number))}/socket"
    loop = asyncio.get_running_loop()
    _, peer = await loop.create_connection(lambda: Peer(address, path, case), host, int(port))
    await asyncio.wait_for(peer.lost, PATIENCE)
    case = peer.case
    passed = {"OK", "NON-STRICT", "INFORMATIONAL"}
    if case.behavior not in passed:
        return "FAILED", case.result
    if case.behaviorClose not in passed:
        return "FAILED", f"{case.behaviorClose}: {case.resultClose}"
    return case.behavior, case.result


async def main(address, suite, wanted):
    cases = load(suite)
    if wanted:
        cases = {number: case for number, case in cases.items()
                 if any(f"{'.'.join(map(str, number))}.".startswith(f"{want}.") for want in wanted)}
    slots, outcomes = asyncio.Semaphore(AT_ONCE), {}

    async def one(number, case):
        async with slots:
            try:
                outcome = await run(address, number, case)
            except Exception as error:
                outcome = ("FAILED", repr(error))
        outcomes[number] = outcome
        if outcome[0] == "FAILED":
            print(".".join(map(str, number)), outcome[1], file=sys.stderr)

    await asyncio.gather(*(one(number, case) for number, case in cases.items()))
    counts = {}
    for behavior, _ in outcomes.values():
        counts[behavior] = counts.get(behavior, 0) + 1
    print("autobahntestsuite:", ", ".join(f"{count} {behavior}" for behavior, count in sorted(counts.items())))
    return "FAILED" not in counts and bool(counts)


if __name__ == "__main__":
    sys.exit(not asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3:])))
