//! SIGTERM and SIGINT: the first asks for a graceful stop, the second ends the process at once.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

static UNDER_WAY: AtomicBool = AtomicBool::new(false);

/// A stop has been asked for: readiness says so.
pub fn is_under_way() -> bool {
    UNDER_WAY.load(Ordering::Acquire)
}

/// The signals, caught from now on.
pub struct Stop(Signals);

/// Catches the signals. Before anybody is told that the program runs: whoever knows may stop it.
pub fn catch() -> io::Result<Stop> {
    Signals::new([SIGTERM, SIGINT]).map(Stop)
}

impl Stop {
    /// Blocks until a stop is asked for; from then on a further signal ends the process with 130.
    pub fn wait(self) -> io::Result<()> {
        let Stop(mut signals) = self;
        let first = signals.forever().next();
        UNDER_WAY.store(true, Ordering::Release);
        tracing::info!(signal = first, "stopping; a second signal stops at once");
        let second = move || {
            if signals.forever().next().is_some() {
                std::process::exit(130);
            }
        };
        std::thread::Builder::new().name("signals".into()).spawn(second)?;
        Ok(())
    }
}
