//! The real journal on a disk that loses power, is killed, fails, tears and forgets: what was acknowledged or published
//! is there after recovery, in order, once; what was not may be missing, never wrong.
//!
//! `SEED` replays one run, `ITERATIONS` says how many seeds are tried. In the stepwise runs one record at a time is on
//! its way and the keeper acts in turns, so a seed repeats the order of the calls; the racing ones only begin alike.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use crate::journal_support::disk::{Disk, End, Faults, Lie, Mounted};
use crate::journal_support::oracle::{Oracle, number};
use crate::journal_support::{WORKERS, append, in_coroutine, read_with_lost, start_runtime};
use crate::seed::{seeds, setting};
use event_tracker::clock::Clock;
use event_tracker::journal::{AppendError, Journal, OpenError, Salvage, Settings, salvage_on};
use event_tracker::ports::Watermark;
use event_tracker::runtime;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// A few frames each: every run rolls over.
const SEGMENT_BYTES: u64 = 2_048;
const NO_FAULTS: Faults = Faults { changes: 0, reads: 0 };
const SOME_FAULTS: Faults = Faults { changes: 12, reads: 1 };

#[derive(Clone, Copy)]
struct Plan {
    lives: u32,
    faults: Faults,
    lie: Lie,
    /// The step of the first death; later ones are drawn.
    first_death: Option<u64>,
    /// How the first life ends; drawn where nothing is said.
    first_end: Option<End>,
    /// … and of the second.
    second_death: Option<u64>,
    lanes: usize,
    rounds_max: u32,
}

const STEPWISE: Plan = Plan {
    lives: 8,
    faults: NO_FAULTS,
    lie: Lie::None,
    first_death: None,
    first_end: None,
    second_death: None,
    lanes: 1,
    rounds_max: 40,
};
const FAULTY: Plan = Plan { faults: SOME_FAULTS, ..STEPWISE };
const RACING: Plan = Plan { lanes: 3, lives: 5, ..FAULTY };

#[derive(Debug, Default)]
struct Tally {
    runs: u64,
    steps: u64,
    /// Deaths at a step that was drawn, and those of them in recovery.
    deaths: u64,
    in_recovery: u64,
    faults: u64,
    acknowledged: u64,
    removed: u64,
}

struct Run<'t> {
    plan: Plan,
    disk: Arc<Disk>,
    random: StdRng,
    oracle: Oracle,
    clock: Arc<AtomicI64>,
    sequence: u64,
    tally: &'t mut Tally,
}

fn run(seed: u64, plan: Plan, tally: &mut Tally) -> Result<(), String> {
    start_runtime();
    let mut run = Run {
        plan,
        disk: Disk::new(seed ^ 0x5eed, plan.faults, plan.lie),
        random: StdRng::seed_from_u64(seed),
        oracle: Oracle::default(),
        clock: Arc::new(AtomicI64::new(1_000_000)),
        sequence: 0,
        tally,
    };
    for life in 0..plan.lives {
        run.live(life)?;
    }
    let disk = run.disk.state();
    run.tally.runs += 1;
    run.tally.steps += disk.steps;
    run.tally.faults += disk.failed;
    run.tally.removed += disk.removed;
    run.tally.acknowledged += run.oracle.acknowledged.len() as u64;
    Ok(())
}

