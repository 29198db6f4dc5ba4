#!/usr/bin/env python3
"""Writes docs/accuracy.md: what compiling costs in accuracy, over a folder of trained classifiers.

    python3 docs/accuracy.py target/debug/polyc ../shared/corpus docs/accuracy.md [--results FILE] [NAME ...]

Every classifier is compiled on 500 unlabelled images of its training file, drawn with a seed, and evaluated on its
test file: with default options on all of it, with fixed families on its first part. NAME: only models whose name
contains it. What was measured is kept in the results file, one line each, and not measured again; the table shows
what is there, so the script can be stopped at any time. The whole run takes hours.
"""
import argparse
import json
import pathlib
import re
import statistics
import subprocess
import tempfile
import time

import numpy

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
    if text.startswith("raw"):
        return ["--raw"]
    shifted = re.match(r"\(x/255-([\d.]+)\)/([\d.]+)", text)
    if shifted:
        return ["--mean", shifted[1], "--std", shifted[2]]
    channels = re.match(r"m([\d.,]+) s([\d.,]+)", text)
    if channels:
        return ["--mean", channels[1].rstrip(","), "--std", channels[2]]
    return []


CALIBRATION = 500
# Options per column, seeds, and images of the test file. Maximum pooling is averaged where a column says nothing else.
SETTINGS = {
    "default": (["--activation", "phase"], [0, 1, 2], 5000),
    "exact": (["--activation", "exact", "--max-pool", "exact"], [0, 1, 2], 5000),
    "fitted maximum": (["--max-pool", "fit"], [0], 5000),
    "square": (["--activation", "square", "--force"], [0], 1000),
    "quartic": (["--activation", "quartic", "--force"], [0], 1000),
    "H = 1": (["--harmonics", "1", "--force"], [0], 1000),
    "H = 2": (["--harmonics", "2", "--force"], [0], 1000),
    "H = 3": (["--harmonics", "3", "--force"], [0], 1000),
}
FIXED = ["square", "quartic", "H = 1", "H = 2", "H = 3"]


class Failed(Exception):
    pass


def polyc(binary, *words):
    done = subprocess.run([binary, *map(str, words)], capture_output=True, text=True)
    if done.returncode != 0:
        raise Failed(done.stderr.strip().splitlines()[-1])
    return json.loads(done.stdout)


def arrays(path, text):
    with numpy.load(path) as file:
        x, y = file["x"], file["y"]
    return (x.swapaxes(1, 2) if text.startswith("transposed") else x), y


def has_max_pool(corpus, name):
    return any(f"/{name}.onnx" in line and "MaxPool" in line for line in (corpus / "INDEX.md").read_text().splitlines())


def measure(binary, corpus, model, setting, seed, count, folder):
    """One row of results."""
    name, section, text = model
    options, _, images = SETTINGS[setting]
    count = min(count, images)
    train = "cifar10_original_train5k" if name.startswith(ORIGINALS) else TRAIN[section]
    x, y = arrays(corpus / "data" / f"{train}.npz", text)
    chosen = numpy.random.default_rng(seed).permutation(len(x))[:CALIBRATION]
    numpy.savez(folder / "calibration.npz", x=x[chosen], y=y[chosen])
    x, y = arrays(corpus / "data" / f"{TEST[section]}.npz", text)
    numpy.savez(folder / "test.npz", x=x[:count], y=y[:count])
    pool = [] if "--max-pool" in options else ["--max-pool", "average"]
    plan, shared = folder / "plan.bin", preprocessing(text)
    start = time.monotonic()
    command = ["compile", corpus / "models" / f"{name}.onnx", "-o", plan, "--calibrate", folder / "calibration.npz",
               "--json", *shared, *options, *pool]
    outputs = polyc(binary, *command)["evaluation"]["outputs"]
    if len(outputs) > 1:
        # The first output has the classes.
        start = time.monotonic()
        polyc(binary, *command, "--output-name", outputs[0]["name"])
    seconds = time.monotonic() - start
    found = polyc(binary, "evaluate", plan, "--inputs", folder / "test.npz", "--json", *shared)
    cost = polyc(binary, "report", plan, "--json")
    harmonics = [int(m[1]) for m in (re.search(r"(\d+) harmonic", layer["fit"]) for layer in found["layers"]) if m]
    return {
        **{key: round(100 * value, 3) for key, value in found["accuracy"].items()},
        "agreement": round(100 * found["agreement"]["plan"], 3),
        "bytes": round(cost["bytes_per_activation"], 3),
        "harmonics": round(statistics.mean(harmonics), 2) if harmonics else None,
        "images": found["inputs"],
        "seconds": round(seconds, 1),
    }


