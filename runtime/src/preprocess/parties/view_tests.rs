//! What a party sees of the offline phase says nothing of the other's secrets: the messages of many
//! sessions with one and the same weights and masks, position by position, and what comes out of them.
//!
//! *Statistics.* Of `n` sessions, a bit that is fair shows `k` ones with `z² = (2k − n)²/n` near 1. A sum of
//! signs is sub-Gaussian, so that the sum of `z²` over `P` positions exceeds `P + 2√(P·x) + 2x` with a
//! probability below `exp(−x)` (Laurent and Massart 2000, lemma 1), and a count of ones among `n` is off by
//! `√(x·n/2)` with one below `2·exp(−x)` (Hoeffding). With `x` = [`ALARM`] and less than 2^17 statistics,
//! fair messages raise an alarm with a probability below 2^−39. A bit that a missing mask leaves
//! the same in all sessions has `z² = n`.
//!
//! *Ciphertexts* travel transformed. Were the secret's mask missing, fresh errors alone would make every
//! residue look uniform, so that their coefficients are looked at as well.
//!
//! *What is fair.* All that travels but group elements, whose encodings have two constant bits, and the
//! padding at the end of packed parts. Residues are uniform below primes that are so close to a power of
//! two that their bits are fair.

use super::view_parts::{Part, Structure, item_layout, layout};
use super::{party0, party1};
use crate::handshake::HELLO_BYTES;
use crate::in_process::run_without_dealer;
use crate::net::{MemoryChannel, Tap, memory_pair};
use crate::preprocess::Role;
use crate::preprocess::expand::Seed;
use crate::preprocess::item::{Item, Origin, item_bytes};
use crate::preprocess::rlwe::transformed;
use crate::preprocess::transfer::gilboa;
use crate::testing::{Random, plans};
use ir::Tensor;
use ir::plan::{Plan, StepWeights, Weights};
use ir::ring::pack;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

/// Minus the logarithm of one statistic's probability of a false alarm.
const ALARM: f64 = 40.0;
const SESSIONS: usize = 32;
const WAIT: Duration = Duration::from_secs(60);

thread_local! {
    /// For tests alone: the number of the seeds of every item that this thread makes.
    static INSECURE_FIXED_SEEDS: Cell<Option<u8>> = const { Cell::new(None) };
}

/// Seeds that are the same in every session, if a test asked for them in this thread.
pub fn insecure_fixed_seeds(count: usize) -> Option<Vec<Seed>> {
    let number = INSECURE_FIXED_SEEDS.get()?;
    Some((0..count).map(|i| Seed::insecure_for_tests(number + i as u8)).collect())
}

/// What passed in a session, and what it made.
struct Session {
    /// To party 0 and to party 1.
    messages: [Vec<Vec<u8>>; 2],
    items: [Vec<Item>; 2],
}

/// A session whose items have the seeds with these numbers, or fresh ones.
fn session(plan: &Plan, weights: &Weights, count: usize, seeds: [Option<u8>; 2]) -> Session {
    let (end0, end1) = memory_pair(WAIT);
    let (mut to0, mut to1) = (vec![], vec![]);
    let (mut items0, mut items1) = (vec![], vec![]);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            INSECURE_FIXED_SEEDS.set(seeds[0]);
            let mut channel = Tap::new(end0, |_: &[u8]| (), |m: &mut Vec<u8>| to0.push(m.clone()));
            let keep = |item| {
                items0.push(item);
                Ok(())
            };
            party0(&mut channel, plan, weights, count, &mut |_| (), keep).unwrap();
        });
        scope.spawn(|| {
            INSECURE_FIXED_SEEDS.set(seeds[1]);
            let mut channel = Tap::new(end1, |_: &[u8]| (), |m: &mut Vec<u8>| to1.push(m.clone()));
            let keep = |item| {
                items1.push(item);
                Ok(())
            };
            party1(&mut channel, plan, count, &mut |_| (), keep).unwrap();
        });
    });
    Session { messages: [to0, to1], items: [items0, items1] }
}

/// Messages whose ciphertexts are not transformed.
fn coefficients(layout: &[Vec<Part>], messages: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let turn = |(parts, message): (&Vec<Part>, &Vec<u8>)| {
        let mut rest = &message[..];
        let part = |part: &Part| {
            let (bytes, others) = rest.split_at(part.bytes);
            rest = others;
            part.lwe.map_or(bytes.to_vec(), |lwe| transformed(&lwe, bytes, true))
        };
        parts.iter().flat_map(part).collect()
    };
    layout.iter().zip(messages).map(turn).collect()
}

