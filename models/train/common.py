"""What the scripts share: reading images, measuring, exporting, calling polyc,
finding and replacing activations."""

import copy
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

OPSET = 17


def load_images(path: str | Path) -> tuple[Tensor, Tensor]:
    """`x` and `y` of an .npz as polyc reads them: bytes are divided by 255,
    `[N, H, W]` gains a channel, `[N, H, W, 3]` becomes `[N, 3, H, W]`."""
    data = np.load(path)
    x = torch.from_numpy(data["x"])
    if x.dtype == torch.uint8:
        x = x.float() / 255
        x = x.unsqueeze(1) if x.dim() == 3 else x.permute(0, 3, 1, 2).contiguous()
    return x.float(), torch.from_numpy(data["y"].astype(np.int64))


@torch.no_grad()
def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    model.eval()
    return torch.cat([model(b).argmax(1) for b in x.split(500)]).eq(y).float().mean().item()


def export(model: nn.Module, path: str | Path, shape: tuple[int, ...]) -> None:
    """Write the model as its modules stand: BatchNormalization is kept, in
    inference mode. `shape` is that of one input."""
    model.eval()
    torch.onnx.export(
        model,
        (torch.zeros(2, *shape),),
        str(path),
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "N"}, "logits": {0: "N"}},
        opset_version=OPSET,
        do_constant_folding=False,
        dynamo=False,
    )


def load_weights(model: nn.Module, path: Path) -> nn.Module:
    """Fill a network with the weights of the file that `export` made of its like."""
    graph = onnx.load(path).graph
    weights = {i.name: torch.from_numpy(onnx.numpy_helper.to_array(i).copy()) for i in graph.initializer}
    for node in graph.node:
        if node.op_type == "Identity" and node.input[0] in weights:
            weights[node.output[0]] = weights[node.input[0]]
    wanted = [name for name in model.state_dict() if not name.endswith("num_batches_tracked")]
    model.load_state_dict({name: weights[name] for name in wanted}, strict=False)
    return model.eval()


def polyc(binary: Path, *words) -> dict:
    """A command of polyc, its JSON object."""
    done = subprocess.run([binary, *map(str, words), "--json"], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"polyc {' '.join(map(str, words))}\n{done.stderr}")
    return json.loads(done.stdout)


def relus(model: nn.Module, sample: Tensor) -> dict[str, torch.Size]:
    """The name and the input's shape of every nn.ReLU, in order of execution."""
    shapes, hooks = {}, []
    for name, module in model.named_modules():
        if isinstance(module, nn.ReLU):

            def seen(_, args, name=name):
                if name in shapes:
                    raise ValueError(f"{name} is used twice: give every activation its own nn.ReLU")
                shapes[name] = args[0].shape

            hooks.append(module.register_forward_pre_hook(seen))
    with torch.no_grad():
        model.eval()(sample)
    for hook in hooks:
        hook.remove()
    if not shapes:
        raise ValueError("no nn.ReLU module found: F.relu and torch.relu cannot be replaced")
    return shapes


def plain_copy(model: nn.Module) -> nn.Module:
    """A copy for evaluation whose ReLUs leave their inputs alone."""
    model = copy.deepcopy(model).eval()
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return model


def replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)


@contextmanager
def taps(model: nn.Module, names) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """Collects the last (input, output) of the named modules."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def keep(name):
        def hook(_, args, output):
            seen[name] = (args[0], output)

        return hook

    hooks = [model.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def refresh_statistics(model: nn.Module, x: Tensor, batch: int = 250) -> None:
    """Replace the running means and variances by those of `x`, which must be
    what the network was trained on, shifted if that was: running averages lag
    behind a short training."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    model.train()
    for images in x[torch.randperm(len(x))].split(batch):
        if len(images) > 1:
            model(images)
    model.eval()
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum
