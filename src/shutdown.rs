//! SIGTERM and SIGINT: the first asks for a graceful stop, the second ends the process at once.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

static UNDER_WAY: AtomicBool = AtomicBool::new(false);

/// A stop has been asked for: readiness says so, and a start ends at its next step.
pub fn is_under_way() -> bool {
    UNDER_WAY.load(Ordering::Acquire)
}

/// Holds both signals back until [`catch`] or [`release`]. The kernel discards a signal that process 1 neither handles
/// nor blocks, so one that came before `catch` would be lost. Called before any other thread runs.
pub fn hold() {
    mask(libc::SIG_BLOCK, &[SIGTERM, SIGINT]);
}

/// Holds SIGHUP back until [`release_hangups`]: the server hears it once it can read its certificate again.
pub fn hold_hangups() {
    mask(libc::SIG_BLOCK, &[SIGHUP]);
}

/// Lets SIGHUP do what is set for it; its default ends the process.
pub fn release_hangups() {
    mask(libc::SIG_UNBLOCK, &[SIGHUP]);
}

/// Lets the signals end the process, which is their default.
pub fn release() {
    mask(libc::SIG_UNBLOCK, &[SIGTERM, SIGINT]);
}

fn mask(how: libc::c_int, numbers: &[libc::c_int]) {
    // SAFETY: sigset_t is plain data, for which zero is a value; the calls only fill and read it.
    unsafe {
        let mut signals: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut signals);
        for number in numbers {
            libc::sigaddset(&raw mut signals, *number);
        }
        libc::pthread_sigmask(how, &raw const signals, std::ptr::null_mut());
    }
}

/// The signals, caught from now on.
pub struct Stop(Receiver<()>);

/// Catches the signals, on a thread of its own. From the first one on, a further signal ends the process with 130.
pub fn catch() -> io::Result<Stop> {
    let signals = Signals::new([SIGTERM, SIGINT])?;
    release();
    let (ask, asked) = sync_channel(1);
    std::thread::Builder::new().name("signals".into()).spawn(move || listen(signals, &ask))?;
    Ok(Stop(asked))
}

fn listen(mut signals: Signals, ask: &SyncSender<()>) {
    let mut signals = signals.forever();
    let first = signals.next();
    UNDER_WAY.store(true, Ordering::Release);
    tracing::info!(signal = first, "stopping; a second signal stops at once");
    // A receiver that was dropped needs no word: its process is about to end.
    let _ = ask.send(());
    if signals.next().is_some() {
        std::process::exit(130);
    }
}

impl Stop {
    /// Blocks until a stop is asked for.
    pub fn wait(self) {
        // An error means that the thread of the signals has ended: then nothing could ask any more.
        let _ = self.0.recv();
    }
}
