//! Party 0's secrets: the integers and coefficients behind a plan's steps.

use super::{Digest, FileError, Magic, Plan, Reference, Step, file};
use bincode::enc::write::Writer;
use bincode::error::EncodeError;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fmt;
use zeroize::Zeroize;

/// The secrets of all steps. No `Debug`; wiped when dropped.
#[derive(Serialize, Deserialize)]
pub struct Weights {
    /// The plan they belong to.
    pub plan: Digest,
    /// Hides them in their [commitment](Self::commitment): uniform, drawn when they are made.
    pub salt: [u8; 32],
    /// One entry per step.
    pub steps: Vec<StepWeights>,
}

/// A commitment to the weights that correlations were made with. Without the salt it tells whether two sets of
/// weights are the same, and nothing else.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commitment(pub [u8; 32]);

impl fmt::Display for Commitment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..8].iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}
impl fmt::Debug for Commitment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The secrets of one step.
#[derive(Clone, Serialize, Deserialize, Zeroize)]
pub enum StepWeights {
    /// A step without secrets.
    None,
    /// Ring elements of a constant.
    Constant(Vec<u64>),
    /// Integer weights, in ONNX's order, and a bias in the ring of the step's value.
    Linear {
        /// `[O, C/groups, kh, kw]`, `[outputs, inputs]`, or one factor per element.
        weights: Vec<i32>,
        /// One per output (channel of a convolution, column of a product), or one per element.
        bias: Vec<u64>,
    },
    /// Coefficients in units of the step's value, one row per channel or one for all.
    Phase {
        /// `c0`
        constant: Vec<f64>,
        /// `(a_n, b_n)`
        harmonics: Vec<Vec<[f64; 2]>>,
    },
    /// What is added to the square before the truncation, one per channel or one for all.
    Square {
        /// In units of `ŷ²`.
        constant: Vec<i64>,
    },
    /// Integer coefficients from the constant up, at the scale before the truncation, one row per
    /// channel or one for all.
    Polynomial {
        /// `p_n`
        coefficients: Vec<Vec<i128>>,
    },
}

impl Drop for Weights {
    fn drop(&mut self) {
        self.salt.zeroize();
        self.steps.iter_mut().for_each(Zeroize::zeroize);
    }
}

/// Hashes what is encoded, so that no copy of it is made.
struct Hashing(Sha256);

impl Writer for Hashing {
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.0.update(bytes);
        Ok(())
    }
}

impl Weights {
    /// SHA-256 over plan, salt and weights.
    pub fn commitment(&self) -> Commitment {
        let mut hash = Hashing(Sha256::new_with_prefix(b"polyc commitment to weights"));
        bincode::serde::encode_into_writer(self, &mut hash, bincode::config::standard())
            .expect("plain data serialises");
        Commitment(hash.0.finalize().into())
    }

    /// The bytes of `plan.weights`: the weights, then the reference graphs if there are any.
    pub fn to_bytes(&self, reference: Option<&Reference>) -> Vec<u8> {
        let (mut bytes, _) = file::seal(Magic::Weights, self);
        if let Some(reference) = reference {
            bytes.extend(reference.to_bytes());
        }
        bytes
    }

    /// Reads the weights of `plan.weights` and checks them against their plan.
    ///
    /// # Errors
    /// Says what is wrong with the file, to follow its name.
    pub fn from_bytes(bytes: &[u8], plan: &Plan, digest: Digest) -> Result<Self, FileError> {
        let (weights, _, _): (Self, _, _) = file::open_prefix(Magic::Weights, bytes)?;
        weights.check(plan, digest)?;
        Ok(weights)
    }

    /// Reads the reference graphs of `plan.weights`; `None` if it has none.
    ///
    /// # Errors
    /// Says what is wrong with the file, to follow its name.
    pub fn reference_from_bytes(bytes: &[u8]) -> Result<Option<Reference>, FileError> {
        let (_, _, rest): (Self, _, _) = file::open_prefix(Magic::Weights, bytes)?;
        if rest.is_empty() { Ok(None) } else { Reference::from_bytes(rest).map(Some) }
    }

    fn check(&self, plan: &Plan, digest: Digest) -> Result<(), FileError> {
        if self.plan != digest {
            return Err(FileError::Payload(format!(
                "it belongs to plan {}, not to plan {digest}",
                self.plan
            )));
        }
        let fits = self.steps.len() == plan.steps.len()
            && (0..plan.steps.len()).all(|i| self.fits(plan, i));
        if fits { Ok(()) } else { Err(FileError::Payload("its steps are not the plan's".into())) }
    }

    fn fits(&self, plan: &Plan, index: usize) -> bool {
        let step = &plan.steps[index];
        let operands: Vec<&Step> = step.operands.iter().map(|&o| plan.step(o)).collect();
        step.fits(&operands, &self.steps[index])
    }
}
