//! One instance of the program without its HTTP: a real journal in a directory, both sinks, and stores that misbehave.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use event_tracker::clock::Clock;
use event_tracker::events::Record;
use event_tracker::journal::{Journal, Settings};
use event_tracker::limits::BATCH_RECORDS_MAX;
use event_tracker::ports::{Ledger, LiveStore, Position, Verdict};
use event_tracker::runtime::{self, Ticket};
use event_tracker::sinks::{
    Decision, Ended, Handover, Housekeeping, LedgerFollower, LedgerSink, LiveFollower, LiveSink, SinkStatus, Until,
};

use uuid::Uuid;

use crate::support::faulty::{Faults, FaultyLedger, FaultyLive};
use crate::support::model::Model;

const SEGMENT_BYTES: u64 = 256 * 1024;

/// Somebody who waits for the ledger's verdicts on an append.
pub(crate) struct Asked {
    pub(crate) first: Position,
    count: u32,
    decision: Arc<Decision>,
    ticket: Arc<Ticket>,
}

impl Asked {
    pub(crate) fn is_answered(&self) -> bool {
        !self.ticket.is_pending()
    }

    pub(crate) fn last(&self) -> Position {
        self.first + u64::from(self.count) - 1
    }

    /// It was told what the model says; of likes that changed nothing one of the two may not know.
    pub(crate) fn check(&self, stream: Uuid, model: &Model, may_lack_no_ops: bool) {
        let told = self.decision.verdicts().into_iter().map(|(at, verdict)| (self.first + u64::from(at), verdict));
        let mut told: BTreeMap<Position, Verdict> = told.collect();
        let decided = model.verdicts.range((stream, self.first)..=(stream, self.last()));
        let mut decided: BTreeMap<Position, Verdict> = decided.map(|((_, at), verdict)| (*at, *verdict)).collect();
        if may_lack_no_ops {
            let is_no_op = |verdict: &Verdict| matches!(verdict, Verdict::Like(outcome) if !outcome.changed);
            decided.retain(|at, verdict| told.contains_key(at) || !is_no_op(verdict));
            told.retain(|at, verdict| decided.contains_key(at) || !is_no_op(verdict));
        }
        assert_eq!(told, decided, "verdicts on {} to {}", self.first, self.last());
    }
}

pub(crate) struct Instance {
    pub(crate) journal: Arc<Journal>,
    pub(crate) to_ledger: Faults,
    pub(crate) to_live: Faults,
    ledger_sink: Arc<LedgerSink>,
    live_sink: Arc<LiveSink>,
    /// None: the next step finds out where the ledger stands.
    pub(crate) ledger: Option<LedgerFollower>,
    housekeeping: Housekeeping,
    /// None: the next step connects again.
    pub(crate) live: Option<LiveFollower>,
    kept: [Arc<AtomicU64>; 2],
    directory: tempfile::TempDir,
}

impl Instance {
    /// A new one, with a journal that never was.
    pub(crate) fn new(ledger: &Arc<dyn Ledger>, live: &Arc<dyn LiveStore>, clock: &Clock) -> Instance {
        Instance::open(fast_directory(), ledger, live, clock)
    }

    /// What starts after this one was killed: its directory as the disk has it at this moment. This one lives on as a
    /// process that does not know yet that it is dead.
    pub(crate) fn copy(&self, ledger: &Arc<dyn Ledger>, live: &Arc<dyn LiveStore>, clock: &Clock) -> Instance {
        Instance::open(image_of(self.directory.path()), ledger, live, clock)
    }

    fn open(
        directory: tempfile::TempDir,
        ledger: &Arc<dyn Ledger>,
        live: &Arc<dyn LiveStore>,
        clock: &Clock,
    ) -> Instance {
        let settings = Settings { segment_bytes: SEGMENT_BYTES, free_bytes_min: 0, ..Settings::default() };
        let journal = Journal::open(directory.path(), true, 1, settings, clock.clone()).expect("the journal opens");
        let journal = Arc::new(journal);
        let (to_ledger, to_live) = (Faults::default(), Faults::default());
        let handover = Arc::new(Handover::default());
        let live_status = Arc::new(SinkStatus::new("live"));
        let ledger_sink = LedgerSink {
            journal: journal.clone(),
            ledger: Arc::new(FaultyLedger::new(ledger.clone(), &to_ledger)),
            handover: handover.clone(),
            status: Arc::new(SinkStatus::new("ledger")),
            clock: clock.clone(),
            zone: jiff::tz::TimeZone::UTC,
            retention_days: 400,
            live: live_status.clone(),
            records_max: AtomicUsize::new(BATCH_RECORDS_MAX),
        };
        let live_sink = LiveSink {
            journal: journal.clone(),
            ledger: Arc::new(FaultyLedger::new(ledger.clone(), &to_live)),
            live: Arc::new(FaultyLive::new(live.clone(), &to_live)),
            handover,
            status: live_status,
            clock: clock.clone(),
        };
        let kept = [journal.follow(0, false), journal.follow(0, true)];
        let (ledger_sink, live_sink) = (Arc::new(ledger_sink), Arc::new(live_sink));
        let housekeeping = Housekeeping::new(ledger_sink.clone());
        let (ledger, live) = (None, None);
        Instance { journal, to_ledger, to_live, ledger_sink, live_sink, ledger, housekeeping, live, kept, directory }
    }

