//! What a plan costs, exactly: the messages of the online phase and the correlations it uses up. The
//! runtime's meter must show these numbers.

use super::{Field, Plan, Step, StepOp, Trip};
use crate::ring::packed_bytes;

/// Elements of a part of a long message of the online phase. The messages of a round are sent whole unless one
/// of its interactive steps has twice as many elements in the batch; both parties decide so alike.
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

/// Steps between two waits for the peer: local ones, then the messages of interactive ones that share a round trip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Round {
    /// Indices of steps without messages.
    pub local: Vec<usize>,
    /// Round trips of interactive steps; none in the last round.
    pub trips: Vec<RoundTrip>,
}

/// One round trip of an interactive step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoundTrip {
    /// The step.
    pub step: usize,
    /// Which of its round trips, from 0 on.
    pub number: usize,
    /// Its messages.
    pub messages: Trip,
    /// Whether the response is the step's value.
    pub is_last: bool,
    /// Whether long messages are sent in parts.
    pub is_elementwise: bool,
}

/// The correlated randomness of one step for one inference, beside what follows from seeds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Correlation {
    /// The step's name.
    pub kind: &'static str,
    /// Party 0's part.
    pub party0: Vec<Field>,
    /// Party 1's part.
    pub party1: Vec<Field>,
}

impl Correlation {
    /// Elements of the larger part.
    pub fn elements(&self) -> usize {
        let of = |part: &[Field]| part.iter().map(|f| f.elements).sum::<usize>();
        of(&self.party0).max(of(&self.party1))
    }

    /// Bytes of each party's part, packed to the bit.
    pub fn bytes(&self) -> [usize; 2] {
        [&self.party0, &self.party1].map(|part| part.iter().map(Field::bytes).sum())
    }
}

impl Plan {
    /// The rounds of the online phase: a step begins in round `n` if `n` round trips precede it on the longest
    /// path from the input.
    pub fn rounds(&self) -> Vec<Round> {
        let mut depth = vec![0usize; self.steps.len()];
        let mut rounds = vec![Round { local: vec![], trips: vec![] }];
        for (index, step) in self.steps.iter().enumerate() {
            let before = step.operands.iter().map(|o| depth[o.index()]).max().unwrap_or(0);
            let trips = self.trips(index);
            depth[index] = before + trips.len();
            while rounds.len() <= depth[index] {
                rounds.push(Round { local: vec![], trips: vec![] });
            }
            let Some(last) = trips.len().checked_sub(1) else {
                rounds[before].local.push(index);
                continue;
            };
            let is_elementwise =
                step.op.interactive().is_some_and(|kind| kind.protocol().is_elementwise());
            for (number, messages) in trips.into_iter().enumerate() {
                let is_last = number == last;
                let trip = RoundTrip { step: index, number, messages, is_last, is_elementwise };
                rounds[before + number].trips.push(trip);
            }
        }
        rounds
    }

    /// The round trips of a step; none if it is not interactive.
    pub fn trips(&self, step: usize) -> Vec<Trip> {
        let step = &self.steps[step];
        step.op.interactive().map_or(vec![], |kind| kind.protocol().trips(step))
    }

    /// The messages of the online phase in the order in which they are sent.
    pub fn messages(&self) -> Vec<Message> {
        let message = |step: usize, direction, Field { elements, bits }| Message {
            step,
            direction,
            elements,
            bits,
        };
        let value = |step: usize| {
            let Step { ring, shape, .. } = &self.steps[step];
            Field { elements: shape.elements(), bits: *ring }
        };
        let mut messages = vec![message(0, Direction::ToParty0, value(0))];
        for round in self.rounds() {
            let opening = |t: &RoundTrip| message(t.step, Direction::ToParty1, t.messages.opening);
            let response =
                |t: &RoundTrip| message(t.step, Direction::ToParty0, t.messages.response);
            messages.extend(round.trips.iter().map(opening));
            messages.extend(round.trips.iter().map(response));
        }
        let output = self.output.index();
        messages.push(message(output, Direction::ToParty1, value(output)));
        messages
    }

    /// Bits of party 1's masks of a value, and of its last response in an interactive step.
    pub fn mask_bits(&self, step: usize) -> u32 {
        self.steps[step].ring - self.steps[step].op.guard()
    }

    /// The correlation that a step uses up per inference; `None` for local public steps.
    pub fn correlation(&self, step: usize) -> Option<Correlation> {
        let step = &self.steps[step];
        let [party0, party1] = match &step.op {
            StepOp::Input | StepOp::Constant | StepOp::Local(_) => return None,
            StepOp::Linear(_) => {
                [(); 2].map(|()| vec![Field { elements: step.shape.elements(), bits: step.ring }])
            }
            StepOp::Interactive(kind) => kind.protocol().correlation(step),
        };
        let kind = if step.op.is_secret_linear() { "linear" } else { step.op.name() };
        Some(Correlation { kind, party0, party1 })
    }

    /// Bytes of each party's half of an item that the two parties make: a seed and what does not follow from it.
    pub fn item_bytes(&self) -> [usize; 2] {
        let parts = (0..self.steps.len()).filter_map(|step| self.correlation(step));
        parts.fold([32; 2], |[a, b], c| {
            let [party0, party1] = c.bytes();
            [a + party0, b + party1]
        })
    }

    /// Multiplications of weights with ring elements in one step.
    pub fn multiplications(&self, step: usize) -> usize {
        let s = &self.steps[step];
        match &s.op {
            StepOp::Linear(kind) => {
                s.shape.elements() * kind.fan_in(&self.step(s.operands[0]).shape)
            }
            StepOp::Input | StepOp::Constant | StepOp::Local(_) | StepOp::Interactive(_) => 0,
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
