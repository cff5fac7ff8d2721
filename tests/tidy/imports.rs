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
pub(crate) struct Sources(BTreeMap<Module, Source>);

#[derive(Default)]
struct Source {
    /// Paths that may lead into the crate: those of private `use` lines, and those within code.
    paths: Vec<Module>,
    /// Names of public `use` lines, with their paths.
    reexports: Vec<(String, Module)>,
    /// The words outside of `use` lines.
    words: BTreeSet<String>,
}

impl Sources {
    /// From paths below `src`, such as `http/head.rs`, with their texts.
    pub(crate) fn new(files: impl IntoIterator<Item = (String, String)>) -> Sources {
        Sources(files.into_iter().map(|(path, text)| (module(&path), Source::new(&text))).collect())
    }

    /// The uses that close a circle, by folder.
    pub(crate) fn circles(&self) -> BTreeMap<String, Vec<String>> {
        let mut uses: BTreeMap<Module, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
        for (folder, from, to) in self.0.iter().flat_map(|(module, source)| self.uses(module, source)) {
            uses.entry(folder).or_default().entry(from).or_default().insert(to);
        }
        let of_folder = |(folder, uses): (Module, BTreeMap<String, BTreeSet<String>>)| {
            let edges = uses.iter().flat_map(|(from, used)| used.iter().map(move |to| (from, to)));
            let in_circle = edges.filter(|(from, to)| reaches(&uses, to, from));
            (folder.join("/"), in_circle.map(|(from, to)| format!("{from} uses {to}")).collect::<Vec<_>>())
        };
        uses.into_iter().map(of_folder).filter(|(_, nodes)| !nodes.is_empty()).collect()
    }

    fn uses(&self, module: &Module, source: &Source) -> BTreeSet<Use> {
        let target = |path: &Module| self.absolute(module, path);
        let foreign = source.paths.iter().filter_map(target).map(|target| self.definition(target));
        // A name that this file re-exports and uses itself.
        let own = source.reexports.iter().filter(|(name, _)| source.words.contains(name));
        let own = own.filter_map(|(_, path)| target(path));
        foreign.chain(own).filter_map(|target| self.edge(module, &target)).collect()
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
            let Some(source) = self.0.get(&folder) else { continue };
            let Some((_, path)) = source.reexports.iter().find(|(name, _)| *name == rest[0]) else { continue };
            if let Some(defined) = self.absolute(&folder, path) {
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

impl Source {
    fn new(text: &str) -> Source {
        let text = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
        let mut lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
        let (mut source, mut code) = (Source::default(), String::new());
        while let Some(line) = lines.next() {
            let (visibility, rest) = line.trim_start().split_once("use ").unwrap_or(("no use", ""));
            let is_use = visibility.is_empty() || visibility.starts_with("pub") && visibility.ends_with(' ');
            if !is_use {
                code.push_str(line);
                code.push('\n');
                continue;
            }
            let mut tree = rest.to_owned();
            while !tree.contains(';') {
                tree.push_str(lines.next().expect("a use ends"));
            }
            match visibility {
                "" => source.paths.extend(leaves(&tree).into_iter().map(|(_, path)| path)),
                _ => source.reexports.extend(leaves(&tree)),
            }
        }
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        source.words = code.split(|c| !is_word(c)).map(str::to_owned).collect();
        let paths =
            code.split(|c| !is_word(c) && c != ':').filter(|path| path.contains("::") && !path.starts_with("::"));
        source.paths.extend(paths.map(|path| path.split("::").map(str::to_owned).collect()));
        source
    }
}

/// What a tree of a `use` names: the name that each path gets here, and the path.
fn leaves(tree: &str) -> Vec<(String, Module)> {
    let (mut stems, mut piece, mut found) = (Vec::new(), String::new(), Vec::new());
    for c in tree.chars() {
        match c {
            '{' => stems.push(std::mem::take(&mut piece)),
            ',' | '}' | ';' => {
                if !piece.trim().is_empty() {
                    found.push(leaf(&(stems.concat() + &piece)));
                }
                piece.clear();
                stems.truncate(stems.len() - usize::from(c == '}'));
            }
            c => piece.push(c),
        }
    }
    found
}

fn leaf(path: &str) -> (String, Module) {
    let (path, alias) = path.split_once(" as ").map_or((path, None), |(path, alias)| (path, Some(alias.trim())));
    let mut segments: Module = path.split("::").map(|segment| segment.trim().to_owned()).collect();
    if segments.last().is_some_and(|last| last == "self" || last == "*") {
        segments.pop();
    }
    (alias.or(segments.last().map(String::as_str)).unwrap_or_default().to_owned(), segments)
}
