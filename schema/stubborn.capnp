@0xd9d54ba743abcc01;
# The contract of stubborn: durable objects as capabilities.
#
# A *namespace* maps an *id* to one live *object* in the whole system. A *stub* is a capability to one
# object: calls made on it reach the object in the order in which they were made, and once it has lost
# its object it is broken for good.
#
# The bootstrap capability of a connection is a `Server`. Everything below may be pipelined: connect,
# `namespace`, `getByName` and `fetch` cost one round trip together.
#
# Compatibility: fields and methods are only ever added. What a reader does not know it ignores; what a
# server does not know it answers with `unimplemented`.

using ByteStream = import "byte-stream.capnp".ByteStream;

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("stubborn");
# (The distribution has this file wherever it has `stream.capnp`, which `-> stream` needs.)

interface Server $Cxx.name("Bootstrap") {
  # What a connection begins with.

  namespace @0 (name :Text) -> (namespace :Namespace);
  # The namespace called `name`. Where there is none, its own methods and calls on the stubs it
  # makes fail with kind `noSuchNamespace`; the message names those that exist.

  listNamespaces @1 () -> (namespaces :List(NamespaceInfo));
  # All namespaces, ordered by name.

  about @2 () -> (name :Text, version :Text, contract :UInt32, run :Text);
  # The program that answers, its version, the revision of this contract (1), and what tells this run of
  # the server from any other.
}

struct NamespaceInfo {
  name @0 :Text;
  class @1 :Text;
  # The name of the class whose objects it holds.
}

interface Namespace {
  # All objects of one class. Making an id or a stub creates nothing: the first event creates the
  # object. Dropping a namespace drops nothing else. Where a result has an `error`, it is null unless the
  # method failed.

  get @0 (id :Data) -> (stub :Stub);
  # The stub of the object with this id (32 bytes). Always answers at once, and never fails because
  # the object does not exist. Where `id` is not an id of this namespace, every call on the stub fails
  # with kind `invalidId` or `wrongNamespace`.

  getByName @1 (name :Text) -> (stub :Stub);
  # As `get` for the id of `name`; the object then knows its name.

  getExisting @2 (id :Data) -> (stub :Stub);
  # As `get`, but calls fail with kind `noSuchObject` where nothing was ever stored and nothing is
  # running. Such a failure does not break the stub.

  idFromName @3 (name :Text) -> (id :Data, error :Error);
  # The id that belongs to `name`: always the same one. Any text is a name, also the empty one.

  idFromString @4 (text :Text) -> IdOutcome;
  # Parses 64 hex digits, and proves that the id belongs to this namespace.

  newUniqueId @5 () -> (id :Data, error :Error);
  # A new random id, which no name leads to.

  list @6 (limit :UInt32 = 1000, cursor :Text) -> (objects :List(ObjectInfo), cursor :Text, error :Error);
  # Up to `limit` (1 to 10,000) objects that exist, ordered by id, from after `cursor` (null: from the
  # first). The cursor of the last page is null.

  about @7 () -> (info :NamespaceInfo, error :Error);
  # Its name and class.
}

struct IdOutcome {
  union {
    id @0 :Data;
    error @1 :Error;
  }
}

struct ObjectInfo {
  id @0 :Data;
  name @1 :Text;
  # Null where the object was never reached by a name.

  hasStoredData @2 :Bool;
}

interface Stub {
  # A reference to one object. Calls on it, of every method and of every interface that the object's
  # class adds by extending this one, are delivered in the order in which they were made.
  #
  # It breaks when the connection is lost or the object is *reset* (its constructor failed, it called
  # abort, its handler panicked, …): all calls in flight and all later calls fail with that first
  # reason. `get` again for a working one. An error returned by a handler does not break it, nor does
  # eviction of an idle object. Dropping it drops nothing else.

  fetch @0 Request -> Outcome;
  # Sends a request to the object. Returns when the head of the response is known; bodies stream
  # beside it. Dropping the call does not stop a handler that has begun.

  identity @1 () -> (id :Data, name :Text, namespace :Text);
  # What the stub refers to; answered without waking the object. `name` is null where unknown. Fails by
  # exception where the stub can't refer to anything.

  broken @2 () -> (error :Error);
  # Returns when the stub breaks through its object, and only then; at once where it can't refer to any.
  # (Losing the connection fails this call as it does any other.) It neither wakes the object nor keeps
  # it in memory.
}

struct Request {
  method @0 :Text = "GET";

