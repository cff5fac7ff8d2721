//! Flights (singleflight): at most one fill of a key at a time in this process, joined by every request for the key.
//! The lock-free map holds weak references, since it frees what it has removed later; the leader holds the flight.

use papaya::HashMap;

// By way of the parent: tests/units/flight.rs puts the primitives of a model checker there.
use super::sync::{Arc, AtomicBool, Mutex, MutexGuard, Ordering, PoisonError, Weak};

/// Called once when there is something to take; must not block.
pub type Waker = Box<dyn FnOnce() + Send>;

pub struct Flight<T> {
    // Somebody has nothing else to show: the flight must not give up for want of the lock.
    wanted: AtomicBool,
    // What it is filling was written meanwhile: its result is for those who asked before that, and for nobody else.
    spoiled: AtomicBool,
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
        Flight { wanted: AtomicBool::new(wanted), spoiled: AtomicBool::new(false), state: Mutex::new(state) }
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

    pub fn shown(&self) -> Option<T> {
        self.state().shown.clone()
    }

    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Acquire)
    }

    /// Its key was written since it began.
    pub fn is_spoiled(&self) -> bool {
        self.spoiled.load(Ordering::Acquire)
    }

    /// Shows something to those who wait, and to those who join, while it goes on: nobody insists on its end then.
    pub fn show(&self, value: T) {
        self.tell(value, false);
    }

    fn tell(&self, value: T, is_end: bool) {
        let waiters = {
            let mut state = self.state();
            if state.landed {
                return;
            }
            (state.shown, state.landed) = (Some(value), is_end);
            self.wanted.store(false, Ordering::Release);
            std::mem::take(&mut state.waiters)
        };
        waiters.into_iter().for_each(|wake| wake());
    }
}

pub struct Flights<T> {
    by_key: HashMap<Box<str>, Weak<Flight<T>>>,
}

impl<T> Default for Flights<T> {
    fn default() -> Self {
        Flights { by_key: HashMap::new() }
    }
}

impl<T: Clone> Flights<T> {
    /// The flight of a key, and whether the caller has just begun it and must see to its end. `insists`: of one that is
    /// begun here, as in [`Flight::join`], which would come too late for a leader that is quick.
    pub fn board(&self, key: &str, insists: bool) -> (Arc<Flight<T>>, bool) {
        if let Some(flight) = self.find(key) {
            return (flight, false);
        }
        let mine = Arc::new(Flight::new(insists));
        loop {
            let found = self.by_key.pin().get_or_insert_with(key.into(), || Arc::downgrade(&mine)).clone();
            if let Some(flight) = found.upgrade() {
                let is_leader = Arc::ptr_eq(&flight, &mine);
                return (flight, is_leader);
            }
            // Its leader has dropped it; it is leaving, or was never completed.
            self.leave(key, &found);
        }
    }

    /// A flight that nobody else can find, and whose leader insists.
    pub fn alone() -> Arc<Flight<T>> {
        Arc::new(Flight::new(true))
    }

    /// Ends a flight: first nobody finds it any more, then those who joined have its result. Called by its leader, once;
    /// a second end changes nothing.
    pub fn land(&self, key: &str, flight: &Arc<Flight<T>>, value: T) {
        self.leave(key, &Arc::downgrade(flight));
        flight.tell(value, true);
    }

    /// The key was written: whoever asks from now on must not join what began before that.
    pub fn spoil(&self, key: &str) {
        let Some(flight) = self.find(key) else { return };
        flight.spoiled.store(true, Ordering::Release);
        self.leave(key, &Arc::downgrade(&flight));
    }

    pub fn count(&self) -> usize {
        self.by_key.len()
    }

    fn find(&self, key: &str) -> Option<Arc<Flight<T>>> {
        let found = self.by_key.pin().get(key).cloned();
        found?.upgrade()
    }

    fn leave(&self, key: &str, flight: &Weak<Flight<T>>) {
        // This flight and no other: the key may belong to a successor already.
        let _ = self.by_key.pin().remove_if(key, |_, known| Weak::ptr_eq(known, flight));
    }
}
