#!/usr/bin/env python3
"""Runs of two processes over shaped networks, beside what `polyc report` expects of them.

    python3 benches/shaped.py target/debug plan.bin --input x.npz [--networks loopback,lan,wan,far] [--rounds 3] [--prepared]

The first argument is the folder of polyc and polyrt. Without --prepared every run makes its correlations, and both phases
are shown; with it they come from a store, and the online phase stands alone. Medians. `polyrt relay` shapes both directions.
Times are party 1's, from its first byte to the answer. Party 0's clock starts when it has taken its correlations from the
store and ends when its last byte leaves: where the two differ by more than a flight, party 1 waited for it to begin.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile
import time

NETWORKS = {"loopback": None, "lan": (0.3, 3000), "wan": (40, 400), "far": (100, 100)}


def start(words):
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(process):
    out, err = process.communicate()
    if process.returncode != 0:
        raise SystemExit(err)
    return out


def run(polyrt, plan, text, network, port, store, ports_to_relay):
    address = f"127.0.0.1:{port}"
    stores = [["--store", str(store / f"party{i}")] if store else [] for i in range(2)]
    party0 = start([polyrt, "party0", plan, "--listen", address, "--json", *stores[0]])
    party0.stderr.readline()
    relay, to = None, address
    if network:
        to = f"127.0.0.1:{ports_to_relay}"
        relay = start([polyrt, "relay", "--listen", to, "--connect", address, "--network", network])
        time.sleep(0.3)
    try:
        out = finished(start([polyrt, "party1", plan, "--input", text, "--connect", to, "--json", *stores[1]]))
        other = finished(party0)
    finally:
        if relay:
            relay.kill()
            relay.wait()
    return json.loads(out), json.loads(other)


def prepare(polyrt, plan, count, store, port):
    words = [polyrt, "prepare", plan, "--count", str(count), "--address", f"127.0.0.1:{port}"]
    parties = []
    for i in range(2):
        folder = store / f"party{i}"
        folder.mkdir()
        parties.append(start([*words, "--party", str(i), "--store", str(folder)]))
        time.sleep(0.3)
    for party in parties:
        finished(party)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", type=pathlib.Path)
    parser.add_argument("plan")
    parser.add_argument("--input", required=True)
    parser.add_argument("--networks", default="loopback,lan,wan,far")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prepared", action="store_true")
    args = parser.parse_args()
    polyc, polyrt = str(args.programs / "polyc"), str(args.programs / "polyrt")
    port = 17000
    for network in args.networks.split(","):
        shape = NETWORKS[network]
        phases, own = {"offline": [], "online": []}, []
        with tempfile.TemporaryDirectory() as folder:
            store = pathlib.Path(folder) if args.prepared else None
            batch = None
            for _ in range(args.rounds):
                port += 3
                if store and batch is None:
                    batch = len(run(polyrt, args.plan, args.input, None, port, None, 0)[0]["results"])
                    port += 3
                    prepare(polyrt, args.plan, batch * args.rounds, store, port)
                    port += 3
                answer, other = run(polyrt, args.plan, args.input, network if shape else None, port, store, port + 1)
                batch = answer["batch"]
                for phase, seconds in phases.items():
                    seconds.append(1e3 * answer[phase]["seconds"])
                own.append(1e3 * other["online"]["seconds"])
        report = json.loads(subprocess.run([polyc, "report", args.plan, "--json", "--batch", str(batch)],
                                           capture_output=True, text=True, check=True).stdout)
        line = f"{network}, batch {batch}:"
        for phase, seconds in phases.items():
            expected = report["offline"]["networks"] if phase == "offline" else report["networks"]
            of_network = [n for n in expected if n["network"]["name"] == network]
            estimate = f" (expected {of_network[0]['total_ms']:.0f})" if of_network else ""
            if phase == "online" or not args.prepared:
                line += f" {phase} {statistics.median(seconds):.1f} ms{estimate};"
        print(f"{line} of which party 0 was there for {statistics.median(own):.1f} ms", flush=True)


if __name__ == "__main__":
    main()
