#!/bin/sh
# Builds the examples into the directory given, or into target/cpp, and prints their paths. Wants the packages
# capnproto and libcapnp-dev, and a C++ compiler.
set -eu
cd "$(dirname "$0")/../.."
out=${1:-target/cpp}
mkdir -p "$out"
capnp compile -oc++:"$out" --src-prefix=schema schema/stubborn.capnp schema/byte-stream.capnp
for example in fetch socket_room; do
    "${CXX:-c++}" -std=c++17 -O1 -Wall -Wextra -I"$out" -o "$out/$example" "examples/cpp/$example.c++" \
        "$out/stubborn.capnp.c++" "$out/byte-stream.capnp.c++" -lcapnp-rpc -lcapnp -lkj-async -lkj
    echo "$out/$example"
done
