#!/usr/bin/env python3
"""A durable counter, of ours and of workerd from npm, side by side on one disk.

    npm install --prefix target/peers workerd@1.20261117.1
    apt-get install -y wrk
    cargo build --release && cargo build --release --bench storage
    benches/peers/storage.py [--repeats 3] [--seconds 2]

Both keep their number with `storage.put` on local disk, one process each, in turns; syncs take 0, 1 and 5 ms longer,
by the same library loaded before both: workerd, too, calls the fsync and fdatasync of the C library.
workerd is driven over HTTP by wrk, 64 connections; ours is driven the same way where the
binary has `serve --http`, and otherwise over RPC by `cargo bench --bench storage`, 64 connections with one call in
flight each: then protocol and client differ, and the output says so.
"""
import argparse
import json
import os
import pathlib
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRATCH = ROOT / "target/bench-storage/peers"
WORKERD = ROOT / "target/peers/node_modules/@cloudflare/workerd-linux-64/bin/workerd"
OURS = ROOT / "target/release/stubborn"
SHIM = ROOT / "target/bench-storage/disk.so"
PORT = 18480

CONFIG = """using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [ (name = "main", worker = .mainWorker), (name = "disk", disk = (path = "data", writable = true)) ],
  sockets = [ (name = "http", address = "127.0.0.1:%d", http = (), service = "main") ]
);
const mainWorker :Workerd.Worker = (
  modules = [(name = "counter.js", esModule = embed "counter.js")],
  compatibilityDate = "2026-04-01",
  durableObjectNamespaces = [(className = "Counter", uniqueKey = "counter")],
  durableObjectStorage = (localDisk = "disk"),
  bindings = [(name = "NS", durableObjectNamespace = "Counter")],
);
"""
# Like ours: the number is in memory, and every sum is stored.
SCRIPT = """export class Counter {
  constructor(state) {
    this.storage = state.storage;
    state.blockConcurrencyWhile(async () => { this.value = (await this.storage.get("value")) ?? 0; });
  }
  async fetch(request) {
    if (request.method === "POST") this.storage.put("value", ++this.value);
    return new Response(String(this.value));
  }
}
export default {
  fetch(request, env) {
    const name = new URL(request.url).pathname.split("/")[2];
    return env.NS.get(env.NS.idFromName(name)).fetch(request);
  }
};
"""


def slow(sync_us, folder):
    folder.mkdir(parents=True)
    return os.environ | {
        "LD_PRELOAD": str(SHIM),
        "STUBBORN_DISK_DIR": str(folder),
        "STUBBORN_DISK_SYNC_US": str(sync_us),
    }


def lua(objects):
    """Spreads the requests of a connection over objects, in turn."""
    path = SCRATCH / "post.lua"
    path.write_text(
        "wrk.method = 'POST'\nlocal n = 0\n"
        "function request()\n  n = n + 1\n"
        f"  return wrk.format(nil, '/COUNTER/counter-' .. (n % {objects}) .. '/')\nend\n"
    )
    return path


def wrk(port, objects, connections, seconds):
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(lua(objects))]
    said = subprocess.run(command + [f"http://127.0.0.1:{port}/"], capture_output=True, text=True, check=True).stdout
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    assert not bad, said
    unit = {"us": 1, "ms": 1e3, "s": 1e6}

    def latency(percent):
        number, of = re.search(rf"^ +{percent}% +([\d.]+)(us|ms|s)", said, re.M).groups()
        return float(number) * unit[of]

    return {"per_s": float(re.search(r"Requests/sec: +([\d.]+)", said)[1]), "p50_us": latency(50), "p99_us": latency(99)}


def cpu(pid):
    total = 0
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total / 1e3


def until_served(port):
    for _ in range(200):
        try:
            post = urllib.request.Request(f"http://127.0.0.1:{port}/COUNTER/counter-0/", method="POST")
            return int(urllib.request.urlopen(post).read())
        except OSError:
            time.sleep(0.05)
    sys.exit(f"nothing serves on port {port}")


