"""Polynomial activations for networks that run under secure computation."""

import math

import torch
from torch import Tensor, nn


def batch_norm(channels: int, dims: int) -> nn.Module:
    """Batch normalisation without scale and shift, over `dims` spatial dimensions."""
    kind = {0: nn.BatchNorm1d, 1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[dims]
    return kind(channels, affine=False)


def rows(x: Tensor) -> Tensor:
    """`[N, C, ...]` as one row per channel."""
    return x.transpose(0, 1).flatten(1)


def set_statistics(norm: nn.Module, x: Tensor) -> None:
    norm.running_mean.copy_(rows(x).mean(1))
    norm.running_var.copy_(rows(x).var(1))


def least_squares(basis: list[Tensor], target: Tensor) -> Tensor:
    """Per channel, the weights of the basis functions closest to the target:
    `[len(basis), C]`. A trace of ridge keeps constant channels solvable."""
    a = torch.stack([rows(b) for b in basis], dim=2).double()
    gram = a.transpose(1, 2) @ a / a.shape[1]
    right = a.transpose(1, 2) @ rows(target).double().unsqueeze(2) / a.shape[1]
    ridge = 1e-6 * torch.eye(len(basis), dtype=torch.double)
    return torch.linalg.solve(gram + ridge, right).squeeze(2).T.float()


class HerPN(nn.Module):
    """The Hermite activation of AESPA (arXiv 2201.06699).

    ReLU is expanded in the probabilists' Hermite polynomials, normalised to be
    orthonormal under N(0, 1), and cut off at degree two:

        h0(x) = 1,  h1(x) = x,  h2(x) = (x^2 - 1) / sqrt(2)

    with the weights f_i = E[ReLU(x) h_i(x)], x ~ N(0, 1):

        f0 = 1 / sqrt(2 pi),  f1 = 1 / 2,  f2 = 1 / sqrt(4 pi)

    h1 and h2 each pass a batch normalisation of their own that has no scale and
    shift ("basis-wise normalisation"; h0 is constant and needs none: here it
    stays 1 where a normalisation would make it 0, which `shift` absorbs). One
    scale and one shift per channel are applied to the weighted sum. No batch
    normalisation is needed in front of the activation.

    `dims` is the number of spatial dimensions: 2 after a convolution over
    images, 0 after a linear layer.
    """

    F0 = 1.0 / math.sqrt(2.0 * math.pi)
    F1 = 0.5
    F2 = 1.0 / math.sqrt(4.0 * math.pi)

    def __init__(self, channels: int, dims: int = 2):
        super().__init__()
        self.norm1 = batch_norm(channels, dims)
        self.norm2 = batch_norm(channels, dims)
        self.scale = nn.Parameter(torch.ones(channels, *[1] * dims))
        self.shift = nn.Parameter(torch.zeros(channels, *[1] * dims))

    def hermite(self, x: Tensor) -> Tensor:
        h1 = self.norm1(x)
        h2 = self.norm2((x * x - 1.0) * (1.0 / math.sqrt(2.0)))
        return self.F1 * h1 + self.F2 * h2 + self.F0

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.hermite(x) + self.shift

    def quadratic(self) -> tuple[Tensor, Tensor, Tensor]:
        """Per channel, the c0, c1, c2 of c0 + c1 x + c2 x^2 that inference computes."""
        s1 = self.F1 / (self.norm1.running_var + self.norm1.eps).sqrt()
        s2 = self.F2 / (self.norm2.running_var + self.norm2.eps).sqrt()
        scale, shift = self.scale.flatten(), self.shift.flatten()
        c2 = s2 / math.sqrt(2.0)
        c0 = self.F0 - s1 * self.norm1.running_mean - s2 * self.norm2.running_mean - c2
        return scale * c0 + shift, scale * s1, scale * c2

    @torch.no_grad()
    def fit(self, x: Tensor, target: Tensor) -> None:
        """Start where the activation of `x` is closest to `target`."""
        set_statistics(self.norm1, x)
        set_statistics(self.norm2, (x * x - 1.0) * (1.0 / math.sqrt(2.0)))
        training, _ = self.training, self.eval()
        h = self.hermite(x)
        self.train(training)
        scale, shift = least_squares([h, torch.ones_like(h)], target)
        self.scale.copy_(scale.view_as(self.scale))
        self.shift.copy_(shift.view_as(self.shift))


class Polynomial(nn.Module):
    """Batch normalisation, then a trained polynomial per channel.

        p(x) = c0 + c1 u + ... + cd u^d,  u = (x - mean) / deviation

    The coefficients start as the first terms of ReLU's Hermite expansion (see
    `HerPN`): for degree two, u^2 / sqrt(8 pi) + u / 2 + 1 / sqrt(8 pi).

    A quadratic is computed as a square plus a constant, which cancel where the
    channel is almost linear. `bend` keeps the vertex within VERTEX deviations;
    call it after each step of training.
    """

    VERTEX = 8.0

    def __init__(self, channels: int, dims: int = 2, degree: int = 2):
        super().__init__()
        if degree not in (2, 4):
            raise ValueError("degree is 2 or 4: ReLU has no odd part beyond x / 2")
        self.norm = batch_norm(channels, dims)
        start = {2: (1, 0.5, 1), 4: (0.75, 0.5, 1.5, 0, -1 / 12)}[degree]
        even = 1.0 / math.sqrt(8.0 * math.pi)
        shape = (channels, *[1] * dims)
        self.coefficients = nn.ParameterList(
            torch.full(shape, c if i == 1 else c * even) for i, c in enumerate(start)
        )

    def basis(self, x: Tensor) -> list[Tensor]:
        u = self.norm(x)
        square = u * u
        return [torch.ones_like(u), u, square, square * u, square * square][: len(self.coefficients)]

    def forward(self, x: Tensor) -> Tensor:
        y = self.coefficients[0]
        for c, power in list(zip(self.coefficients, self.basis(x)))[1:]:
            y = y + c * power
        return y

    @torch.no_grad()
    def fit(self, x: Tensor, target: Tensor) -> None:
        """Start where the activation of `x` is closest to `target`."""
        set_statistics(self.norm, x)
        training, _ = self.training, self.eval()
        for c, value in zip(self.coefficients, least_squares(self.basis(x), target)):
            c.copy_(value.view_as(c))
        self.train(training)
        self.bend()

    @torch.no_grad()
    def bend(self) -> None:
        if len(self.coefficients) == 3:
            c0, c1, c2 = self.coefficients
            least = c1.abs() / (2 * self.VERTEX)
            bent = torch.where(c2 < 0, -1.0, 1.0) * c2.abs().maximum(least)
            c0 += c2 - bent  # u^2 has mean 1
            c2.copy_(bent)


class Square(nn.Module):
    """x^2, the activation of QuaIL (Sisyphus, arXiv 2107.12342)."""

    def forward(self, x: Tensor) -> Tensor:
        return x * x


class Pillar(nn.Module):
    """The quantised degree-4 polynomial of PILLAR (arXiv 2306.08538).

    The least-squares fit to ReLU on [-5, 5] among the polynomials whose
    coefficients have ten fractional bits:

        p(x) = (322 + 512 x + 160 x^2 + 0 x^3 - 3 x^4) / 1024

    The polynomial leaves ReLU quickly outside [-5, 5], so training keeps the
    inputs inside: `penalty` holds sum |x / B|^q of the last forward pass, to be
    added to the loss, and inputs are clipped to [-5, 5] after the penalty is
    taken. Evaluation neither clips nor computes a penalty.

    Interval, B, degree, bits, clipping and penalty are those of the authors'
    published code (github.com/LucasFenaux/PILLAR-ESPN: pillar/PolyRelu.py and
    its training scripts), the coefficients were computed from the definition.
    """

    COEFFICIENTS = tuple(c / 1024.0 for c in (322, 512, 160, 0, -3))
    INTERVAL = 5.0
    B = 4.8

    def __init__(self):
        super().__init__()
        self.q = 4
        self.penalty = torch.zeros(())

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.penalty = (x / self.B).abs().pow(self.q).sum()
            x = x.clamp(-self.INTERVAL, self.INTERVAL)
        c0, c1, c2, _, c4 = self.COEFFICIENTS
        return c4 * x**4 + c2 * x**2 + c1 * x + c0


# The default of the authors' code; its scripts for large networks use 5e-5 and less.
PILLAR_LAMBDA = 1e-3
PILLAR_Q = (4, 6, 8, 10)


def pillar_constant(epoch: int) -> tuple[int, float, float]:
    """q, the penalty's weight and the task's weight in an epoch: q grows in the
    first epochs, the weights stay. The shipped network was trained with this."""
    return PILLAR_Q[min(epoch, 3)], PILLAR_LAMBDA, 1.0


def pillar_warm_up(epoch: int) -> tuple[int, float, float]:
    """The schedule of the authors' published training code: q grows over four
    epochs, the penalty's weight with it, and the first epoch has no other loss."""
    weight = (0.01, 0.02, 0.1, 0.2, 1.0)[min(epoch, 4)]
    return PILLAR_Q[min(epoch, 3)], weight * PILLAR_LAMBDA, float(epoch > 0)
