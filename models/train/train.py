"""Train the digits networks and export them to ONNX.

One run writes the data split, the five models, their expected logits and the
two sample inputs.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from common import export
from modules import HerPN, Pillar, pillar_constant

SEED = 20261121
TEST_ROWS = 500
BATCH = 64


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, with ReLU after the sum."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.relu2 = nn.ReLU()
        if stride == 1 and inputs == outputs:
            self.shortcut = nn.Sequential()
        else:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False),
                nn.BatchNorm2d(outputs),
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu2(y + self.shortcut(x))


def digits_mlp() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(64, 64),
        nn.ReLU(),
        nn.Linear(64, 32),
        nn.ReLU(),
        nn.Linear(32, 10),
    )


def conv_net(activation) -> nn.Module:
    """Three 3x3 convolutions with two average pools; `activation` maps a
    channel count to the modules that follow a convolution."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        *activation(16),
        nn.Conv2d(16, 32, 3, padding=1, bias=False),
        *activation(32),
        nn.AvgPool2d(2),
        nn.Conv2d(32, 32, 3, padding=1, bias=False),
        *activation(32),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(128, 10),
    )


def digits_cnn() -> nn.Module:
    return conv_net(lambda channels: [nn.BatchNorm2d(channels), nn.ReLU()])


def digits_herpn() -> nn.Module:
    return conv_net(lambda channels: [HerPN(channels)])


def digits_pillar() -> nn.Module:
    return conv_net(lambda channels: [nn.BatchNorm2d(channels), Pillar()])


def digits_resnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        BasicBlock(16, 16),
        BasicBlock(16, 32, stride=2),
        BasicBlock(32, 32),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 10),
    )


MODELS = {
    f.__name__: f
    for f in (digits_mlp, digits_cnn, digits_resnet, digits_herpn, digits_pillar)
}


def load_split() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The fixed stratified split: train images, train labels, test images,
    test labels."""
    digits = load_digits()
    x = (digits.images / 16.0).astype(np.float32).reshape(-1, 1, 8, 8)
    y = digits.target.astype(np.int64)
    x_train, x_test, y_train, y_test = train_test_split(
        x, y, test_size=TEST_ROWS, random_state=SEED, stratify=y
    )
    return x_train, y_train, x_test, y_test


def shift(x: Tensor, by: int = 1) -> Tensor:
    """Move every image by at most `by` pixels along each axis, filling with 0."""
    n, channels, height, width = x.shape
    padded = F.pad(x, (by, by, by, by))
    top, left = torch.randint(0, 2 * by + 1, (2, n, 1, 1, 1))
    image = torch.arange(n).view(n, 1, 1, 1)
    channel = torch.arange(channels).view(1, channels, 1, 1)
    rows = top + torch.arange(height).view(1, 1, height, 1)
    columns = left + torch.arange(width).view(1, 1, 1, width)
    return padded[image, channel, rows, columns]


def train(
    model: nn.Module, x: Tensor, y: Tensor, epochs: int, augment=shift, schedule=pillar_constant
) -> None:
    """Train with AdamW on a one-cycle schedule; the last weights are kept.
    `schedule` is that of the PILLAR activations, if the network has some."""
    pillars = [m for m in model.modules() if isinstance(m, Pillar)]
    steps = len(x) // BATCH
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=1e-2)
    rate = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=5e-3, total_steps=epochs * steps
    )
    model.train()
    for epoch in range(epochs):
        q, penalty_weight, task_weight = schedule(epoch)
        for pillar in pillars:
            pillar.q = q
        order = torch.randperm(len(x))
        for step in range(steps):
            rows = order[step * BATCH : (step + 1) * BATCH]
            logits = model(augment(x[rows]))
            loss = F.cross_entropy(logits, y[rows], label_smoothing=0.05)
            if pillars:
                loss = task_weight * loss
            for pillar in pillars:
                loss = loss + penalty_weight / len(pillars) * pillar.penalty
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rate.step()
    model.eval()


def pillar_range(model: nn.Module, x: Tensor) -> float | None:
    """The largest |input| that any PILLAR activation sees on `x`."""
    peaks = []
    hooks = [
        m.register_forward_pre_hook(lambda _, args: peaks.append(args[0].abs().max()))
        for m in model.modules()
        if isinstance(m, Pillar)
    ]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return max(peaks).item() if peaks else None


def check(model: nn.Module, path: Path, x: np.ndarray) -> np.ndarray:
    """Check the file and return ONNX Runtime's logits for `x`."""
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)

    def shape(value):
        return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]

    assert [(v.name, shape(v)) for v in proto.graph.input] == [("image", ["N", 1, 8, 8])]
    assert [(v.name, shape(v)) for v in proto.graph.output] == [("logits", ["N", 10])]
    norms = [n for n in proto.graph.node if n.op_type == "BatchNormalization"]
    expected = sum(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    assert len(norms) == expected, "the exporter folded a batch normalisation"
    for node in norms:
        assert len(node.output) == 1
        assert all(a.i == 0 for a in node.attribute if a.name == "training_mode")

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"image": x})
    with torch.no_grad():
        reference = model(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(logits, reference, rtol=1e-4, atol=1e-4)
    return logits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(__file__).resolve().parent.parent,
        help="folder to write to (default: the folder above this script)",
    )
    parser.add_argument(
        "--model",
        action="append",
        choices=list(MODELS),
        help="train only this model; may be repeated (default: all)",
    )
    parser.add_argument(
        "--epochs", type=int, default=100, help="epochs per model (default: 100)"
    )
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)

    x_train, y_train, x_test, y_test = load_split()
    np.savez_compressed(args.out / "digits_train.npz", x=x_train, y=y_train)
    np.savez_compressed(args.out / "digits_test.npz", x=x_test, y=y_test)
    np.save(args.out / "one_digit.npy", x_test[:1])
    np.save(args.out / "digits_20.npy", x_test[:20])

    for name in args.model or MODELS:
        torch.manual_seed(SEED)
        start = time.perf_counter()
        model = MODELS[name]()
        train(model, torch.from_numpy(x_train), torch.from_numpy(y_train), args.epochs)
        seconds = time.perf_counter() - start

        path = args.out / f"{name}.onnx"
        export(model, path, x_test.shape[1:])
        logits = check(model, path, x_test)
        np.savez_compressed(args.out / f"{name}.expected.npz", logits=logits)

        correct = int((logits.argmax(axis=1) == y_test).sum())
        parameters = sum(p.numel() for p in model.parameters())
        print(
            f"{name}: {correct}/{len(y_test)} = {correct / len(y_test):.1%}, "
            f"{parameters} parameters, {path.stat().st_size} bytes, {seconds:.0f} s"
        )
        for split, x in (("train", x_train), ("test", x_test)):
            peak = pillar_range(model, torch.from_numpy(x))
            if peak is not None:
                print(f"  largest |activation input| on {split}: {peak:.3f}")


if __name__ == "__main__":
    main()
