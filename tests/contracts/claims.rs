//! Every claim of a port names its tests, and they run over every adapter: read from the sources, as tidy.rs does.
//!
//! A claim is a line `- **L4** …` in the documents of src/ports/; a test says which it shows in a
//! comment right above it, `// claims: L4, L5`. `cargo test --test contracts claims -- --nocapture` prints the table.

#![allow(clippy::print_stdout, reason = "the table is for whoever asks for it")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A port: the letter of its claims, where its suite is, what runs a test over every adapter, and their names.
struct Port {
    letter: char,
    suite: &'static str,
    over_all: &'static str,
    adapters: [&'static str; 2],
}

const PORTS: [Port; 3] = [
    Port { letter: 'L', suite: "ledger", over_all: "each_ledger(", adapters: ["postgres", "sqlite"] },
    Port { letter: 'V', suite: "live", over_all: "on_both(", adapters: ["redis", "memory"] },
    Port { letter: 'C', suite: "shared_cache", over_all: "on_both(", adapters: ["redis", "memory"] },
];

/// A test, what it claims and which adapters it runs over.
struct Test {
    name: String,
    claims: Vec<String>,
    adapters: Vec<&'static str>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Numbers in the order of the document, with what each says.
fn claims_of(port: &Port) -> Vec<(String, String)> {
    let files = ["src/ports/ledger.rs", "src/ports/live.rs", "src/ports/shared_cache.rs"];
    let text = files.map(|path| fs::read_to_string(root().join(path)).expect("the ports")).join("\n");
    let mut claims: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        let Some(line) = line.trim().strip_prefix("/// ") else { continue };
        if let Some((number, says)) = line.strip_prefix("- **").and_then(|rest| rest.split_once("** ")) {
            claims.push((number.to_owned(), says.to_owned()));
        } else if let (Some(more), Some((_, says))) = (line.strip_prefix("  "), claims.last_mut()) {
            says.push(' ');
            says.push_str(more.trim());
        }
    }
    claims.retain(|(number, _)| number.starts_with(port.letter));
    claims
}

/// `tests/contracts/<suite>.rs` and what lies in `tests/contracts/<suite>/`.
fn files_of(port: &Port) -> Vec<PathBuf> {
    let inside = fs::read_dir(root().join("tests/contracts").join(port.suite)).into_iter().flatten();
    let mut files: Vec<PathBuf> = inside.map(|entry| entry.expect("a file").path()).collect();
    files.push(root().join("tests/contracts").join(format!("{}.rs", port.suite)));
    files.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    files.sort();
    files
}

fn tests_of(port: &Port) -> Vec<Test> {
    let mut tests = Vec::new();
    for path in files_of(port) {
        let text = fs::read_to_string(&path).expect("a suite");
        for part in text.split("// claims: ").skip(1) {
            let (claims, rest) = part.split_once('\n').expect("a line");
            let name = rest.split_once("fn ").and_then(|(before, rest)| {
                assert!(before.contains("#[test]"), "{claims} is claimed by no test in {}", path.display());
                rest.split_once('(').map(|(name, _)| name.to_owned())
            });
            let name = name.unwrap_or_else(|| panic!("{claims} is claimed by nothing in {}", path.display()));
            let body = rest.split_once("\n}\n").map_or(rest, |(body, _)| body);
            let over_all = body.contains(port.over_all);
            let runs_over = |a: &&str| over_all || name.starts_with(&format!("{a}_"));
            let adapters = port.adapters.into_iter().filter(runs_over).collect();
            let claims = claims.split(',').map(|claim| claim.trim().to_owned()).collect();
            tests.push(Test { name, claims, adapters });
        }
    }
    tests
}

#[test]
fn every_claim_of_a_port_is_shown_by_a_test_over_every_adapter() {
    let mut wrong = Vec::new();
    for port in PORTS {
        let (claims, tests) = (claims_of(&port), tests_of(&port));
        assert!(!claims.is_empty(), "no claims of {}", port.suite);
        let known: BTreeSet<&str> = claims.iter().map(|(number, _)| number.as_str()).collect();
        if known.len() != claims.len() {
            wrong.push(format!("a number of {} is there twice", port.suite));
        }
        let mut shown: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for test in &tests {
            for claim in &test.claims {
                shown.entry(claim).or_default().extend(&test.adapters);
                if !known.contains(claim.as_str()) {
                    wrong.push(format!("{} claims {claim}, which its port does not know", test.name));
                }
            }
        }
        for (number, says) in &claims {
            for adapter in port.adapters {
                if !shown.get(number.as_str()).is_some_and(|adapters| adapters.contains(adapter)) {
                    wrong.push(format!("no test shows {number} over {adapter}: {says}"));
                }
            }
            let by: Vec<String> =
                tests.iter().filter(|t| t.claims.contains(number)).map(|t| format!("`{}`", t.name)).collect();
            println!("| {number} | {says} | {} |", by.join(", "));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