def table(results, models, corpus):
    def of(name, setting):
        return [r for r in results if r["model"] == name and r["setting"] == setting and "plan" in r]

    def mean(rows, key):
        return statistics.mean(r[key] for r in rows)

    def loss(rows):
        return mean(rows, "float") - mean(rows, "plan")

    lines, losses, traffic = [], {}, []
    for name, _, _ in models:
        rows = of(name, "default")
        if not rows:
            failed = [r["failed"] for r in results if r["model"] == name and "failed" in r]
            if failed:
                reason = failed[0].split(".onnx: ")[-1][:60].replace("|", "/")
                lines.append(f"| {name} | refused: {reason} |" + " |" * (9 + len(FIXED)))
            continue
        losses[name] = loss(rows)
        traffic.append(mean(rows, "bytes"))
        fixed = [f"{loss(r):+.1f}" if (r := of(name, setting)) else "" for setting in FIXED]
        maximum = f"{loss(r):+.2f}" if has_max_pool(corpus, name) and (r := of(name, "fitted maximum")) else ""
        harmonics = [r["harmonics"] for r in rows if r["harmonics"]]
        lines.append(
            f"| {name} | {len(rows)} | {min(r['images'] for r in rows):,} | {mean(rows, 'float'):.2f} | {mean(rows, 'fitted'):.2f} | {mean(rows, 'plan'):.2f} "
            f"| {losses[name]:+.2f} | {mean(rows, 'agreement'):.1f} "
            f"| {f'{statistics.mean(harmonics):.1f}' if harmonics else ''} | {mean(rows, 'bytes'):.2f} "
            f"| {maximum} | {' | '.join(fixed)} |"
        )
    if not losses:
        return "# Accuracy\n\nNothing measured yet.\n"
    values = sorted(losses.values())
    means = ", ".join(
        f"{setting} {statistics.mean(loss(of(n, setting)) for n in losses if of(n, setting)):.2f}"
        for setting in FIXED if any(of(n, setting) for n in losses)
    )
    intro = f"""# Accuracy

Written by `docs/accuracy.py`; do not edit. Every classifier of the corpus, compiled on {CALIBRATION} unlabelled images
of its training file (400 for the fit, 100 held out) with `--activation phase --max-pool average`, evaluated on
the first images of its test file: accuracy of the float network, of the fitted network in float, of the plan's exact
integers, points lost, share of images with the float network's class, harmonics a layer, bytes online per activation
both ways; all means over the calibration seeds that were run. "fit" is the loss with `--max-pool fit` (one seed), where
the network has maximum pooling. The last columns are the losses with one family everywhere, on 1,000 test images, one
seed; one standard error of a difference on 1,000 images is about 0.4 points.

The `cifar10` test file is a lossy copy, on which ordinary networks lose points in float already; losses are against
the float network on the same file. The `akamaster` networks are calibrated on original images.

Mean loss {statistics.mean(values):.2f} points over {len(values)} classifiers, {sum(v <= 0.7 for v in values)} lose at
most 0.7, {sum(v > 1.5 for v in values)} more than 1.5; mean traffic {statistics.mean(traffic):.2f} bytes per activation.
Mean losses with one family: {means}.

{NOTES}
| classifier | seeds | images | float | fitted | plan | loss | same class | H | bytes | fit | {" | ".join(FIXED)} |
|{" --- |" * (11 + len(FIXED))}
"""
    return intro + "\n".join(lines) + "\n" + MEASURES


