//! The README's way: compile, deal, and run the two parties as processes.

use ir::plan::{Evaluator, Rounding, carry_noise};
use ir::{Shape, Tensor};
use polyc::evaluate::classes;
use serde_json::Value;
use std::fs;
use std::net::{Shutdown, TcpListener, TcpStream};
use support::{
    Folder, Listening, Written, compiled, digits, npy, polyc, polyrt, run, shipped, stderr, stdout,
};

/// A model's owner with a dealt model, and a client with the plan and its own correlations.
fn parties(model: &str, count: usize) -> (Written, Folder) {
    let owner = compiled(model);
    let mut deal = polyrt(&owner.folder);
    let output = run(deal.args(["deal", "plan.bin", "--count", &count.to_string()]));
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("DEALER: this process knows every mask"));
    let client = Folder::new();
    fs::create_dir(client.file("plan.correlations")).unwrap();
    fs::copy(owner.folder.file("plan.bin"), client.file("plan.bin")).unwrap();
    let half = "plan.correlations/party1.correlations";
    fs::rename(owner.folder.file(half), client.file(half)).unwrap();
    (owner, client)
}

fn check(outputs: &Tensor<f32>, owner: &Written, count: usize) {
    assert_eq!(outputs.shape.0, [count, 10]);
    let inputs = digits(&owner.plan, count);
    let encoded: Vec<_> = inputs.iter().map(|x| owner.plan.encode_input(x).unwrap()).collect();
    let evaluator = Evaluator::new(&owner.plan, &owner.weights);
    let exact = evaluator.run_batch(&encoded, Rounding::Nearest);
    let bound = carry_noise(&evaluator, &encoded, 50).bound;
    let rows = support::rows(outputs, &exact[0].shape);
    assert_eq!(classes(&rows), classes(&exact));
    for (a, b) in outputs.data.iter().zip(exact.iter().flat_map(|y| &y.data)) {
        assert!(f64::from((a - b).abs()) <= bound, "{a} for {b} ± {bound}");
    }
}

#[test]
fn twenty_digits_between_two_processes() {
    let (owner, client) = parties("digits_resnet", 50);
    let images = shipped("digits_20.npy");
    let (to0, to1, messages) = owner.plan.traffic(20);
    let traffic = format!("{messages} messages, {to0} bytes to party 0, {to1} bytes to party 1");
    for left in [50, 30] {
        let party0 = Listening::start(&owner.folder, &[]);
        let mut command = polyrt(&client);
        command.args([
            "party1",
            "plan.bin",
            "--dealer-correlations",
            "plan.correlations",
            "--output",
            "y.npy",
            "--connect",
            &party0.address,
        ]);
        let party1 = run(command.arg("--input").arg(&images));
        let (text0, text1) = (party0.finish(), stdout(&party1));
        assert!(party1.status.success(), "{}", stderr(&party1));
        assert_eq!(text0.0, Some(0), "{}", text0.2);
        check(&npy(&client.file("y.npy")), &owner, 20);
        for (i, class) in
            [2, 6, 6, 9, 6, 4, 7, 1, 8, 9, 8, 5, 7, 6, 9, 2, 8, 1, 3, 8].iter().enumerate()
        {
            assert!(text1.contains(&format!("input {i}: class {class} (")), "{text1}");
        }
        for text in [&text1, &text0.1] {
            assert!(text.contains(&traffic), "{text} lacks {traffic}");
            assert!(text.contains("correlations: from a dealer, who must be trusted"), "{text}");
            assert!(text.contains("link: plain TCP on loopback, not encrypted"), "{text}");
        }
        assert!(text0.1.contains("served 20 inputs") && !text0.1.contains("class"), "{}", text0.1);
        assert!(text0.2.contains(&format!("{left} of 50 correlations left")), "{}", text0.2);
    }

    let party0 = Listening::start(&owner.folder, &[]);
    let mut command = polyrt(&client);
    command.args([
        "party1",
        "plan.bin",
        "--dealer-correlations",
        "plan.correlations",
        "--output",
        "z.npy",
        "--connect",
        &party0.address,
    ]);
    let party1 = run(command.arg("--input").arg(&images));
    let (status, out, err) = party0.finish();
    let line = "party 0 has 10 of 50 correlations left, party 1 10 of 50, and 20 are needed: deal new ones";
    assert_eq!((status, party1.status.code()), (Some(1), Some(1)));
    assert!(out.is_empty() && err.ends_with(&format!("error: {line}\n")), "{err}");
    assert_eq!(stderr(&party1), format!("error: {line}\n"));
    assert!(!client.file("z.npy").exists());
}

#[test]
fn a_server_goes_on_after_a_run_that_failed_and_does_not_count_who_says_nothing() {
    let (owner, client) = parties("digits_mlp", 3);
    let party0 = Listening::start(&owner.folder, &["--runs", "2", "--timeout", "5"]);
    drop(TcpStream::connect(&party0.address).unwrap());
    for file in ["digits_20.npy", "one_digit.npy"] {
        let mut command = polyrt(&client);
        command.args([
            "party1",
            "plan.bin",
            "--dealer-correlations",
            "plan.correlations",
            "--json",
            "--connect",
            &party0.address,
        ]);
        let party1 = run(command.arg("--input").arg(shipped(file)));
        assert_eq!(party1.status.success(), file == "one_digit.npy", "{}", stderr(&party1));
        if party1.status.success() {
            let json: Value = serde_json::from_slice(&party1.stdout).unwrap();
            assert_eq!((&json["batch"], &json["results"][0]["class"]), (&1.into(), &2.into()));
            assert_eq!(json["correlations"], "dealer");
        }
    }
    let (status, out, err) = party0.finish();
    assert_eq!(status, Some(1), "{err}");
    assert!(err.ends_with("error: 1 of 2 runs failed\n"), "{err}");
    assert_eq!(out.matches("served 1 inputs").count(), 1, "{out}");
}

