"""Measure every way to a polynomial network on one task, beside polyc's own fit.

    python compare.py run digits --polyc ../../target/debug/polyc --out results.jsonl
    python compare.py run mnist --data FOLDER --polyc ../../target/debug/polyc --out results.jsonl
    python compare.py table results.jsonl

`digits`, `digits_resnet` and `digits_mlp` start from the shipped networks and need nothing
else. The other tasks want a folder with a training and a test file, which are not part of this
repository: `x` uint8 `[N, 28, 28]` or `[N, 32, 32, 3]`, `y` the labels.

    mnist    mnist_train10k.npz, mnist_test_a.npz
    cifar10  cifar10_original_train5k.npz, cifar10_original_test_a.npz

Each line of the output is one network: what PyTorch says of it, what the compiled plan's exact
integers say, the processor time of its training (where it starts from a teacher: beyond the
teacher's), what it sends online, both ways.
"""

import argparse
import json
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor, nn

from common import accuracy, export, load_images, load_weights, polyc
from distill import distill, polynomial_copy
from imitate import imitate, quail
from modules import HerPN, Pillar, pillar_constant, pillar_warm_up
from train import MODELS, conv_net, shift, train

SHIPPED = Path(__file__).resolve().parent.parent


def relu(channels: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels), nn.ReLU()]


def herpn(channels: int) -> list[nn.Module]:
    return [HerPN(channels)]


def pillar(channels: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels), Pillar()]


