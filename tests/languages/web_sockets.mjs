// The WebSockets of ROOM with the client library `ws`, and broken frames by hand.
//
// web_sockets.mjs ADDR: the gateway of a server without a configuration.

import assert from "node:assert/strict";
import { once } from "node:events";
import net from "node:net";
import WebSocket from "ws";

const address = process.argv[2];

function room(name, who) {
  return new WebSocket(`ws://${address}/ROOM/${name}/?from=${who}`);
}

/** Resolves with the next `count` things said. */
function heard(member, count) {
  return new Promise((resolve, reject) => {
    const said = [];
    member.on("error", reject);
    member.on("close", (code) => reject(new Error(`closed with ${code}`)));
    member.on("message", (data, isBinary) => {
      assert.equal(isBinary, false);
      const message = JSON.parse(data.toString());
      if (!("here" in message)) said.push(message.text);
      if (said.length === count) resolve(said);
    });
  });
}

async function talk() {
  const [ann, bob] = [room("node", "ann"), room("node", "bob")];
  const all = Promise.all([heard(ann, 100), heard(bob, 100)]);
  await Promise.all([once(ann, "open"), once(bob, "open")]);
  for (let n = 0; n < 100; n++) ann.send(`m${n}`);
  const expected = Array.from({ length: 100 }, (_, n) => `m${n}`);
  for (const texts of await all) assert.deepEqual(texts, expected);
  ann.removeAllListeners("close");
  ann.close(4001, "done");
  const [code, reason] = await once(ann, "close");
  assert.deepEqual([code, reason.toString()], [4001, "done"]);
  bob.terminate();
}

/** Opens a WebSocket by hand, sends `bytes`, and resolves with the close code that comes; 1006 where none does. */
function raw(bytes) {
  const [host, port] = address.split(":");
  return new Promise((resolve, reject) => {
    const socket = net.connect(Number(port), host);
    socket.on("error", reject);
    socket.write(
      "GET /ROOM/raw/ HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n" +
        "sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    socket.write(bytes);
    let got = Buffer.alloc(0);
    socket.on("data", (data) => (got = Buffer.concat([got, data])));
    socket.on("end", () => socket.end());
    socket.on("close", () => {
      let rest = got.subarray(got.indexOf("\r\n\r\n") + 4);
      assert.ok(got.toString("latin1").startsWith("HTTP/1.1 101 "), got.toString("latin1"));
      while (rest.length >= 2) {
        const size = rest[1] < 126 ? rest[1] : rest.readUInt16BE(2);
        const head = rest[1] < 126 ? 2 : 4;
        if ((rest[0] & 15) === 8) return resolve(size >= 2 ? rest.readUInt16BE(head) : 1005);
        rest = rest.subarray(head + size);
      }
      resolve(1006);
    });
  });
}

/** A frame of a client, masked with zeros. */
function frame(first, payload, length = payload.length) {
  const head = length < 126 ? [first, 0x80 | length] : [first, 0xfe, length >> 8, length & 255];
  return Buffer.concat([Buffer.from([...head, 0, 0, 0, 0]), Buffer.from(payload)]);
}

async function broken() {
  const huge = Buffer.from([0x81, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
  for (const [what, bytes, code] of [
    ["text that is not UTF-8", frame(0x81, [0xc3, 0x28]), 1007],
    ["a frame without a mask", Buffer.from([0x81, 1, 0x78]), 1002],
    ["a reserved opcode", frame(0x83, "x"), 1002],
    ["a reserved bit", frame(0xc1, "x"), 1002],
    ["a continuation of nothing", frame(0x80, "x"), 1002],
    ["a ping that is too long", frame(0x89, Buffer.alloc(126)), 1002],
    ["a message of 4 GiB", huge, 1009],
    ["a close with a code that may not be sent", frame(0x88, [0x03, 0xed]), 1002],
    ["a close", frame(0x88, [0x03, 0xe8]), 1000],
  ]) {
    assert.equal(await raw(bytes), code, what);
  }
}

await talk();
console.log("ok talk");
await broken();
console.log("ok broken");
