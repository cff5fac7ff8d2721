//! How a command ends if it fails: the exit code and the line that says why.

pub(super) enum Failure {
    /// A setting is wrong, in one line: exit code 2.
    Usage(String),
    /// The parser refuses the command line: exit code 2, or 0 for help.
    Parser(clap::Error),
    /// It was tried and went wrong, in one line: exit code 1.
    Failed(String),
}

impl From<String> for Failure {
    fn from(line: String) -> Failure {
        Failure::Failed(line)
    }
}
