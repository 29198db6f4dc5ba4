use super::*;
use crate::preprocess::expand::Seed;
use crate::preprocess::transfer::setup::both;
use crate::testing::{Random, assert_uniform};
use ir::word::Word;

fn table((k, p, mask_bits, q): (u32, u32, u32, u32)) -> Table {
    Table::new(k, p, mask_bits, q, &vec![0; 1 << mask_bits]).unwrap()
}

/// What passed, and what both parties made of it.
struct Run {
    /// Of party 1 and party 0 in turn.
    messages: Vec<Vec<u8>>,
    made: [Made; 2],
}

fn run(
    parties: &mut (Transfers, Transfers),
    table: &Table,
    names: &[Block],
    u: &[u64],
    m: &[u64],
) -> Run {
    let (party0, party1) = parties;
    let (making0, first0) = open(party0, table, names, u);
    let (making1, first1) = ask(party1, table, names, m);
    let (mut making0, mut making1) = (Box::new(making0), Box::new(making1));
    let mut messages = vec![first1, first0];
    loop {
        let [from1, from0] = messages.last_chunk().unwrap();
        let next = (making0.take(party0, from1).unwrap(), making1.take(party1, from0).unwrap());
        match next {
            (Turn::More(state0, message0), Turn::More(state1, message1)) => {
                (making0, making1) = (state0, state1);
                messages.extend([message1, message0]);
            }
            (Turn::Done(made0), Turn::Done(made1)) => {
                return Run { messages, made: [made0, made1] };
            }
            _ => panic!("one party is done before the other"),
        }
    }
}

/// A party's share of the vector of an element, in the order of places.
fn vector(table: &Table, name: &Block, offset: &Block, made: &Made, i: usize) -> Vec<u64> {
    let Parameters { levels, q, bits } = Parameters::of(table);
    let words = made.seeds[2 * levels * i..][..2 * levels].chunks_exact(2);
    let block = |w: &[u64]| (u128::from(w[0]) | u128::from(w[1]) << 64).to_le_bytes();
    let seeds: Vec<Block> = words.map(block).collect();
    let factors = &made.factors[ENTRIES * i..][..ENTRIES];
    // Entry by entry, as the sum with a table of one entry.
    let entries: Vec<u64> = with_lane!(q, L => {
        let mut leaves = Leaves::<L>::default();
        leaves.take(&Permutations::new(name), offset, &seeds);
        let entry = |x: usize| {
            let mut one = vec![L::default(); 1 << bits];
            one[x] = 1;
            let sums = leaves.weigh(&one).map(|(v, w)| (v.element(), w.element()));
            sums.iter().zip(factors).fold(0u64, |all, ((v, w), g)| {
                all.wrapping_add(*v).wrapping_sub(g.wrapping_mul(*w))
            })
        };
        (0..1 << bits).map(entry).collect()
    });
    let at = |place: u64| place.wrapping_sub(made.shifts[i]) & low_mask(bits);
    (0..1u64 << bits).map(|place| entries[at(place) as usize] & low_mask(q)).collect()
}

#[test]
fn the_two_parties_share_one_hot_vectors() {
    let seed = Seed::insecure_for_tests;
    let mut parties = both(seed(21), seed(22));
    let mut random = Random::new(91);
    for round in 0..24 {
        let p = random.between(6, 8) as u32;
        let mask_bits = p + (round % 3) as u32;
        let k = random.between(mask_bits.into(), 40) as u32;
        let q = [1, 7, 16, 17, 32, 40, 64][round % 7];
        let table = table((k, p, mask_bits, q));
        let items = 1 + round % 3;
        let count = items * random.between(1, 40) as usize;
        let names: Vec<Block> = (0..items as u8).map(|i| [i + round as u8; 16]).collect();
        let u: Vec<u64> = (0..count).map(|_| random.bits(p)).collect();
        let m: Vec<u64> = (0..count).map(|_| random.bits(k + 3)).collect();
        let Run { messages, made } = run(&mut parties, &table, &names, &u, &m);
        let lengths: Vec<usize> = messages.iter().map(Vec::len).collect();
        assert_eq!(lengths, table.cost(count).bytes);
        let offsets = [parties.0.sender.delta(), parties.1.sender.delta()];
        for i in 0..count {
            let share = |party: usize| {
                let name = &names[i * items / count];
                vector(&table, name, offsets[party], &made[party], i)
            };
            let place = (u[i] << table.spare_bits()).wrapping_sub(mask_number(&table, m[i]));
            let place = place & low_mask(mask_bits);
            for (x, (a, b)) in (0..).zip(share(0).into_iter().zip(share(1))) {
                // Party 1's is the negative.
                assert_eq!(a.wrapping_sub(b) & low_mask(q), u64::from(x == place));
            }
        }
    }
}

