"""Layer-wise imitation, after QuaIL (Sisyphus, arXiv 2107.12342).

`quail` follows the authors' published code (github.com/kvgarimella/sisyphus-ppml,
experiments/quail): every ReLU becomes x^2; then, from the first layer to the
last, one layer's parameters are trained to give the teacher's activations from
the student's own inputs; then layers are unfrozen from the last to the first
and trained on the labels. Adam and a few epochs stand in for its stochastic
gradient descent over 50 epochs a layer.

`imitate` is the gentler relative: a layer's parameters are trained to give the
teacher's pre-activations, and the polynomial behind it is then fitted to the
teacher's activations by least squares. It needs no labels.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common import plain_copy, refresh_statistics, relus, replace, taps
from modules import Polynomial, Square


class Reached(Exception):
    """The module of interest has run; what follows is not needed."""


def run_to(model: nn.Module, name: str | None, x: Tensor) -> tuple[Tensor, Tensor]:
    """Input and output of the named module, or the logits twice."""
    if name is None:
        logits = model(x)
        return logits, logits
    found = []

    def stop(_, args, output):
        found.extend((args[0], output))
        raise Reached

    hook = model.get_submodule(name).register_forward_hook(stop)
    try:
        model(x)
    except Reached:
        pass
    finally:
        hook.remove()
    return found[0], found[1]


def layers(model: nn.Module, x: Tensor) -> list[tuple[str | None, list[str]]]:
    """Every ReLU, then None for the logits, each with the modules with
    parameters that run since the ReLU before it."""
    order, hooks = [], []
    for name, module in model.named_modules():
        own = any(True for _ in module.parameters(recurse=False))
        if own or isinstance(module, nn.ReLU):
            hooks.append(module.register_forward_hook(lambda *_, name=name: order.append(name)))
    found = relus(model, x)
    for hook in hooks:
        hook.remove()
    groups, group = [], []
    for name in order:
        if name in found:
            groups.append((name, group))
            group = []
        else:
            group.append(name)
    return groups + [(None, group)]


def parameters(model: nn.Module, names: list[str]) -> list[nn.Parameter]:
    return [p for name in names for p in model.get_submodule(name).parameters()]


def optimise(
    student: nn.Module, trained: list[nn.Parameter], x: Tensor, epochs: int, batch: int, lr: float, loss
) -> None:
    """Train these parameters, and no others, to lower `loss` of the rows of `x`."""
    for p in student.parameters():
        p.requires_grad_(False)
    for p in trained:
        p.requires_grad_(True)
    batch = min(batch, len(x))
    steps = len(x) // batch
    optimizer = torch.optim.Adam(trained, lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * steps)
    student.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(x))[: steps * batch].view(steps, batch):
            value = loss(rows)
            optimizer.zero_grad()
            value.backward()
            nn.utils.clip_grad_norm_(trained, 5.0)
            optimizer.step()
            schedule.step()


def quail(
    teacher: nn.Module,
    x: Tensor,
    y: Tensor,
    epochs: int = 3,
    batch: int = 64,
    lr: float = 1e-3,
    augment=lambda x: x,
) -> tuple[nn.Module, nn.Module]:
    """The student after the layers' imitation, and after the labels'."""
    teacher, student = plain_copy(teacher), plain_copy(teacher)
    groups = layers(teacher, x[:2])
    for name, _ in groups[:-1]:
        replace(student, name, Square())
    for name, modules in groups:

        def imitation(rows, name=name):
            images = augment(x[rows])
            with torch.no_grad():
                _, wanted = run_to(teacher, name, images)
            _, given = run_to(student, name, images)
            return F.mse_loss(given, wanted) / (wanted.var() + 1e-6)

        optimise(student, parameters(student, modules), x, epochs, batch, lr, imitation)
    refresh_statistics(student, augment(x))
    imitated = copy.deepcopy(student)
    trained: list[nn.Parameter] = []
    for _, modules in reversed(groups):
        trained = trained + parameters(student, modules)
        optimise(
            student, trained, x, 1, batch, lr, lambda rows: F.cross_entropy(student(augment(x[rows])), y[rows])
        )
    refresh_statistics(student, augment(x))
    return imitated, student


def imitate(
    teacher: nn.Module,
    x: Tensor,
    epochs: int = 3,
    batch: int = 64,
    lr: float = 1e-3,
    augment=lambda x: x,
) -> nn.Module:
    """The teacher with quadratic activations, trained layer by layer."""
    teacher, student = plain_copy(teacher), plain_copy(teacher)
    shapes = relus(teacher, x[:2])
    for name, modules in layers(teacher, x[:2]):

        def imitation(rows, name=name):
            images = augment(x[rows])
            with torch.no_grad():
                wanted, _ = run_to(teacher, name, images)
            given, _ = run_to(student, name, images)
            return F.mse_loss(given, wanted) / (wanted.var() + 1e-6)

        if name != next(iter(shapes)):  # the first layer's inputs are the teacher's own
            optimise(student, parameters(student, modules), x, epochs, batch, lr, imitation)
        if name is not None:
            some = x[torch.randperm(len(x))[:500]]
            with torch.no_grad():
                given, _ = run_to(student.eval(), name, some)
                _, wanted = run_to(teacher, name, some)
            activation = Polynomial(shapes[name][1], len(shapes[name]) - 2)
            activation.fit(given, wanted)
            replace(student, name, activation)
    refresh_statistics(student, augment(x))
    return student