impl Run<'_> {
    /// One life of the process: recovery, work, and its end at some step.
    fn live(&mut self, life: u32) -> Result<(), String> {
        let drawn = self.random.random_range(1..120);
        let wanted = [self.plan.first_death, self.plan.second_death].get(life as usize).copied().flatten();
        self.disk.die_in(wanted.unwrap_or(drawn));
        self.disk.hold_keeper(self.plan.lanes == 1);
        match Journal::open_on(Arc::new(Mounted(self.disk.clone())), self.plan.lanes, settings(), self.clock()) {
            Ok(journal) => {
                let journal = Arc::new(journal);
                let worked = self.work(&journal);
                // Before the journal is dropped, which waits for its keeper.
                self.disk.hold_keeper(false);
                drop(journal);
                worked?;
            }
            // The disk failed; that is no verdict on what it holds.
            Err(OpenError::Io(_)) => {
                self.tally.deaths += u64::from(self.disk.state().is_dead);
                self.tally.in_recovery += u64::from(self.disk.state().is_dead);
            }
            Err(error) => return Err(format!("life {life} does not begin: {error}")),
        }
        let end = if self.random.random_bool(0.6) { End::PowerLoss } else { End::Kill };
        let end = self.plan.first_end.filter(|_| life == 0).unwrap_or(end);
        self.disk.revive(end);
        Ok(())
    }

    fn clock(&self) -> Clock {
        Clock::Manual(self.clock.clone())
    }

    fn work(&mut self, journal: &Arc<Journal>) -> Result<(), String> {
        self.oracle.check_recovered(journal)?;
        self.disk.state().lies = true;
        let follower = journal.follow(self.oracle.slow.at.position, false);
        let rounds = self.random.random_range(0..self.plan.rounds_max);
        for _ in 0..rounds {
            let segments = journal.size().1;
            if self.plan.lanes == 1 {
                self.append_one(journal)?
            } else {
                self.append_from_all(journal)?
            }
            if self.disk.state().is_dead || journal.is_writable().is_err() {
                break;
            }
            if self.random.random_bool(0.3) {
                let records_max = self.random.random_range(1..20);
                self.oracle.move_slow(journal, records_max)?;
                follower.store(self.oracle.slow.at.position, Ordering::Release);
            }
            if self.plan.lanes == 1 && journal.size().1 != segments && self.random.random_bool(0.4) {
                self.disk.keepers_turn();
            }
        }
        if self.random.random_bool(0.2) {
            // A clean end; what is left of the life's steps is not used.
            self.disk.hold_keeper(false);
            journal.close();
        }
        self.tally.deaths += u64::from(self.disk.state().is_dead);
        self.disk.die_now();
        journal.close();
        Ok(())
    }

    /// One record, waited for as a request does; sometimes behind one that nobody waits for.
    fn append_one(&mut self, journal: &Arc<Journal>) -> Result<(), String> {
        self.clock.fetch_add(1_000, Ordering::Relaxed);
        let records = self.records(0);
        let (journal_too, numbers) = (journal.clone(), numbers(&records));
        let failed = failures(journal);
        let answer = in_coroutine(0, move || append(&journal_too, 0, &records));
        let is_refused = answer.is_err();
        self.note(&numbers, answer, failures(journal) > failed);
        if is_refused {
            return Ok(());
        }
        // A probe follows a failure at once; a second one only after a second.
        let deadline = Instant::now() + Duration::from_millis(30);
        while journal.is_writable().is_err() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_micros(200));
        }
        self.oracle.see(journal)
    }

    /// The next one or two records of a lane: numbers and lengths.
    fn records(&mut self, lane: u64) -> Vec<(i64, usize)> {
        let count = self.random.random_range(1..=2);
        (0..count)
            .map(|_| {
                self.sequence += 1;
                (number(lane, self.sequence), self.record_length())
            })
            .collect()
    }

    /// What came of records of which the last was waited for. One that is durable takes those before it along, which were put into
    /// the same lane: but where a frame between them may have been refused.
    fn note(&mut self, numbers: &[i64], answer: Result<bool, AppendError>, has_failed: bool) {
        let taken = match answer {
            Ok(_) => numbers,
            // The one that nobody waits for may have been taken.
            Err(_) => &numbers[..numbers.len() - 1],
        };
        let last = numbers.last();
        for number in taken {
            self.oracle.unknown.insert(*number);
            if answer == Ok(true) && (!has_failed || Some(number) == last) {
                self.oracle.acknowledged.insert(*number);
            }
        }
    }

    fn record_length(&mut self) -> usize {
        match self.random.random_range(0..20) {
            0 => 3_000,
            1..4 => self.random.random_range(400..1_500),
            _ => self.random.random_range(1..200),
        }
    }

    fn append_from_all(&mut self, journal: &Arc<Journal>) -> Result<(), String> {
        self.clock.fetch_add(1_000, Ordering::Relaxed);
        let failed = failures(journal);
        let (told, answers) = mpsc::channel();
        let count = self.random.random_range(1..6);
        for lane in 0..self.plan.lanes as u64 {
            let (journal, told) = (journal.clone(), told.clone());
            let appends: Vec<_> = (0..count).map(|_| self.records(lane)).collect();
            runtime::spawn_on(lane as usize % WORKERS, move || {
                for records in appends {
                    let answer = append(&journal, lane as usize, &records);
                    told.send((numbers(&records), answer)).expect("somebody listens");
                }
            });
        }
        drop(told);
        // Told after it was published: nothing is read before all are known.
        let answers: Vec<_> = answers.iter().collect();
        let has_failed = failures(journal) > failed;
        for (numbers, answer) in answers {
            self.note(&numbers, answer, has_failed);
        }
        self.oracle.see(journal)
    }
}

