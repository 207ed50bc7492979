@0xd7a934f1a1859b4e;
# The byte stream of the Cap'n Proto distribution, restated so that this directory is complete on
# machines whose package leaves it out. Interface id and ordinals are those of the distribution's
# `ByteStream`: a capability of that type, made in any language, is one of this type.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("stubborn");

interface ByteStream @0xd2e7d8a0dc0a9766 {
  # Takes bytes, in order. Dropping it before `end` means that the bytes were cut short.

  write @0 (bytes :Data) -> stream;
  # Appends `bytes`. Returns when the receiver has room for more: that is the flow control. Fails
  # when the receiver no longer wants bytes; every later call then fails too.

  end @1 ();
  # Says that all bytes were written. Returns when the receiver has noted it.
}
