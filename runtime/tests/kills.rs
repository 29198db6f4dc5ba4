//! Either party dies at any moment of preparing or running: no item is used twice, and every item that
//! both have and nobody used is usable.

#[allow(dead_code, reason = "shared with the other tests of the binary")]
mod processes;

use processes::{BATCH, Bench, Process, done, testing::Random, testing::plans};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Items that a `prepare` makes: two groups.
const COUNT: u64 = 20;

/// A party's store as its file says: deal, marked items and items.
#[derive(Clone, Debug, Default, PartialEq)]
struct Marks {
    deal: String,
    used: u64,
    items: u64,
}

fn marks(bench: &Bench, store: &str) -> Marks {
    if !bench.0.join(store).exists() {
        return Marks::default();
    }
    let listing = bench.listing(store);
    let Some(listing) = listing.first() else { return Marks::default() };
    let number = |name: &str| listing[name].as_u64().unwrap();
    let (items, unused) = (number("items"), number("unused"));
    Marks { deal: listing["deal"].as_str().unwrap().into(), used: items - unused, items }
}

/// The serials that both parties have and neither used.
fn usable([a, b]: &[Marks; 2]) -> (u64, u64) {
    let start = a.used.max(b.used);
    (start, if a.deal == b.deal { a.items.min(b.items).max(start) } else { start })
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Work {
    Prepare,
    Run,
}

struct Parties {
    bench: Bench,
    /// Per deal, how far items were used in any run.
    used: BTreeMap<String, u64>,
    /// Runs and preparations that were cut off.
    cut: usize,
}

impl Parties {
    fn marks(&self) -> [Marks; 2] {
        ["s0", "s1"].map(|store| marks(&self.bench, store))
    }

    /// Starts both parties; `kill` says which one is killed when. The JSON of those that ended well.
    fn both(&mut self, work: Work, kill: Option<(usize, Duration)>) -> [Option<Value>; 2] {
        let link = "--wait 5 --timeout 10 --json";
        let mut party0 = self.bench.start(&match work {
            Work::Prepare => format!(
                "prepare plan.bin --party 0 --count 100 --store s0 --address 127.0.0.1:0 {link}"
            ),
            Work::Run => format!("party0 plan.bin --listen 127.0.0.1:0 --store s0 {link}"),
        });
        let address = party0.address();
        let party1 = self.bench.start(&match work {
            Work::Prepare => format!(
                "prepare plan.bin --party 1 --count {COUNT} --store s1 --address {address} {link}"
            ),
            Work::Run => format!(
                "party1 plan.bin --input x.npy --output y.npy --connect {address} --store s1 {link}"
            ),
        });
        let mut parties = [party0, party1];
        if let Some((party, when)) = kill {
            std::thread::sleep(when);
            parties[party].kill();
        }
        let outputs = parties.map(Process::finish);
        outputs.map(|output| match output.status.code() {
            Some(0) => serde_json::from_str(&done(output)).ok(),
            // One line, if it was not killed itself.
            Some(code) => {
                let stderr = processes::text(&output.stderr);
                assert_eq!(code, 1, "{stderr}");
                assert_eq!(stderr.matches("error: ").count(), 1, "{stderr}");
                None
            }
            None => None,
        })
    }

    /// One moment: what the stores say after it must follow from what they said before.
    fn moment(&mut self, work: Work, kill: Option<(usize, Duration)>) -> [Option<Value>; 2] {
        let before = self.marks();
        let runs = self.both(work, kill);
        let after = self.marks();
        let is_whole = runs.iter().all(Option::is_some);
        self.cut += usize::from(!is_whole);
        let case = format!("{work:?}, {kill:?}: {before:?} became {after:?}, said {runs:?}");
        let (start, end) = usable(&before);
        match work {
            Work::Prepare => {
                let is_same = |i: usize| before[i].deal == after[i].deal;
                for party in 0..2 {
                    if is_same(party) {
                        assert_eq!(after[party].used, before[party].used, "{case}");
                    } else {
                        assert_eq!(start, end, "nothing usable is replaced: {case}");
                        assert_eq!(after[party].used, 0, "{case}");
                    }
                }
                if is_same(0) && is_same(1) {
                    let (start_after, end_after) = usable(&after);
                    assert!(start_after == start && end_after >= end, "an item is lost: {case}");
                }
                for run in runs.iter().flatten() {
                    assert_eq!(run["items"], COUNT, "{case}");
                }
                if is_whole {
                    let (start_after, end_after) = usable(&after);
                    let kept = if is_same(0) && is_same(1) { end - start } else { 0 };
                    assert_eq!(end_after - start_after, kept + COUNT, "{case}");
                }
            }
            Work::Run => {
                let taken = start..end.min(start + BATCH as u64);
                for party in 0..2 {
                    let (before, after) = (&before[party], &after[party]);
                    assert_eq!((&before.deal, before.items), (&after.deal, after.items), "{case}");
                    let is_untouched = after.used == before.used;
                    assert!(is_untouched || after.used == taken.end, "{case}");
                    if let Some(run) = &runs[party] {
                        assert!(taken.is_empty() || !is_untouched, "used without a mark: {case}");
                        let (items, batch) = (&run["items"], BATCH as u64);
                        assert_eq!(items["first"], taken.start, "{case}");
                        assert_eq!(items["end"], taken.end, "{case}");
                        assert_eq!(items["made_now"], batch - (taken.end - taken.start), "{case}");
                    }
                    // A party that has marked may have used, whatever it had time to say.
                    if !is_untouched && !taken.is_empty() {
                        let earlier = self.used.get(&after.deal).copied().unwrap_or(0);
                        assert!(earlier <= taken.start, "used twice: {case}");
                    }
                }
                let deal = after[0].deal.clone();
                if after.iter().zip(&before).any(|(a, b)| a.used != b.used) {
                    self.used.insert(deal, taken.end);
                }
                if is_whole {
                    self.bench.check_output("y.npy");
                }
            }
        }
        runs
    }
}

/// Until so many runs and preparations were cut off; a murder that comes too late does not count.
fn kill_at_random_moments(name: &str, cut: usize) {
    let bench = Bench::with(name, &plans::tiny());
    let mut parties = Parties { bench, used: BTreeMap::new(), cut: 0 };
    let mut random = Random::new(0x6b69_6c6c);
    // How long each takes without a murder, so that murders hit all of it; the very first files as well.
    let mut longest = [Duration::from_millis(60); 2];
    let (mut uneven, mut moment) = ([0, 0], 0);
    while parties.cut < cut {
        assert!(moment < 10 * cut, "{} of {moment} were cut off", parties.cut);
        // Half of the moments each; runs come in threes, so that some find stored items and some none.
        let work = if moment % 6 < 3 { Work::Prepare } else { Work::Run };
        let party = random.between(0, 1) as usize;
        let when = longest[work as usize].mul_f64(random.unit());
        parties.moment(work, Some((party, when)));
        let [a, b] = parties.marks();
        uneven[work as usize] +=
            usize::from((&a.deal, a.used, a.items) != (&b.deal, b.used, b.items));
        moment += 1;
        if moment % 12 == 9 {
            for work in [Work::Prepare, Work::Run] {
                let start = Instant::now();
                let runs = parties.moment(work, None);
                assert!(runs.iter().all(Option::is_some), "nobody died: {runs:?}");
                longest[work as usize] = start.elapsed();
            }
        }
    }
    // The living see to it that something is left, and use up all of it.
    parties.moment(Work::Prepare, None);
    loop {
        let (start, end) = usable(&parties.marks());
        let [run, _] = parties.moment(Work::Run, None);
        let Some(run) = run else { panic!("a run failed although nobody died") };
        assert_eq!(run["items"]["made_now"], (BATCH as u64).saturating_sub(end - start));
        if end - start <= BATCH as u64 {
            break;
        }
    }
    assert_eq!(usable(&parties.marks()), {
        let marks = parties.marks();
        (marks[0].items.min(marks[1].items), marks[0].items.min(marks[1].items))
    });
    println!("{cut} of {moment} cut off, {uneven:?} left the stores uneven; whole: {longest:?}");
}

#[test]
fn either_party_dies_at_random_moments() {
    kill_at_random_moments("kills", 50);
}
