#!/usr/bin/env python3
"""Writes docs/operators.md: what became of a folder of ONNX models. The table of operators stays: a test writes it.

    python3 docs/operators.py target/release/polyc ../shared/corpus docs/operators.md

Every .onnx below the folder is compiled on made-up inputs with `--max-pool average`. The result names models by
their path below the folder and holds nothing of this machine. Standard library only.

Exit status 1 if a model panicked, ran out of time, or failed otherwise than by a refusal.
"""

import argparse
import collections
import json
import pathlib
import subprocess
import sys
import tempfile

TIMEOUT_S = 120
# "polyc: [PATH: ]node NAME (OPERATOR): REASON", the first part on the first line only; names may hold anything.

INTRO = """# Operators

Written by `docs/operators.py` with {version} and by a test; do not edit.

`polyc` reads ONNX models of one input. What depends on constants alone is computed at compile time, so the shape
arithmetic that exporters leave in a model rarely matters. Functions of one value are activations: those of
straight pieces are rectifiers, others fitted phases or, with `--activation exact`, public tables where no constant of the
model is part of them and they are defined everywhere.

A model that cannot be compiled is refused as a whole, with one line per node that says why and what to do instead.
`MaxPool`, `GlobalMaxPool` and other maxima are computed exactly, as trees of `b + relu(a − b)`; `--max-pool fit` computes
them as trees of fitted `|a − b|`, `--max-pool average` puts averages in their place. Both change the network, averages more;
`polyc evaluate` says by how much."""


def run(command, timeout=TIMEOUT_S):
    """Exit status (None: out of time), standard output, standard error."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=timeout)
    except subprocess.TimeoutExpired:
        return None, "", ""
    return done.returncode, done.stdout, done.stderr


def operators(page):
    """The section that compiler/tests/conformance.rs writes, as it stands."""
    begin = "<!-- operators: written by compiler/tests/conformance.rs -->\n"
    end = "<!-- end of operators -->"
    inside = page.partition(begin)[2].partition(end)[0]
    intro = "## Operators\n\nBy the tests that the `onnx` package ships (its backend tests).\n\n"
    return intro + begin + inside + end


def refusal(text, message, model):
    """The refused operators with their node counts, or the first line of the message."""
    nodes = json.loads(text)["unsupported"] if text.strip() else []
    counts = collections.Counter(node["operator"] for node in nodes)
    if counts:
        ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        return ", ".join(f"{name} × {count}" for name, count in ranked)
    lines = [line for line in message.splitlines() if line.startswith("polyc: ")]
    first = lines[0] if lines else (message.splitlines() or [""])[0]
    return first.removeprefix("polyc: ").replace(f"{model}: ", "").replace(str(model), model.name)


def compile_model(polyc, model, folder):
    """One of compiled, refused, failed; and a cell that says more."""
    plan = pathlib.Path(folder) / "plan.bin"
    command = [polyc, "compile", model, "-o", plan, "--calibrate", "synthetic", "--max-pool", "average", "--json"]
    status, text, error = run(command)
    if status is None:
        return "failed", f"not done in {TIMEOUT_S} s"
    if "panicked" in error or status < 0 or status > 2:
        return "failed", f"exit status {status}"
    if status:
        return ("refused" if status == 2 else "failed"), refusal(text, error, model)
    status, text, error = run([polyc, "report", plan, "--json"])
    if status != 0:
        return "failed", f"polyc report: exit status {status}"
    cost = json.loads(text)
    total = cost["bytes_to_party0"] + cost["bytes_to_party1"]
    return "compiled", f"{len(cost['steps']):,} steps, {total:,} bytes"


def cell(text):
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def table(heads, rows):
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("polyc", help="path of the polyc binary")
    parser.add_argument("corpus", type=pathlib.Path, help="folder with .onnx files")
    parser.add_argument("output", type=pathlib.Path, help="the Markdown file to write")
    options = parser.parse_args()
    models = sorted(options.corpus.rglob("*.onnx"))
    if not models:
        sys.exit(f"no .onnx file below {options.corpus}")
    version = run([options.polyc, "--version"])[1].strip()
    rows, totals = [], collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        for model in models:
            outcome, detail = compile_model(options.polyc, model, folder)
            name = model.relative_to(options.corpus).as_posix()
            print(f"{name}: {outcome}: {detail}", file=sys.stderr, flush=True)
            totals[outcome] += 1
            rows.append((f"`{name}`", outcome, cell(detail)))
    counted = ", ".join(f"{totals[o]} {o}" for o in ("compiled", "refused", "failed") if totals[o])
    sections = [
        INTRO.format(version=version),
        operators(options.output.read_text() if options.output.exists() else ""),
        "## Third-party models\n\n"
        "Compiled on made-up inputs with `--max-pool average`; sizes are those of one inference online, both ways."
        " A refusal names the operators, with the number of nodes, or says why.\n\n"
        f"{len(models)} models: {counted}.\n\n" + table(("model", "outcome", ""), rows),
    ]
    options.output.write_text("\n\n".join(sections) + "\n")
    sys.exit(1 if totals["failed"] else 0)


if __name__ == "__main__":
    main()
