//! Products with party 0's weights. Offline the parties share `W·r` of the operand's mask `r`: party 0 has
//! `s₀`, party 1 has `m = W·r − s₀`, which is its mask of the result. Online party 0 computes
//! `Δ_y = W·Δ_z + b − s₀`.

use super::{Step, err};
use crate::op::Convolution;
use crate::op::convolution::matrix_product_ring;
use crate::ring::low_mask;
use crate::tensor::{Shape, Tensor};
use serde::{Deserialize, Serialize};

/// The kinds of steps with secret weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Linear {
    /// Convolution.
    Convolution {
        /// Geometry.
        geometry: Convolution,
        /// Bits of the signed weights: 8, 16 or 32.
        weight_bits: u32,
    },
    /// Product of the last axis with a matrix.
    MatrixProduct {
        /// Bits of the signed weights: 8, 16 or 32.
        weight_bits: u32,
    },
    /// Elementwise product.
    Hadamard {
        /// Bits of the signed factors: 8, 16 or 32.
        weight_bits: u32,
    },
}

impl Linear {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Convolution { .. } => "convolution",
            Self::MatrixProduct { .. } => "matrix product",
            Self::Hadamard { .. } => "hadamard product",
        }
    }

    pub(super) fn parameters(&self) -> String {
        match self {
            Self::Convolution { geometry: g, weight_bits } => format!(
                "{}x{} stride {} groups {} weights i{weight_bits}",
                g.kernel[0], g.kernel[1], g.stride[0], g.groups
            ),
            Self::MatrixProduct { weight_bits } | Self::Hadamard { weight_bits } => {
                format!("weights i{weight_bits}")
            }
        }
    }

    /// Bits of the signed weights.
    pub fn weight_bits(&self) -> u32 {
        match self {
            Self::Convolution { weight_bits, .. }
            | Self::MatrixProduct { weight_bits }
            | Self::Hadamard { weight_bits } => *weight_bits,
        }
    }

    pub(super) fn shape(&self, step: &Step, operand: &Step) -> Result<Shape, String> {
        if !matches!(self.weight_bits(), 8 | 16 | 32) {
            return err(format!("weights of {} bits", self.weight_bits()));
        }
        let input = &operand.shape;
        Ok(match self {
            Self::Convolution { geometry, .. } => {
                if input.0.first() != Some(&1) {
                    return err("several images");
                }
                let outputs = step.shape.0.get(1).copied().unwrap_or(0);
                geometry.output_shape(input, outputs).ok_or("geometry does not fit")?
            }
            Self::MatrixProduct { .. } => {
                let mut shape = input.clone();
                match (shape.0.last_mut(), step.shape.0.last()) {
                    (Some(last), Some(&outputs)) => *last = outputs,
                    _ => return err("a scalar has no last axis"),
                }
                shape
            }
            Self::Hadamard { .. } => input.clone(),
        })
    }

    /// Multiplications of weights with ring elements for every element of the value.
    pub fn fan_in(&self, operand: &Shape) -> usize {
        match self {
            Self::Convolution { geometry, .. } => geometry.fan_in(operand),
            Self::MatrixProduct { .. } => operand.0.last().copied().unwrap_or(1),
            Self::Hadamard { .. } => 1,
        }
    }

    /// Number of outputs: channels, columns, or elements.
    fn outputs(&self, shape: &Shape) -> usize {
        match self {
            Self::Convolution { .. } => shape.0[1],
            Self::MatrixProduct { .. } => shape.0.last().copied().unwrap_or(1),
            Self::Hadamard { .. } => shape.elements(),
        }
    }

    /// Consecutive elements that have one entry of the bias.
    pub(super) fn bias_run(&self, shape: &Shape) -> usize {
        match self {
            Self::MatrixProduct { .. } => 1,
            Self::Convolution { .. } | Self::Hadamard { .. } => shape.channel_stride(),
        }
    }

    pub(super) fn fits(&self, step: &Step, operand: &Shape, weights: &[i32], bias: &[u64]) -> bool {
        let (outputs, bits) = (self.outputs(&step.shape), self.weight_bits());
        weights.len() == outputs * self.fan_in(operand)
            && (bias.len() == outputs || bias.len() == step.shape.elements())
            && weights.iter().all(|&w| bits >= 32 || i64::from(w).abs() < 1 << (bits - 1))
    }

    /// `W·x` in the step's ring.
    pub(super) fn apply(&self, step: &Step, weights: &[i32], x: &Tensor<u64>) -> Tensor<u64> {
        let data = match self {
            Self::Convolution { geometry, .. } => {
                geometry.apply_ring(weights, &x.data, &x.shape, &step.shape, step.ring)
            }
            Self::MatrixProduct { .. } => {
                let inputs = x.shape.0.last().copied().unwrap_or(1);
                matrix_product_ring(weights, &x.data, inputs, step.ring)
            }
            Self::Hadamard { .. } => {
                let mask = low_mask(step.ring);
                let products = x.data.iter().zip(weights);
                products.map(|(&v, &w)| v.wrapping_mul(w as i64 as u64) & mask).collect()
            }
        };
        Tensor::new(step.shape.clone(), data)
    }
}
