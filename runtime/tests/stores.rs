//! `polyrt prepare`, runs that take from stores, and what happens to stores that do not fit or break.

#[allow(dead_code, reason = "shared with the other tests of the binary")]
mod processes;

use ir::plan::Plan;
use polyrt::handshake::{HELLO_BYTES, Purpose};
use processes::{BATCH, Bench, Process, done, refusal, testing::plans, text};
use serde_json::Value;
use std::io::Read;
use std::process::Command;

/// Prepares at both and returns both parties' JSON.
fn prepare(bench: &Bench, stores: [&str; 2], count: usize, more: &str) -> [Value; 2] {
    let [store0, store1] = stores;
    let arguments0 = format!("--count 100 --store {store0} --json {more}");
    let arguments1 = format!("--count {count} --store {store1} --json {more}");
    let outputs = bench.prepare(&arguments0, &arguments1);
    outputs.map(|output| serde_json::from_str(&done(output)).unwrap())
}

/// Runs with stores; both parties' `items` and offline traffic, which must be the plan's.
fn run(bench: &Bench, [store0, store1]: [&str; 2]) -> (u64, u64, usize) {
    let (plan, _) = Plan::from_bytes(&std::fs::read(bench.0.join("plan.bin")).unwrap()).unwrap();
    let option = |store: &str| match store {
        "" => String::new(),
        store => format!("--store {store}"),
    };
    let [run0, run1] = bench.both_json(&option(store0), &option(store1));
    assert_eq!(run0["items"], run1["items"]);
    let number = |name: &str| run0["items"][name].as_u64().unwrap();
    let made_now = number("made_now") as usize;
    let (to0, to1, messages) =
        if made_now > 0 { plan.offline_traffic(made_now) } else { (0, 0, 0) };
    for run in [run0.clone(), run1] {
        assert_eq!(run["correlations"], "parties");
        assert_eq!(run["offline"]["bytes_to_party0"], to0);
        assert_eq!(run["offline"]["bytes_to_party1"], to1);
        assert_eq!(run["offline"]["messages"], messages);
        assert_eq!(run["online"]["bytes_to_party0"], plan.traffic(BATCH).0);
    }
    (number("first"), number("end"), made_now)
}

/// Items and unused items of the one file in a store.
fn items(bench: &Bench, store: &str) -> (u64, u64) {
    let listing = bench.listing(store);
    assert_eq!(listing.len(), 1, "{listing:?}");
    (listing[0]["items"].as_u64().unwrap(), listing[0]["unused"].as_u64().unwrap())
}

#[test]
fn prepared_items_are_taken_and_what_is_missing_is_made() {
    let bench = Bench::new("prepared");
    let (plan, digest) = plans::every_kind();
    let digest = (plan.to_bytes().1, digest).0;
    let stores = ["s0", "s1"];
    let prepared = prepare(&bench, stores, 5, "");
    let (to0, to1, messages) = plan.offline_traffic(5);
    for (json, role) in prepared.iter().zip(["party0", "party1"]) {
        assert_eq!((&json["role"], &json["deal"]), (&role.into(), &prepared[0]["deal"]));
        assert_eq!(
            (&json["first"], &json["items"], &json["unused"]),
            (&0.into(), &5.into(), &5.into())
        );
        let offline = &json["offline"];
        assert_eq!(
            (&offline["bytes_to_party0"], &offline["messages"]),
            (&to0.into(), &messages.into())
        );
        assert_eq!(offline["bytes_to_party1"], to1);
    }
    for (store, role) in stores.iter().zip(["party 0", "party 1"]) {
        let listing = &bench.listing(store)[0];
        assert_eq!(
            (&listing["role"], &listing["made_by"]),
            (&role.into(), &"the two parties".into())
        );
        assert_eq!(
            (&listing["deal"], &listing["plan"]),
            (&prepared[0]["deal"], &digest.to_string().into())
        );
        let out = bench.done(&format!("store {store}"));
        assert!(
            out.contains("5 of 5 items unused, ") && out.contains("made by the two parties"),
            "{out}"
        );
    }
    // Enough, partly enough, nothing left.
    assert_eq!(run(&bench, stores), (0, 3, 0));
    assert_eq!((items(&bench, "s0"), items(&bench, "s1")), ((5, 2), (5, 2)));
    assert_eq!(run(&bench, stores), (3, 5, 1));
    assert_eq!((items(&bench, "s0"), items(&bench, "s1")), ((5, 0), (5, 0)));
    assert_eq!(run(&bench, stores), (5, 5, 3));
    // Another `prepare` appends.
    for (count, first, unused) in [(2, 5, 2), (4, 7, 6)] {
        let json = &prepare(&bench, stores, count, "")[1];
        assert_eq!((&json["deal"], &json["items"]), (&prepared[0]["deal"], &count.into()));
        assert_eq!((&json["first"], &json["unused"]), (&first.into(), &unused.into()));
    }
    assert_eq!((items(&bench, "s0"), items(&bench, "s1")), ((11, 6), (11, 6)));
    assert_eq!(run(&bench, stores), (5, 8, 0));
    // A party without its store makes all anew, and the other one's items stay.
    assert_eq!(run(&bench, ["s0", ""]), (8, 8, 3));
    assert_eq!(run(&bench, ["none", "s1"]), (8, 8, 3));
    assert_eq!(run(&bench, stores), (8, 11, 0));
}

