"""Makes the quantised networks of `compiler/tests/quantised.rs`, with what they were calibrated on and ONNX
Runtime's answers to 20 more inputs.

    pip install onnx onnxruntime numpy
    python3 compiler/tests/quantised/make.py

One small residual network with drawn weights, as ONNX Runtime's quantiser writes it: `quantize_static` with
int8 and uint8 activations, per channel, as QLinear operators, and `quantize_dynamic`. All draws are seeded;
the same versions make the same files.
"""

import logging
import pathlib
import tempfile

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

HERE = pathlib.Path(__file__).parent
INPUTS, CALIBRATION = 20, 100


def network(rng):
    def weights(name, *dims):
        deviation = np.sqrt(2 / np.prod(dims[1:])) if len(dims) > 1 else 0.2
        return numpy_helper.from_array((rng.standard_normal(dims) * deviation).astype("f"), name)

    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], name="first", pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], ["r1"], name="relu1"),
        node("Conv", ["r1", "w2", "b2"], ["c2"], name="second", pads=[1, 1, 1, 1]),
        node("Add", ["r1", "c2"], ["s"], name="shortcut"),
        node("Relu", ["s"], ["r2"], name="relu2"),
        node("GlobalAveragePool", ["r2"], ["p"], name="pool"),
        node("Flatten", ["p"], ["f"], name="flatten"),
        node("Gemm", ["f", "w3", "b3"], ["y"], name="classes", transB=1),
    ]
    constants = [weights("w1", 6, 1, 3, 3), weights("b1", 6), weights("w2", 6, 6, 3, 3), weights("b2", 6),
                 weights("w3", 5, 6), weights("b3", 5)]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "network", [value("x", TensorProto.FLOAT, [1, 1, 6, 6])],
                              [value("y", TensorProto.FLOAT, [1, 5])], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


class Reader(CalibrationDataReader):
    def __init__(self, inputs):
        self.left = iter(inputs)

    def get_next(self):
        x = next(self.left, None)
        return None if x is None else {"x": x[None]}


def main():
    logging.disable(logging.CRITICAL)
    rng = np.random.default_rng(13)
    inputs = rng.standard_normal((CALIBRATION + INPUTS, 1, 6, 6)).astype("f")
    calibration, x = inputs[:CALIBRATION], inputs[CALIBRATION:]
    x[-5:] *= 2  # beyond the calibration: here values saturate
    answers = {"calibration": calibration, "x": x}
    with tempfile.TemporaryDirectory() as folder:
        model = pathlib.Path(folder) / "network.onnx"
        onnx.save(network(rng), model)
        i8, u8 = QuantType.QInt8, QuantType.QUInt8
        for name, options in {
            "int8": dict(quant_format=QuantFormat.QDQ, activation_type=i8, weight_type=i8),
            "uint8": dict(quant_format=QuantFormat.QDQ, activation_type=u8, weight_type=u8),
            "per_channel": dict(quant_format=QuantFormat.QDQ, activation_type=i8, weight_type=i8, per_channel=True),
            "qlinear": dict(quant_format=QuantFormat.QOperator, activation_type=u8, weight_type=i8),
            "dynamic": None,
        }.items():
            path = HERE / f"{name}.onnx"
            if options is None:
                quantize_dynamic(model, path, weight_type=u8)
            else:
                quantize_static(model, path, Reader(calibration), **options)
            session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
            answers[name] = np.concatenate([session.run(None, {"x": row[None]})[0] for row in x])
    np.savez_compressed(HERE / "answers.npz", **answers)


if __name__ == "__main__":
    main()
