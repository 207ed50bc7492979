@0x97b4548c6dbff16c;
# The typed interfaces of the demonstration classes: what an author's own schema looks like.

using Stub = import "stubborn.capnp".Stub;

interface Counter extends(Stub) {
  # A number, as a typed interface.

  increment @0 (by :Int64 = 1) -> (value :Int64);
  # Adds `by` and returns the sum.
}

interface Probe extends(Stub) {
  # Reflects, for tests of order and of references.

  log @0 (n :UInt64, payload :Data) -> (position :UInt64);
  # Appends `n` to the list that `GET /log` shows; `payload` is ignored. Returns how many came before.

  echo @1 (listener :Listener) -> (listener :Listener);
  # Returns what it was given, resolved.

  notify @2 (listener :Listener, count :UInt32) -> ();
  # Calls `heard` with 0, 1, … `count`-1 and returns when all were answered.

  note @3 (n :UInt64) -> stream;
  # As `log`, with flow control.

  fail @4 (message :Text) -> ();
  # Fails with `message`.
}

interface Listener {
  heard @0 (n :UInt64);
}