#[test]
fn people_are_told_where_items_came_from() {
    let bench = Bench::new("told");
    let [prepared0, prepared1] = bench.prepare("--count 9 --store s0", "--count 4 --store s1");
    let (plan, _) = plans::every_kind();
    let (to0, to1, messages) = plan.offline_traffic(4);
    let traffic =
        format!("offline: {messages} messages, {to0} bytes to party 0, {to1} bytes to party 1");
    for out in [done(prepared0), done(prepared1)] {
        assert!(out.starts_with("prepared 4 items of deal "), "{out}");
        assert!(out.contains(&traffic) && out.contains(": 4 unused items, "), "{out}");
    }
    let lines = ["items 0 to 2 of deal ", "items 3 to 3 of deal ", "alone, 3 made now"];
    let made = ["from the store, 0 made now", "from the store, 2 made now", "3 made now"];
    for (line, made) in lines.iter().zip(made) {
        for output in bench.both("--store s0", "--store s1") {
            let out = done(output);
            let said =
                out.lines().find(|l| l.starts_with("correlations: by the two parties alone, "));
            let said = said.unwrap_or_else(|| panic!("{out}"));
            assert!(said.contains(line) && said.ends_with(made), "{said}");
        }
    }
    // Items whose other halves the peer has not.
    for output in bench.prepare("--count 2 --store s0", "--count 2 --store s1") {
        done(output);
    }
    let [party0, party1] = bench.both("--store s0", "");
    let said = text(&party0.stderr);
    assert!(
        said.contains("note: 2 unused items of deal ") && said.contains("other halves"),
        "{said}"
    );
    assert!(!text(&party1.stderr).contains("note:"), "{}", text(&party1.stderr));
    let [party0, party1] = bench.both("--store n0", "--store n1");
    for output in [&party0, &party1] {
        assert!(text(&output.stderr).contains("note: no n"), "{}", text(&output.stderr));
    }
    let empty = bench.done("store .");
    assert_eq!(empty, "no correlations in .\n");
    let missing = refusal(&bench.run("store nowhere"), 1);
    assert!(missing.starts_with("error: nowhere: No such file"), "{missing}");
}

