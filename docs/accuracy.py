#!/usr/bin/env python3
"""Writes docs/accuracy.md: what compiling costs in accuracy, over a folder of trained classifiers.

    python3 docs/accuracy.py target/debug/polyc ../shared/corpus docs/accuracy.md [--count N] [NAME ...]

Every classifier is compiled on 1,000 images of its training file with `--max-pool average` and otherwise default
options, and evaluated on the first N images of its test file. NAME: only models whose name contains it.
"""
import argparse
import json
import pathlib
import re
import subprocess
import tempfile

TRAIN = {"mnist": "mnist_train10k", "fashion": "fashion_train10k", "cifar10": "cifar10_jpeg_train10k"}
TEST = {"mnist": "mnist_test_a", "fashion": "fashion_test_a", "cifar10": "cifar10_jpeg_test_a"}
# Trained on original images: lossy ones would calibrate it on another distribution.
ORIGINALS = "akamaster"


def classifiers(corpus):
    """(name, data set, preprocessing) of every row of the index."""
    section = None
    for line in (corpus / "INDEX.md").read_text().splitlines():
        if line.startswith("## "):
            section = line[3:].split()[0]
        found = re.match(r"\| `models/([^`]+)\.onnx`", line)
        if found and section in TRAIN:
            yield found[1], section, [c.strip() for c in line.strip("| ").split("|")][8]


def preprocessing(text):
    """The index's words as options of polyc."""
    if text == "raw":
        return ["--raw"]
    shifted = re.match(r"\(x/255-([\d.]+)\)/([\d.]+)", text)
    if shifted:
        return ["--mean", shifted[1], "--std", shifted[2]]
    channels = re.match(r"m([\d.,]+) s([\d.,]+)", text)
    if channels:
        return ["--mean", channels[1].rstrip(","), "--std", channels[2]]
    return []


def polyc(binary, *words):
    done = subprocess.run([binary, *map(str, words)], capture_output=True, text=True)
    return json.loads(done.stdout) if done.returncode == 0 else None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("polyc")
    parser.add_argument("corpus", type=pathlib.Path)
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--count", type=int, default=1000)
    args = parser.parse_intermixed_args()
    rows, losses = [], []
    with tempfile.TemporaryDirectory() as folder:
        plan = pathlib.Path(folder) / "plan.bin"
        for name, section, text in classifiers(args.corpus):
            if args.names and not any(n in name for n in args.names):
                continue
            data = args.corpus / "data"
            train = "cifar10_original_train5k" if name.startswith(ORIGINALS) else TRAIN[section]
            model = args.corpus / "models" / f"{name}.onnx"
            options = preprocessing(text)
            compiled = polyc(args.polyc, "compile", model, "-o", plan, "--calibrate", data / f"{train}.npz",
                             "--max-pool", "average", "--json", *options)
            if compiled is None:
                rows.append(f"| {name} | refused | | | | | |")
                continue
            found = polyc(args.polyc, "evaluate", plan, "--inputs", data / f"{TEST[section]}.npz", "--json",
                          "--count", args.count, *options)
            cost = polyc(args.polyc, "report", plan, "--json")
            accuracy = {k: 100 * v for k, v in found["accuracy"].items()}
            loss = accuracy["float"] - accuracy["plan"]
            losses.append(loss)
            rows.append(f"| {name} | {accuracy['float']:.1f} | {accuracy['fitted']:.1f} | {accuracy['plan']:.1f} "
                        f"| {loss:+.1f} | {100 * found['agreement']['plan']:.1f} | {cost['bytes_per_activation']:.2f} |")
            print(rows[-1], flush=True)
    intro = f"""# Accuracy

Written by `docs/accuracy.py`; do not edit. Every classifier of the corpus, compiled on 1,000 unlabelled images of its
training file (800 for the fit) with default options and `--max-pool average`, on the first {args.count} images of its
test file: accuracy of the float network, of the fitted network in float, of the plan's exact integers; points lost;
share of images with the float network's class; bytes online per activation, both ways.

The `cifar10` test file is a lossy copy, on which ordinary networks lose points in float already; losses are against
the float network on the same file. `cora_mnist-point` wants transposed images, which the script does not make.

Mean loss {sum(losses) / max(len(losses), 1):.2f} points over {len(losses)} classifiers;
{sum(l <= 0.7 for l in losses)} lose at most 0.7, {sum(l > 1.5 for l in losses)} more than 1.5.

| classifier | float | fitted | plan | loss | same class | bytes |
| --- | --- | --- | --- | --- | --- | --- |
"""
    args.output.write_text(intro + "\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
