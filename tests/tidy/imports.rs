//! Which files of a folder use each other: a reader of import paths, good enough for our sources.
//!
//! A node is a file or a subfolder of a folder, and `mod` is the folder's own file. A name that
//! `mod` re-exports belongs to the file that defines it, so a re-export alone is no use of it.

use std::collections::{BTreeMap, BTreeSet};

/// A module path below the crate, such as `["http", "head"]`.
type Module = Vec<String>;
/// A use of one node of a folder by another: (folder, user, used).
type Use = (Module, String, String);

/// The folder's own file as a node.
const OWN: &str = "mod";

/// Sources by module path, without comments and inline tests.
pub(crate) struct Sources(BTreeMap<Module, String>);

impl Sources {
    /// From paths below `src`, such as `http/head.rs`, with their texts.
    pub(crate) fn new(files: impl IntoIterator<Item = (String, String)>) -> Sources {
        let of = |(path, text): (String, String)| (module(&path), code(&text));
        Sources(files.into_iter().map(of).collect())
    }

    /// The uses that close a circle, by folder.
    pub(crate) fn circles(&self) -> BTreeMap<String, Vec<String>> {
        let mut uses: BTreeMap<Module, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
        for (folder, from, to) in self.0.iter().flat_map(|(module, text)| self.uses(module, text)) {
            uses.entry(folder).or_default().entry(from).or_default().insert(to);
        }
        let of_folder = |(folder, uses): (Module, BTreeMap<String, BTreeSet<String>>)| {
            let edges = uses.iter().flat_map(|(from, used)| used.iter().map(move |to| (from, to)));
            let in_circle = edges.filter(|(from, to)| reaches(&uses, to, from));
            (folder.join("/"), in_circle.map(|(from, to)| format!("{from} uses {to}")).collect::<Vec<_>>())
        };
        uses.into_iter().map(of_folder).filter(|(_, nodes)| !nodes.is_empty()).collect()
    }

    fn uses(&self, module: &Module, text: &str) -> BTreeSet<Use> {
        let mut found: BTreeSet<Use> = BTreeSet::new();
        for path in paths(text).into_iter().filter(|path| !path.is_reexport) {
            let Some(target) = self.absolute(module, &path.segments) else { continue };
            found.extend(self.edge(module, &self.definition(target)));
        }
        // A name that this file re-exports and uses itself.
        let words = words_outside_uses(text);
        for (name, target) in reexports(text) {
            if words.contains(name.as_str())
                && let Some(target) = self.absolute(module, &target)
            {
                found.extend(self.edge(module, &target));
            }
        }
        found
    }

    /// A path from the crate's root; `None`: it leads out of the crate.
    fn absolute(&self, module: &Module, path: &[String]) -> Option<Module> {
        let first = path.first()?;
        if first == "crate" {
            return Some(path[1..].to_vec());
        }
        let ups = path.iter().take_while(|segment| *segment == "super").count();
        let (keep, rest) = match first.as_str() {
            "super" => (module.len().checked_sub(ups)?, &path[ups..]),
            "self" => (module.len(), &path[1..]),
            child => {
                let mut inner = module.clone();
                inner.push(child.to_owned());
                self.0.contains_key(&inner).then_some((module.len(), path))?
            }
        };
        Some(module[..keep].iter().chain(rest).cloned().collect())
    }

    /// Follows re-exports to the file that defines the item.
    fn definition(&self, mut target: Module) -> Module {
        for length in 0..target.len() {
            let (folder, rest) = target.split_at(length);
            let (folder, rest) = (folder.to_vec(), rest.to_vec());
            let Some(text) = self.0.get(&folder) else { continue };
            let Some((_, path)) = reexports(text).into_iter().find(|(name, _)| *name == rest[0]) else { continue };
            if let Some(defined) = self.absolute(&folder, &path) {
                target = defined.into_iter().chain(rest.into_iter().skip(1)).collect();
            }
        }
        target
    }

    /// The folder in which two files part, and their nodes there.
    fn edge(&self, from: &Module, target: &Module) -> Option<Use> {
        let to = (0..=target.len()).rev().map(|length| &target[..length]).find(|path| self.0.contains_key(*path))?;
        let shared = from.iter().zip(to).take_while(|(one, other)| one == other).count();
        if from.len() == shared && to.len() == shared {
            return None;
        }
        let node = |path: &[String]| path.get(shared).cloned().unwrap_or_else(|| OWN.to_owned());
        Some((from[..shared].to_vec(), node(from), node(to)))
    }
}

