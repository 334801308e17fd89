//! No cycles between the parts of a module: files that import each other can only be read together.
//!
//! The parts of a module are its files and folders. One imports another by a path that leads into it, `super::other::x`
//! or `crate::module::other::x`; names that a mod.rs re-exports, and tests, do not count.

use std::collections::{BTreeMap, BTreeSet};

/// A module's full path and the full paths that it imports.
pub struct Source {
    pub module: Vec<String>,
    pub imports: Vec<Vec<String>>,
}

/// Parts of `folder` that may import each other, and why.
pub struct Exception {
    pub folder: &'static str,
    pub parts: &'static [&'static str],
    pub reason: &'static str,
}

/// Parts by what they import.
type Graph = BTreeMap<String, BTreeSet<String>>;

/// Every group of parts that reach each other, as `folder: part, part`, but for the exceptions; and those exceptions
/// that there is no use for.
pub fn check(sources: &[Source], exceptions: &[Exception]) -> Vec<String> {
    let mut found = Vec::new();
    let mut used = BTreeSet::new();
    for folder in folders(sources) {
        for parts in knots(&graph(sources, &folder)) {
            let name = folder.join("/");
            let excused = exceptions
                .iter()
                .position(|e| e.folder == name && e.parts == parts && !e.reason.is_empty());
            match excused {
                Some(exception) => {
                    used.insert(exception);
                }
                None => found.push(format!("{name}: {} import each other", parts.join(", "))),
            }
        }
    }
    for (index, exception) in exceptions.iter().enumerate() {
        if !used.contains(&index) {
            let parts = exception.parts.join(", ");
            found.push(format!(
                "{}: {parts} are no cycle; drop the exception",
                exception.folder
            ));
        }
    }
    found
}

/// Every module with parts of its own but the crate's root, whose parts have floors.
fn folders(sources: &[Source]) -> BTreeSet<Vec<String>> {
    let parents = |source: &Source| {
        let module = source.module.clone();
        (1..module.len()).map(move |length| module[..length].to_vec())
    };
    sources.iter().flat_map(parents).collect()
}

fn graph(sources: &[Source], folder: &[String]) -> Graph {
    let part = |path: &[String]| path.strip_prefix(folder)?.first().cloned();
    let mut graph: Graph = sources
        .iter()
        .filter_map(|source| Some((part(&source.module)?, BTreeSet::new())))
        .collect();
    let parts: BTreeSet<String> = graph.keys().cloned().collect();
    for source in sources {
        let Some(own) = part(&source.module) else {
            continue;
        };
        let others = source.imports.iter().filter_map(|path| part(path));
        let others = others.filter(|other| *other != own && parts.contains(other));
        graph.entry(own.clone()).or_default().extend(others);
    }
    graph
}

/// The groups of two parts or more of which each reaches every other.
fn knots(graph: &Graph) -> Vec<Vec<String>> {
    let reach: BTreeMap<&String, BTreeSet<&String>> = graph
        .keys()
        .map(|part| (part, reached(graph, part)))
        .collect();
    let mut found: Vec<Vec<String>> = Vec::new();
    for part in graph.keys().filter(|part| reach[part].contains(part)) {
        if found.iter().flatten().any(|known| known == part) {
            continue;
        }
        let back = reach[part]
            .iter()
            .filter(|other| reach[*other].contains(part));
        found.push(back.map(|other| (*other).clone()).collect());
    }
    found
}

/// What a part imports, directly or not.
fn reached<'a>(graph: &'a Graph, part: &String) -> BTreeSet<&'a String> {
    let mut seen = BTreeSet::new();
    let mut open: Vec<&String> = graph[part].iter().collect();
    while let Some(next) = open.pop() {
        if seen.insert(next) {
            open.extend(&graph[next]);
        }
    }
    seen
}
