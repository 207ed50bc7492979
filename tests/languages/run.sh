#!/usr/bin/env bash
# Runs the examples in other languages against a server that runs: run.sh ADDR. The server is one
# without a configuration: it has the namespaces COUNTER, PROBE and ROOM.
#
# PYTHON is a Python that has pycapnp. What is built goes below CARGO_TARGET_DIR, or target/.
set -euo pipefail
cd "$(dirname "$0")/../.."

address=${1:?usage: run.sh ADDR}
python=${PYTHON:-python3}
target=${CARGO_TARGET_DIR:-target}

# An object that no run before this one has counted with.
object=languages-$$-$(date +%s)

main() {
    failed=0
    examples/cpp/build.sh "$target/cpp"
    check "C++" "$(common)" timeout 60 "$target/cpp/fetch" "$address" COUNTER "$object" http://do/
    check "C++ over a WebSocket" "$(talk_as_lines)" \
        timeout 60 "$target/cpp/socket_room" "$address" "$object-lines" hello "grüße"
    check "Python" "$(common; bodies)" \
        timeout 60 "$python" examples/python/fetch.py "$address" COUNTER "$object" http://do/
    check "Python over a WebSocket" "$(talk)" \
        timeout 60 "$python" examples/python/socket_room.py "$address" "$object" hello "grüße"
    return "$failed"
}

talk() {
    cat <<EOF
opened: 101
python: hello
python: grüße
closed
EOF
}

talk_as_lines() {
    cat <<EOF
opened: 101
{"number":1,"from":"c++","text":"hello"}
{"number":2,"from":"c++","text":"grüße"}
closed
EOF
}

# What both print.
common() {
    cat <<EOF
fetched: 200 0
thrown: failed remote=true retryable=false overloaded=false reset=false delivered=true: boom
forged: wrongNamespace remote=false retryable=false overloaded=false reset=false delivered=false: id $(printf '0%.0s' {1..64}) is not of this namespace
EOF
}

# The bytes that are sent are zeros; those that are received count modulo 251.
bodies() {
    cat <<EOF
uploaded: 200 {"bytes":1000000,"sha256":"$(head -c 1000000 /dev/zero | digest)"}
downloaded: 1000000 bytes, sha256 $("$python" -c 'import sys; sys.stdout.buffer.write(bytes(i % 251 for i in range(1000000)))' | digest)
EOF
}

digest() {
    sha256sum | cut -d' ' -f1
}

# Runs a command, and compares what it prints with what is expected.
check() {
    local what=$1 expected=$2 printed
    shift 2
    if ! printed=$("$@"); then
        echo "$what: $* failed" >&2
        failed=1
    fi
    if diff <(echo "$expected") <(echo "$printed"); then
        echo "$what: as expected"
    else
        echo "$what: printed > where < was expected" >&2
        failed=1
    fi
}

main
