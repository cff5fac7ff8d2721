//! Sinks: threads that follow the journal and apply it to a store, exactly once. A sink acts on its store's watermark
//! alone; ahead of the journal, or on another checksum, it stops. The live sink reads the same journal up to the
//! ledger's watermark, with the ledger's verdicts.

mod ended;
mod handover;
mod housekeeping;
mod ledger;
mod live;
mod status;
mod steady;
mod waiting;

pub use ended::Ended;
pub use handover::Handover;
pub use housekeeping::Housekeeping;
pub use ledger::{LedgerFollower, LedgerSink};
pub use live::{LiveFollower, LiveSink};
pub use status::{SinkState, SinkStatus};
pub use steady::{Steady, agreed_ms};
pub use waiting::{Decision, Until, Waiting};

#[cfg(test)]
mod tests {
    use crate::events::{Record, decode_records};
    use crate::journal::LOST_RECORD;

    #[test]
    fn what_the_journal_writes_for_a_lost_record_is_decoded_as_one() {
        assert_eq!(decode_records(&LOST_RECORD.repeat(2), 2).unwrap(), [Record::Lost, Record::Lost]);
    }
}
