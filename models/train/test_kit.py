"""Tests of the training kit: `python test_kit.py`, or pytest.

With POLYC set to the compiler's binary, exported networks are compiled too.
"""

import os
import re
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F
from torch import nn

from common import accuracy, export, load_images, load_weights, polyc, relus
from distill import ACTIVATIONS, distill, polynomial_copy
from imitate import imitate, layers, quail
from modules import HerPN, Pillar, Polynomial, Square, pillar_constant, pillar_warm_up
from train import MODELS, shift

HERE = Path(__file__).resolve().parent
SHIPPED = HERE.parent

torch.set_num_threads(1)


def digits():
    return *load_images(SHIPPED / "digits_train.npz"), *load_images(SHIPPED / "digits_test.npz")


def teacher(name: str) -> nn.Module:
    return load_weights(MODELS[name](), SHIPPED / f"{name}.onnx")


def onnx_logits(model: nn.Module, x) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export(model, path, x.shape[1:])
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return session.run(None, {"image": x.numpy()})[0]


def raises(error, call, *arguments) -> str:
    try:
        call(*arguments)
    except error as found:
        return str(found)
    raise AssertionError(f"{error.__name__} expected")


def test_hermite_expansion_of_relu():
    """f_i = E[ReLU(x) h_i(x)] and E[h_i h_j] = [i = j] under N(0, 1)."""
    x = torch.linspace(-12, 12, 240001, dtype=torch.double)
    density = torch.exp(-x * x / 2) / np.sqrt(2 * np.pi) * (x[1] - x[0])
    h = [torch.ones_like(x), x, (x * x - 1) / np.sqrt(2)]
    for i, f in enumerate((HerPN.F0, HerPN.F1, HerPN.F2)):
        assert abs((density * x.relu() * h[i]).sum() - f) < 1e-6
        for j in range(3):
            assert abs((density * h[i] * h[j]).sum() - float(i == j)) < 1e-9


def test_polynomial_starts_as_the_hermite_expansion():
    u = torch.linspace(-12, 12, 240001, dtype=torch.double)
    density = torch.exp(-u * u / 2) / np.sqrt(2 * np.pi) * (u[1] - u[0])
    for degree in (2, 4):
        start = [c.item() for c in Polynomial(1, 0, degree).coefficients]
        basis = torch.stack([u**i for i in range(degree + 1)])
        gram, right = (density * basis) @ basis.T, (density * basis) @ u.relu()
        assert np.allclose(torch.linalg.solve(gram, right), start, atol=1e-5)


def test_gradients_reach_everything():
    torch.manual_seed(0)
    for module, shape in (
        (HerPN(5), (8, 5, 4, 4)),
        (HerPN(5, dims=0), (32, 5)),
        (Polynomial(5), (8, 5, 4, 4)),
        (Polynomial(5, dims=0, degree=4), (32, 5)),
        (Pillar(), (8, 5, 4, 4)),
        (Square(), (8, 5)),
    ):
        x = torch.randn(shape, requires_grad=True)
        loss = (module.train()(x) * torch.randn(shape)).sum()
        if isinstance(module, Pillar):
            loss = loss + module.penalty
        loss.backward()
        for p in [x, *module.parameters()]:
            assert p.grad.isfinite().all() and (p.grad != 0).any(), type(module)


def test_herpn_normalises_each_basis():
    torch.manual_seed(0)
    module = HerPN(3).train()
    x = 4 * torch.randn(64, 3, 5, 5) + 2
    y = module(x)
    assert torch.allclose(y.mean((0, 2, 3)), torch.full((3,), HerPN.F0), atol=1e-4)
    h1, h2 = module.norm1(x), module.norm2(x * x)
    for h in (h1, h2):
        assert torch.allclose(h.var((0, 2, 3)), torch.ones(3), atol=1e-2)
    assert not list(module.norm1.parameters()) and not list(module.norm2.parameters())


