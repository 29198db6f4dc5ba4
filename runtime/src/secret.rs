//! Secret vectors and tensors: wiped when dropped, without `Debug`, neither `Clone` nor `Copy`.

use ir::Tensor;
use std::ops::Deref;
use zeroize::{Zeroize, Zeroizing};

/// Ring elements of at most 64 bits.
pub type Elements = Zeroizing<Vec<u64>>;
/// Ring elements of at most 127 bits.
pub type WideElements = Zeroizing<Vec<u128>>;

/// A mask or a share under a shape.
pub struct SecretTensor(Tensor<u64>);

impl SecretTensor {
    /// Takes charge of a tensor.
    pub fn new(tensor: Tensor<u64>) -> Self {
        Self(tensor)
    }
}

impl Deref for SecretTensor {
    type Target = Tensor<u64>;
    fn deref(&self) -> &Tensor<u64> {
        &self.0
    }
}

impl Drop for SecretTensor {
    fn drop(&mut self) {
        self.0.data.zeroize();
    }
}