#[test]
fn stores_that_do_not_belong_together_are_not_mixed() {
    let bench = Bench::new("mixed");
    let deal = |json: &Value| json["deal"].as_str().unwrap().to_owned();
    let a = deal(&prepare(&bench, ["a0", "a1"], 2, "")[0]);
    let b = deal(&prepare(&bench, ["b0", "b1"], 3, "")[0]);
    let line = format!(
        "error: party 0's store is of deal {a}, party 1's of deal {b}: neither can use the other's \
         items; add --force at both to start anew"
    );
    for [force0, force1] in [["", ""], ["--force", ""], ["", "--force"]] {
        let arguments0 = format!("--count 4 --store a0 {force0}");
        let outputs = bench.prepare(&arguments0, &format!("--count 4 --store b1 {force1}"));
        outputs.iter().for_each(|output| assert_eq!(refusal(output, 1), line));
    }
    assert_eq!(run(&bench, ["a0", "b1"]), (0, 0, 3));
    assert_eq!((items(&bench, "a0"), items(&bench, "b1")), ((2, 2), (3, 3)), "nothing is lost");
    let prepared = prepare(&bench, ["a0", "b1"], 4, "--force");
    for json in &prepared {
        assert_eq!(
            (&json["first"], &json["items"], &json["unused"]),
            (&0.into(), &4.into(), &4.into())
        );
        assert!(deal(json) == deal(&prepared[0]) && deal(json) != a && deal(json) != b);
    }
    assert_eq!(run(&bench, ["a0", "b1"]), (0, 3, 0));
    // What is used up needs no force.
    assert_eq!(run(&bench, ["a0", "b1"]), (3, 4, 2));
    assert_eq!(run(&bench, ["b0", "a1"]), (0, 0, 3));
    assert_eq!(prepare(&bench, ["a0", "new"], 1, "")[1]["first"], 0);
    assert_eq!((items(&bench, "a0"), items(&bench, "new")), ((1, 1), (1, 1)));
}

#[test]
fn preparing_and_running_do_not_meet() {
    let bench = Bench::new("purposes");
    let mut party0 =
        bench.start("prepare plan.bin --party 0 --count 3 --store s --address 127.0.0.1:0");
    let address = party0.address();
    let line = "party 0 prepares and party 1 runs: start the same command at both";
    let run = bench.run(&format!("party1 plan.bin --input x.npy --connect {address}"));
    assert_eq!(refusal(&run, 1), format!("error: {line}"));
    assert_eq!(party0.turned_away(), line);
    for count1 in [4, 4096] {
        let prepare =
            format!("prepare plan.bin --party 1 --count {count1} --store s --address {address}");
        let line = format!("party 1 has {count1} inputs, party 0 accepts 1 to 3");
        assert_eq!(refusal(&bench.run(&prepare), 1), format!("error: {line}"));
        assert_eq!(party0.turned_away(), line);
    }
    for count in ["0", "4097"] {
        let refused = bench.run(&format!("prepare plan.bin --party 1 --count {count} --store s"));
        assert_eq!(refused.status.code(), Some(2));
    }
    assert_eq!(bench.listing("s").len(), 0, "nothing was made");
    assert_eq!(
        bench.run("party0 plan.bin --store s --dealer-correlations").status.code(),
        Some(2),
        "one source at a time"
    );
}

#[test]
fn one_process_at_a_time_has_a_store() {
    let bench = Bench::new("held");
    prepare(&bench, ["s", "s"], 3, "");
    let (holder, address) = bench.serve("--store s");
    // It has its store once it has heard a peer that fits, and says so.
    let mut peer = bench.greet(&address, Purpose::Run, 1);
    peer.read_exact(&mut [0; HELLO_BYTES]).unwrap();
    let [refused, _] = bench.prepare("--count 3 --store s", "--count 3 --store other");
    let refused = refusal(&refused, 1);
    assert!(refused.ends_with(".party0 is in use by another process"), "{refused}");
    // A server says so for the run that needs the store, and its client hears that the link ended.
    let [party0, party1] = bench.both("--store s", "--store s");
    let refused = refusal(&party0, 1);
    assert!(refused.ends_with(".party0 is in use by another process"), "{refused}");
    refusal(&party1, 1);
    assert_eq!(bench.listing("s")[1]["unused"], 3);
    drop((holder, peer));
    assert_eq!(run(&bench, ["s", "s"]), (0, 3, 0));
}

#[test]
fn a_store_is_what_it_is_when_the_peer_comes() {
    let bench = Bench::new("twice");
    let prepare0 = "prepare plan.bin --party 0 --count 3 --store s --address 127.0.0.1:0 --wait 30";
    let mut first = bench.start(prepare0);
    let address = first.address();
    prepare(&bench, ["s", "s"], 2, "");
    let late = format!("prepare plan.bin --party 1 --count 3 --store other --address {address}");
    for refused in [refusal(&bench.run(&late), 1), refusal(&first.finish(), 1)] {
        assert!(refused.contains("neither can use the other's items"), "{refused}");
    }
    let unused: Vec<_> = bench.listing("s").iter().map(|l| l["unused"].clone()).collect();
    assert_eq!(unused, [2, 2], "its items are still there");
}