def test_herpn_folds_to_a_quadratic():
    torch.manual_seed(0)
    for dims, shape in ((2, (64, 3, 5, 5)), (0, (400, 3))):
        module = HerPN(3, dims).train()
        with torch.no_grad():
            module.scale.uniform_(0.5, 2)
            module.shift.uniform_(-1, 1)
        for _ in range(50):
            module(2 * torch.randn(shape) + 1)
        x = 2 * torch.randn(shape) + 1
        c0, c1, c2 = (c.view(3, *[1] * dims) for c in module.quadratic())
        quadratic = c0 + c1 * x + c2 * x * x
        assert torch.allclose(module.eval()(x), quadratic, atol=1e-5)
        assert not torch.allclose(module.train()(x), quadratic, atol=1e-5)


def test_fits_start_close_to_relu():
    torch.manual_seed(0)
    x = 2 * torch.randn(500, 3, 4, 4) + torch.tensor([-1.0, 0, 1]).view(3, 1, 1)
    errors = []
    for module in (HerPN(3), Polynomial(3), Polynomial(3, degree=4)):
        module.fit(x, x.relu())
        errors.append(((module.eval()(x) - x.relu()).square().mean() / x.relu().var()).item())
    assert 0.12 > errors[0] >= errors[1] > errors[2], errors
    module = Polynomial(3)
    module.fit(x, 3 - x + 2 * x * x)
    assert torch.allclose(module.eval()(x), 3 - x + 2 * x * x, rtol=1e-3, atol=1e-3)


def test_polynomial_stays_bent():
    torch.manual_seed(0)
    x = torch.randn(500, 2) + torch.tensor([8.0, 0])
    module = Polynomial(2, dims=0)
    module.fit(x, x.relu())
    _, c1, c2 = module.coefficients
    assert ((c1 / (2 * c2)).abs() <= Polynomial.VERTEX * 1.001).all()
    assert ((module.eval()(x) - x.relu())[:, 0].square().mean() / x.var()) < 0.01


def test_pillar_coefficients():
    """No polynomial with ten fractional bits is closer to ReLU on [-5, 5]."""
    x = np.linspace(-5, 5, 1001)
    powers = np.stack([x**i for i in range(5)], 1)
    gram, right = powers.T @ powers, powers.T @ np.maximum(x, 0)
    found = {}
    for c1 in range(508, 517):
        for c2 in range(140, 180):
            for c3 in range(-2, 3):
                for c4 in range(-6, 0):
                    c = np.array([0, c1, c2, c3, c4]) / 1024
                    c[0] = np.round((right[0] - gram[0] @ c) / gram[0, 0] * 1024) / 1024
                    found[tuple(c)] = c @ gram @ c - 2 * right @ c
    assert min(found, key=found.get) == Pillar.COEFFICIENTS


def test_pillar_clips_and_penalises_in_training_only():
    module = Pillar()
    x = torch.tensor([[-9.0, 0.0, 4.8, 9.0]])
    module.q = 10
    y = module.train()(x)
    assert y[0, 3] == module(torch.tensor([[5.0]])) and y[0, 0] == module(torch.tensor([[-5.0]]))
    module(x)
    assert torch.isclose(module.penalty, torch.tensor(2 * (9 / 4.8) ** 10 + 1))
    assert module.eval()(x)[0, 3] < -1


def test_pillar_schedules():
    assert [pillar_constant(e)[0] for e in range(6)] == [4, 6, 8, 10, 10, 10]
    assert [pillar_warm_up(e)[0] for e in range(6)] == [4, 6, 8, 10, 10, 10]
    weights = [pillar_warm_up(e)[1] for e in range(6)]
    assert np.allclose(weights, [1e-5, 2e-5, 1e-4, 2e-4, 1e-3, 1e-3])
    assert [pillar_warm_up(e)[2] for e in range(3)] == [0, 1, 1]


def test_shift_moves_by_whole_pixels():
    torch.manual_seed(0)
    x = torch.rand(50, 3, 6, 7)
    moved = shift(x, 2)
    padded = F.pad(x, (2, 2, 2, 2))
    windows = padded.unfold(2, 6, 1).unfold(3, 7, 1)
    same = (windows == moved[:, :, None, None]).all(-1).all(-1).all(1).flatten(1)
    assert (same.sum(1) == 1).all() and len(same.int().argmax(1).unique()) > 10


def test_shipped_weights_load():
    _, _, x, _ = digits()
    for name in MODELS:
        expected = np.load(SHIPPED / f"{name}.expected.npz")["logits"]
        with torch.no_grad():
            assert np.allclose(teacher(name)(x), expected, rtol=1e-4, atol=1e-4), name