fn settings() -> Settings {
    Settings { segment_bytes: SEGMENT_BYTES, bytes_max: 1 << 30, free_bytes_min: 0, keep_ms: 0 }
}

fn failures(journal: &Journal) -> u64 {
    journal.stats().failures.load(Ordering::SeqCst)
}

fn numbers(records: &[(i64, usize)]) -> Vec<i64> {
    records.iter().map(|(number, _)| *number).collect()
}

fn check(what: &str, iterations: u64, plan: Plan) {
    let began = Instant::now();
    let mut sum = Tally::default();
    for seed in seeds(setting("ITERATIONS", iterations)) {
        run(seed, plan, &mut sum).unwrap_or_else(|violation| panic!("SEED={seed} {what}: {violation}"));
    }
    eprintln!("{what}: {sum:?}, {:?}", began.elapsed());
    assert!(sum.acknowledged > 0 && sum.deaths > 0, "nothing was tried");
}

#[test]
fn what_was_acknowledged_survives_a_death_at_any_step() {
    check("crashes", 30, STEPWISE);
}

#[test]
fn what_was_acknowledged_survives_deaths_on_a_disk_that_fails() {
    check("crashes and faults", 40, FAULTY);
}

#[test]
fn what_was_acknowledged_survives_while_lanes_followers_and_removals_race() {
    check("racing", 40, RACING);
}

/// The same work, dying at each of its steps in turn, by power and by kill.
#[test]
fn every_step_of_one_run_may_be_the_last() {
    let began = Instant::now();
    let mut sum = Tally::default();
    let seed = seeds(1).next().expect("one");
    for step in 1..=setting("STEPS", 60) {
        for end in [End::PowerLoss, End::Kill] {
            let plan = Plan { lives: 3, first_death: Some(step), first_end: Some(end), ..STEPWISE };
            let done = run(seed, plan, &mut sum);
            done.unwrap_or_else(|violation| panic!("SEED={seed}, step {step}, {end:?}: {violation}"));
        }
    }
    eprintln!("every step: {sum:?}, {:?}", began.elapsed());
}

/// Twice in a row, while the journal is young: what a killed process left unsynced is built upon by the next one.
#[test]
fn every_two_steps_around_a_birth_may_be_the_last() {
    let began = Instant::now();
    let mut sum = Tally::default();
    for seed in seeds(setting("ITERATIONS", 4)) {
        for (first, second) in (1..14).flat_map(|first| (1..14).map(move |second| (first, second))) {
            let end = Some(End::Kill);
            let (first_death, second_death) = (Some(first), Some(second));
            let plan = Plan { lives: 3, first_end: end, first_death, second_death, rounds_max: 3, ..STEPWISE };
            let done = run(seed, plan, &mut sum);
            done.unwrap_or_else(|violation| panic!("SEED={seed}, steps {first}, {second}: {violation}"));
        }
    }
    eprintln!("births: {sum:?}, {:?}", began.elapsed());
}