    /// Appends records as one request does and waits until they are durable.
    pub(crate) fn append(&self, records: &[Record<'_>]) -> Asked {
        let first = self.journal.end_position() + 1;
        let count = u32::try_from(records.len()).expect("a few");
        let ticket = ticket();
        let decision = self.ledger_sink.handover.waiting.decide(Until::Ledger, ticket.clone());
        let encode = |out: &mut Vec<u8>| {
            for record in records {
                record.encode(out);
            }
        };
        self.journal.append(0, count, decision.wait(), encode).expect("the journal takes it");
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.journal.end_position() < first + u64::from(count) - 1 {
            assert!(Instant::now() < deadline, "the journal does not sync");
            std::thread::yield_now();
        }
        Asked { first, count, decision, ticket }
    }

    /// Both sinks find out where their stores stand, and apply nothing yet.
    pub(crate) fn stand(&mut self) -> Result<(), Ended> {
        self.ledger = Some(self.ledger_sink.stand(&self.kept[0])?);
        self.live = Some(self.live_sink.stand(&self.kept[1])?);
        Ok(())
    }

    /// One step of the ledger's sink, which is begun anew where it ended; true where it applied something.
    pub(crate) fn step_ledger(&mut self) -> Result<bool, Ended> {
        let follower = match self.ledger.take() {
            Some(follower) => follower,
            None => self.ledger_sink.stand(&self.kept[0])?,
        };
        let done = self.ledger.insert(follower).step();
        if done.is_err() {
            self.ledger = None;
        }
        done
    }

    pub(crate) fn step_live(&mut self) -> Result<bool, Ended> {
        let follower = match self.live.take() {
            Some(follower) => follower,
            None => self.live_sink.stand(&self.kept[1])?,
        };
        let done = self.live.insert(follower).step();
        if done.is_err() {
            self.live = None;
        }
        done
    }

    pub(crate) fn fold(&mut self) -> Result<(), Ended> {
        let done = self.live.as_mut().map_or(Ok(()), LiveFollower::fold);
        if done.is_err() {
            self.live = None;
        }
        done
    }

    pub(crate) fn keep_house(&mut self) {
        self.keep_house_at(Instant::now(), true);
    }

    /// The same at a time, with a wall clock that is trusted so far.
    pub(crate) fn keep_house_at(&mut self, now: Instant, is_trusted: bool) {
        if self.ledger.is_some() {
            self.housekeeping.add_up();
            self.housekeeping.tend(now, is_trusted);
        }
    }

    pub(crate) fn spawn(&self) -> Running {
        let (ledger, live) = (self.ledger_sink.clone(), self.live_sink.clone());
        let statuses = [ledger.status.clone(), live.status.clone()];
        let threads = vec![Housekeeping::spawn(ledger.clone()), ledger.spawn(), live.spawn()];
        Running { statuses, threads }
    }
}

/// Sinks on their threads; dropping it asks them to end and waits.
pub(crate) struct Running {
    pub(crate) statuses: [Arc<SinkStatus>; 2],
    threads: Vec<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.statuses.iter().for_each(|status| status.stop());
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// A directory as it is at one moment: copied again where files came or went meanwhile, as spares and old segments do.
fn image_of(directory: &Path) -> tempfile::TempDir {
    let names = || {
        let entries = std::fs::read_dir(directory).expect("the journal's directory");
        entries.map(|entry| entry.expect("a file").file_name()).collect::<BTreeSet<_>>()
    };
    loop {
        let (image, before) = (fast_directory(), names());
        let copy = |name| std::fs::copy(directory.join(name), image.path().join(name)).is_ok();
        if before.iter().all(copy) && names() == before {
            return image;
        }
    }
}

/// Memory where there is some: what is tested here is not the disk.
pub(crate) fn fast_directory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a directory")
}

/// A ticket of a coroutine that is gone by the time that it is woken: we look instead of sleeping.
fn ticket() -> Arc<Ticket> {
    static STARTED: std::sync::Once = std::sync::Once::new();
    STARTED.call_once(|| runtime::start(1, false));
    let (sender, receiver) = mpsc::channel();
    runtime::spawn_on(0, move || sender.send(Arc::new(Ticket::of_current(0))).expect("the test waits"));
    receiver.recv().expect("a coroutine answers")
}