class Http:
    """A server that is driven over HTTP."""

    def __init__(self, name, command, folder, environment, port):
        self.name, self.port, self.how = name, port, "HTTP, wrk"
        self.process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
        until_served(port)

    def measure(self, objects, connections, seconds):
        wrk(self.port, objects, connections, seconds)  # makes the objects
        before = cpu(self.process.pid)
        sample = wrk(self.port, objects, connections, seconds)
        sample["cpu_us"] = (cpu(self.process.pid) - before) / max(1, sample["per_s"] * seconds)
        return sample

    def stop(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


class Rpc:
    """Ours over RPC, by our own bench."""

    name, how = "ours", "RPC, our own client"

    def __init__(self, sync_us):
        self.sync_us = sync_us
        built = (ROOT / "target/release/deps").glob("storage-*")
        self.bench = max((one for one in built if os.access(one, os.X_OK)), key=lambda one: one.stat().st_mtime)

    def measure(self, objects, connections, seconds):
        report = SCRATCH / "ours.json"
        options = f"--objects {objects} --in-flight {connections} --connections {connections} --repeats 1 --no-floors"
        options += f" --sync-us {self.sync_us} --lasts-ms {int(seconds * 1000)} --json {report}"
        subprocess.run([self.bench, "commits", *options.split()], capture_output=True, check=True)
        rows = json.loads(report.read_text())["rows"]
        return next(row for row in rows if row["cell"]["in_flight"] == connections)["samples"][0]

    def stop(self):
        pass


def start_workerd(sync_us):
    folder = SCRATCH / "workerd"
    environment = slow(sync_us, folder / "data/counter")
    (folder / "counter.js").write_text(SCRIPT)
    (folder / "counter.capnp").write_text(CONFIG % PORT)
    return Http("workerd", [WORKERD, "serve", "counter.capnp"], folder, environment, PORT)


def start_ours(sync_us):
    if "--http" not in subprocess.run([OURS, "serve", "--help"], capture_output=True, text=True).stdout:
        return Rpc(sync_us)
    folder, port = SCRATCH / "ours", PORT + 1
    environment = slow(sync_us, folder / "data")
    command = [OURS, "serve", "--listen", "127.0.0.1:0", "--http", f"127.0.0.1:{port}", "--data", "data"]
    return Http("ours", command, folder, environment, port)


def disk(sync_us):
    """Returns the median of a loop of appends and syncs, in microseconds."""
    code = """
import os, sys, time
file = os.open(os.path.join(sys.argv[1], "loop"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
took, start = [], time.perf_counter()
while time.perf_counter() - start < 0.3:
    begun = time.perf_counter()
    os.write(file, b"x" * 150)
    os.fdatasync(file)
    took.append(time.perf_counter() - begun)
took.sort()
print(took[len(took) // 2] * 1e6, took[len(took) * 99 // 100] * 1e6)
"""
    folder = SCRATCH / "loop"
    shutil.rmtree(folder, ignore_errors=True)
    environment = slow(sync_us, folder)
    said = subprocess.run([sys.executable, "-c", code, folder], env=environment, capture_output=True, text=True, check=True)
    return [float(one) for one in said.stdout.split()]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--sync-us", default="0,1000,5000")
    parser.add_argument("--objects", default="1,64")
    options = parser.parse_args()
    shutil.rmtree(SCRATCH, ignore_errors=True)
    SCRATCH.mkdir(parents=True)
    source = ROOT / "tests/faults/disk.c"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-o", SHIM, source, "-lpthread"], check=True)
    median = lambda samples, key: statistics.median(one[key] for one in samples)
    for sync_us in map(int, options.sync_us.split(",")):
        for objects in map(int, options.objects.split(",")):
            samples, syncs = {}, []
            for _ in range(options.repeats):
                for start in (start_workerd, start_ours):
                    shutil.rmtree(SCRATCH / "workerd", ignore_errors=True)
                    shutil.rmtree(SCRATCH / "ours", ignore_errors=True)
                    syncs.append(disk(sync_us))
                    server = start(sync_us)
                    try:
                        one = server.measure(objects, options.connections, options.seconds)
                    finally:
                        server.stop()
                    samples.setdefault((server.name, server.how), []).append(one)
            p50, p99 = (statistics.median(one[index] for one in syncs) for index in (0, 1))
            print(f"{options.connections} connections, {objects} objects, syncs + {sync_us} us (a sync: p50 {p50:.0f} us, p99 {p99:.0f} us)")
            rates = {}
            for (name, how), of in samples.items():
                rates[name] = median(of, "per_s")
                low, high = min(one["per_s"] for one in of), max(one["per_s"] for one in of)
                print(
                    f"  {name:8} {rates[name]:9.0f}/s [{low:.0f}-{high:.0f}]  p50 {median(of, 'p50_us') / 1e3:8.2f} ms"
                    f"  p99 {median(of, 'p99_us') / 1e3:8.2f} ms  cpu {median(of, 'cpu_us'):7.1f} us  ({how})"
                )
            ratio = rates["ours"] / rates["workerd"]
            goal = f"; goal >= 10: {'ok' if ratio >= 10 else 'MISSED'}" if sync_us == 1000 else ""
            print(f"  ours / workerd: {ratio:.1f}{goal}\n", flush=True)


main()
