//! Keeps a sink following: runs its loop again after a pause while its store is unreachable.

use super::{Ended, SinkStatus};
use crate::clock::Backoff;
use crate::limits::{RETRY_MS_MAX, RETRY_MS_MIN};

/// Runs `follow` until it is asked to end or must stop; pauses and tries again while a store is unreachable.
pub(super) fn supervise(status: &SinkStatus, mut follow: impl FnMut() -> Result<(), Ended>) {
    let mut backoff = Backoff::new(RETRY_MS_MIN, RETRY_MS_MAX);
    loop {
        let before = status.position();
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(&mut follow))
            .unwrap_or_else(|_| Err(Ended::Stop("the sink panicked; the log has the place".into())));
        match ended {
            Ok(()) => return,
            Err(Ended::Stop(why)) => return status.stopped(&why),
            Err(ended) => {
                if status.position() != before {
                    backoff = Backoff::new(RETRY_MS_MIN, RETRY_MS_MAX);
                }
                status.retrying(&ended);
                status.sleep(backoff.pause());
            }
        }
        if status.is_stopping() {
            return;
        }
    }
}