/// Ones among bits, per class of parts.
#[derive(Default)]
struct Statistic {
    positions: f64,
    /// The sum of `z²` over positions.
    sum: f64,
    /// Ones and bits by place in an element.
    places: Vec<(usize, usize)>,
}

impl Statistic {
    /// Takes the same part of every session.
    fn add(&mut self, part: &Part, sessions: &[&[u8]]) -> Result<(), String> {
        let n = sessions.len();
        self.places.resize(part.width, (0, 0));
        for bit in 0..8 * part.bytes {
            let ones = sessions.iter().filter(|s| s[bit / 8] >> (bit % 8) & 1 == 1).count();
            if let Some(fixed) = part.fixed(bit) {
                if ones != n * usize::from(fixed) {
                    return Err(format!("{}: bit {bit} is not {fixed}", part.class));
                }
                continue;
            }
            self.positions += 1.0;
            self.sum += (2.0 * ones as f64 - n as f64).powi(2) / n as f64;
            let place = &mut self.places[bit % part.width];
            *place = (place.0 + ones, place.1 + n);
        }
        Ok(())
    }

    fn check(&self, class: &str) -> Result<(), String> {
        let most = self.positions + 2.0 * (self.positions * ALARM).sqrt() + 2.0 * ALARM;
        if self.sum > most {
            return Err(format!("{class}: {} of {} at positions", self.sum, self.positions));
        }
        for (place, &(ones, n)) in self.places.iter().enumerate().filter(|(_, p)| p.1 > 0) {
            let off = (ones as f64 - n as f64 / 2.0).abs();
            if off > (ALARM * n as f64 / 2.0).sqrt() {
                return Err(format!("{class}: bit {place} of an element: {ones} ones of {n}"));
            }
        }
        Ok(())
    }
}

/// Checks streams that all have this layout; the number of statistics.
fn check(layout: &[Vec<Part>], sessions: &[&Vec<Vec<u8>>]) -> Result<usize, String> {
    let mut classes: BTreeMap<&str, Statistic> = BTreeMap::new();
    for session in sessions {
        if session.len() != layout.len() {
            return Err(format!("{} messages, expected {}", session.len(), layout.len()));
        }
    }
    for (index, parts) in layout.iter().enumerate() {
        let mut at = 0;
        for part in parts {
            let range = at..at + part.bytes;
            let of_part: Vec<&[u8]> = sessions.iter().map(|s| &s[index][range.clone()]).collect();
            classes.entry(&part.class).or_default().add(part, &of_part)?;
            at += part.bytes;
        }
        assert!(sessions.iter().all(|s| s[index].len() == at), "message {index}");
    }
    classes.iter().try_for_each(|(class, statistic)| statistic.check(class))?;
    Ok(classes.values().map(|s| 1 + s.places.len()).sum())
}

fn plans() -> [(Plan, Weights); 6] {
    let [wide, narrow] = [plans::selects(), plans::narrow_select()];
    [plans::phases(), plans::every_kind(), plans::tiny(), wide, narrow, plans::tables()]
}

#[test]
fn with_fixed_weights_and_masks_every_message_is_uniform() {
    let mut statistics = 0;
    for (plan, weights) in plans() {
        let layout = layout(&plan, 2);
        let sessions: Vec<Session> =
            (0..SESSIONS).map(|_| session(&plan, &weights, 2, [Some(3), Some(5)])).collect();
        for (receiver, layout) in layout.iter().enumerate() {
            let views: Vec<_> = sessions.iter().map(|s| &s.messages[receiver]).collect();
            let of = |e: String| -> usize { panic!("party {receiver}: {e}") };
            statistics += check(layout, &views).unwrap_or_else(of);
            let views: Vec<_> = views.iter().map(|view| coefficients(layout, view)).collect();
            statistics += check(layout, &views.iter().collect::<Vec<_>>()).unwrap_or_else(of);
        }
    }
    assert!((1000..1 << 17).contains(&statistics), "{statistics}");
}

