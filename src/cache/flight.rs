//! Flights: at most one fill of a key at a time in this process, joined by whoever wants its result.
//!
//! The map is lock-free (crossbeam-skiplist 0.1.3, of which two faults are known: what `remove` returns and an `insert`
//! over a key that is there cannot be trusted). So a leader is who finds its own flight behind `get_or_insert_with`, and a
//! flight leaves through an entry that holds it.

use crossbeam_skiplist::SkipMap;

// By way of the parent: tests/flight.rs puts the primitives of a model checker there.
use super::sync::{Arc, AtomicBool, AtomicUsize, Mutex, MutexGuard, Ordering, PoisonError};

/// Called once when there is something to take; must not block.
pub type Waker = Box<dyn FnOnce() + Send>;

/// One fill under way. `T` is what it comes to.
pub struct Flight<T> {
    // Somebody has nothing else to show: the flight must not give up for want of the lock.
    wanted: AtomicBool,
    // What it is filling was written meanwhile: its result is for those who asked before that, and for nobody else.
    spoiled: AtomicBool,
    // It cannot be found any more. Said by whoever takes it out first, since what the map says of that cannot be trusted.
    left: AtomicBool,
    state: Mutex<State<T>>,
}

struct State<T> {
    // What joiners get at once: the end, or something to show until then.
    shown: Option<T>,
    landed: bool,
    waiters: Vec<Waker>,
}

impl<T: Clone> Flight<T> {
    fn new(wanted: bool) -> Flight<T> {
        let state = State { shown: None, landed: false, waiters: Vec::new() };
        let [spoiled, left] = [AtomicBool::new(false), AtomicBool::new(false)];
        Flight { wanted: AtomicBool::new(wanted), spoiled, left, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        // A push and a take: nothing in there panics half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it came to, if that is known; else `waker` is called once it is. `insists`: who joins has nothing else.
    pub fn join(&self, insists: bool, waker: impl FnOnce() -> Waker) -> Option<T> {
        let mut state = self.state();
        if state.shown.is_none() {
            self.wanted.fetch_or(insists, Ordering::AcqRel);
            state.waiters.push(waker());
        }
        state.shown.clone()
    }

    /// What there is to show now.
    pub fn shown(&self) -> Option<T> {
        self.state().shown.clone()
    }

    /// Somebody waits for it.
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Acquire)
    }

    /// Its key was written since it began.
    pub fn is_spoiled(&self) -> bool {
        self.spoiled.load(Ordering::Acquire)
    }

    /// Shows something to those who wait, and to those who join, while it goes on: nobody insists on its end then.
    pub fn show(&self, value: T) {
        let waiters = {
            let mut state = self.state();
            if state.landed {
                return;
            }
            state.shown = Some(value);
            self.wanted.store(false, Ordering::Release);
            std::mem::take(&mut state.waiters)
        };
        waiters.into_iter().for_each(|wake| wake());
    }

    fn land(&self, value: T) {
        let waiters = {
            let mut state = self.state();
            if state.landed {
                return;
            }
            (state.shown, state.landed) = (Some(value), true);
            std::mem::take(&mut state.waiters)
        };
        waiters.into_iter().for_each(|wake| wake());
    }
}

/// The flights under way, by key.
pub struct Flights<T: Send + Sync + 'static> {
    by_key: SkipMap<Box<str>, Arc<Flight<T>>>,
    count: AtomicUsize,
}

impl<T: Clone + Send + Sync + 'static> Default for Flights<T> {
    fn default() -> Self {
        Flights { by_key: SkipMap::new(), count: AtomicUsize::new(0) }
    }
}

impl<T: Clone + Send + Sync + 'static> Flights<T> {
    /// The flight of a key, and whether the caller has just begun it and must see to its end. `insists`: of one that is
    /// begun here, as in [`Flight::join`], which would come too late for a leader that is quick.
    pub fn board(&self, key: &str, insists: bool) -> (Arc<Flight<T>>, bool) {
        if let Some(entry) = self.by_key.get(key) {
            return (entry.value().clone(), false);
        }
        let mine = Arc::new(Flight::new(insists));
        // Before it can be found, and so before it can leave.
        self.count.fetch_add(1, Ordering::AcqRel);
        let entry = self.by_key.get_or_insert_with(key.into(), || mine.clone());
        let is_leader = Arc::ptr_eq(entry.value(), &mine);
        if !is_leader {
            self.count.fetch_sub(1, Ordering::AcqRel);
        }
        (entry.value().clone(), is_leader)
    }

    /// A flight that nobody else can find, and whose leader insists.
    pub fn alone() -> Arc<Flight<T>> {
        Arc::new(Flight::new(true))
    }

    /// Ends a flight: first nobody finds it any more, then those who joined have its result. Called by its leader, once;
    /// a second end changes nothing.
    pub fn land(&self, key: &str, flight: &Arc<Flight<T>>, value: T) {
        self.leave(key, flight);
        flight.land(value);
    }

    /// The key was written: whoever asks from now on must not join what began before that.
    pub fn spoil(&self, key: &str) {
        let Some(flight) = self.by_key.get(key).map(|entry| entry.value().clone()) else { return };
        flight.spoiled.store(true, Ordering::Release);
        self.leave(key, &flight);
    }

    /// Flights that can be found.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    fn leave(&self, key: &str, flight: &Arc<Flight<T>>) {
        // The entry that holds this flight, and no other: the key may belong to a successor already.
        if let Some(entry) = self.by_key.get(key)
            && Arc::ptr_eq(entry.value(), flight)
        {
            entry.remove();
            if !flight.left.swap(true, Ordering::AcqRel) {
                self.count.fetch_sub(1, Ordering::AcqRel);
            }
        }
    }
}
