//! Linear and elementwise operators against their definitions, written out here.

mod build;

use build::{model, node, raw, reals, refusal, run, with_int, with_ints};
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{AttributeProto, ModelProto, NodeProto, TensorProto};

fn int64(name: &str, dims: &[i64], data: &[i64]) -> TensorProto {
    raw(name, DataType::Int64, dims, data.iter().flat_map(|v| v.to_le_bytes()).collect())
}

fn with_text(mut node: NodeProto, name: &str, text: &str) -> NodeProto {
    let (r#type, s) = (AttributeType::String as i32, text.as_bytes().to_vec());
    node.attribute.push(AttributeProto { name: name.into(), r#type, s, ..Default::default() });
    node
}

fn with_float(mut node: NodeProto, name: &str, f: f32) -> NodeProto {
    let r#type = AttributeType::Float as i32;
    node.attribute.push(AttributeProto { name: name.into(), r#type, f, ..Default::default() });
    node
}

/// A model of one node that reads `x` of this shape.
fn one(dims: &[i64], node: NodeProto, constants: Vec<TensorProto>) -> ModelProto {
    model((DataType::Float, dims), vec![node], constants)
}

/// The same under an older operator set.
fn at_opset(mut model: ModelProto, version: i64) -> ModelProto {
    model.opset_import[0].version = version;
    model
}

/// Numbers between -1 and 1 that do not repeat soon.
fn noise(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 37 + 11) % 101) as f32 / 50.0 - 1.0).collect()
}

#[track_caller]
fn close(got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len(), "{got:?} instead of {want:?}");
    for (g, w) in got.iter().zip(want) {
        assert!((g - w).abs() < 1e-4 * (1.0 + w.abs()), "{got:?} instead of {want:?}");
    }
}

/// The windows of an axis: `(window, tap) → place`, if it lies inside.
fn place(
    window: usize,
    tap: usize,
    stride: usize,
    dilation: usize,
    pad: usize,
    length: usize,
) -> Option<usize> {
    (window * stride + tap * dilation).checked_sub(pad).filter(|&p| p < length)
}

#[test]
fn convolutions_of_three_axes_are_sums_over_all_taps() {
    let (d, h, w) = (4, 5, 3);
    let weights = noise(2 * 2 * 2 * 2 * 3);
    let conv = with_ints(node("Conv", &["x", "w", "b"], &["y"]), "strides", &[1, 2, 1]);
    let conv = with_ints(conv, "dilations", &[2, 1, 1]);
    let conv = with_int(with_ints(conv, "pads", &[1, 0, 1, 0, 1, 1]), "group", 2);
    let constants = vec![reals("w", &[2, 2, 2, 2, 3], &weights), reals("b", &[2], &[0.5, -1.0])];
    let x = noise(4 * d * h * w);
    let got = run(&one(&[1, 4, 4, 5, 3], conv, constants), &x);
    let mut want = Vec::new();
    for (m, bias) in [0.5, -1.0].into_iter().enumerate() {
        for (z, y, c) in (0..27).map(|i| (i / 9, i / 3 % 3, i % 3)) {
            let mut sum = bias;
            for (i, a, k, j) in (0..24).map(|t| (t / 12, t / 6 % 2, t / 3 % 2, t % 3)) {
                let at =
                    (place(z, a, 1, 2, 1, d), place(y, k, 2, 1, 0, h), place(c, j, 1, 1, 1, w));
                if let (Some(z), Some(y), Some(c)) = at {
                    let weight = weights[(((m * 2 + i) * 2 + a) * 2 + k) * 3 + j];
                    sum += weight * x[(((m * 2 + i) * d + z) * h + y) * w + c];
                }
            }
            want.push(sum);
        }
    }
    close(&got, &want);
}

#[test]
fn transposed_convolutions_reach_their_output_shape() {
    // Stride 2, kernel [1, 10, 100]: entries 1 and 2 lie at 0 and 2 of a natural length of 5.
    let conv = |shape: &[i64]| {
        let conv = with_ints(node("ConvTranspose", &["x", "w"], &["y"]), "strides", &[2]);
        let conv = with_ints(conv, "output_shape", shape);
        one(&[1, 1, 2], conv, vec![reals("w", &[1, 1, 3], &[1.0, 10.0, 100.0])])
    };
    close(&run(&conv(&[5]), &[1.0, 2.0]), &[1.0, 10.0, 102.0, 20.0, 200.0]);
    // What is missing is added behind; what is too much goes in front first.
    close(&run(&conv(&[6]), &[1.0, 2.0]), &[1.0, 10.0, 102.0, 20.0, 200.0, 0.0]);
    close(&run(&conv(&[4]), &[1.0, 2.0]), &[10.0, 102.0, 20.0, 200.0]);
    assert!(refusal(&conv(&[7])).contains("output_shape"));
}

#[test]
fn pools_of_three_axes_and_dilations_count_what_lies_inside() {
    let x: Vec<f32> = noise(3 * 4 * 5);
    for (operator, include) in [("AveragePool", 0), ("AveragePool", 1), ("MaxPool", 0)] {
        let pool = with_ints(node(operator, &["x"], &["y"]), "kernel_shape", &[2, 2, 3]);
        let pool = with_ints(with_ints(pool, "dilations", &[1, 2, 1]), "strides", &[1, 1, 2]);
        let pool = with_ints(pool, "pads", &[1, 0, 1, 0, 1, 1]);
        let pool = if include == 1 { with_int(pool, "count_include_pad", 1) } else { pool };
        let got = run(&one(&[1, 1, 3, 4, 5], pool, vec![]), &x);
        let mut want = Vec::new();
        for (z, y, c) in (0..27).map(|i| (i / 9, i / 3 % 3, i % 3)) {
            let (mut sum, mut count, mut best) = (0.0, 0, f32::NEG_INFINITY);
            for (a, k, j) in (0..12).map(|t| (t / 6, t / 3 % 2, t % 3)) {
                let at =
                    (place(z, a, 1, 1, 1, 3), place(y, k, 1, 2, 0, 4), place(c, j, 2, 1, 1, 5));
                if let (Some(z), Some(y), Some(c)) = at {
                    let v = x[(z * 4 + y) * 5 + c];
                    (sum, count, best) = (sum + v, count + 1, best.max(v));
                }
            }
            let count = if include == 1 { 12 } else { count };
            want.push(if operator == "MaxPool" { best } else { sum / count as f32 });
        }
        close(&got, &want);
    }
}

#[test]
fn norms_over_windows() {
    let pool = |p| {
        let pool = with_ints(node("LpPool", &["x"], &["y"]), "kernel_shape", &[2]);
        run(&one(&[1, 1, 3], with_int(pool, "p", p), vec![]), &[3.0, -4.0, 0.5])
    };
    close(&pool(1), &[7.0, 4.5]);
    close(&pool(2), &[5.0, 16.25f32.sqrt()]);
    close(&pool(3), &[91f32.cbrt(), 64.125f32.cbrt()]);
}

#[test]
fn resized_lengths_and_ties_are_those_of_single_precision() {
    let resize = |mode: &str, scale: f32| {
        let resize = with_text(node("Resize", &["x", "", "s"], &["y"]), "mode", mode);
        one(&[1, 10], resize, vec![reals("s", &[2], &[1.0, scale])])
    };
    let x: Vec<f32> = (0..10).map(|i| i as f32).collect();
    // In double precision 10 times 0.7f is below 7.
    assert_eq!(run(&resize("nearest", 0.7), &x).len(), 7);
    // (i + 0.5)/0.5 - 0.5 is a tie everywhere; the default prefers the floor.
    assert_eq!(run(&resize("nearest", 0.5), &x), [0.0, 2.0, 4.0, 6.0, 8.0]);
    let old = |scale: f32| {
        let constants = vec![reals("s", &[2], &[1.0, scale])];
        at_opset(one(&[1, 10], node("Resize", &["x", "s"], &["y"]), constants), 10)
    };
    // Before operator set 11 nearest goes up where an axis shrinks, and down where it grows.
    assert_eq!(run(&old(0.4), &x), [0.0, 3.0, 5.0, 8.0]);
    assert_eq!(run(&old(1.5), &x)[..4], [0.0, 0.0, 1.0, 2.0]);
}

#[test]
fn resizing_interpolates_crops_and_keeps_proportions() {
    let resize = |inputs: &[&str]| node("Resize", inputs, &["y"]);
    let x = [1.0, 2.0, 4.0, 8.0];
    let scale = |s: f32| reals("s", &[2], &[1.0, s]);
    // Keys' kernel with a = -3/4 at distances of 1.25, 0.25, 0.75 and 1.75; entries repeat beyond the ends.
    let [far, near, middle, farthest] = [-0.10546875, 0.87890625, 0.26171875, -0.03515625];
    let cubic = |inside: i64| {
        let node = with_text(resize(&["x", "", "s"]), "mode", "cubic");
        let node = with_int(node, "exclude_outside", inside);
        run(&one(&[1, 4], node, vec![scale(2.0)]), &x)[2..4].to_vec()
    };
    let inner = far + 2.0 * near + 4.0 * middle + 8.0 * farthest;
    close(&cubic(0), &[farthest + middle + 2.0 * near + 4.0 * far, inner]);
    let kept = (middle + 2.0 * near + 4.0 * far) / (middle + near + far);
    close(&cubic(1), &[kept, inner]);
    // Half as many entries, each the triangle over four around it: 1/8, 3/8, 3/8, 1/8.
    let soft = with_int(with_text(resize(&["x", "", "s"]), "mode", "linear"), "antialias", 1);
    let y = run(&one(&[1, 4], soft, vec![scale(0.5)]), &x);
    close(&y, &[(1.0 + 3.0 + 6.0 + 4.0) / 8.0, (2.0 + 12.0 + 24.0 + 8.0) / 8.0]);
    // Points 1.5, 3 and 4.5, of which the last lies beyond the image.
    let crop = with_text(resize(&["x", "region", "", "size"]), "mode", "linear");
    let crop = with_text(crop, "coordinate_transformation_mode", "tf_crop_and_resize");
    let constants =
        vec![reals("region", &[4], &[0.0, 0.5, 1.0, 1.5]), int64("size", &[2], &[1, 3])];
    let y = run(&one(&[1, 4], with_float(crop, "extrapolation_value", 9.0), constants), &x);
    close(&y, &[3.0, 8.0, 9.0]);
    let corners = with_text(resize(&["x", "", "s"]), "mode", "linear");
    let corners = with_text(corners, "coordinate_transformation_mode", "align_corners");
    let text = refusal(&one(&[1, 4], corners, vec![scale(0.6)]));
    assert!(text.contains("node y (Resize)") && text.contains("sizes instead of scales"), "{text}");
    let fit = |policy: &str| {
        let node = with_text(resize(&["x", "", "", "size"]), "keep_aspect_ratio_policy", policy);
        let node = with_ints(node, "axes", &[1, 2]);
        run(&one(&[1, 1, 4], node, vec![int64("size", &[2], &[2, 6])]), &x).len()
    };
    assert_eq!((fit("not_larger"), fit("not_smaller")), (2 * 6, 2 * 8));
}

#[test]
fn padding_crops_before_it_repeats() {
    let pad = |mode: &str, pads: &[i64]| {
        let node = with_text(node("Pad", &["x", "p"], &["y"]), "mode", mode);
        run(&one(&[1, 5], node, vec![int64("p", &[4], pads)]), &[0.0, 1.0, 2.0, 3.0, 4.0])
    };
    assert_eq!(pad("wrap", &[0, -1, 0, 2]), [1.0, 2.0, 3.0, 4.0, 1.0, 2.0]);
    assert_eq!(pad("wrap", &[0, 2, 0, -1]), [2.0, 3.0, 0.0, 1.0, 2.0, 3.0]);
    assert_eq!(pad("reflect", &[0, 2, 0, -1]), [2.0, 1.0, 0.0, 1.0, 2.0, 3.0]);
    assert_eq!(pad("edge", &[0, -3, 0, 2]), [3.0, 4.0, 4.0, 4.0]);
}

#[test]
fn training_modes_are_refused() {
    let names = ["g", "b", "m", "v"];
    let statistics = names.map(|n| reals(n, &[2], &[1.0, 2.0])).to_vec();
    let node = node("BatchNormalization", &["x", "g", "b", "m", "v"], &["y"]);
    let text = refusal(&one(&[1, 2, 3], with_int(node, "training_mode", 1), statistics));
    assert!(text.contains("node y (BatchNormalization)") && text.contains("evaluation"), "{text}");
    let drop = |ratio: f32| {
        let constants = vec![reals("r", &[], &[ratio]), raw("t", DataType::Bool, &[], vec![1])];
        one(&[1, 2], build::node("Dropout", &["x", "r", "t"], &["y"]), constants)
    };
    assert_eq!(run(&drop(0.0), &[1.0, 2.0]), [1.0, 2.0]);
    assert!(refusal(&drop(0.5)).contains("random"));
}

#[test]
fn elements_are_picked_and_placed_by_constant_indices() {
    let x = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
    let with = |operator: &str, inputs: &[&str], constants: &[TensorProto], axis: i64| {
        let node = with_int(node(operator, inputs, &["y"]), "axis", axis);
        run(&one(&[1, 2, 3], node, constants.to_vec()), &x)
    };
    let indices = int64("i", &[1, 2, 2], &[0, -1, 1, 1]);
    let gather = |axis| with("GatherElements", &["x", "i"], std::slice::from_ref(&indices), axis);
    assert_eq!(gather(2), [1.0, 3.0, 5.0, 5.0]);
    assert_eq!(gather(1), [1.0, 5.0, 4.0, 5.0]);
    let updates = reals("u", &[1, 2, 2], &[10.0, 20.0, 30.0, 40.0]);
    let both = [indices.clone(), updates.clone()];
    let scatter = with("ScatterElements", &["x", "i", "u"], &both, 2);
    assert_eq!(scatter, [10.0, 2.0, 20.0, 4.0, 40.0, 6.0]);
    for (reduction, fifth) in [("add", 75.0), ("mul", 6000.0), ("max", 40.0), ("min", 5.0)] {
        let node = with_int(node("ScatterElements", &["x", "i", "u"], &["y"]), "axis", 2);
        let node = with_text(node, "reduction", reduction);
        let y = run(&one(&[1, 2, 3], node, both.to_vec()), &x);
        assert_eq!((y[1], y[3], y[4], y[5]), (2.0, 4.0, fifth, 6.0), "{reduction}");
    }
    let tuples = int64("i", &[2, 2], &[0, 1, 0, 0]);
    let gather = node("GatherND", &["x", "i"], &["y"]);
    let y = run(&one(&[1, 2, 3], gather, vec![tuples.clone()]), &x);
    assert_eq!(y, [4.0, 5.0, 6.0, 1.0, 2.0, 3.0]);
    // The update is the value: into a constant.
    let into = node("ScatterND", &["zeros", "i", "x"], &["y"]);
    let constants =
        vec![reals("zeros", &[1, 3, 3], &[0.5; 9]), int64("i", &[1, 2, 2], &[0, 2, 0, 0])];
    let y = run(&one(&[1, 2, 3], into, constants), &x);
    assert_eq!(y, [4.0, 5.0, 6.0, 0.5, 0.5, 0.5, 1.0, 2.0, 3.0]);
    let far = vec![int64("i", &[1, 2, 2], &[0, 3, 1, 1])];
    let node = with_int(node("GatherElements", &["x", "i"], &["y"]), "axis", 2);
    assert!(refusal(&one(&[1, 2, 3], node, far)).contains("the index 3 is out of range"));
}

#[test]
fn products_over_named_axes() {
    let (x, c) = (noise(2 * 3 * 4), noise(2 * 5 * 4));
    let einsum = |equation: &str, c_dims: &[i64]| {
        let mut node = node("Einsum", &["x", "c"], &["y"]);
        node = with_text(node, "equation", equation);
        let count = c_dims.iter().product::<i64>() as usize;
        run(&one(&[1, 2, 3, 4], node, vec![reals("c", c_dims, &c[..count])]), &x)
    };
    let (mut batched, mut outer) = (Vec::new(), Vec::new());
    for h in 0..2 {
        for (q, k) in (0..15).map(|i| (i / 5, i % 5)) {
            batched.push((0..4).map(|d| x[(h * 3 + q) * 4 + d] * c[(h * 5 + k) * 4 + d]).sum());
        }
    }
    close(&einsum("bhqd,hkd->bhqk", &[2, 5, 4]), &batched);
    close(&einsum("...qd,...kd->...qk", &[2, 5, 4]), &batched);
    for (d, e) in (0..8).map(|i| (i / 2, i % 2)) {
        let all: f32 = (0..6).map(|i| x[i * 4 + d]).sum();
        outer.push(all * (c[e] + c[2 + e]));
    }
    close(&einsum("bhqd,ze->bde", &[2, 2]), &outer);
    let matrices = node("MatMul", &["x", "c"], &["y"]);
    let mut several = Vec::new();
    for h in 0..2 {
        for (q, n) in (0..15).map(|i| (i / 5, i % 5)) {
            several.push((0..4).map(|d| x[(h * 3 + q) * 4 + d] * c[(h * 4 + d) * 5 + n]).sum());
        }
    }
    close(&run(&one(&[1, 2, 3, 4], matrices, vec![reals("c", &[2, 4, 5], &c)]), &x), &several);
}

#[test]
fn grids_sample_between_pixels_and_beyond_the_image() {
    // Of a 2×2 image: its middle, between the upper two, a pixel beyond the right end.
    let grid = [0.0, 0.0, 0.0, -0.5, 1.5, -0.5];
    let sample = |padding: &str| {
        let node = with_text(node("GridSample", &["x", "g"], &["y"]), "padding_mode", padding);
        run(
            &one(&[1, 1, 2, 2], node, vec![reals("g", &[1, 1, 3, 2], &grid)]),
            &[1.0, 2.0, 3.0, 6.0],
        )
    };
    close(&sample("zeros"), &[3.0, 1.5, 0.0]);
    close(&sample("border"), &[3.0, 1.5, 2.0]);
    close(&sample("reflection"), &[3.0, 1.5, 2.0]);
}

#[test]
fn fourier_transforms_of_four_samples() {
    let x = [1.0, 2.0, 0.0, -1.0];
    let dft = |attribute: &str| {
        let node = with_int(node("DFT", &["x", "", "axis"], &["y"]), attribute, 1);
        let axis = int64("axis", &[], &[1]);
        run(&one(&[1, 4, 1], node, vec![axis]), &x)
    };
    close(&dft("onesided"), &[2.0, 0.0, 1.0, -3.0, 0.0, 0.0]);
    close(&dft("inverse"), &[0.5, 0.0, 0.25, 0.75, 0.0, 0.0, 0.25, -0.75]);
    let constants = vec![int64("step", &[], &[2]), reals("w", &[2], &[1.0, 0.5])];
    let y = run(&one(&[1, 4, 1], node("STFT", &["x", "step", "w"], &["y"]), constants), &x);
    close(&y, &[2.0, 0.0, 0.0, 0.0, -0.5, 0.0, 0.5, 0.0]);
}

#[test]
fn powers_and_slopes_of_every_element() {
    let pow =
        one(&[1, 3], node("Pow", &["x", "e"], &["y"]), vec![reals("e", &[3], &[2.0, 1.0, 0.5])]);
    close(&run(&pow, &[3.0, -7.0, 9.0]), &[9.0, -7.0, 3.0]);
    let base = one(&[1, 2], node("Pow", &["b", "x"], &["y"]), vec![reals("b", &[2], &[2.0, 10.0])]);
    close(&run(&base, &[3.0, -1.0]), &[8.0, 0.1]);
    let slopes = vec![reals("s", &[2, 2], &[0.5, 0.25, 2.0, -1.0])];
    let prelu = one(&[1, 2, 2], node("PRelu", &["x", "s"], &["y"]), slopes);
    close(&run(&prelu, &[-2.0, 4.0, -1.0, -3.0]), &[-1.0, 4.0, -2.0, 3.0]);
}

#[test]
fn jumps_are_refused_and_their_absence_is_not() {
    let shrink =
        |bias: f32| one(&[1, 3], with_float(node("Shrink", &["x"], &["y"]), "bias", bias), vec![]);
    assert_eq!(run(&shrink(0.5), &[-2.0, 0.25, 1.0]), [-1.5, 0.0, 0.5]);
    assert!(refusal(&shrink(0.0)).contains("jumps"));
    let step = with_float(node("ThresholdedRelu", &["x"], &["y"]), "alpha", 1.0);
    assert!(refusal(&one(&[1, 3], step, vec![])).contains("jump"));
}

#[test]
fn logarithms_of_sums_of_exponentials_do_not_overflow() {
    let reduce = |axes: &[i64], x: &[f32]| {
        let node = with_int(node("ReduceLogSumExp", &["x", "axes"], &["y"]), "keepdims", 0);
        run(&one(&[1, 2, 3], node, vec![int64("axes", &[axes.len() as i64], axes)]), x)
    };
    let x = [0.5, 1.0, -2.0, 0.0, 3.0, 1.0];
    let of = |x: &[f32]| x.iter().map(|v| v.exp()).sum::<f32>().ln();
    close(&reduce(&[2], &x), &[of(&x[..3]), of(&x[3..])]);
    close(&reduce(&[1, 2], &x), &[of(&x)]);
    close(&reduce(&[2], &[200.0, 100.0, 0.0, -200.0, -200.0, -200.0]), &[200.0, 3f32.ln() - 200.0]);
    // Scores of two classes for three places, the second of which does not count.
    let loss = with_int(node("SoftmaxCrossEntropyLoss", &["x", "t"], &["y"]), "ignore_index", -1);
    let y = run(&one(&[1, 2, 3], loss, vec![int64("t", &[1, 3], &[1, -1, 0])]), &x);
    close(&y, &[(of(&[0.5, 0.0]) - 0.0 + of(&[-2.0, 1.0]) + 2.0) / 2.0]);
}
