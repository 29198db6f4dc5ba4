"""Polynomial activations for networks that run under secure computation."""

import math

import torch
from torch import Tensor, nn


class HerPN(nn.Module):
    """The Hermite activation of AESPA (arXiv 2201.06699).

    ReLU is expanded in the probabilists' Hermite bases, normalised and cut off
    at degree two:

        h0(x) = 1,  h1(x) = x,  h2(x) = (x^2 - 1) / sqrt(2)

    with the weights 1/sqrt(2 pi), 1/2 and 1/sqrt(4 pi). h1 and h2 each pass a
    batch normalisation of their own that has no scale and shift ("basis-wise
    normalisation"; h0 is constant and needs none). One scale and one shift per
    channel are applied to the weighted sum. No batch normalisation is needed in
    front of the activation.
    """

    F0 = 1.0 / math.sqrt(2.0 * math.pi)
    F1 = 0.5
    F2 = 1.0 / math.sqrt(4.0 * math.pi)

    def __init__(self, channels: int):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels, affine=False)
        self.norm2 = nn.BatchNorm2d(channels, affine=False)
        self.scale = nn.Parameter(torch.ones(channels, 1, 1))
        self.shift = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        h1 = self.norm1(x)
        h2 = self.norm2((x * x - 1.0) * (1.0 / math.sqrt(2.0)))
        return self.scale * (self.F1 * h1 + self.F2 * h2 + self.F0) + self.shift


class Pillar(nn.Module):
    """The quantised degree-4 polynomial of PILLAR (arXiv 2306.08538).

    The least-squares fit to ReLU on [-5, 5] among the polynomials whose
    coefficients have ten fractional bits:

        p(x) = (322 + 512 x + 160 x^2 + 0 x^3 - 3 x^4) / 1024

    The polynomial leaves ReLU quickly outside [-5, 5], so training keeps the
    inputs inside: `penalty` holds sum |x / B|^q of the last forward pass, to be
    added to the loss, and inputs are clipped to [-5, 5] after the penalty is
    taken. Evaluation neither clips nor computes a penalty.
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
