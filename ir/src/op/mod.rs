//! Operators: attributes, shape rules and evaluation, one file per family. The structural ones stand
//! in [`crate::tensor`].

pub mod activation;
pub mod convolution;
pub mod function;
pub mod matrix;

pub use activation::{
    Activation, Elementary, Expression, Polynomial, Trigonometric, mean_square_slope,
};
pub use convolution::Convolution;
pub use function::Function;
