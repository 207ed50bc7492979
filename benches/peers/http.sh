#!/usr/bin/env bash
# Measures the gateway beside a bare hyper server and beside workerd, in one run: wrk with 64 connections, the
# subjects in turns, medians of three. Everything is in memory: first answers of 100 bytes, then a counter that
# stores its number, the same in both. Wants wrk and npm; builds for release.
# THREADS (1): threads of each server. SECONDS_EACH (5). REPEATS (3).
set -euo pipefail
cd "$(dirname "$0")/../.."

target=${CARGO_TARGET_DIR:-target}
threads=${THREADS:-1}
seconds=${SECONDS_EACH:-5}
repeats=${REPEATS:-3}
workerd=$target/workerd
version=1.20261117.1
pids=()
trap 'for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done' EXIT

main() {
    cargo build --quiet --release --bin stubborn --example http_echo
    start_gateway
    start_hyper
    start_workerd
    declare -gA urls=(
        [gateway]=http://$gateway/KV/bench/value
        [hyper]=http://127.0.0.1:17481/
        [workerd]=http://127.0.0.1:17482/value
    )
    printf 'wrk.method = "POST"\n' >"$target/peers-post.lua"
    local subject
    for subject in gateway hyper workerd; do
        until [ "$(curl -s "${urls[$subject]}" | wc -c)" -eq 100 ]; do sleep 0.1; done
    done
    compare "100 bytes" gateway hyper workerd
    urls[gateway]=http://$gateway/COUNTER/bench/
    urls[workerd]=http://127.0.0.1:17482/count
    compare "counter" gateway workerd
}

# Measures some subjects in turns, and prints the first beside the others.
compare() {
    local what=$1 repeat subject
    shift
    declare -A figures=()
    for subject in "$@"; do measure "$what" "$subject" 1 >/dev/null; done
    for ((repeat = 0; repeat < repeats; repeat++)); do
        for subject in "$@"; do figures[$subject]+=" $(measure "$what" "$subject" "$seconds")"; done
    done
    for subject in "$@"; do
        echo "$what, $subject: $(median ${figures[$subject]}) requests/s (${figures[$subject]# })"
    done
    for subject in "${@:2}"; do
        echo "$what, $1 / $subject: $(ratio ${figures[$1]} / ${figures[$subject]})"
    done
}

measure() {
    local script=()
    if [ "$1" = counter ]; then script=(--script "$target/peers-post.lua"); fi
    wrk --threads 1 --connections 64 --duration "${3}s" "${script[@]}" "${urls[$2]}" | awk '
        /Requests\/sec/ { print int($2) }
        /Non-2xx|Socket errors/ { print > "/dev/stderr"; exit 1 }'
}

median() {
    printf '%s\n' "$@" | sort -n | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'
}

ratio() {
    local over=() under=() part=over
    for figure in "$@"; do
        if [ "$figure" = / ]; then part=under; continue; fi
        if [ "$part" = over ]; then over+=("$figure"); else under+=("$figure"); fi
    done
    awk -v a="$(median "${over[@]}")" -v b="$(median "${under[@]}")" 'BEGIN { printf "%.2f", a / b }'
}

start_gateway() {
    local ready=$target/peers-ready line
    rm -f "$ready"
    mkfifo "$ready"
    "$target/release/stubborn" serve --in-memory --threads "$threads" --listen 127.0.0.1:0 --http 127.0.0.1:0 \
        >"$ready" 2>/dev/null &
    pids+=($!)
    read -r line <"$ready"
    gateway=${line##*http=}
    head -c 100 /dev/zero | tr '\0' x | curl -s -T - "http://$gateway/KV/bench/value"
}

start_hyper() {
    local input=$target/peers-input
    rm -f "$input"
    mkfifo "$input"
    # Held open here: it ends with this script.
    exec 9<>"$input"
    "$target/release/examples/http_echo" 127.0.0.1:17481 "$threads" <"$input" >/dev/null 9>&- &
    pids+=($!)
}

# The same objects in workerd: a worker that passes each request on to one object.
start_workerd() {
    if [ ! -x "$workerd/node_modules/.bin/workerd" ]; then
        npm install --silent --prefix "$workerd" "workerd@$version"
    fi
    cat >"$workerd/echo.js" <<'EOF'
const answer = "x".repeat(100);
export class Value {
    constructor(state) {
        this.storage = state.storage;
        state.blockConcurrencyWhile(async () => {
            this.value = (await this.storage.get("value")) ?? 0;
        });
    }
    fetch(request) {
        if (request.method !== "POST") return new Response(answer);
        this.storage.put("value", ++this.value);
        return new Response(String(this.value));
    }
}
export default {
    fetch(request, env) {
        return env.VALUE.get(env.VALUE.idFromName("bench")).fetch(request);
    },
};
EOF
    cat >"$workerd/echo.capnp" <<'EOF'
using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [ (name = "main", worker = .mainWorker) ],
  sockets = [ (name = "http", address = "127.0.0.1:17482", http = (), service = "main") ]
);
const mainWorker :Workerd.Worker = (
  modules = [ (name = "echo.js", esModule = embed "echo.js") ],
  compatibilityDate = "2026-04-01",
  bindings = [ (name = "VALUE", durableObjectNamespace = "Value") ],
  durableObjectNamespaces = [ (className = "Value", uniqueKey = "bench") ],
  durableObjectStorage = (inMemory = void),
);
EOF
    "$workerd/node_modules/.bin/workerd" serve "$workerd/echo.capnp" >/dev/null 2>&1 9>&- &
    pids+=($!)
}

main "$@"