def mnist_cnn(activation) -> nn.Module:
    """Three 3x3 convolutions, each followed by an average pool."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        *activation(16),
        nn.AvgPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1, bias=False),
        *activation(32),
        nn.AvgPool2d(2),
        nn.Conv2d(32, 32, 3, padding=1, bias=False),
        *activation(32),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(288, 10),
    )


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, activation):
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
            *activation(outputs),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = nn.Sequential()
        if (inputs, stride) != (outputs, 1):
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
        self.activation = activation(outputs)[-1]

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.branch(x) + self.shortcut(x))


def resnet8(activation) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False),
        *activation(16),
        Block(16, 16, 1, activation),
        Block(16, 32, 2, activation),
        Block(32, 64, 2, activation),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def shift_and_flip(x: Tensor) -> Tensor:
    x = shift(x, 3)
    return torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, x, x.flip(3))


def unchanged(x: Tensor) -> Tensor:
    return x


@dataclass
class Task:
    train: Path
    test: Path
    net: object  # of activation; None where only the teacher has this shape
    teacher: str | None  # a shipped network, or None: trained here
    scratch: int  # epochs
    short: int  # epochs of distillation, and of each imitated layer
    augment: object  # of the images in that training
    gently: object  # and in the short ones


def task(name: str, data: Path | None) -> Task:
    if name.startswith("digits"):
        net, teacher = {
            "digits": (conv_net, "digits_cnn"),
            "digits_resnet": (None, "digits_resnet"),
            "digits_mlp": (None, "digits_mlp"),
        }[name]
        files = SHIPPED / "digits_train.npz", SHIPPED / "digits_test.npz"
        return Task(*files, net, teacher, 100, 20, shift, unchanged)
    if data is None:
        raise SystemExit(f"{name} needs --data, a folder with its images: see --help")
    if name == "mnist":
        files = data / "mnist_train10k.npz", data / "mnist_test_a.npz"
        return Task(*files, mnist_cnn, None, 10, 3, shift, unchanged)
    files = data / "cifar10_original_train5k.npz", data / "cifar10_original_test_a.npz"
    return Task(*files, resnet8, None, 20, 5, shift_and_flip, shift_and_flip)


def seconds() -> float:
    """Processor time: other jobs on the machine do not count."""
    return time.process_time()


def run(name: str, t: Task, seeds: list[int], binary: Path, out: Path, methods: list[str]) -> None:
    for file in (t.train, t.test):
        if not file.exists():
            raise SystemExit(f"{file} is not there: this repository holds no data but the digits'")
    x, y = load_images(t.train)
    x_test, y_test = load_images(t.test)
    scratchpad = tempfile.TemporaryDirectory()
    folder = Path(scratchpad.name)
    for seed in seeds:
        torch.manual_seed(seed)
        start = seconds()
        if t.teacher:
            teacher = load_weights(MODELS[t.teacher](), SHIPPED / f"{t.teacher}.onnx")
        else:
            teacher = t.net(relu)
            train(teacher, x, y, t.scratch, t.augment)
        teacher_time = seconds() - start

        def measure(method: str, model: nn.Module, spent: float, *options) -> None:
            onnx, plan = folder / "model.onnx", folder / "plan.bin"
            export(model, onnx, x.shape[1:])
            start = os.times().children_user
            compiled = polyc(binary, "compile", onnx, "-o", plan, "--calibrate", t.train, *options)
            compiling = os.times().children_user - start
            found = polyc(binary, "evaluate", plan, "--inputs", t.test)
            row = {
                "task": name,
                "method": method,
                "seed": seed,
                "train": len(x),
                "test": len(x_test),
                "torch": accuracy(model, x_test, y_test),
                "onnx": found["accuracy"]["float"],
                "plan": found["accuracy"]["plan"],
                "agreement": found["agreement"]["plan"],
                "training_s": spent,
                "compiling_s": compiling,
                "bytes": compiled["bytes_to_party0"] + compiled["bytes_to_party1"],
                "messages": compiled["messages"],
            }
            with out.open("a") as file:
                print(json.dumps(row), file=file)
            print(json.dumps(row), flush=True)

        def timed(make):
            torch.manual_seed(seed)
            start = seconds()
            model = make()
            return model, seconds() - start

        def scratch(activation, schedule=pillar_constant):
            model = t.net(activation)
            train(model, x, y, t.scratch, t.augment, schedule)
            return model

        def short(function, *arguments):
            return function(teacher, x, *arguments, epochs=t.short, augment=t.gently)

        for method in methods:
            if method.startswith("polyc "):
                if not (t.teacher and seed != seeds[0]):  # the shipped network again
                    measure(method, teacher, teacher_time, "--activation", method.split()[1])
            elif method.startswith("replaced "):
                measure(method, *timed(lambda: polynomial_copy(teacher, x[:1000], method.split()[1])))
            elif method.startswith("distilled "):
                measure(method, *timed(lambda: short(distill, method.split()[1])))
            elif method == "imitated quadratic":
                measure(method, *timed(lambda: short(imitate)))
            elif method == "QuaIL":
                (first, second), spent = timed(lambda: short(quail, y))
                measure("QuaIL, imitation only", first, spent)
                measure("QuaIL", second, spent)
            elif t.net and method == "HerPN from scratch":
                measure(method, *timed(lambda: scratch(herpn)))
            elif t.net and method == "PILLAR from scratch":
                measure(method, *timed(lambda: scratch(pillar, pillar_warm_up)))


METHODS = [
    "polyc phase",
    "polyc quartic",
    "polyc square",
    "HerPN from scratch",
    "PILLAR from scratch",
    "replaced quadratic",
    "distilled quadratic",
    "distilled quartic",
    "distilled herpn",
    "imitated quadratic",
    "QuaIL",
]


def table(file: Path) -> None:
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for name in dict.fromkeys(r["task"] for r in rows):
        ours = [r for r in rows if r["task"] == name]
        teacher = [r["training_s"] for r in ours if r["method"].startswith("polyc ")]
        print(f"{name}: {ours[0]['train']} training images, {ours[0]['test']} test images", end="")
        print(f", {mean(teacher):.0f} s to train the ReLU network\n")
        print("| Method | Seeds | PyTorch | Plan | Same class | Training | Bytes online |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        for method in dict.fromkeys(r["method"] for r in ours):
            group = [r for r in ours if r["method"] == method]

            def percent(key):
                values = [100 * r[key] for r in group]
                spread = f" ({min(values):.1f} to {max(values):.1f})" if len(values) > 1 else ""
                return f"{mean(values):.1f}{spread}"

            training = "none" if method.startswith("polyc ") else f"{mean(r['training_s'] for r in group):.0f} s"
            print(
                f"| {method} | {len(group)} | {percent('torch')} | {percent('plan')} | "
                f"{100 * mean(r['agreement'] for r in group):.1f} | {training} | {mean(r['bytes'] for r in group):,.0f} |"
            )
        print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run")
    one.add_argument("task", choices=["digits", "digits_resnet", "digits_mlp", "mnist", "cifar10"])
    one.add_argument("--data", type=Path, help="the folder with the task's images")
    one.add_argument("--polyc", type=Path, required=True, help="the compiler's binary")
    one.add_argument("--out", type=Path, required=True, help="appended to, one JSON object a line")
    one.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    one.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    two = commands.add_parser("table")
    two.add_argument("results", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.command == "table":
        table(args.results)
    else:
        run(args.task, task(args.task, args.data), args.seeds, args.polyc, args.out, args.methods)


if __name__ == "__main__":
    main()