#[test]
fn both_parties_in_one_process() {
    let owner = compiled("digits_pillar");
    let before = owner.folder.listing();
    let mut local = polyrt(&owner.folder);
    local.args(["local", "plan.bin", "--output", "y.npy", "--input"]);
    let output = run(local.arg(shipped("digits_20.npy")));
    assert!(output.status.success(), "{}", stderr(&output));
    check(&npy(&owner.folder.file("y.npy")), &owner, 20);
    assert!(stdout(&output).contains("a trial, nothing is secret from anyone here"));
    assert_eq!(owner.folder.listing().len(), before.len() + 1, "nothing but y.npy is new");
}

#[test]
fn an_output_that_cannot_be_written_uses_nothing_up() {
    let (owner, client) = parties("digits_mlp", 1);
    let party0 = Listening::start(&owner.folder, &["--timeout", "2"]);
    let mut command = polyrt(&client);
    command.args([
        "party1",
        "plan.bin",
        "--dealer-correlations",
        "plan.correlations",
        "--output",
        "no/y.npy",
        "--connect",
        &party0.address,
    ]);
    let party1 = run(command.arg("--input").arg(shipped("one_digit.npy")));
    assert!(!party1.status.success());
    drop(party0);
    let party0 = Listening::start(&owner.folder, &["--timeout", "2"]);
    let mut command = polyrt(&client);
    command.args([
        "party1",
        "plan.bin",
        "--dealer-correlations",
        "plan.correlations",
        "--connect",
        &party0.address,
    ]);
    let party1 = run(command.arg("--input").arg(shipped("one_digit.npy")));
    assert!(party1.status.success(), "{}", stderr(&party1));
}

#[test]
fn an_answer_that_cannot_be_written_is_printed() {
    for json in [false, true] {
        let (owner, client) = parties("digits_mlp", 1);
        let folder = client.file("answers");
        fs::create_dir(&folder).unwrap();
        let party0 = Listening::start(&owner.folder, &["--timeout", "5"]);
        let between = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut command = polyrt(&client);
        command.args([
            "party1",
            "plan.bin",
            "--dealer-correlations",
            "plan.correlations",
            "--output",
            "answers/y.npy",
            "--connect",
        ]);
        command.arg(between.local_addr().unwrap().to_string());
        command.arg("--input").arg(shipped("one_digit.npy"));
        command.args(json.then_some("--json"));
        let link = std::thread::spawn(move || {
            let (mut to1, _) = between.accept().unwrap();
            // Party 1 has checked its output by now.
            fs::remove_dir(folder).unwrap();
            let mut to0 = TcpStream::connect(&party0.address).unwrap();
            let (mut from1, mut from0) = (to1.try_clone().unwrap(), to0.try_clone().unwrap());
            let there = std::thread::spawn(move || {
                let _ = std::io::copy(&mut from1, &mut to0);
                let _ = to0.shutdown(Shutdown::Write);
            });
            let _ = std::io::copy(&mut from0, &mut to1);
            let _ = to1.shutdown(Shutdown::Write);
            there.join().unwrap();
            party0.finish().0
        });
        let party1 = run(&mut command);
        assert_eq!(link.join().unwrap(), Some(0));
        let line = "error: cannot write answers/y.npy: No such file or directory (os error 2); the outputs are \
                    printed instead\n";
        assert_eq!((party1.status.code(), stderr(&party1).as_str()), (Some(1), line));
        let outputs: Vec<f32> = if json {
            let json: Value = serde_json::from_slice(&party1.stdout).unwrap();
            serde_json::from_value(json["outputs"][0].clone()).unwrap()
        } else {
            let text = stdout(&party1);
            text.lines().next().unwrap().split(',').map(|v| v.parse().unwrap()).collect()
        };
        assert_eq!(outputs.len(), 10);
        check(&Tensor::new(Shape::new([1, 10]), outputs), &owner, 1);
    }
}

#[test]
fn a_plan_that_cannot_be_written_leaves_nothing_behind() {
    let folder = Folder::new();
    let compile = |output: &str| {
        let mut command = polyc(&folder);
        command.arg("compile").arg(shipped("digits_mlp.onnx"));
        run(command.args(["--calibrate", "synthetic", "-o", output]))
    };
    // The plan's name is too long for its temporary one, that of the weights is not.
    let long = format!("p.{}", "x".repeat(250));
    let output = compile(&long);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("cannot write p.xxx"), "{}", stderr(&output));
    assert_eq!(folder.listing(), []);
    // What stood there before stays.
    assert!(compile("p.bin").status.success());
    let before = fs::read(folder.file("p.weights")).unwrap();
    assert_eq!(compile(&long).status.code(), Some(1));
    assert_eq!(fs::read(folder.file("p.weights")).unwrap(), before);
    assert_eq!(folder.listing().len(), 2);
    assert!(compile("p.bin").status.success(), "files are replaced");
    assert_eq!(folder.listing().len(), 2);
}

#[test]
fn output_that_nobody_reads_is_no_panic() {
    let folder = Folder::new();
    let mut operators = polyc(&folder);
    operators.arg("operators");
    let mut keygen = polyrt(&folder);
    keygen.args(["keygen", "--out", "key"]);
    for command in [&mut operators, &mut keygen] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let child = command.stdout(writer).stderr(std::process::Stdio::piped()).spawn().unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{command:?}: {}", stderr(&output));
        assert!(!stderr(&output).contains("panicked"), "{}", stderr(&output));
    }
}
