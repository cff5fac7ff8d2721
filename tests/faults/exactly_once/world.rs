//! Several instances on one pair of stores, driven one step at a time by a seed, beside the model.
//!
//! Everything happens on one thread, so a seed replays exactly. After each step of a ledger's sink the ledger itself is
//! asked how far it is, and the model takes what that covers: what is told to a sink may be wrong, what is in the store
//! must not be.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use event_tracker::clock::Clock;
use event_tracker::events::Record;
use event_tracker::ports::{LiveState, Position};
use event_tracker::sinks::Ended;
use jiff::tz::TimeZone;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use uuid::Uuid;

use super::instance::{Asked, Instance};
use super::records::{Records, USERS};
use super::stores::{Backup, Stores};
use crate::support::faulty::{Call, Fault, Faults};
use crate::support::ledgers::{DAY, HOUR, MINUTE};
use crate::support::model::Model;

const ZOMBIES_MAX: usize = 2;

struct Line {
    stream: Uuid,
    records: Vec<Record<'static>>,
    taken: Position,
    /// Up to where verdicts were removed.
    pruned: Position,
    instance: Instance,
    /// Earlier lives that were killed and go on for a while.
    zombies: VecDeque<Instance>,
    asked: Vec<Asked>,
}

pub(crate) struct World<'s> {
    stores: &'s mut Stores,
    records: Records,
    hand: Arc<AtomicI64>,
    clock: Clock,
    model: Model,
    lines: Vec<Line>,
    /// What Redis held a while ago.
    backup: Option<Backup>,
    history: Vec<String>,
    seed: u64,
}

