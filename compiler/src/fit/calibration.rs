//! The inputs that a network is fitted on.

use ir::graph::{Graph, NodeId, Statistics};
use ir::{Shape, Tensor};
use rayon::prelude::*;
use std::collections::HashMap;

/// Inputs of the model's shape, preprocessed as in training.
pub struct Calibration {
    /// One tensor per input.
    pub inputs: Vec<Tensor<f32>>,
    /// Where each of them stands in what was given, from 0.
    pub rows: Vec<usize>,
    /// Their classes, where they are known; a fit does not look at them.
    pub labels: Option<Vec<usize>>,
    /// Whether nobody gave data and the inputs were made up.
    pub is_synthetic: bool,
    /// For people: where the inputs come from.
    pub description: String,
}

/// Bytes that the values of a fit may take.
const MEMORY: usize = 2 << 30;
/// Fewer inputs than this are not fitted on, whatever they take.
const LEAST_INPUTS: usize = 32;

/// How many rows are named.
const MOST_NAMED: usize = 5;

/// Inputs made up when nobody gave any.
const SYNTHETIC_INPUTS: usize = 256;

impl Calibration {
    /// How many inputs a fit of `graph` holds in memory: teacher's and student's values of all nodes
    /// between their making and their last reader, the widest moment of the walk.
    pub fn capacity(graph: &Graph) -> usize {
        let order = graph.order();
        let mut readers: HashMap<NodeId, usize> =
            order.iter().map(|&id| (id, graph.uses(id).len())).collect();
        let size = |id: NodeId| 2 * size_of::<f32>() * graph.node(id).shape.elements();
        let (mut live, mut most) = (0, 1);
        for &id in &order {
            live += size(id);
            most = most.max(live);
            for operand in graph.operands(id) {
                if let Some(n) = readers.get_mut(&operand) {
                    *n -= 1;
                    if *n == 0 {
                        live -= size(operand);
                    }
                }
            }
        }
        // Operands are held until scales are settled, and values are made beside those they replace.
        (MEMORY / (2 * most)).max(LEAST_INPUTS)
    }

    /// Keeps as many inputs as a fit of `graph` holds in memory, evenly; whether some were left out.
    pub fn limit(&mut self, graph: &Graph) -> bool {
        let (count, capacity) = (self.inputs.len(), Self::capacity(graph));
        if count <= capacity {
            return false;
        }
        let is_kept = |index: usize| (index + 1) * capacity / count > index * capacity / count;
        let mut index = 0..count;
        self.inputs.retain(|_| index.next().is_some_and(is_kept));
        let mut index = 0..count;
        self.rows.retain(|_| index.next().is_some_and(is_kept));
        if let Some(labels) = &mut self.labels {
            let mut index = 0..count;
            labels.retain(|_| index.next().is_some_and(is_kept));
        }
        true
    }

    /// Inputs as they were given, all of them.
    pub fn new(inputs: Vec<Tensor<f32>>, description: impl Into<String>) -> Self {
        let rows = (0..inputs.len()).collect();
        Self { inputs, rows, labels: None, is_synthetic: false, description: description.into() }
    }

    /// Smooth random images in `range`: noise on a coarse grid, interpolated along the last two axes,
    /// with a random contrast and a little noise per element, some of them mostly dark. Deterministic: nothing here is secret.
    pub fn synthetic(shape: &Shape, range: (f32, f32)) -> Self {
        let inputs: Vec<_> = (0..SYNTHETIC_INPUTS)
            .into_par_iter()
            .map(|i| smooth_image(shape, range, &mut Noise(0x5eed_0000 + i as u64)))
            .collect();
        Self { is_synthetic: true, ..Self::new(inputs, "synthetic inputs") }
    }
}

