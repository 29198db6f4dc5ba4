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

/// The code of a file, without comments.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n")
}

/// What is named behind `crate::` in code: `x` of `crate::x` and `crate::x::y`, both of `crate::{x, y::z}`.
fn names_of_the_crate(code: &str) -> HashSet<String> {
    let mut found = HashSet::new();
    for (at, word) in code.match_indices("crate::") {
        let rest = &code[at + word.len()..];
        // Names that begin at this depth of braces count; those behind `::` are inside a module.
        let (mut depth, mut name, mut is_inner) = (0, String::new(), false);
        for c in rest.chars() {
            if c.is_alphanumeric() || c == '_' {
                name.push(c);
                continue;
            }
            if depth <= 1 && !is_inner && !name.is_empty() {
                found.insert(std::mem::take(&mut name));
            }
            name.clear();
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' => is_inner &= depth > 1,
                ':' => is_inner = true,
                '*' => {}
                c if c.is_whitespace() => {}
                _ => break,
            }
            if depth == 0 {
                break;
            }
        }
    }
    found
}

/// The top-level modules of a package and what each names of the others, files of tests left out. What stands in the
/// root itself goes by the name `lib`.
fn modules(folder: &str) -> HashMap<String, HashSet<String>> {
    let root = workspace().join(folder);
    let mut modules: HashMap<String, HashSet<String>> = HashMap::new();
    let is_program = |path: &Path| path.starts_with(root.join("bin"));
    let is_test = |path: &Path| path.to_str().is_some_and(|path| path.ends_with("tests.rs"));
    let files = sources(&root).into_iter().filter(|path| !is_program(path) && !is_test(path));
    for path in files {
        let first = path.strip_prefix(&root).unwrap().iter().next().unwrap().to_str().unwrap();
        let module = first.trim_end_matches(".rs").to_owned();
        modules.entry(module).or_default().extend(names_of_the_crate(&code(&path)));
    }
    let known: HashSet<String> = modules.keys().cloned().collect();
    for (module, names) in &mut modules {
        let or_root = |name: String| if known.contains(&name) { name } else { "lib".into() };
        *names = names.drain().map(or_root).filter(|name| name != module).collect();
    }
    let others: HashSet<String> = known.into_iter().filter(|name| name != "lib").collect();
    modules.insert("lib".into(), others);
    modules
}

/// The modules that a module reaches.
fn reached<'a>(modules: &'a HashMap<String, HashSet<String>>, from: &'a str) -> HashSet<&'a str> {
    let (mut seen, mut open) = (HashSet::new(), vec![from]);
    while let Some(module) = open.pop() {
        let next = modules[module].iter().map(String::as_str);
        open.extend(next.filter(|next| seen.insert(*next)));
    }
    seen
}

/// The modules that reach themselves.
fn circle(modules: &HashMap<String, HashSet<String>>) -> Vec<&str> {
    let all = modules.keys().map(String::as_str);
    let mut circle: Vec<&str> = all.filter(|m| reached(modules, m).contains(m)).collect();
    circle.sort();
    circle
}

#[test]
fn no_module_of_the_compiler_needs_itself() {
    let names =
        names_of_the_crate("use crate::{fit, lower::{a, b}, text::{tail}}; crate::scales::of(x)");
    assert_eq!(names, HashSet::from(["fit", "lower", "text", "scales"].map(str::to_owned)));
    let mut modules = modules("compiler/src");
    assert!(modules["search"].contains("pipeline") && modules["pipeline"].contains("lower"));
    assert_eq!(circle(&modules), [""; 0]);
    // What the root holds needs every module: who takes something from there closes a circle.
    modules.get_mut("fit").unwrap().insert("lib".into());
    assert!(circle(&modules).contains(&"fit"));
}
