//! What a plan costs, exactly: the messages of the online phase and the correlations it uses up. The
//! runtime's meter must show these numbers.

use super::{Plan, StepOp};
use crate::ring::packed_bytes;

/// Elements of a part of a long message of the online phase. The messages of a round leave whole unless one
/// of its activations has twice as many elements in the batch; both parties decide so alike.
pub const PART: usize = 1 << 15;

/// Who receives a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the model's owner.
    ToParty0,
    /// From the model's owner to the client.
    ToParty1,
}

/// One message of the online phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// The step that sends it.
    pub step: usize,
    /// Its receiver.
    pub direction: Direction,
    /// Elements of one inference.
    pub elements: usize,
    /// Bits per element.
    pub bits: u32,
}

impl Message {
    /// Bytes for a batch: its elements are packed to the bit, and only the message as a whole is padded.
    pub fn bytes(&self, batch: usize) -> usize {
        packed_bytes(self.elements * batch, self.bits)
    }
}

/// Steps that run between two waits: local ones, then activations whose messages share a round trip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Round {
    /// Indices of local steps.
    pub local: Vec<usize>,
    /// Indices of activation steps; none in the last round.
    pub activations: Vec<usize>,
}

/// The correlated randomness of one step for one inference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Correlation {
    /// `linear`, `phase`, `square` or `polynomial`.
    pub kind: &'static str,
    /// Number of ring elements that each party holds a share of.
    pub elements: usize,
    /// Ring width of the shares.
    pub bits: u32,
}

impl Correlation {
    /// Bytes of one party's explicit shares, packed to the bit.
    pub fn bytes(&self) -> usize {
        packed_bytes(self.elements, self.bits)
    }
}

impl Plan {
    /// The rounds of the online phase: activations stand in round `n` if `n` activations precede them
    /// on the longest path from the input.
    pub fn rounds(&self) -> Vec<Round> {
        let mut depth = vec![0usize; self.steps.len()];
        let mut rounds = vec![Round { local: vec![], activations: vec![] }];
        for (index, step) in self.steps.iter().enumerate() {
            let before = step.operands.iter().map(|o| depth[o.index()]).max().unwrap_or(0);
            depth[index] = before + usize::from(step.op.is_activation());
            while rounds.len() <= depth[index] {
                rounds.push(Round { local: vec![], activations: vec![] });
            }
            if step.op.is_activation() {
                rounds[before].activations.push(index);
            } else {
                rounds[before].local.push(index);
            }
        }
        rounds
    }

    /// The messages of the online phase in the order in which they are sent.
    pub fn messages(&self) -> Vec<Message> {
        let message = |step: usize, direction, bits| Message {
            step,
            direction,
            elements: self.steps[step].shape.elements(),
            bits,
        };
        let mut messages = vec![message(0, Direction::ToParty0, self.steps[0].ring)];
        for round in self.rounds() {
            let question =
                |&step: &usize| message(step, Direction::ToParty1, self.question_bits(step));
            let answer = |&step: &usize| message(step, Direction::ToParty0, self.answer_bits(step));
            messages.extend(round.activations.iter().map(question));
            messages.extend(round.activations.iter().map(answer));
        }
        let output = self.output.index();
        messages.push(message(output, Direction::ToParty1, self.steps[output].ring));
        messages
    }

    /// Bits per element that party 0 sends in an activation step; 0 for other steps.
    pub fn question_bits(&self, step: usize) -> u32 {
        match &self.steps[step].op {
            StepOp::Phase(phase) => phase.p,
            StepOp::Square(square) => square.p + 2,
            StepOp::Polynomial { square, degree } => (degree - 1) * square.q + 1,
            _ => 0,
        }
    }

    /// Bits per element of party 1's answer in an activation step, and of its mask of the value; of another
    /// step, those of its value.
    pub fn answer_bits(&self, step: usize) -> u32 {
        self.steps[step].ring - self.steps[step].op.guard()
    }

    /// The correlation that a step uses up per inference; `None` for local public steps.
    pub fn correlation(&self, step: usize) -> Option<Correlation> {
        let elements = self.steps[step].shape.elements();
        match &self.steps[step].op {
            op if op.is_secret_linear() => {
                Some(Correlation { kind: "linear", elements, bits: self.steps[step].ring })
            }
            StepOp::Phase(phase) => Some(Correlation {
                kind: "phase",
                elements: 2 * phase.harmonics as usize * elements,
                bits: phase.q,
            }),
            StepOp::Square(square) => {
                Some(Correlation { kind: "square", elements: 8 * elements, bits: square.q })
            }
            StepOp::Polynomial { square, degree } => Some(Correlation {
                kind: "polynomial",
                elements: 4 * *degree as usize * elements,
                bits: square.q,
            }),
            _ => None,
        }
    }

    /// Bytes of one party's half of an item that the two parties make: a seed and the explicit shares.
    pub fn item_bytes(&self) -> usize {
        let shares = (0..self.steps.len()).filter_map(|step| self.correlation(step));
        32 + shares.map(|c| c.bytes()).sum::<usize>()
    }

    /// Multiplications of weights with ring elements in one step.
    pub fn multiplications(&self, step: usize) -> usize {
        let s = &self.steps[step];
        let operand = || &self.step(s.operands[0]).shape;
        match &s.op {
            StepOp::Convolution { geometry, .. } => s.shape.elements() * geometry.fan_in(operand()),
            StepOp::MatrixProduct { .. } => {
                s.shape.elements() * operand().0.last().copied().unwrap_or(1)
            }
            StepOp::Diagonal { .. } => s.shape.elements(),
            _ => 0,
        }
    }

    /// Multiplications of weights with ring elements in all steps.
    pub fn multiplications_in_all(&self) -> usize {
        (0..self.steps.len()).map(|step| self.multiplications(step)).sum()
    }

    /// Bytes of the online phase to party 0 and to party 1, and the number of messages.
    pub fn traffic(&self, batch: usize) -> (usize, usize, usize) {
        let messages = self.messages();
        let sum = |direction| {
            messages.iter().filter(|m| m.direction == direction).map(|m| m.bytes(batch)).sum()
        };
        (sum(Direction::ToParty0), sum(Direction::ToParty1), messages.len())
    }
}
