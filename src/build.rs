//! Tells the program which commit it is built from: `COMMIT`, or what git says, or `unknown`.

use std::process::Command;

fn main() {
    let commit = std::env::var("COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit = commit.or_else(|| git(&["rev-parse", "HEAD"])).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=EVENT_TRACKER_COMMIT={commit}");
    println!("cargo::rerun-if-env-changed=COMMIT");
    println!("cargo::rerun-if-changed=src/build.rs");
    // A new commit rebuilds a release only: for tests it would link every binary again.
    let is_release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]).filter(|_| is_release) {
        println!("cargo::rerun-if-changed={log}");
    }
}

/// What git prints; nothing without git, or outside of a checkout.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}