NOTES = """Networks that lose more than 0.7 points are narrow (`wuhan_mnist-sm` has 506 parameters in all, `marabou_cifar10_small`
8 and 16 channels), so that no later layer has the room to repair what a fit got wrong; or their maximum pooling is
averaged here and close to the network when it is computed (`ort_mnist8`, column "fit"). `mnist-net_256x2` is neither: its fit
loses as much in float, and nothing later makes up for it. Rows of fewer than 5,000 images have a standard error of
about 0.3 points. A cell of a family is empty where it was not measured, or refused.

Squares need more online traffic than phases (their inputs are truncated to more bits and their rings are wider) and
about as many correlations as four harmonics, and lose more than one harmonic does: `--activation auto` therefore
spends harmonics, and never falls back to squares.

Computed as they are (`--activation exact`, maximum pooling too, no option else, one seed, 1,000 test images), 29 of the
classifiers, all of `mnist` but two, lose −0.06 points on average and keep 99.6% of the classes, none under 98.5% (`wuhan_mnist-sm`). Those with
sigmoids were measured with phases in their place.
"""

MEASURES = """
## How a plan is judged

`polyc compile` and `polyc evaluate` print what the output means (`--task`), and `polyrt` says the same of an answer, for the
task stands in the plan:

- **classify**: scores of classes along one axis; the first largest is the class, at every position of the other axes. The
  axis is that of a softmax or ArgMax at the output, the one that labels leave out, or the only one longer than 1
  (but a score for every place of a sequence, one as long as an input, is a number).
- **binary**: every element is a score of the second of two classes: a sigmoid's is a probability and judged above one
  half, others above zero.
- **regress**: numbers. With labels: RMSE, R² and the largest error, in the output's unit. Against the network in float: the
  root mean square error in that unit, and over the spread of the network's outputs (their deviation). A few numbers in a
  row have a spread each, and so have the channels of an image; all others share one.

Without `--task` one sigmoid, or one output whose labels are noughts and ones, is binary; a softmax, ArgMax, one axis of scores
or labels of one class per position classify; everything else is numbers, with a note where it might be scores.

The column *plan* is what simulated runs of two parties answer, carries and roundings of masks included, up to eight of every
input, fewer of large networks. (In JSON, `rounded` is the plan without carries.) The first two columns are the network as imported, and with its
activations fitted, in float.

`--max-loss` (10 by default) is held against *plan*: points of accuracy lost where labels are known, otherwise percent of
classes that change; of numbers, percent of the labels' spread by which the root mean square error grows or, where labels are
not known, the error against the network in percent of the spread of its outputs. Few inputs show more by luck, so a plan is refused where one that loses just what is allowed would look as
bad in less than one of twenty samples of that size: 3 of 5 changed classes are refused and 2 are not, 4 of 12 and not 3,
16 of 100 and not 15, 117 of 1,000 and not 116. Errors of numbers are held to the 95% quantile of chi square.

A fifth of the calibration inputs is held out from five inputs on: the last ones, or every fifth where labels stand in
order. Of fewer, nothing is held out, and the table says so. Made-up inputs measure nothing, and no figures are shown.
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("polyc")
    parser.add_argument("corpus", type=pathlib.Path)
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--results", type=pathlib.Path, default=pathlib.Path("accuracy.jsonl"))
    parser.add_argument("--settings", default=",".join(SETTINGS), help="which columns, in order")
    parser.add_argument("--count", type=int, default=5000, help="at most this many test images")
    parser.add_argument("--seeds", type=int, default=3, help="at most this many seeds")
    args = parser.parse_intermixed_args()
    results = []
    if args.results.exists():
        results = [json.loads(line) for line in args.results.read_text().splitlines()]
    done = {(r["model"], r["setting"], r["seed"]) for r in results}
    models = list(classifiers(args.corpus))
    for setting in args.settings.split(","):
        for seed in SETTINGS[setting][1][: args.seeds]:
            for model in models:
                key = (model[0], setting, seed)
                is_idle = setting == "fitted maximum" and not has_max_pool(args.corpus, model[0])
                if key in done or is_idle or args.names and not any(n in model[0] for n in args.names):
                    continue
                with tempfile.TemporaryDirectory() as folder:
                    try:
                        row = measure(args.polyc, args.corpus, model, setting, seed, args.count, pathlib.Path(folder))
                    except Failed as failed:
                        row = {"failed": str(failed)}
                row = {"model": model[0], "setting": setting, "seed": seed, **row}
                results.append(row)
                with args.results.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(row, flush=True)
                args.output.write_text(table(results, models, args.corpus))
    args.output.write_text(table(results, models, args.corpus))


if __name__ == "__main__":
    main()
