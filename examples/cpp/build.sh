#!/bin/sh
# Builds fetch.c++ into the directory given, or into target/cpp. Wants the packages capnproto and
# libcapnp-dev, and a C++ compiler.
set -eu
cd "$(dirname "$0")/../.."
out=${1:-target/cpp}
mkdir -p "$out"
capnp compile -oc++:"$out" --src-prefix=schema schema/stubborn.capnp schema/byte-stream.capnp
"${CXX:-c++}" -std=c++17 -O1 -Wall -Wextra -I"$out" -o "$out/fetch" examples/cpp/fetch.c++ \
    "$out/stubborn.capnp.c++" "$out/byte-stream.capnp.c++" -lcapnp-rpc -lcapnp -lkj-async -lkj
echo "$out/fetch"
