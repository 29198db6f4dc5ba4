//! What a plan was made from, for evaluation: the network as imported and as fitted, and which node is which
//! value of the plan.

use super::{Digest, FileError, Magic, ValueId, file};
use crate::Tensor;
use crate::graph::{Graph, NodeId, Op};
use crate::op::Activation;
use crate::tensor::broadcasts_to;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;

/// The graphs behind a plan, kept beside the weights so that a plan can be evaluated against the
/// network it came from.
pub struct Reference {
    /// The network as imported.
    pub original: Graph,
    /// The network with fitted activations.
    pub fitted: Graph,
    /// The plan's value of every node of `fitted`.
    pub values: HashMap<NodeId, ValueId>,
    /// The activations of `fitted`, in its order.
    pub layers: Vec<ReferenceLayer>,
    /// What the fit was made on, for people.
    pub calibration: String,
    /// The model's file, where it was one.
    pub source: Option<Source>,
}

/// The file that a plan was compiled from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// Its path when it was compiled.
    pub path: String,
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// How the compiler imported it, in the compiler's own form.
    pub import: Vec<u8>,
}

impl Source {
    /// A file with these bytes.
    pub fn new(path: String, bytes: &[u8], import: Vec<u8>) -> Self {
        Self { path, digest: Digest(Sha256::digest(bytes).into()), import }
    }

    /// Whether the file has these bytes.
    pub fn is(&self, bytes: &[u8]) -> bool {
        self.digest.0[..] == Sha256::digest(bytes)[..]
    }
}

/// An activation of [`Reference::fitted`].
#[derive(Clone)]
pub struct ReferenceLayer {
    /// The activation.
    pub node: NodeId,
    /// The node of [`Reference::original`] whose values it has, but for `scale` and `shift`; a pass that computes a
    /// maximum by absolute values adds activations that have none.
    pub original: Option<NodeId>,
    /// Its values are those of the original times this, where channels were given scales ...
    pub scale: Tensor<f32>,
    /// ... and this more, where a square was completed. Both broadcast to the values.
    pub shift: Tensor<f32>,
    /// What it was fitted with, unless it is one of the network's own polynomials.
    pub fit: Option<LayerFit>,
}

/// How an activation was fitted.
#[derive(Clone, Serialize, Deserialize)]
pub struct LayerFit {
    /// The interval of pre-activations that it was fitted on, over all channels.
    pub interval: (f64, f64),
    /// Per channel, the middle of that interval: a value further than half a turn from it wraps around.
    pub middle: Vec<f64>,
    /// The function that it stands for.
    pub exact: Activation,
}

/// The wire form: nodes by their position in the order of their graph, which is how a graph is written. What is
/// written is borrowed, what is read is not.
#[derive(Serialize, Deserialize)]
struct ReferenceFile<G, S> {
    original: G,
    fitted: G,
    values: Vec<(u32, ValueId)>,
    layers: Vec<LayerFile>,
    calibration: S,
    source: Option<Source>,
}

#[derive(Serialize, Deserialize)]
struct LayerFile {
    node: u32,
    original: Option<u32>,
    scale: Tensor<f32>,
    shift: Tensor<f32>,
    fit: Option<LayerFit>,
}

fn positions(graph: &Graph) -> HashMap<NodeId, u32> {
    graph.order().into_iter().zip(0..).collect()
}

impl Reference {
    /// The bytes of the reference, with its header.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let (original, fitted) = (positions(&self.original), positions(&self.fitted));
        let mut values: Vec<(u32, ValueId)> =
            self.values.iter().map(|(node, value)| (fitted[node], *value)).collect();
        values.sort();
        let layer = |layer: &ReferenceLayer| LayerFile {
            node: fitted[&layer.node],
            original: layer.original.map(|node| original[&node]),
            scale: layer.scale.clone(),
            shift: layer.shift.clone(),
            fit: layer.fit.clone(),
        };
        let file = ReferenceFile {
            original: &self.original,
            fitted: &self.fitted,
            values,
            layers: self.layers.iter().map(layer).collect(),
            calibration: &self.calibration,
            source: self.source.clone(),
        };
        file::seal(Magic::Reference, &file).0
    }

    /// Reads what [`Self::to_bytes`] wrote, and checks it.
    ///
    /// # Errors
    /// Says what is wrong with the file, to follow its name.
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, FileError> {
        let (file, _): (ReferenceFile<Graph, String>, _) = file::open(Magic::Reference, bytes)?;
        for graph in [&file.original, &file.fitted] {
            graph.verify().map_err(|e| FileError::Payload(e.to_string()))?;
        }
        file.resolve().ok_or_else(|| FileError::Payload("its layers are not the network's".into()))
    }
}

impl ReferenceFile<Graph, String> {
    /// With nodes by their ids; `None` if there are no such nodes, or they are no such layers.
    fn resolve(self) -> Option<Reference> {
        let (original, fitted) = (self.original.order(), self.fitted.order());
        let node = |order: &[NodeId], position: u32| order.get(position as usize).copied();
        let values = self.values.iter().map(|&(at, value)| Some((node(&fitted, at)?, value)));
        let layer = |layer: LayerFile| {
            let id = node(&fitted, layer.node)?;
            let of = self.fitted.node(id);
            let (mut is_sound, mut same) = (matches!(of.op, Op::Activation(_)), None);
            if let Some(position) = layer.original {
                let id = node(&original, position)?;
                is_sound &= self.original.node(id).shape == of.shape;
                same = Some(id);
            }
            is_sound &=
                [&layer.scale, &layer.shift].iter().all(|t| broadcasts_to(&t.shape, &of.shape));
            is_sound &=
                layer.fit.as_ref().is_none_or(|fit| fit.middle.len() == of.shape.channels());
            let LayerFile { scale, shift, fit, .. } = layer;
            is_sound.then_some(ReferenceLayer { node: id, original: same, scale, shift, fit })
        };
        let values = values.collect::<Option<_>>()?;
        let layers = self.layers.into_iter().map(layer).collect::<Option<_>>()?;
        let Self { original, fitted, calibration, source, .. } = self;
        Some(Reference { original, fitted, values, layers, calibration, source })
    }
}