/// A salvage that dies at any step, by power or by kill, and is done again ends as one that was not disturbed.
#[test]
fn a_salvage_may_die_at_any_step_and_be_done_again() {
    let began = Instant::now();
    let (mut deaths, mut lost) = (0, 0);
    for seed in seeds(setting("ITERATIONS", 15)) {
        let undisturbed = salvage_and_read(seed, None).expect("nothing disturbs it");
        lost += undisturbed.iter().filter(|found| found.is_none()).count();
        for (step, end) in (1..).flat_map(|step| [(step, End::PowerLoss), (step, End::Kill)]) {
            let Some(again) = salvage_and_read(seed, Some((step, end))) else { break };
            assert_eq!(again, undisturbed, "SEED={seed}, step {step}, {end:?}");
            deaths += 1;
        }
    }
    eprintln!("{deaths} deaths of a salvage, {lost} records lost to damage, {:?}", began.elapsed());
    assert!(deaths > 0);
}

/// Damages the journal that a seed makes, salvages it, where asked with a death in between, and reads it: numbers, and
/// `None` for what is lost. `None` where the salvage was over before that step.
fn salvage_and_read(seed: u64, death: Option<(u64, End)>) -> Option<Vec<Option<i64>>> {
    let disk = Disk::new(seed, NO_FAULTS, Lie::None);
    let mut random = StdRng::seed_from_u64(seed);
    disk.hold_keeper(true);
    let open = || Journal::open_on(Arc::new(Mounted(disk.clone())), 1, settings(), Clock::Manual(Arc::default()));
    let journal = Arc::new(open().expect("a new one"));
    for sequence in 0..30 {
        let (journal, length) = (journal.clone(), random.random_range(1..400));
        assert_eq!(in_coroutine(0, move || append(&journal, 0, &[(number(0, sequence), length)])), Ok(true));
    }
    let end = journal.end_position();
    disk.hold_keeper(false);
    drop(journal);
    disk.damage(&mut random);
    let wanted = Salvage { first: Some(1), last: Some(end), allow_tmpfs: true };
    let salvage = || salvage_on(&Mounted(disk.clone()), wanted, &Clock::Manual(Arc::default()), &mut || Ok("".into()));
    if let Some((step, end)) = death {
        disk.die_in(step);
        let done = salvage();
        if !disk.state().is_dead {
            return None;
        }
        assert!(matches!(done, Err(OpenError::Io(_))), "{done:?}");
        disk.revive(end);
    }
    salvage().expect("it works the second time");
    Some(read_with_lost(&open().expect("it opens"), Watermark::default()).expect("reads"))
}

#[test]
#[ignore = "long: ITERATIONS seeds of each kind"]
fn the_model_for_long() {
    let iterations = setting("ITERATIONS", 5_000);
    check("crashes", iterations, STEPWISE);
    check("crashes and faults", iterations, FAULTY);
    check("racing", iterations, RACING);
}

/// A model that cannot fail proves nothing: it must catch a storage that does not do what it says.
fn catches(lie: Lie, plan: Plan) {
    let began = Instant::now();
    for (tried, seed) in (1u32..).zip(seeds(400)) {
        if let Err(violation) = run(seed, Plan { lie, ..plan }, &mut Tally::default()) {
            eprintln!("{lie:?}: caught by SEED={seed}, run {tried}, after {:?}: {violation}", began.elapsed());
            return;
        }
    }
    panic!("{lie:?} was not noticed");
}

macro_rules! lies {
    ($($name:ident: $lie:ident, $plan:expr;)*) => {
        $(#[test]
        fn $name() {
            catches(Lie::$lie, $plan);
        })*
    };
}

// Where recovery does not write the last frame again a sync must fail, and then the beginning of the next segment, before the process is killed.
lies! {
    an_answer_before_the_sync_is_caught: SyncDoesNothing, STEPWISE;
    an_ignored_error_of_a_sync_is_caught: FailedSyncIsHidden, FAULTY;
    going_on_in_a_file_after_its_sync_failed_is_caught: FailedSyncIsRetried, FAULTY;
    appending_before_the_name_is_durable_is_caught: SyncNamesDoesNothing, STEPWISE;
    continuing_a_segment_without_writing_its_last_frame_again_is_caught: RewritingDoesNothing,
        Plan { faults: Faults { changes: 150, reads: 0 }, lives: 20, rounds_max: 10, ..STEPWISE };
    several_removals_at_once_are_caught: RemovalsAreNotSynced, STEPWISE;
}