#[test]
fn stores_are_filled_over_tls() {
    let bench = Bench::new("tls_store");
    for name in ["a", "b"] {
        bench.done(&format!("keygen --out {name}"));
    }
    let [key0, key1] = ["--key a.key --peer-cert b.crt", "--key b.key --peer-cert a.crt"];
    let outputs = bench.prepare(
        &format!("--count 4 --store s --json {key0}"),
        &format!("--count 4 --store s --json {key1}"),
    );
    for output in outputs {
        let json: Value = serde_json::from_str(&done(output)).unwrap();
        assert_eq!((&json["items"], &json["wire"]["tls"]), (&4.into(), &true.into()));
    }
    let [run0, _] = bench.both_json(&format!("--store s {key0}"), &format!("--store s {key1}"));
    assert_eq!((&run0["items"]["end"], &run0["items"]["made_now"]), (&3.into(), &0.into()));
}

#[test]
fn another_plans_store_is_left_alone() {
    let bench = Bench::new("other");
    prepare(&bench, ["s", "s"], 2, "");
    let other = Bench::with("another", &plans::tiny());
    let store = bench.0.join("s").display().to_string();
    prepare(&other, [&store, &store], 3, "");
    assert_eq!(bench.listing("s").len(), 4, "a file per plan and party");
    // Under another plan's name.
    let name = |bench: &Bench| {
        let (_, digest) =
            Plan::from_bytes(&std::fs::read(bench.0.join("plan.bin")).unwrap()).unwrap();
        bench.0.join("s").join(format!("{digest}.party1"))
    };
    std::fs::copy(name(&bench), bench.0.join("s").join(name(&other).file_name().unwrap())).unwrap();
    let refused = other.run(&format!("party1 plan.bin --input x.npy --store {store}"));
    assert!(refusal(&refused, 2).contains(" was made for plan "), "{}", text(&refused.stderr));
    // What is no correlation file is named and passed over.
    std::fs::write(bench.0.join("s/x.party0"), b"polycorr").unwrap();
    let listed = bench.run("store s");
    assert!(listed.status.success() && text(&listed.stderr).starts_with("warning: s/x.party0 "));
}

/// Other weights under the same plan: what was made with the old ones is refused at both, whoever has it,
/// before anything is marked or sent that depends on an item.
#[test]
fn items_of_other_weights_are_refused_at_both() {
    let bench = Bench::new("weights");
    let line = |whose: &str, remedy: &str| {
        format!("error: {whose} for other weights than party 0 has now: {remedy}")
    };
    let remedy = "make new ones by `polyrt prepare` with --force at both";
    prepare(&bench, ["s0", "s1"], 4, "");
    // The same numbers under another salt are other weights.
    for are_numbers_changed in [true, false] {
        bench.change_weights(are_numbers_changed);
        for (stores, whose) in [
            (["--store s0", "--store s1"], "both parties' correlations are"),
            (["--store s0", ""], "party 0's correlations are"),
            (["", "--store s1"], "party 1's correlations are"),
        ] {
            let outputs = bench.both(stores[0], stores[1]);
            outputs.iter().for_each(|run| assert_eq!(refusal(run, 2), line(whose, remedy)));
        }
        for output in bench.prepare("--count 4 --store s0", "--count 4 --store s1") {
            assert_eq!(refusal(&output, 2), line("both parties' correlations are", remedy));
        }
        assert_eq!([items(&bench, "s0"), items(&bench, "s1")], [(4, 4); 2], "nothing is marked");
    }
    // Of party 0 a peer hears its hello and no byte more.
    let (party0, address) = bench.serve("--store s0");
    let mut told = vec![];
    bench.greet(&address, Purpose::Run, 1).read_to_end(&mut told).unwrap();
    assert_eq!(told.len(), HELLO_BYTES);
    refusal(&party0.finish(), 2);
    // A server goes on where it is party 1's fault alone, and ends where it is its own.
    let (party0, address) = bench.serve("--runs 2");
    let party1 = format!("party1 plan.bin --input x.npy --output y.npy --connect {address}");
    refusal(&bench.run(&format!("{party1} --store s1")), 2);
    bench.done(&party1);
    bench.check_output("y.npy");
    assert_eq!(party0.finish().status.code(), Some(1), "one of two failed");
    let (party0, address) = bench.serve("--forever --store s0");
    let party1 = format!("party1 plan.bin --input x.npy --connect {address}");
    refusal(&bench.run(&party1), 2);
    let ended = party0.finish();
    refusal(&ended, 2);
    let warned = text(&ended.stderr);
    assert!(
        warned.contains("party0 was filled with other weights: runs will be refused"),
        "{warned}"
    );
    // What to do helps.
    let prepared = prepare(&bench, ["s0", "s1"], 4, "--force");
    assert_eq!((&prepared[0]["first"], &prepared[1]["unused"]), (&0.into(), &4.into()));
    assert_eq!(run(&bench, ["s0", "s1"]), (0, 3, 0));
    let listing = [&bench.listing("s0")[0]["weights"], &bench.listing("s1")[0]["weights"]]
        .map(|weights| weights.as_str().unwrap().to_owned());
    assert_eq!(listing[0], listing[1]);
}