  url @1 :Text;
  # Absolute, `http` or `https`. It need not resolve: the request always goes to the stub's object;
  # scheme and host travel as data. A fragment is dropped.

  headers @2 :List(Header);
  body @3 :Body;

  webSocket @4 :WebSocket;
  # With `upgrade: websocket` among the headers: where the object's messages are to be sent. Null in any
  # other request. Who refuses the upgrade, or does not know of it, drops it.
}

struct Header {
  name @0 :Text;
  # Lower case.

  value @1 :Data;
  # The bytes as they were given. Repeated headers are repeated here, in order.
}

struct Body {
  # A body is `prefix`, followed by what `rest` holds. Small ones are all prefix.

  prefix @0 :Data;

  rest @1 :BodySource;
  # Null where the prefix is all.

  length :union {
    unknown @2 :Void;
    bytes @3 :UInt64;
    # Of the prefix and the rest together, where it is known.
  }
}

interface BodySource {
  # The rest of a body. Dropping it stops whoever produces it.

  pumpTo @0 (sink :ByteStream) -> ();
  # Writes the rest to `sink`, then calls `end` on it, then returns. A failure, or a sink dropped
  # without `end`, means that the body was cut short. May be called once. Dropping the call stops the
  # producer.
}

struct Response {
  status @0 :UInt16;
  # 200 to 599, or 101 with `webSocket`.

  headers @1 :List(Header);
  body @2 :Body;

  webSocket @3 :WebSocket;
  # With status 101: where the caller's messages are to be sent. Null with any other status: then no
  # WebSocket was opened.
}

struct Outcome {
  union {
    response @0 :Response;
    error @1 :Error;
  }
}

interface WebSocket {
  # One direction of a WebSocket: who holds it sends, who serves it receives. Messages arrive in the order in
  # which they were sent, across all methods. Each side closes its own direction; who is closed by its peer
  # answers with a `close` of its own.
  #
  # Dropping it before `close` is a lost link: the receiver is told of code 1006. So it learns that the
  # sender's machine vanished, that its object was reset, or that it gave up. Messages that were sent before
  # arrive first.
  #
  # A message has at most 32 MiB (or what the receiver's configuration says); one beyond fails, and the
  # receiver ends the WebSocket with code 1009. After `close`, every call fails.

  sendText @0 (text :Text) -> stream;
  # Sends a message of text. Returns when the receiver has room for more.

  sendBinary @1 (bytes :Data) -> stream;
  # Sends a message of bytes, likewise.

  close @2 (code :UInt16, reason :Text);
  # Ends this direction. `code` is 1000, or within 3000 and 4999, or another that RFC 6455 lets be sent; 1005 says
  # that there is none. `reason` has at most 123 bytes of UTF-8.

  sendPart @3 (bytes :Data) -> stream;
  # Sends the beginning of a message that is too large for one call: the next `sendText` or `sendBinary`
  # sends its end, and its kind. Any number of parts; those of a text may be cut anywhere but within a
  # character. A peer that does not know it fails the call, and so the WebSocket.
}

struct Error {
  # Why a call failed, as data. A call that fails with an *exception* of Cap'n Proto instead never had
  # an answer from the object: the connection was lost, or the server shed the call. (The author's own
  # methods have results of their own, and so fail by exception; `broken` then tells what happened.)

  kind @0 :Kind;

  message @1 :Text;
  # For people. Never to be parsed.

  remote @2 :Bool;
  # Whether the object's own code raised it, its constructor included.

  retryable @3 :Bool;
  # Transient: a new stub and another try may succeed.

  overloaded @4 :Bool;
  # Too much to do: do not retry now.

  reset @5 :Bool;
  # The object was reset: what it held in memory is gone, and this stub is broken.

  delivered @6 :Bool;
  # Whether the event may have reached the object's code. False: it surely did not run.

  enum Kind {
    # What to do about it.

    failed @0;           # the object's code, or ours, failed: look at the message
    disconnected @1;     # unreachable: get a new stub
    overloaded @2;       # wait, then try less
    unimplemented @3;    # the object or this server does not do that
    invalidId @4;        # not an id: 32 bytes, or 64 hex digits
    wrongNamespace @5;   # an id, but not of this namespace
    noSuchNamespace @6;  # check the name or the configuration
    noSuchObject @7;     # asked for an existing object; it does not exist
    invalidRequest @8;   # the request can't be sent as it is: the message names the value
    truncated @9;        # a body was cut short
    timeout @10;         # it took longer than its limit
  }
}
