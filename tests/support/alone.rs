//! A process of its own for a test that measures or changes what belongs to the whole process.

use std::process::Command;

/// Set in such a process.
const MARK: &str = "TEST_ALONE";

/// Runs the body of the test that is called `name` (with its modules) in another process of this binary.
pub(crate) fn alone(name: &str, body: impl FnOnce()) {
    if std::env::var_os(MARK).is_some() {
        return body();
    }
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args(["--exact", name, "--include-ignored", "--nocapture"]).env(MARK, "1");
    let output = command.output().expect("starts");
    let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    eprintln!("{told}");
    assert!(output.status.success() && told.contains("1 passed"), "{name} failed in its own process");
}
