//! Peers that send something else than the protocol's messages: every one of them, bent in every way. Both
//! sides end, with a line or, where nobody can tell, with items; neither panics nor waits for ever.

use super::{party0, party1};
use crate::Error;
use crate::in_process::run_without_dealer;
use crate::net::{Channel, NetError, Receiving, Sending, memory_pair};
use crate::testing::{Random, plans};
use ir::plan::{Plan, Weights};
use std::time::{Duration, Instant};

/// Silence after which a peer is given up.
const SILENCE: Duration = Duration::from_millis(400);

/// A channel that changes what its owner sends.
struct Bent<C, F> {
    channel: C,
    /// Messages so far.
    sent: usize,
    bend: F,
}

impl<C: Channel, F: FnMut(usize, &mut Vec<u8>) + Send> Channel for Bent<C, F> {
    fn halves(&mut self) -> (Box<dyn Sending + '_>, Box<dyn Receiving + '_>) {
        let (sending, receiving) = self.channel.halves();
        (Box::new(BentSending(sending, &mut self.sent, &mut self.bend)), receiving)
    }
}

struct BentSending<'a, F>(Box<dyn Sending + 'a>, &'a mut usize, &'a mut F);

impl<F: FnMut(usize, &mut Vec<u8>) + Send> Sending for BentSending<'_, F> {
    fn send_part(&mut self, bytes: &[u8], ends: bool) -> Result<(), NetError> {
        let mut message = bytes.to_vec();
        (self.2)(*self.1, &mut message);
        *self.1 += 1;
        self.0.send_part(&message, ends)
    }
}

/// Both parties' ends of a session in which one party's messages are bent, and how many it sent.
fn session(
    plan: &Plan,
    weights: &Weights,
    hostile: usize,
    bend: impl FnMut(usize, &mut Vec<u8>) + Send,
) -> ([Result<(), Error>; 2], usize) {
    let (end0, end1) = memory_pair(SILENCE);
    let start = Instant::now();
    let (ends, sent) = std::thread::scope(|scope| {
        if hostile == 0 {
            let mut end1 = end1;
            let make1 = move || party1(&mut end1, plan, 2, &mut |_| (), |_| Ok(()));
            let honest = scope.spawn(make1);
            let mut bent = Bent { channel: end0, sent: 0, bend };
            let end = party0(&mut bent, plan, weights, 2, &mut |_| (), |_| Ok(()));
            let sent = bent.sent;
            drop(bent);
            ([end, honest.join().unwrap()], sent)
        } else {
            let mut end0 = end0;
            let make0 = move || party0(&mut end0, plan, weights, 2, &mut |_| (), |_| Ok(()));
            let honest = scope.spawn(make0);
            let mut bent = Bent { channel: end1, sent: 0, bend };
            let end = party1(&mut bent, plan, 2, &mut |_| (), |_| Ok(()));
            let sent = bent.sent;
            drop(bent);
            ([honest.join().unwrap(), end], sent)
        }
    });
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    for end in &ends {
        let Err(e) = end else { continue };
        let line = e.to_string();
        assert!(!line.is_empty() && !line.contains('\n'), "{line}");
        assert!(!matches!(e, Error::Internal(_)), "no defect of ours: {line}");
    }
    (ends, sent)
}

/// Bends every message of either party in turn; `check` sees whose which it was and both ends.
fn bend_each(
    (plan, weights): (Plan, Weights),
    bend: impl Fn(&mut Vec<u8>) + Sync,
    check: impl Fn(usize, usize, &[Result<(), Error>; 2]),
) {
    for hostile in 0..2 {
        let (ends, count) = session(&plan, &weights, hostile, |_, _| ());
        assert!(ends.iter().all(Result::is_ok), "{ends:?}");
        assert!(count > 5, "{count}");
        for index in 0..count {
            let one = |at: usize, message: &mut Vec<u8>| {
                if at == index {
                    bend(message);
                }
            };
            let (ends, _) = session(&plan, &weights, hostile, one);
            check(hostile, index, &ends);
        }
    }
}

fn refused(end: &Result<(), Error>) -> bool {
    matches!(end, Err(Error::Peer(_)))
}

#[test]
fn short_messages_end_both_sides() {
    let cuts: [fn(&mut Vec<u8>); 2] = [Vec::clear, |m| m.truncate(m.len() - 1)];
    for cut in cuts {
        bend_each(plans::tiny(), cut, |hostile, index, ends| {
            assert!(ends[1 - hostile].is_err(), "party {hostile}'s message {index}");
        });
    }
}

/// What is too much shifts all that follows, which is garbage then.
#[test]
fn long_messages_end_both_sides() {
    let longer: [fn(&mut Vec<u8>); 2] = [|m| m.insert(0, 0x55), |m| m.extend([0xaa; 5000])];
    for longer in longer {
        bend_each(plans::tiny(), longer, |_, _, _| ());
    }
}

#[test]
fn garbage_of_the_right_length_ends_both_sides() {
    for plan in [plans::every_kind(), plans::phases(), plans::tables()] {
        bend_each(
            plan,
            |m| m.fill(0xff),
            |hostile, index, ends| {
                // All ones are neither points nor residues.
                let victim = &ends[1 - hostile];
                let is_group_element = index < 2;
                assert!(!is_group_element || refused(victim), "{hostile} {index}: {victim:?}");
            },
        );
    }
    bend_each(
        plans::every_kind(),
        |m| m.fill(0),
        |hostile, index, ends| {
            assert!(index > 0 || refused(&ends[1 - hostile]), "the identity is no first point");
        },
    );
    let noise = |m: &mut Vec<u8>| {
        let mut random = Random::new(m.len() as u64);
        m.fill_with(|| random.next() as u8);
    };
    bend_each(plans::every_kind(), noise, |_, _, _| ());
}

#[test]
fn single_flipped_bits_end_both_sides() {
    for seed in 0..2u64 {
        let flip = |m: &mut Vec<u8>| {
            let mut random = Random::new(seed + m.len() as u64);
            let at = random.between(0, m.len() as u64 - 1) as usize;
            m[at] ^= 1 << random.bits(3);
        };
        bend_each(plans::every_kind(), flip, |_, _, _| ());
    }
    // The last bit, which is padding in many messages.
    let last = |m: &mut Vec<u8>| *m.last_mut().unwrap() ^= 0x80;
    bend_each(plans::every_kind(), last, |_, _, _| ());
}

/// The whole run, to its output: what is bent offline makes the answer wrong, and nothing else.
#[test]
fn runs_after_bent_offline_messages_end() {
    let (plan, weights) = plans::tiny();
    let inputs = plans::inputs(&plan, 2, 3);
    let mut ended = [0, 0];
    for hostile in 0..2 {
        for index in 0..12 {
            let bend = |at: usize, message: &mut Vec<u8>| {
                if at == index && !message.is_empty() {
                    let middle = message.len() / 2;
                    message[middle] ^= 4;
                }
            };
            let (end0, end1) = memory_pair(SILENCE);
            let run = if hostile == 0 {
                let bent = Bent { channel: end0, sent: 0, bend };
                run_without_dealer(&plan, &weights, &inputs, (bent, end1)).map(|_| ())
            } else {
                let bent = Bent { channel: end1, sent: 0, bend };
                run_without_dealer(&plan, &weights, &inputs, (end0, bent)).map(|_| ())
            };
            ended[usize::from(run.is_ok())] += 1;
            let Err(e) = run else { continue };
            assert!(!e.to_string().contains('\n') && !matches!(e, Error::Internal(_)), "{e}");
        }
    }
    assert!(ended.iter().all(|&n| n > 0), "{ended:?}");
}