/// What a party ends up with is uniform given all of the other's secrets and its own; of the linear steps
/// party 1's share is, whatever its masks, because party 0 draws the other one.
#[test]
fn with_fixed_weights_and_masks_of_party_1_all_shares_are_uniform() {
    for (plan, weights) in plans() {
        let sessions: Vec<Session> =
            (0..SESSIONS).map(|_| session(&plan, &weights, 1, [None, Some(5)])).collect();
        for role in [Role::Party0, Role::Party1] {
            let bytes = item_bytes(&plan, role, Origin::Parties);
            let layout = item_layout(&plan, role);
            let explicit = |s: &Session| vec![s.items[role as usize][0][32..bytes].to_vec()];
            let shares: Vec<_> = sessions.iter().map(explicit).collect();
            check(&layout, &shares.iter().collect::<Vec<_>>())
                .unwrap_or_else(|e| panic!("{role}: {e}"));
        }
    }
}

/// The sums of both parties' shares of linear steps are `W·r`: were one of them not masked, the
/// statistics would show it.
#[test]
fn unmasked_streams_are_not_uniform() {
    let (plan, weights) = plans::tiny();
    let sessions: Vec<Session> =
        (0..SESSIONS).map(|_| session(&plan, &weights, 2, [Some(3), Some(5)])).collect();
    let [to0, to1] = layout(&plan, 2);
    let view = |receiver: usize| -> Vec<Vec<Vec<u8>>> {
        sessions.iter().map(|s| s.messages[receiver].clone()).collect()
    };
    let is_uniform = |layout: &[Vec<Part>], views: &[Vec<Vec<u8>>]| {
        check(layout, &views.iter().collect::<Vec<_>>()).is_ok()
    };
    // One part of one message as if its mask were missing: the same bytes in every session.
    for (layout, receiver) in [(&to0, 0), (&to1, 1)] {
        assert!(is_uniform(layout, &view(receiver)));
        for (index, parts) in layout.iter().enumerate() {
            let mut at = 0;
            for part in parts {
                let mut views = view(receiver);
                let plain = views[0][index][at..at + part.bytes].to_vec();
                for view in &mut views {
                    view[index][at..at + part.bytes].copy_from_slice(&plain);
                }
                assert!(!is_uniform(layout, &views), "message {index}, {}", part.class);
                at += part.bytes;
                // And the elements' top bits alone, as if a mask were one bit too narrow.
                if part.bits / part.width * SESSIONS < 4 * ALARM as usize {
                    continue;
                }
                let mut views = view(receiver);
                for view in &mut views {
                    for top in (part.width - 1..part.bits).step_by(part.width) {
                        let top = 8 * (at - part.bytes) + top
                            - usize::from(part.structure == Structure::Points);
                        view[index][top / 8] &= !(1 << (top % 8));
                    }
                }
                assert!(!is_uniform(layout, &views), "message {index}, {}", part.class);
            }
        }
    }
    // The protocol's own messages, with choices that do not mask.
    let bits: Vec<u8> = (0..200).map(|i| (i * i / 7 % 2) as u8).collect();
    let part = vec![vec![Part::new("choices", bits.len(), 1)]];
    let unmasked = vec![vec![gilboa::flips(&bits, &[0; 200])]; SESSIONS];
    assert!(!is_uniform(&part, &unmasked));
    let mut random = Random::new(3);
    let masked = |_| {
        let choices: Vec<u8> = (0..200).map(|_| random.bits(1) as u8).collect();
        vec![gilboa::flips(&bits, &choices)]
    };
    assert!(is_uniform(&part, &(0..SESSIONS).map(masked).collect::<Vec<_>>()));
    // Ciphertexts without the secret's mask: errors alone hide residues, and not coefficients.
    let lwe = plan.rlwe[0];
    let ciphertext = Part::ciphertexts("ciphertext", 1, lwe);
    let unmasked = |_| {
        let coefficient = |at: usize| (at as u64 * at as u64) % 1_000_003 + random.bits(4);
        let residues: Vec<u64> = (0..ciphertext.bits / ciphertext.width).map(coefficient).collect();
        vec![transformed(&lwe, &pack(&residues, lwe.prime_bits), false)]
    };
    let unmasked: Vec<_> = (0..SESSIONS).map(unmasked).collect();
    let part = vec![vec![ciphertext]];
    assert!(is_uniform(&part, &unmasked));
    let seen: Vec<_> = unmasked.iter().map(|message| coefficients(&part, message)).collect();
    assert!(!is_uniform(&part, &seen));
    // Party 1's share of W·r where party 0's does not change is the same in all sessions.
    let shares: Vec<_> = sessions.iter().map(|s| vec![s.items[1][0][32..].to_vec()]).collect();
    let refused =
        check(&item_layout(&plan, Role::Party1), &shares.iter().collect::<Vec<_>>()).unwrap_err();
    assert!(refused.starts_with("field 0 of v1 "), "{refused}");
}

