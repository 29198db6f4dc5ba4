#!/usr/bin/env python3
"""Party 0's computation online against ONNX Runtime in float32, on one core, in turns of one run.

    pip install onnxruntime numpy
    python3 benches/against_onnxruntime.py model.onnx plan.bin [--network resnet50] [--batch N] [--rounds N]

What party 0 computes between messages is measured by `cargo bench -p polyrt --bench online`, with the fastest kernels of the
machine. Medians of the rounds' medians, and their ratio. --network takes the bench's synthetic plan of that name in place
of plan.bin.
"""
import argparse
import json
import os
import re
import statistics
import subprocess
import time

import numpy
import onnxruntime


def executable():
    words = ["cargo", "bench", "-p", "polyrt", "--bench", "online", "--no-run", "--message-format", "json"]
    lines = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    artifacts = (json.loads(line) for line in lines if line.startswith("{"))
    return [a["executable"] for a in artifacts if a.get("executable") and a["target"]["name"] == "online"][-1]


def ours(binary, plan, batch):
    words = [binary, plan, plan.replace(".bin", ".weights") if plan.endswith(".bin") else "-", str(batch)]
    text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return min(float(t) for t in re.findall(r": ([\d.]+) ms per inference", text))


def theirs(session, batch, repetitions=9):
    node = session.get_inputs()[0]
    shape = [d if isinstance(d, int) else 1 for d in node.shape]
    x = numpy.random.default_rng(0).standard_normal(shape).astype(numpy.float32)
    if batch > 1 and not isinstance(node.shape[0], int):
        x = numpy.repeat(x, batch, 0)
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        session.run(None, {node.name: x})
        times.append(1e3 * (time.perf_counter() - start) / len(x))
    return statistics.median(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("plan", nargs="?")
    parser.add_argument("--network", choices=["resnet18", "resnet50"])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    if (args.plan is None) == (args.network is None):
        parser.error("give a plan, or --network")
    if hasattr(os, "sched_setaffinity"):
        # One core for all threads of either side.
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(args.model, options, providers=["CPUExecutionProvider"])
    binary = executable()
    theirs(session, args.batch)
    a, b = [], []
    for _ in range(args.rounds):
        a.append(ours(binary, args.plan or args.network, args.batch))
        b.append(theirs(session, args.batch))
    ratio = statistics.median(x / y for x, y in zip(a, b))
    print(f"party 0 {statistics.median(a):.3f} ms, ONNX Runtime {statistics.median(b):.3f} ms, ratio {ratio:.2f}"
          f" ({min(x / y for x, y in zip(a, b)):.2f} to {max(x / y for x, y in zip(a, b)):.2f})")


if __name__ == "__main__":
    main()
