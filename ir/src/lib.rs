//! What the compiler `polyc` and the runtime `polyrt` agree on: the graph that says *what* is computed,
//! the plan that says *how*, and the exact arithmetic of both. Pure data: no sockets, no randomness
//! from the system, no `unsafe`.

pub mod array_file;
pub mod element;
pub mod graph;
pub mod input;
pub mod op;
pub mod plan;
pub mod ring;
pub mod tensor;
pub mod word;

pub use element::{ElementType, Integers};
pub use tensor::{Element, Shape, Tensor};