def test_export_equals_pytorch():
    torch.manual_seed(0)
    x, _, x_test, _ = digits()
    for name in ("digits_mlp", "digits_cnn", "digits_resnet"):
        for activation in ACTIVATIONS:
            student = polynomial_copy(teacher(name), x[:200], activation)
            with torch.no_grad():
                assert np.allclose(onnx_logits(student, x_test), student(x_test), rtol=1e-3, atol=1e-3)


def test_refuses_what_it_cannot_replace():
    x = torch.rand(2, 4)
    assert "no nn.ReLU" in raises(ValueError, relus, nn.Linear(4, 4), x)
    shared = nn.ReLU()
    assert "used twice" in raises(ValueError, relus, nn.Sequential(shared, nn.Linear(4, 4), shared), x)


def test_layers_group_by_execution():
    groups = layers(teacher("digits_resnet"), torch.zeros(2, 1, 8, 8))
    assert [name for name, _ in groups] == ["2", "3.relu1", "3.relu2", "4.relu1", "4.relu2", "5.relu1", "5.relu2", None]
    assert groups[4][1] == ["4.conv2", "4.bn2", "4.shortcut.0", "4.shortcut.1"]
    assert groups[-1][1] == ["8"]


def test_distilled_and_imitated_follow_the_teacher():
    x, y, x_test, y_test = digits()
    for name in ("digits_mlp", "digits_cnn"):
        source = teacher(name)
        before = {k: v.clone() for k, v in source.state_dict().items()}
        torch.manual_seed(0)
        students = [distill(source, x, a, epochs=1) for a in ACTIVATIONS]
        students.append(imitate(source, x, epochs=1))
        imitated, tuned = quail(source, x, y, epochs=1)
        assert all(torch.equal(v, before[k]) for k, v in source.state_dict().items())
        assert any(isinstance(m, nn.ReLU) for m in source.modules())
        for student in students:
            assert not any(isinstance(m, nn.ReLU) for m in student.modules())
            assert accuracy(student, x_test, y_test) > 0.94, name
        assert sum(isinstance(m, Square) for m in tuned.modules()) == len(relus(source, x[:2]))
        assert accuracy(tuned, x_test, y_test) > accuracy(imitated, x_test, y_test)


def test_distillation_brings_the_logits_closer():
    x, _, x_test, _ = digits()
    source = teacher("digits_cnn")
    torch.manual_seed(0)
    students = [polynomial_copy(source, x[:500]), distill(source, x, epochs=3, augment=shift)]
    with torch.no_grad():
        distances = [(student(x_test) - source(x_test)).square().mean() for student in students]
    assert distances[1] < 0.8 * distances[0], distances


def test_readme_example_runs():
    block = re.search(r"```python\n(.*?)```", (HERE / "README.md").read_text(), re.S)[1]
    old = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            exec(block.replace('"../', f'"{SHIPPED}/'), {})
            assert Path("mine.onnx").exists()
        finally:
            os.chdir(old)


def test_polyc_compiles_what_is_exported():
    binary = os.environ.get("POLYC")
    if not binary:
        print("  (skipped: POLYC is not set)")
        return
    x, _, x_test, y_test = digits()
    with tempfile.TemporaryDirectory() as folder:
        onnx, plan = Path(folder) / "model.onnx", Path(folder) / "plan.bin"
        for name in ("digits_mlp", "digits_cnn", "digits_resnet"):
            for activation in ACTIVATIONS:
                torch.manual_seed(0)
                student = distill(teacher(name), x, activation, epochs=1)
                export(student, onnx, x.shape[1:])
                polyc(binary, "compile", onnx, "-o", plan, "--calibrate", SHIPPED / "digits_train.npz")
                found = polyc(binary, "evaluate", plan, "--inputs", SHIPPED / "digits_test.npz")
                assert abs(found["accuracy"]["float"] - accuracy(student, x_test, y_test)) < 1e-6
                assert found["agreement"]["plan"] >= 0.99, (name, activation, found)


def main() -> None:
    for name, test in list(globals().items()):
        if name.startswith("test_"):
            print(name, flush=True)
            test()
    print("all passed")


if __name__ == "__main__":
    main()
