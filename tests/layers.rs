//! Who may depend on whom, and what the shared crate may not do.

use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::workspace;

/// A resolved package graph without development dependencies.
struct Packages {
    names: HashMap<String, (String, String)>,
    edges: HashMap<String, Vec<String>>,
}

impl Packages {
    fn read() -> Self {
        let rustc =
            Command::new(std::env::var_os("RUSTC").unwrap_or("rustc".into())).arg("-vV").output();
        let version = support::stdout(&rustc.unwrap());
        let host = version.lines().find_map(|l| l.strip_prefix("host: ")).unwrap();
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", host])
            .current_dir(workspace())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", support::stderr(&output));
        let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let packages = metadata["packages"].as_array().unwrap();
        let names = packages
            .iter()
            .map(|p| (text(&p["id"]), (text(&p["name"]), text(&p["version"]))))
            .collect();
        let is_built = |dependency: &&Value| {
            let kinds = dependency["dep_kinds"].as_array().unwrap();
            kinds.iter().any(|kind| kind["kind"] != "dev")
        };
        let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
        let edges = nodes
            .iter()
            .map(|node| {
                let needed = node["deps"].as_array().unwrap().iter().filter(is_built);
                (text(&node["id"]), needed.map(|d| text(&d["pkg"])).collect())
            })
            .collect();
        Self { names, edges }
    }

    /// The names of all packages that `package` is built from, its own included.
    fn tree(&self, package: &str) -> HashSet<&str> {
        let root = self.names.iter().find(|(_, (name, _))| name == package).unwrap().0;
        let (mut seen, mut open) = (HashSet::from([root]), vec![root]);
        while let Some(id) = open.pop() {
            open.extend(self.edges[id].iter().filter(|id| seen.insert(*id)));
        }
        seen.into_iter().map(|id| self.names[id].0.as_str()).collect()
    }
}

#[test]
fn neither_program_is_built_from_the_other() {
    let packages = Packages::read();
    for (package, forbidden) in [
        ("polyc-ir", &["polyc", "polyrt"][..]),
        ("polyc", &["polyrt", "polyc-tests"]),
        ("polyrt", &["polyc", "polyc-tests"]),
    ] {
        let tree = packages.tree(package);
        for name in forbidden {
            assert!(!tree.contains(name), "{package} is built from {name}");
        }
    }
    assert!(packages.tree("polyc").contains("polyc-ir"));
    assert!(packages.tree("polyrt").contains("polyc-ir"));
}

#[test]
fn the_runtime_holds_no_model_parser() {
    let packages = Packages::read();
    let parsers = |package| -> Vec<&str> {
        let tree = packages.tree(package);
        tree.into_iter().filter(|n| n.starts_with("tract") || n.starts_with("prost")).collect()
    };
    assert!(!parsers("polyc").is_empty());
    assert_eq!(parsers("polyrt"), [""; 0]);
    assert_eq!(parsers("polyc-ir"), [""; 0]);
}

#[test]
fn plans_are_written_by_one_bincode() {
    let packages = Packages::read();
    let versions: Vec<&str> = packages
        .names
        .values()
        .filter(|(name, _)| name == "bincode")
        .map(|(_, version)| version.as_str())
        .collect();
    assert_eq!(versions, ["2.0.1"]);
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|e| e == "rs"))
        .collect()
}

/// Lines of code that hold a word, as `path:line`.
fn lines_with(folder: &str, words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for path in sources(&workspace().join(folder)) {
        let text = fs::read_to_string(&path).unwrap();
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let mut tokens = code.split(|c: char| !c.is_alphanumeric() && c != '_');
            if tokens.any(|token| words.contains(&token)) {
                let name = path.strip_prefix(workspace()).unwrap().display();
                found.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    found
}

#[test]
fn the_shared_crate_is_pure_and_safe() {
    let forbidden = ["unsafe", "net", "fs", "process", "getrandom", "SystemTime"];
    assert_eq!(lines_with("ir/src", &forbidden), [""; 0]);
    assert!(!lines_with("runtime/src", &forbidden).is_empty());
}

#[test]
fn only_kernels_have_unsafe_code() {
    let mut found = lines_with("runtime/src", &["unsafe"]);
    assert!(!found.is_empty());
    found.retain(|line| !line.starts_with("runtime/src/kernel/"));
    assert_eq!(found, [""; 0]);
    assert_eq!(lines_with("compiler/src", &["unsafe"]), [""; 0]);
}