/// The sequence of a run's messages, sent and received by party 0, from the hello to the output.
fn lengths(plan: &Plan, weights: &Weights, inputs: &[Tensor<f32>]) -> [Vec<usize>; 2] {
    let (end0, end1) = memory_pair(WAIT);
    let (sent, received) = (Mutex::new(vec![]), Mutex::new(vec![]));
    let tap = Tap::new(
        end0,
        |m: &[u8]| sent.lock().unwrap().push(m.len()),
        |m: &mut Vec<u8>| received.lock().unwrap().push(m.len()),
    );
    let run: (_, MemoryChannel) = (tap, end1);
    run_without_dealer(plan, weights, inputs, run).unwrap();
    [sent.into_inner().unwrap(), received.into_inner().unwrap()]
}

/// The same weights but with every number replaced.
fn with_numbers(weights: &Weights, mut number: impl FnMut() -> f64) -> Weights {
    let replace = |step: &StepWeights| match step {
        StepWeights::Linear { weights, bias } => StepWeights::Linear {
            weights: weights.iter().map(|_| (number() * 5.0) as i32).collect(),
            bias: bias.iter().map(|_| (number().abs() * 30.0) as u64).collect(),
        },
        StepWeights::Phase { constant, harmonics } => StepWeights::Phase {
            constant: constant.iter().map(|_| number()).collect(),
            harmonics: harmonics
                .iter()
                .map(|row| row.iter().map(|_| [number(), number()]).collect())
                .collect(),
        },
        StepWeights::Square { constant } => StepWeights::Square {
            constant: constant.iter().map(|_| (number().abs() * 30.0) as _).collect(),
        },
        StepWeights::Polynomial { coefficients } => StepWeights::Polynomial {
            coefficients: coefficients
                .iter()
                .map(|row| row.iter().map(|c| (*c as f64 * number()) as i128).collect())
                .collect(),
        },
        StepWeights::Constant(_) | StepWeights::None => step.clone(),
    };
    let steps = weights.steps.iter().map(replace).collect();
    Weights { plan: weights.plan, salt: weights.salt, steps }
}

#[test]
fn no_length_depends_on_a_secret() {
    let mut random = Random::new(77);
    for (plan, weights) in plans() {
        let inputs = plans::inputs(&plan, 3, 1);
        let constant = |value: f32| -> Vec<Tensor<f32>> {
            inputs.iter().map(|x| Tensor::new(x.shape.clone(), vec![value; x.data.len()])).collect()
        };
        let expected = lengths(&plan, &weights, &inputs);
        let others =
            [with_numbers(&weights, || 0.0), with_numbers(&weights, || random.unit() - 0.5)];
        for (weights, inputs) in [
            (&weights, constant(0.0)),
            (&weights, constant(3.9)),
            (&weights, plans::inputs(&plan, 3, 2)),
            (&others[0], inputs.clone()),
            (&others[1], constant(-3.9)),
        ] {
            assert_eq!(lengths(&plan, weights, &inputs), expected);
        }
        // And they are the plan's: hello, confirmation, offline, online.
        let (offline, online) = (plan.offline_traffic(3), plan.traffic(3));
        let [sent, received] = expected.map(|lengths| lengths.iter().sum::<usize>());
        let (hello, confirm) = (HELLO_BYTES, 16);
        assert_eq!(sent, hello + confirm + offline.1 + online.1);
        assert_eq!(received, hello + confirm + offline.0 + online.0);
        for seeds in [[Some(1), Some(2)], [None, None]] {
            let session = session(&plan, &weights, 2, seeds);
            let layout = layout(&plan, 2);
            for (messages, layout) in session.messages.iter().zip(&layout) {
                let bytes = |parts: &Vec<Part>| parts.iter().map(|p| p.bytes).sum::<usize>();
                let lengths: Vec<usize> = messages.iter().map(Vec::len).collect();
                assert_eq!(lengths, layout.iter().map(bytes).collect::<Vec<_>>());
            }
        }
    }
}