/// Messages and what is kept are fair bits for fixed secrets.
#[test]
fn messages_look_uniform_for_fixed_secrets() {
    let table = table((10, 6, 7, 9));
    let (u, m) = ([5, 5, 60, 0, 1, 63, 9, 7], [3, 3, 1000, 0, 8, 1023, 511, 512]);
    let mut random = Random::new(92);
    let mut seen: Vec<Vec<Vec<u8>>> = vec![];
    let mut kept: Vec<Vec<Vec<u8>>> = vec![];
    let seed = Seed::insecure_for_tests;
    let mut parties = both(seed(29), seed(30));
    for group in 0..1000 {
        let name = parties.0.trees_name(group, 0, 1);
        assert_eq!(name, parties.1.trees_name(group, 0, 1));
        let Run { mut messages, made } = run(&mut parties, &table, &[name], &u, &m);
        // The sum of a party's leaves is its offset: the lowest bit of their words' sum is that of the offset.
        for (party, message) in [1, 0].into_iter().zip(messages.last_chunk_mut::<2>().unwrap()) {
            for bit in (0..u.len()).map(|i| i * 9 * 9) {
                assert_eq!(message[bit / 8] >> (bit % 8) & 1, 1 - party);
                message[bit / 8] ^= (random.bits(1) as u8) << (bit % 8);
            }
        }
        seen.push(messages);
        let parts = made.iter().flat_map(|made| {
            [pack(&made.seeds, 64), pack(&made.factors, 9), pack(&made.shifts, 7)]
        });
        kept.push(parts.collect());
    }
    for of in [seen, kept] {
        for part in 0..of[0].len() {
            assert_uniform(&of.iter().map(|parts| parts[part].clone()).collect::<Vec<_>>());
        }
    }
}

/// Party 1 knows its own bits of a place: what it gets to know of where places begin is fair for whatever these are.
#[test]
fn where_places_begin_says_nothing_of_the_opening() {
    let table = table((6, 6, 6, 4));
    let parties = || both(Seed::insecure_for_tests(23), Seed::insecure_for_tests(24));
    let count = 20_000;
    let (u, m) = (vec![37; count], vec![11; count]);
    let (asked, _) = ask(&mut parties().1, &table, &[[0; 16]], &m);
    let choices = &asked.received.choices;
    let Run { made, .. } = run(&mut parties(), &table, &[[0; 16]], &u, &m);
    let mut counts = [[0usize; 64]; 64];
    for (own, shift) in choices.chunks_exact(6).zip(made[1].shifts.iter()) {
        counts[number(own) as usize][*shift as usize] += 1;
    }
    let expected = count as f64 / 4096.0;
    let chi: f64 = counts.iter().flatten().map(|&n| (n as f64 - expected).powi(2) / expected).sum();
    assert!((chi - 4095.0).abs() < 6.0 * (2.0 * 4095f64).sqrt(), "{chi}");
}

#[test]
fn malformed_messages_are_refused() {
    let table = table((9, 6, 6, 5));
    let (u, m) = ([3, 9, 60], [3, 100, 7]);
    let seed = Seed::insecure_for_tests;
    let messages = run(&mut both(seed(25), seed(26)), &table, &[[1; 16]], &u, &m).messages;
    // Party 0 sees these messages, of which one is bent.
    let play = |bent: usize, bend: &dyn Fn(&mut Vec<u8>)| {
        let mut party0 = both(seed(25), seed(26)).0;
        let (making, _) = open(&mut party0, &table, &[[1; 16]], &u);
        let mut making = Box::new(making);
        for (flight, message) in messages.iter().step_by(2).enumerate() {
            let mut message = message.clone();
            if flight == bent {
                bend(&mut message);
            }
            match making.take(&mut party0, &message) {
                Ok(Turn::More(next, _)) => making = next,
                Ok(Turn::Done(_)) => return Ok(()),
                Err(refused) => return Err(refused),
            }
        }
        unreachable!("it is done with the last message")
    };
    assert!(play(99, &|_| ()).is_ok());
    let last = messages.len() / 2 - 1;
    for flight in 0..=last {
        assert!(play(flight, &|m| m.truncate(m.len() - 1)).is_err(), "{flight}");
        assert!(play(flight, &|m| m.push(0)).is_err(), "{flight}");
        assert!(play(flight, &Vec::clear).is_err(), "{flight}");
    }
    // The lowest bit of the first leaf's sum, and padding behind the openings.
    assert_eq!(play(last, &|m| m[0] ^= 1).unwrap_err(), TransferError::Openings);
    assert_eq!(play(last, &|m| m[16] |= 0x80).unwrap_err(), TransferError::Padding);
}

#[test]
#[ignore = "prints timings"]
fn throughput() {
    let seed = Seed::insecure_for_tests;
    let mut parties = both(seed(27), seed(28));
    let count = 1 << 14;
    for bits in [8, 9, 10, 12] {
        let table = table((16, bits, bits, 16));
        let (u, m) = (vec![3; count], vec![77; count]);
        for _ in 0..3 {
            let start = std::time::Instant::now();
            let Run { messages, .. } = run(&mut parties, &table, &[[0; 16]], &u, &m);
            let each = start.elapsed().as_secs_f64() / count as f64 * 1e6;
            let bytes: usize = messages.iter().map(Vec::len).sum();
            println!("{bits} bits: {each:.2} µs both parties, {} bytes", bytes / count);
        }
    }
}