impl<'s> World<'s> {
    pub(crate) fn new(stores: &'s mut Stores, seed: u64) -> World<'s> {
        let mut random = StdRng::seed_from_u64(seed);
        // Redis expires keys by its own clock: ours is never behind it. Some begin right before clocks are changed.
        let today = Clock::System.now_ms().div_euclid(DAY) * DAY;
        let ahead = [1, 1, 110, 340][random.random_range(0..4)];
        let now_ms = today + ahead * DAY + random.random_range(0..DAY);
        let zones = [
            "UTC0",
            "KST-9",
            "EST5EDT,M3.2.0,M11.1.0",
            "CET-1CEST,M3.5.0,M10.5.0/3",
            // India; Lord Howe, whose clocks change by half an hour; Nepal.
            "IST-5:30",
            "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0",
            "<+0545>-5:45",
        ];
        let zone = TimeZone::posix(zones[random.random_range(0..zones.len())]).expect("a time zone");
        stores.clear(zone);
        let hand = Arc::new(AtomicI64::new(now_ms));
        let clock = Clock::Manual(hand.clone());
        let mut world = World {
            stores,
            hand: hand.clone(),
            clock,
            model: Model::default(),
            lines: Vec::new(),
            backup: None,
            history: Vec::new(),
            seed,
            records: Records { erases: true, ..Records::new(random, hand) },
        };
        for _ in 0..world.records.random.random_range(1..=3) {
            let instance = Instance::new(&world.stores.fixture.ledger, &world.stores.live, &world.clock);
            let stream = instance.journal.stream();
            let (records, asked, zombies) = (Vec::new(), Vec::new(), VecDeque::new());
            world.lines.push(Line { stream, records, taken: 0, pruned: 0, instance, zombies, asked });
        }
        world
    }

    fn now_ms(&self) -> i64 {
        self.hand.load(Ordering::Relaxed)
    }

    fn pass_time(&self, ms: i64) {
        self.hand.fetch_add(ms, Ordering::Relaxed);
    }

    fn note(&mut self, what: impl Into<String>) {
        self.history.push(what.into());
    }

    fn chance(&mut self, one_in: u32) -> bool {
        self.records.random.random_range(0..one_in) == 0
    }

    pub(crate) fn step(&mut self) {
        let line = self.records.random.random_range(0..self.lines.len());
        match self.records.random.random_range(0..100) {
            0..30 => self.append(line),
            30..52 => self.step_ledger(line, false),
            52..72 => self.step_live(line, false),
            72..78 => self.fold(line),
            78..82 => self.keep_house(line),
            82..87 => self.move_time(),
            87..92 => self.step_zombie(line),
            92..95 => self.crash(line),
            95 if self.chance(2) => self.lose_live(),
            95 => self.go_back(),
            96 => self.rebuild(line),
            97..99 => self.prune(line),
            _ => self.check_counts(),
        }
    }

    fn append(&mut self, line: usize) {
        let records = self.records.some();
        self.note(format!("append {} to {line}", records.len()));
        let line = &mut self.lines[line];
        line.asked.push(line.instance.append(&records));
        line.records.extend(records);
    }

    /// A fault of the next call of some kind, in one step of four.
    fn fault(&mut self, calls: &[Call], often: Call) -> Option<(Call, Fault)> {
        if !self.chance(4) {
            return None;
        }
        let call = if self.chance(2) { often } else { calls[self.records.random.random_range(0..calls.len())] };
        let fault = match self.records.random.random_range(0..20) {
            0 => Fault::Fatal,
            1 => Fault::Poison,
            2..8 => Fault::Before,
            _ => Fault::LostReply,
        };
        Some((call, fault))
    }

    /// Has an instance act while the next call of one of these kinds may fail.
    fn act<T: std::fmt::Debug>(
        &mut self,
        what: &str,
        line: usize,
        fault: Option<(Call, Fault)>,
        faults: fn(&Instance) -> &Faults,
        act: fn(&mut Instance) -> T,
    ) -> T {
        let instance = &mut self.lines[line].instance;
        if let Some((call, fault)) = fault {
            faults(instance).next(call, fault);
        }
        let done = act(instance);
        faults(instance).heal();
        self.note(format!("{what} {line}: {fault:?} -> {done:?}"));
        done
    }

    fn step_ledger(&mut self, line: usize, is_calm: bool) {
        let fault = if is_calm { None } else { self.fault(&Call::OF_LEDGER, Call::Apply) };
        // A sink that begins anew tells what the ledger remembers: a like that changed nothing is not in it.
        let stands = self.lines[line].instance.ledger.is_none();
        let done = self.act("ledger", line, fault, |instance| &instance.to_ledger, Instance::step_ledger);
        assert!(is_retry(&done) || may_stop(fault), "{done:?}");
        self.take(line);
        self.hear(line, stands);
    }

    fn take(&mut self, line: usize) {
        let line = &mut self.lines[line];
        let at = self.stores.fixture.ledger.watermark(line.stream).expect("the ledger answers");
        let at = at.map_or(0, |at| at.position);
        assert!(at >= line.taken, "the watermark went back from {} to {at}", line.taken);
        for position in line.taken + 1..=at {
            self.model.take_record(line.stream, position, &line.records[position as usize - 1]);
        }
        line.taken = at;
    }

    /// Whoever was answered was told what the model says.
    fn hear(&mut self, line: usize, may_lack_no_ops: bool) {
        let line = &mut self.lines[line];
        let (answered, waiting): (Vec<Asked>, _) =
            std::mem::take(&mut line.asked).into_iter().partition(Asked::is_answered);
        line.asked = waiting;
        for asked in answered {
            let last = asked.last();
            assert!(last <= line.taken, "told of {last}, but the ledger stands at {}", line.taken);
            asked.check(line.stream, &self.model, may_lack_no_ops);
        }
    }

    fn step_live(&mut self, line: usize, is_calm: bool) {
        let calls = [&Call::OF_LIVE[..], &[Call::Snapshot, Call::Verdicts]].concat();
        let fault = if is_calm { None } else { self.fault(&calls, Call::Apply) };
        let done = self.act("live", line, fault, |instance| &instance.to_live, Instance::step_live);
        assert!(is_retry(&done) || may_stop(fault), "{done:?}");
    }

    fn fold(&mut self, line: usize) {
        let fault = self.fault(&[Call::Fold], Call::Fold);
        let done = self.act("fold", line, fault, |instance| &instance.to_live, Instance::fold);
        assert!(is_retry(&done) || may_stop(fault), "{done:?}");
    }

    fn keep_house(&mut self, line: usize) {
        let fault = self.fault(&[Call::Maintain, Call::AddUp], Call::Maintain);
        let did = self.act(
            "house",
            line,
            fault,
            |instance| &instance.to_ledger,
            |instance| {
                let before = instance.to_ledger.done(Call::Maintain);
                instance.keep_house();
                instance.to_ledger.done(Call::Maintain) > before
            },
        );
        if did {
            self.model.maintain(self.now_ms());
        }
    }

    fn move_time(&mut self) {
        let most = [MINUTE, MINUTE, 10 * MINUTE, 2 * HOUR, 30 * HOUR, 4 * DAY][self.records.random.random_range(0..6)];
        let by_ms = self.records.random.random_range(0..most);
        self.pass_time(by_ms);
        self.note(format!("{} s pass", by_ms / 1_000));
    }

    /// kill -9: the next life starts on what the disk has; the last one does not know yet.
    fn crash(&mut self, at: usize) {
        self.note(format!("crash {at}"));
        let next = self.lines[at].instance.copy(&self.stores.fixture.ledger, &self.stores.live, &self.clock);
        let line = &mut self.lines[at];
        // The position alone: a journal whose frames were all removed does not know the checksum of the last.
        let end = line.instance.journal.end_position();
        assert_eq!(next.journal.end_position(), end, "what was durable is there after a crash");
        line.zombies.push_back(std::mem::replace(&mut line.instance, next));
        line.asked.clear();
        if line.zombies.len() > ZOMBIES_MAX {
            line.zombies.pop_front();
        }
        // Once it stands, the earlier life may still move what it has seen.
        if self.chance(2) {
            self.lines[at].instance.stand().expect("nothing fails yet");
            self.note("it stands");
        }
    }

    fn step_zombie(&mut self, line: usize) {
        let to_ledger = self.chance(2);
        let Some(zombie) = self.lines[line].zombies.back_mut() else { return };
        // It may stop: the stores are ahead of its journal.
        let done = if to_ledger { zombie.step_ledger() } else { zombie.step_live() };
        self.note(format!("zombie of {line}, ledger: {to_ledger} -> {done:?}"));
        self.take(line);
    }

    fn lose_live(&mut self) {
        self.note("the live store is lost");
        self.stores.lose_live();
        if self.stores.redis.is_none() {
            for line in 0..self.lines.len() {
                self.crash(line);
                self.lines[line].zombies.clear();
            }
        }
    }

    /// Redis is restored from a backup: the journal, or where it may not be trusted any more the ledger, brings it on.
    fn go_back(&mut self) {
        match self.backup.take() {
            Some(backup) => {
                self.stores.restore(&backup);
                // A server that was restored has restarted, and all connections to it are gone.
                self.lines.iter_mut().for_each(|line| line.instance.live = None);
                self.note("the live store is restored from a backup");
            }
            None => {
                self.backup = self.stores.back_up();
                self.note("a backup of the live store");
            }
        }
    }

    /// As a sink does that finds the journal or the verdicts gone.
    fn rebuild(&mut self, line: usize) {
        let (stream, now_ms) = (self.lines[line].stream, self.now_ms());
        let mut writer = self.stores.live.open_writer().expect("a writer");
        let seen = writer.state(stream).expect("the live store answers");
        let ledger = self.stores.fixture.ledger.clone();
        writer.rebuild(stream, seen, &mut |zone| ledger.snapshot(now_ms, zone), now_ms).expect("rebuilds");
        self.note(format!("rebuild by {line}, which saw {seen:?}"));
    }

    /// Verdicts that the live store is past are forgotten.
    fn prune(&mut self, line: usize) {
        let line = &mut self.lines[line];
        let state = self.stores.live.open_writer().and_then(|mut writer| writer.state(line.stream));
        let LiveState::At(at) = state.expect("the live store answers") else { return };
        // The sink does so an hour later: nobody waits that long for an answer.
        let answered = line.asked.iter().map(|asked| asked.first - 1).min();
        let up_to = at.position.min(answered.unwrap_or(Position::MAX));
        if up_to > line.pruned {
            let mut writer = self.stores.fixture.ledger.open_writer().expect("a writer");
            writer.prune_verdicts(line.stream, up_to).expect("prunes");
            line.pruned = up_to;
            let what = format!("prune {} up to {up_to}", line.stream);
            self.note(what);
        }
    }

    fn check_counts(&mut self) {
        let count = self.stores.fixture.ledger.count(&Default::default()).expect("counts");
        assert_eq!(count, self.model.stored.len() as u64, "events");
    }

    pub(crate) fn settle_and_check(&mut self) {
        for line in 0..self.lines.len() {
            self.lines[line].zombies.clear();
            self.settle(line);
        }
        if self.chance(2) {
            (0..self.lines.len()).for_each(|line| self.lines[line].instance.fold().expect("folds"));
        }
        // A list may be a second old.
        self.pass_time(1_000);
        let now_ms = self.now_ms();
        let pruned = self.lines.iter().map(|line| (line.stream, line.pruned)).collect();
        let users: Vec<String> = (0..USERS).map(|user| format!("u{user}")).collect();
        self.model.check_ledger(&self.stores.fixture, now_ms, &self.stores.zone, &pruned);
        self.stores.check_live(&self.model, now_ms, &users);
    }

    fn settle(&mut self, line: usize) {
        for _ in 0..40 {
            self.step_ledger(line, true);
            self.step_live(line, true);
            let (stream, end) = (self.lines[line].stream, self.lines[line].instance.journal.end_position());
            let live = self.stores.live.open_writer().and_then(|mut writer| writer.state(stream)).expect("answers");
            let ledger = self.stores.fixture.ledger.watermark(stream).expect("answers").expect("registered");
            if ledger.position == end && live == LiveState::At(ledger) {
                assert!(self.lines[line].asked.is_empty(), "somebody was never answered");
                return;
            }
        }
        panic!("instance {line} does not come to rest");
    }

    pub(crate) fn applied(&self) -> usize {
        self.lines.iter().map(|line| line.records.len()).sum()
    }
}

impl Drop for World<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let from = self.history.len().saturating_sub(60);
            eprintln!("the last steps:\n  {}", self.history[from..].join("\n  "));
            eprintln!("replay: SEED={} ITERATIONS=1 cargo test --test faults exactly_once", self.seed);
        }
    }
}

fn is_retry<T>(done: &Result<T, Ended>) -> bool {
    matches!(done, Ok(_) | Err(Ended::Retry(_) | Ended::LedgerRetry(_)))
}

/// A person was asked for, and the instance is started again: only where the fault asked for one.
fn may_stop(fault: Option<(Call, Fault)>) -> bool {
    matches!(fault, Some((_, Fault::Fatal | Fault::Poison)))
}
