#!/usr/bin/env python3
"""Writes a ResNet with random weights as ONNX: the shapes that speed is measured on, not a classifier.

    pip install onnx numpy
    python3 benches/random_resnet.py 18 resnet18.onnx      ResNet-18 for 32×32 images, 10 classes
    python3 benches/random_resnet.py 50 resnet50.onnx      ResNet-50 for 224×224 images, 1000 classes

Weights are He et al.'s normal ones with residual branches halved, so that values neither grow nor vanish. Beside the
network stands NAME.calibration.npz with 32 random images, for `polyc compile --calibrate`.
"""
import argparse
import pathlib

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper


class Network:
    def __init__(self, seed):
        self.random = numpy.random.default_rng(seed)
        self.nodes, self.initializers, self.count = [], [], 0

    def name(self, kind):
        self.count += 1
        return f"{kind}{self.count}"

    def constant(self, array):
        name = self.name("w")
        self.initializers.append(numpy_helper.from_array(array.astype(numpy.float32), name))
        return name

    def add(self, kind, inputs, **attributes):
        output = self.name(kind.lower())
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def convolution(self, x, inputs, outputs, size, stride=1, gain=1.0):
        deviation = gain * (2 / (inputs * size * size)) ** 0.5
        weights = self.constant(self.random.normal(0, deviation, (outputs, inputs, size, size)))
        bias = self.constant(self.random.normal(0, 0.05, outputs))
        pad = size // 2
        return self.add("Conv", [x, weights, bias], kernel_shape=[size, size], strides=[stride, stride],
                        pads=[pad, pad, pad, pad])

    def block(self, x, inputs, widths, sizes, stride):
        """A residual block: convolutions of `widths` and `sizes`, the stride in the first 3×3 one."""
        y, channels, stridden = x, inputs, False
        for i, (width, size) in enumerate(zip(widths, sizes)):
            step = stride if size == 3 and not stridden else 1
            stridden |= size == 3
            last = i + 1 == len(widths)
            y = self.convolution(y, channels, width, size, step, 0.5 if last else 1.0)
            y, channels = (y if last else self.add("Relu", [y])), width
        if stride > 1 or inputs != channels:
            x = self.convolution(x, inputs, channels, 1, stride, 0.7)
        return self.add("Relu", [self.add("Add", [y, x])]), channels


def resnet(depth, seed=1):
    net = Network(seed)
    if depth == 18:
        image, classes, stages = [3, 32, 32], 10, [(64, 2, 1), (128, 2, 2), (256, 2, 2), (512, 2, 2)]
        x, channels = net.add("Relu", [net.convolution("input", 3, 64, 3)]), 64
    else:
        image, classes, stages = [3, 224, 224], 1000, [(64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)]
        x, channels = net.add("Relu", [net.convolution("input", 3, 64, 7, 2)]), 64
        x = net.add("AveragePool", [x], kernel_shape=[2, 2], strides=[2, 2])
    for width, blocks, stride in stages:
        for i in range(blocks):
            widths, sizes = ([width, width], [3, 3]) if depth == 18 else ([width, width, 4 * width], [1, 3, 1])
            x, channels = net.block(x, channels, widths, sizes, stride if i == 0 else 1)
    x = net.add("Flatten", [net.add("GlobalAveragePool", [x])])
    weights = net.constant(net.random.normal(0, channels**-0.5, (channels, classes)))
    bias = net.constant(numpy.zeros(classes))
    x = net.add("Gemm", [x, weights, bias])
    graph = helper.make_graph(
        net.nodes, f"random_resnet{depth}",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, *image])],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, [1, classes])], net.initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    return model, image


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("depth", type=int, choices=[18, 50])
    parser.add_argument("output", type=pathlib.Path)
    args = parser.parse_args()
    model, image = resnet(args.depth)
    onnx.save(model, args.output)
    images = numpy.random.default_rng(2).normal(0, 1, (32, *image)).astype(numpy.float32)
    numpy.savez(args.output.with_suffix(".calibration.npz"), x=images)


if __name__ == "__main__":
    main()
