//! Refusals: every one is a line that says what to change, with an exit status, and leaves no file. The
//! lines stand beside this file; `UPDATE_EXPECT=1` writes them anew.

mod cases;
mod peers;

use cases::{CASES, Case, input, many_unsupported, put};
use peers::PEERS;
use std::fs;
use std::process::Command;
use std::sync::OnceLock;
use support::doors::{SMALL, SMALL_MODEL};
use support::{Folder, polyc, polyrt, run, stderr};

/// A folder with a model, its plan, weights and three dealt items, and an input.
fn start() -> Folder {
    static DEALT: OnceLock<Folder> = OnceLock::new();
    let dealt = DEALT.get_or_init(|| {
        let folder = Folder::new();
        let small = &*SMALL;
        put(folder.path(), "model.onnx", &*SMALL_MODEL);
        put(folder.path(), "plan.bin", small.plan.to_bytes().0);
        put(folder.path(), "plan.weights", small.weights.to_bytes(Some(&small.reference)));
        input(folder.path(), &[1, 5], 0.5);
        let output = run(polyrt(&folder).args(["deal", "plan.bin", "--count", "3"]));
        assert!(output.status.success(), "{}", stderr(&output));
        folder
    });
    let folder = Folder::new();
    fs::create_dir(folder.file("plan.correlations")).unwrap();
    for (name, _) in dealt.listing().iter().filter(|(name, _)| dealt.file(name).is_file()) {
        fs::copy(dealt.file(name), folder.file(name)).unwrap();
    }
    folder
}

fn command(folder: &Folder, line: &str) -> Command {
    let mut words = line.split(' ');
    let mut command = match words.next() {
        Some("polyc") => polyc(folder),
        _ => polyrt(folder),
    };
    command.args(words);
    command
}

/// Digests and identities differ between machines, and timeouts are measured.
fn normalised(text: &str) -> String {
    let after = "timed out after ";
    let timeless = text.split_inclusive(after).map(|part| match part.split_once(": the peer") {
        Some((time, rest)) if time.ends_with('s') && time.len() < 12 => {
            format!("TIME: the peer{rest}")
        }
        _ => part.to_owned(),
    });
    let text = &timeless.collect::<String>();
    let is_hex = |w: &str| w.len() == 16 && w.chars().all(|c| c.is_ascii_hexdigit());
    let mut result = String::new();
    for piece in text.split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
        let word = piece.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        result += &if is_hex(word) { piece.replace(word, "DIGEST") } else { piece.to_owned() };
    }
    result
}

/// Compares with the golden file; returns what is wrong.
fn compare(name: &str, status: Option<i32>, text: &str) -> Option<String> {
    let path = support::workspace().join(format!("tests/refusals/{name}.txt"));
    let got = format!("exit status {}\n{}", status.unwrap_or(-1), normalised(text));
    if std::env::var_os("UPDATE_EXPECT").is_some_and(|v| v == "1") {
        fs::write(path, got).unwrap();
        return None;
    }
    let want = fs::read_to_string(&path).unwrap_or_default();
    (got != want).then(|| format!("{name}: expected\n{want}got\n{got}"))
}

fn check(case: &Case) -> Option<String> {
    let folder = start();
    (case.prepare)(folder.path());
    let before = folder.listing();
    let output = run(&mut command(&folder, case.command));
    let text = stderr(&output);
    let status = output.status.code();
    let lines = text.lines().filter(|l| !l.is_empty()).count();
    let of_error = text.lines().find(|line| !line.starts_with("note: ")).unwrap_or_default();
    let prefixed = of_error.starts_with("polyc: ") || of_error.starts_with("error: ");
    if status != Some(case.status) || lines != case.lines || !prefixed {
        return Some(format!("{}: status {status:?}, {lines} lines: {text}", case.name));
    }
    if !output.stdout.is_empty() || folder.listing() != before {
        return Some(format!("{}: left {:?}", case.name, folder.listing()));
    }
    compare(case.name, status, &text)
}

fn all_right(wrong: impl Iterator<Item = String>) {
    let wrong: Vec<String> = wrong.collect();
    assert!(wrong.is_empty(), "{}\nUPDATE_EXPECT=1 takes what is printed now", wrong.join("\n"));
}

#[test]
fn commands() {
    all_right(CASES.iter().filter_map(check));
}

#[test]
fn a_refused_model_lists_every_node_as_json() {
    let folder = start();
    put(folder.path(), "model.onnx", many_unsupported());
    let output = run(&mut command(&folder, "polyc compile model.onnx --json"));
    assert_eq!(output.status.code(), Some(2));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let nodes = json["unsupported"].as_array().unwrap();
    assert_eq!(nodes.len(), 25);
    assert_eq!(
        (&nodes[24]["name"], &nodes[24]["operator"]),
        (&"strange 24".into(), &"Frobnicate".into())
    );
}

#[test]
fn every_golden_file_has_its_case() {
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        return;
    }
    let mut expected: Vec<String> = CASES.iter().map(|c| c.name.to_owned()).collect();
    for party in ["party0", "party1"] {
        expected.extend(PEERS.iter().map(|(name, _)| format!("{party}_peer_{name}")));
    }
    expected.push("peer_with_another_plan".into());
    expected.sort();
    let files = fs::read_dir(support::workspace().join("tests/refusals")).unwrap();
    let paths = files.map(|f| f.unwrap().path());
    let mut found: Vec<String> = paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    found.sort();
    assert_eq!(found, expected);
}
