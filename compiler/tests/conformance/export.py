#!/usr/bin/env python3
"""Writes the ONNX backend tests of the `onnx` package as models, for compiler/tests/conformance.rs.

    python3 compiler/tests/conformance/export.py FOLDER

Every numeric input of a test becomes the input of a variant in turn, then all real ones together; the others become
initializers. Every numeric output is asked for. The variants `folded` have all inputs made initializers and the output
added to an input, which shows what the import evaluates itself. FOLDER gets `N.onnx` and `N.npz` (`x0`, `x1`, …, `y`, as
float32) and `manifest.tsv`, after a line with the version of `onnx`: N, test, variant, inputs, output,
tolerance, operators. Needs `onnx`; runs no model.
"""

import pathlib
import sys
import warnings

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SUITES = ("simple", "pytorch-converted", "pytorch-operator", "light")
# Relative to the largest entry: for results of half precision, and otherwise.
TOLERANCES = {TensorProto.FLOAT16: 1e-2, TensorProto.BFLOAT16: 3e-2}
TOLERANCE = 1e-3


def normal(value):
    """Test data are arrays, numbers, or protobuf tensors; None for sequences and optionals."""
    if isinstance(value, TensorProto):
        return numpy_helper.to_array(value)
    if isinstance(value, (np.ndarray, np.generic, int, float)):
        return np.asarray(value)
    return None


def as_reals(array):
    """As float32, or None for strings and complex numbers."""
    if array is None or array.dtype.kind in "OSUVc":
        try:
            return array.astype(np.float32) if array is not None and array.dtype.kind == "V" else None
        except (TypeError, ValueError):
            return None
    return array.astype(np.float32)


def node_tests():
    import onnx.backend.test.case.node as node

    for test in node.collect_testcases(None):
        if test.data_sets:
            inputs, outputs = test.data_sets[0]
            yield f"node/{test.name}", test.model, [normal(v) for v in inputs], [normal(v) for v in outputs]


def read_tensor(path, value):
    if not value.type.HasField("tensor_type"):
        return None
    return numpy_helper.to_array(TensorProto.FromString(path.read_bytes()))


def free_inputs(graph):
    initialized = {t.name for t in graph.initializer}
    return [v for v in graph.input if v.name not in initialized]


def stored_tests(suite):
    root = pathlib.Path(onnx.__file__).parent / "backend" / "test" / "data" / suite
    if suite == "light":
        for path in sorted(root.glob("*.onnx")):
            model = onnx.load(path)
            inputs = []
            for value in free_inputs(model.graph):
                shape = [d.dim_value or 1 for d in value.type.tensor_type.shape.dim]
                count = int(np.prod(shape))
                # What the package's own runner feeds.
                inputs.append((np.arange(count).reshape(shape) / count).astype(np.float32))
            output = path.with_name(path.stem + "_output_0.pb")
            yield f"light/{path.stem}", model, inputs, [read_tensor(output, model.graph.output[0])]
        return
    for folder in sorted(p for p in root.iterdir() if (p / "model.onnx").exists()):
        data = folder / "test_data_set_0"
        if not data.is_dir():
            continue
        model = onnx.load(folder / "model.onnx")
        inputs = [read_tensor(data / f"input_{i}.pb", v) for i, v in enumerate(free_inputs(model.graph))]
        outputs = [read_tensor(data / f"output_{i}.pb", v) for i, v in enumerate(model.graph.output)]
        yield f"{suite}/{folder.name}", model, inputs, outputs


def with_inputs(model, kept, values):
    """The model with all inputs but those in `kept` made initializers."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    for value, array in zip(free_inputs(graph), values):
        if value.name not in kept:
            graph.initializer.append(numpy_helper.from_array(array, value.name))
    initialized = {t.name for t in graph.initializer}
    remaining = [v for v in graph.input if v.name not in initialized]
    del graph.input[:]
    graph.input.extend(remaining)
    copy.ir_version = max(copy.ir_version, 4)
    return copy


def folded(model, values, output, expected):
    """The model with all inputs made initializers, `output` added to an input."""
    copy = with_inputs(model, (), values)
    graph = copy.graph
    x = np.linspace(-1, 1, expected.size, dtype=np.float32).reshape((1, *expected.shape))
    graph.node.append(helper.make_node("Cast", [output], ["conformance_f"], to=TensorProto.FLOAT))
    graph.node.append(helper.make_node("Add", ["conformance_x", "conformance_f"], ["conformance_y"]))
    graph.input.append(helper.make_tensor_value_info("conformance_x", TensorProto.FLOAT, x.shape))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("conformance_y", TensorProto.FLOAT, x.shape))
    return copy, x, x + expected


def operators(graph):
    names = []
    for node in graph.node:
        names.append(node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}")
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                names += operators(attribute.g)
    return names


def variants(name, model, inputs, outputs):
    """(variant, model, inputs, output, y, tolerance) of a test."""
    free = free_inputs(model.graph)
    if len(free) != len(inputs) or any(v is None for v in inputs):
        return
    numeric = [i for i, v in enumerate(inputs) if as_reals(v) is not None and v.size]
    real = [i for i in numeric if inputs[i].dtype.kind == "f"]
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    for j, (output, expected) in enumerate(zip(model.graph.output, outputs)):
        y = as_reals(expected)
        if y is None or not y.size:
            continue
        tolerance = TOLERANCES.get(output.type.tensor_type.elem_type, TOLERANCE)
        at = f"@{j}" if len(model.graph.output) > 1 else ""
        for i in numeric:
            one = with_inputs(model, (free[i].name,), inputs)
            yield free[i].name + at, one, {free[i].name: as_reals(inputs[i])}, output.name, y, tolerance
        if len(real) > 1:
            several = with_inputs(model, [free[i].name for i in real], inputs)
            yield "together" + at, several, {free[i].name: as_reals(inputs[i]) for i in real}, output.name, y, tolerance
        # `Add` broadcasts from operator set 7 on; whole networks take long.
        if opset >= 7 and not name.startswith("light/") and y.size < 100_000 and np.isfinite(y).all():
            one, x, total = folded(model, inputs, output.name, y)
            yield "folded" + at, one, {"conformance_x": x}, "conformance_y", total, tolerance


def tests():
    yield from node_tests()
    for suite in SUITES:
        yield from stored_tests(suite)


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    warnings.filterwarnings("ignore")
    lines = []
    for name, model, inputs, outputs in tests():
        names = ",".join(sorted(set(operators(model.graph))))
        for variant, one, xs, output, y, tolerance in variants(name, model, inputs, outputs):
            number = len(lines)
            (folder / f"{number}.onnx").write_bytes(one.SerializeToString())
            arrays = {f"x{i}": np.ascontiguousarray(x) for i, x in enumerate(xs.values())}
            np.savez(folder / f"{number}.npz", y=np.ascontiguousarray(y), **arrays)
            fields = [number, name, variant, " ".join(xs), output, tolerance, names]
            lines.append("\t".join(str(field) for field in fields))
    (folder / "manifest.tsv").write_text(f"onnx {onnx.__version__}\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