fn reaches(uses: &BTreeMap<String, BTreeSet<String>>, from: &str, to: &str) -> bool {
    let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(node) = next.pop() {
        let Some(used) = uses.get(node) else { continue };
        if used.contains(to) {
            return true;
        }
        next.extend(used.iter().map(String::as_str).filter(|node| seen.insert(*node)));
    }
    false
}

fn module(path: &str) -> Module {
    let mut segments: Module = path.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if segments.last().is_some_and(|last| last == "mod") || segments == ["lib"] {
        segments.pop();
    }
    segments
}

/// Without comments, and without the tests at its end.
fn code(text: &str) -> String {
    let text = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

struct Path {
    segments: Vec<String>,
    is_reexport: bool,
}

/// All paths that may lead into the crate: those of `use` lines, and those within code.
fn paths(text: &str) -> Vec<Path> {
    let mut found = Vec::new();
    for (is_reexport, tree) in use_trees(text) {
        found.extend(leaves(&tree).into_iter().map(|(segments, _)| Path { segments, is_reexport }));
    }
    let code = without_uses(text);
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    for token in code.split(|c: char| !is_part(c)).filter(|token| token.contains("::") && !token.starts_with("::")) {
        let segments = token.split("::").map(str::to_owned).collect();
        found.push(Path { segments, is_reexport: false });
    }
    found
}

/// Public names of `use` lines, with where they come from.
fn reexports(text: &str) -> Vec<(String, Vec<String>)> {
    let trees = use_trees(text).into_iter().filter(|(is_reexport, _)| *is_reexport);
    trees.flat_map(|(_, tree)| leaves(&tree)).map(|(path, name)| (name, path)).collect()
}

/// The text of each `use`, and whether it is a re-export.
fn use_trees(text: &str) -> Vec<(bool, String)> {
    statements(text).filter(|(_, is_use, _)| *is_use).map(|(.., statement)| use_tree(statement)).collect()
}

fn use_tree(statement: &str) -> (bool, String) {
    let (visibility, tree) = statement.split_once("use ").unwrap_or_default();
    (!visibility.trim().is_empty(), tree.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Each `use` up to its semicolon, and each other line: start, whether it is a `use`, text.
fn statements(text: &str) -> impl Iterator<Item = (usize, bool, &str)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = text.get(at..).filter(|rest| !rest.is_empty())?;
        let line = rest.lines().next().unwrap_or_default();
        let trimmed = line.trim_start();
        let visible = trimmed.strip_prefix("pub").map_or(trimmed, |rest| match rest.strip_prefix('(') {
            Some(scope) => scope.split_once(") ").map_or("", |(_, rest)| rest),
            None => rest.trim_start(),
        });
        let is_use = visible.starts_with("use ");
        let end = if is_use { rest.find(';').map_or(rest.len(), |end| end + 1) } else { line.len() };
        let start = at;
        at += (end + 1).min(rest.len());
        Some((start, is_use, &rest[..end]))
    })
}

fn without_uses(text: &str) -> String {
    statements(text).filter(|(_, is_use, _)| !is_use).map(|(_, _, line)| format!("{line}\n")).collect()
}

fn words_outside_uses(text: &str) -> BTreeSet<String> {
    let code = without_uses(text);
    code.split(|c: char| !c.is_alphanumeric() && c != '_').map(str::to_owned).collect()
}

/// The paths that a tree of a `use` names, with the name that each gets here.
fn leaves(tree: &str) -> Vec<(Vec<String>, String)> {
    let tree = tree.trim().trim_end_matches(';');
    let Some((stem, group)) = tree.split_once('{') else {
        let (path, alias) = tree.split_once(" as ").map_or((tree, None), |(path, alias)| (path, Some(alias)));
        let mut segments: Vec<String> = path.trim().split("::").map(|segment| segment.trim().to_owned()).collect();
        if segments.last().is_some_and(|last| last == "self" || last == "*") {
            segments.pop();
        }
        let name = alias.or(segments.last().map(String::as_str)).unwrap_or_default().to_owned();
        return vec![(segments, name)];
    };
    let inner = group.trim().trim_end_matches('}');
    let inner = &group[..group.rfind('}').unwrap_or(inner.len())];
    split_group(inner).into_iter().flat_map(|part| leaves(&format!("{stem}{}", part.trim()))).collect()
}

/// The parts between commas that are in no inner group.
fn split_group(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&group[start..]);
    parts.into_iter().filter(|part| !part.trim().is_empty()).collect()
}
