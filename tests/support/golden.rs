//! Golden texts: files that hold what a test printed when somebody last looked at it.

use crate::workspace;
use ir::graph::Graph;
use std::fmt::Write;
use std::fs;

/// Whether golden files are rewritten instead of compared.
fn is_update() -> bool {
    std::env::var_os("UPDATE_EXPECT").is_some_and(|v| v == "1")
}

/// Compares a text with a file of the workspace; says in which lines they differ. With `UPDATE_EXPECT=1` the
/// file is written instead.
pub fn compare(file: &str, text: &str) -> Result<(), String> {
    let path = workspace().join(file);
    if is_update() {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).unwrap();
        }
        fs::write(path, text).unwrap();
        return Ok(());
    }
    let wanted = fs::read_to_string(&path).unwrap_or_default();
    match wanted == text {
        true => Ok(()),
        false => {
            Err(format!("{file} differs (UPDATE_EXPECT=1 rewrites it)\n{}", diff(&wanted, text)))
        }
    }
}

/// Fails with every difference.
///
/// # Panics
/// If there is one.
pub fn all_equal(results: impl IntoIterator<Item = Result<(), String>>) {
    let wrong: Vec<String> = results.into_iter().filter_map(Result::err).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The lines that differ, `-` wanted and `+` found, with the line before each run of them.
fn diff(wanted: &str, found: &str) -> String {
    let (a, b): (Vec<&str>, Vec<&str>) = (wanted.lines().collect(), found.lines().collect());
    // Longest common subsequence of what follows lines i and j.
    let mut common = vec![vec![0usize; b.len() + 1]; a.len() + 1];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            common[i][j] = match a[i] == b[j] {
                true => common[i + 1][j + 1] + 1,
                false => common[i + 1][j].max(common[i][j + 1]),
            };
        }
    }
    let mut text = String::new();
    let (mut i, mut j, mut context) = (0, 0, None);
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i] == b[j] {
            context = Some((i, a[i]));
            (i, j) = (i + 1, j + 1);
            continue;
        }
        if let Some((line, before)) = context.take() {
            let _ = writeln!(text, "{:>4}   {before}", line + 1);
        }
        if i < a.len() && (j == b.len() || common[i + 1][j] >= common[i][j + 1]) {
            let _ = writeln!(text, "{:>4} - {}", i + 1, a[i]);
            i += 1;
        } else {
            let _ = writeln!(text, "     + {}", b[j]);
            j += 1;
        }
    }
    text
}

/// A text in sections: graphs as they change from pass to pass.
#[derive(Default)]
pub struct Sections {
    text: String,
    last: Option<(String, Vec<u8>)>,
}

impl Sections {
    /// Adds a graph, or a line if it is the last one. Numbers of the model are not printed, but whether they
    /// changed is.
    pub fn graph(&mut self, title: &str, graph: &Graph) {
        let text = graph.to_string();
        let bytes = bincode::serde::encode_to_vec(graph, bincode::config::standard()).unwrap();
        let line = match &self.last {
            Some((_, same)) if *same == bytes => Some("unchanged"),
            Some((same, _)) if *same == text => Some("other numbers, the same text"),
            _ => None,
        };
        match line {
            Some(line) => self.line(title, line),
            None => self.section(title, &text),
        }
        self.last = Some((text, bytes));
    }

    /// Adds a section.
    pub fn section(&mut self, title: &str, text: &str) {
        let gap = if self.text.is_empty() { "" } else { "\n" };
        let end = if text.ends_with('\n') { "" } else { "\n" };
        let _ = write!(self.text, "{gap}== {title}\n{text}{end}");
    }

    /// Adds a section of one line.
    pub fn line(&mut self, title: &str, text: &str) {
        let _ = writeln!(self.text, "\n== {title}: {text}");
    }

    /// All of it.
    pub fn finish(self) -> String {
        self.text
    }
}

/// Golden files in a folder of the workspace that no test compares any more.
pub fn unused(folder: &str, used: &[String]) -> Vec<String> {
    let files = fs::read_dir(workspace().join(folder)).unwrap();
    let names = files.map(|file| file.unwrap().file_name().to_string_lossy().into_owned());
    names.filter(|name| name.ends_with(".txt") && !used.contains(name)).collect()
}
