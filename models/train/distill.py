"""Distil a trained ReLU network into one with polynomial activations.

Every nn.ReLU of a copy of the teacher becomes a batch normalisation with a
polynomial per channel behind it, or a HerPN, started where it is closest to the
teacher's activation on some images. The copy is then trained, on images
without labels, to give the teacher's logits and the teacher's activations.

Run as a script, it distils one of the shipped digits networks.
"""

import argparse
import time
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common import accuracy, export, load_images, load_weights, plain_copy, refresh_statistics, relus, replace, taps
from modules import HerPN, Polynomial

ACTIVATIONS = {
    "quadratic": Polynomial,
    "quartic": lambda channels, dims: Polynomial(channels, dims, degree=4),
    "herpn": HerPN,
}


def polynomial_copy(teacher: nn.Module, x: Tensor, activation: str = "quadratic") -> nn.Module:
    """A copy of the teacher with its ReLUs replaced, in order of execution, each
    fitted to the teacher's on the inputs that the copy gives it."""
    teacher, student = plain_copy(teacher), plain_copy(teacher)
    shapes = relus(teacher, x[:2])
    with torch.no_grad(), taps(teacher, shapes) as target:
        teacher(x)
        for name, shape in shapes.items():
            module = ACTIVATIONS[activation](shape[1], len(shape) - 2)
            with taps(student, [name]) as seen:
                student(x)
            module.fit(seen[name][0], target[name][1])
            replace(student, name, module)
    return student.eval()


def distill(
    teacher: nn.Module,
    x: Tensor,
    activation: str = "quadratic",
    epochs: int = 3,
    batch: int = 64,
    lr: float = 1e-3,
    temperature: float = 4.0,
    features: float = 1.0,
    augment=lambda x: x,
) -> nn.Module:
    """The teacher with polynomial activations, trained on images `x`.

    The loss is the divergence of the softened logits, as Hinton et al. (arXiv
    1503.02531) have it, plus `features` times the mean over the activations of
    the squared error relative to the variance of the teacher's.
    """
    teacher = plain_copy(teacher)
    student = polynomial_copy(teacher, x[torch.randperm(len(x))[:500]], activation)
    names = list(relus(teacher, x[:2]))
    batch = min(batch, len(x))
    steps = len(x) // batch
    optimizer = torch.optim.AdamW(student.parameters(), lr=lr, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=lr, total_steps=epochs * steps)
    with taps(teacher, names) as wanted, taps(student, names) as given:
        for _ in range(epochs):
            student.train()
            for rows in torch.randperm(len(x))[: steps * batch].view(steps, batch):
                images = augment(x[rows])
                with torch.no_grad():
                    soft = F.log_softmax(teacher(images) / temperature, dim=1)
                logits = F.log_softmax(student(images) / temperature, dim=1)
                loss = temperature**2 * F.kl_div(logits, soft, reduction="batchmean", log_target=True)
                errors = [
                    (given[name][1] - wanted[name][1]).square().mean() / (wanted[name][1].var() + 1e-6)
                    for name in names
                ]
                loss = loss + features * sum(errors) / len(errors)
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(student.parameters(), 5.0)
                optimizer.step()
                schedule.step()
                for module in student.modules():
                    if isinstance(module, Polynomial):
                        module.bend()
    refresh_statistics(student, augment(x))
    with torch.no_grad():
        if not student(x[:500]).isfinite().all():
            warnings.warn("the student's values explode: use degree two")
    return student


def main() -> None:
    from train import MODELS

    shipped = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="the ONNX file to write")
    parser.add_argument("--teacher", choices=["digits_mlp", "digits_cnn", "digits_resnet"], default="digits_cnn")
    parser.add_argument("--activation", choices=list(ACTIVATIONS), default="quadratic")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    x, _ = load_images(shipped / "digits_train.npz")
    x_test, y_test = load_images(shipped / "digits_test.npz")
    teacher = load_weights(MODELS[args.teacher](), shipped / f"{args.teacher}.onnx")
    print(f"teacher: {accuracy(teacher, x_test, y_test):.1%} of {len(x_test)} test images")
    start = time.perf_counter()
    replaced = polynomial_copy(teacher, x[:500], args.activation)
    print(f"activations replaced, not trained: {accuracy(replaced, x_test, y_test):.1%}")
    student = distill(teacher, x, args.activation, args.epochs)
    print(f"distilled: {accuracy(student, x_test, y_test):.1%}, {time.perf_counter() - start:.0f} s")
    export(student, args.output, x.shape[1:])


if __name__ == "__main__":
    main()
