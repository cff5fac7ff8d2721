//! Every claim of a port names its tests, and they run over every adapter: read from the sources, as tidy.rs does.
//!
//! A claim is a row `| L4 | … | tests |` of docs/claims.md; a test says which it shows in a comment
//! right above it, `// claims: L4, L5`.

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

struct Claim {
    number: String,
    says: String,
    tests: String,
}

/// In the order of the document.
fn claims_of(port: &Port) -> Vec<Claim> {
    let text = fs::read_to_string(root().join("docs/claims.md")).expect("the claims");
    let claim = |line: &str| {
        let mut cells = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ").map(str::to_owned);
        let number = cells.next()?.strip_prefix(port.letter)?.parse::<u32>().ok()?;
        let number = format!("{}{number}", port.letter);
        Some(Claim { number, says: cells.next()?, tests: cells.next()? })
    };
    text.lines().filter_map(claim).collect()
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
        let known: BTreeSet<&str> = claims.iter().map(|claim| claim.number.as_str()).collect();
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
        for Claim { number, says, tests: named } in &claims {
            for adapter in port.adapters {
                if !shown.get(number.as_str()).is_some_and(|adapters| adapters.contains(adapter)) {
                    wrong.push(format!("no test shows {number} over {adapter}: {says}"));
                }
            }
            let by: Vec<String> =
                tests.iter().filter(|t| t.claims.contains(number)).map(|t| format!("`{}`", t.name)).collect();
            if *named != by.join(", ") {
                wrong.push(format!("docs/claims.md should have: | {number} | {says} | {} |", by.join(", ")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