/// Some rows, for people.
pub fn name_rows(rows: &[usize]) -> String {
    let named: Vec<String> = rows.iter().take(MOST_NAMED).map(usize::to_string).collect();
    let more = rows.len().saturating_sub(MOST_NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{} {}{more}", if rows.len() == 1 { "row" } else { "rows" }, named.join(", "))
}

fn smooth_image(shape: &Shape, range: (f32, f32), noise: &mut Noise) -> Tensor<f32> {
    const GRID: usize = 4;
    let rank = shape.rank();
    let (h, w) =
        if rank >= 3 { (shape.0[rank - 2], shape.0[rank - 1]) } else { (1, shape.elements()) };
    let (centre, contrast) = (noise.uniform(), 0.3 + 1.2 * noise.uniform());
    // Part of the images are dark but for a few bright strokes, as scans are.
    let floor = (1.6 * noise.uniform() - 0.8).max(0.0);
    let stretch = |v: f32| if floor > 0.0 { (v - floor).max(0.0) * 4.0 } else { v };
    let mut data = Vec::with_capacity(shape.elements());
    for _ in 0..shape.elements() / (h * w) {
        let grid: Vec<f32> = (0..GRID * GRID).map(|_| noise.uniform()).collect();
        for y in 0..h {
            for x in 0..w {
                let smooth = interpolate(&grid, GRID, y as f32 / h as f32, x as f32 / w as f32);
                let value =
                    centre + contrast * (0.8 * (smooth - 0.5) + 0.2 * (noise.uniform() - 0.5));
                data.push(range.0 + (range.1 - range.0) * stretch(value).clamp(0.0, 1.0));
            }
        }
    }
    Tensor::new(shape.clone(), data)
}

fn interpolate(grid: &[f32], size: usize, y: f32, x: f32) -> f32 {
    let split = |v: f32| {
        let at = v * (size - 1) as f32;
        (at as usize, (at as usize + 1).min(size - 1), at.fract())
    };
    let ((y0, y1, fy), (x0, x1, fx)) = (split(y), split(x));
    let row = |r: usize| grid[r * size + x0] * (1.0 - fx) + grid[r * size + x1] * fx;
    row(y0) * (1.0 - fy) + row(y1) * fy
}

/// Shifts and scales every channel to the mean and deviation that a normalisation's statistics promise:
/// on made-up inputs, values downstream are then as large as in the trained network.
pub(super) fn impose_statistics(values: &mut [Tensor<f32>], statistics: &Statistics) {
    let Some(first) = values.first() else { return };
    let (stride, channels) = (first.shape.channel_stride(), first.shape.channels());
    for channel in 0..channels {
        let (mut n, mut sum, mut squares) = (0.0, 0.0, 0.0);
        for value in values.iter() {
            for &v in &value.data[channel * stride..(channel + 1) * stride] {
                (n, sum, squares) = (n + 1.0, sum + f64::from(v), squares + f64::from(v).powi(2));
            }
        }
        let mean = sum / n;
        let deviation = (squares / n - mean * mean).max(0.0).sqrt().max(1e-6);
        let factor = statistics.deviation[channel] / deviation;
        for value in values.iter_mut() {
            for v in &mut value.data[channel * stride..(channel + 1) * stride] {
                *v = (statistics.mean[channel] + (f64::from(*v) - mean) * factor) as f32;
            }
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): made-up inputs are the same in every compilation.
struct Noise(u64);

impl Noise {
    fn uniform(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) as u32 as f32 / u32::MAX as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ir::graph::Op;
    use ir::op::{Activation, Function};

    #[test]
    fn inputs_are_limited_by_what_their_values_take() {
        // Two values of 32 MiB live at once, on two sides, twice.
        let shape = Shape::new([1, 8, 1024, 1024]);
        let mut graph = Graph::new("x", shape.clone());
        let relu = Op::Activation(Activation::function(Function::Relu));
        let mut value = graph.input();
        for _ in 0..3 {
            value = graph.add("relu", relu.clone(), shape.clone(), &[value]);
        }
        graph.set_output(value);
        assert_eq!(Calibration::capacity(&graph), LEAST_INPUTS);
        let small = Graph::new("x", Shape::new([1, 1 << 16]));
        assert_eq!(Calibration::capacity(&small), 2048);
        let inputs = (0..3000).map(|i| Tensor::new(Shape::new([1]), vec![i as f32])).collect();
        let mut calibration = Calibration::new(inputs, "");
        assert!(calibration.limit(&small) && !calibration.limit(&small));
        assert_eq!(calibration.inputs.len(), 2048);
        assert!(calibration.inputs.iter().any(|x| x.data[0] > 2990.0), "taken evenly");
    }
}