#[test]
fn a_dealers_items_of_other_weights_are_refused_at_both() {
    let bench = Bench::new("dealt_weights");
    bench.done("deal plan.bin --count 6");
    bench.change_weights(true);
    let line = "error: both parties' correlations are for other weights than party 0 has now: deal new ones \
                (`polyrt deal --force`)";
    for run in bench.both("--dealer-correlations", "--dealer-correlations") {
        assert_eq!(refusal(&run, 2), line);
    }
    assert_eq!(bench.listing("plan.correlations")[0]["unused"], 6);
    bench.done("deal plan.bin --count 6 --force");
    bench.both_json("--dealer-correlations", "--dealer-correlations");
}

/// A disk that is full in the middle of an item: the line names it, and only whole items count.
#[cfg(unix)]
#[test]
fn a_full_disk_ends_preparing_in_a_line_and_keeps_whole_items() {
    let bench = Bench::new("full");
    let item = prepare(&bench, ["s0", "s1"], 1, "")[0]["item_bytes"].as_u64().unwrap();
    let file = bench
        .0
        .join("s0")
        .join(bench.listing("s0")[0]["path"].as_str().unwrap().split('/').next_back().unwrap());
    let header = file.metadata().unwrap().len() - (item + 33);
    for limited in [0, 1] {
        let before = items(&bench, "s0").0;
        // Two more items and a half, in the shell's unit of 512 bytes.
        let half = header + (before + 2) * (item + 33) + item / 2;
        let limited_command = |arguments: &str| {
            let command = bench.command(arguments);
            let mut shell = Command::new("sh");
            let script = format!("trap '' XFSZ; ulimit -f {}; exec \"$0\" \"$@\"", half / 512);
            shell.current_dir(&bench.0).arg("-c").arg(script).arg(command.get_program());
            shell.args(command.get_args());
            shell
        };
        let start = |party: usize, arguments: &str| {
            if party == limited {
                Process::start(&mut limited_command(arguments))
            } else {
                bench.start(arguments)
            }
        };
        let mut party0 =
            start(0, "prepare plan.bin --party 0 --count 9 --store s0 --address 127.0.0.1:0");
        let address = party0.address();
        let party1 = format!("prepare plan.bin --party 1 --count 9 --store s1 --address {address}");
        let party1 = start(1, &party1).finish();
        let outputs = [party0.finish(), party1];
        let line = refusal(&outputs[limited], 1);
        assert!(line.contains(&format!(".party{limited}: File too large")), "{line}");
        let left = [items(&bench, "s0"), items(&bench, "s1")];
        assert_eq!(left[limited], (before + 2, before + 2), "whole items count");
        // The next one takes up where both have items.
        let json = &prepare(&bench, ["s0", "s1"], 1, "")[0];
        let first = left[0].0.min(left[1].0);
        assert_eq!((&json["first"], &json["unused"]), (&first.into(), &(first + 1).into()));
    }
    let unused = items(&bench, "s0").1;
    assert_eq!(items(&bench, "s1").1, unused);
    for used in 0..unused / BATCH as u64 {
        let first = used * BATCH as u64;
        assert_eq!(run(&bench, ["s0", "s1"]), (first, first + BATCH as u64, 0));
    }
}
