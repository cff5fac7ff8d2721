//! What all streams of statistics send, once a second: rates by type, the top keywords and posts.
//!
//! One thread makes what all streams send; it starts with the first of them and ends with the last. A stream only looks
//! whether there is something new, so that a hundred cost what one does. Rates are differences of the live store's
//! totals: those of all instances together.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::answer;
use super::lists::{Item, Named};
use crate::app::App;
use crate::events::Dimension;
use crate::limits::{STREAM_LIST_ROWS, STREAM_RATE_SECS, STREAMS_MAX};
use crate::ports::{LiveStore, StoreError, TopQuery, Window};

const EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub struct Streams(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    readers: usize,
    computing: bool,
    number: u64,
    event: Arc<[u8]>,
}

pub(super) struct Place(Arc<Streams>);

impl Place {
    pub(super) fn latest(&self) -> (u64, Arc<[u8]>) {
        let state = self.0.lock();
        (state.number, state.event.clone())
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Board<'a> {
    as_of: Option<String>,
    stale: bool,
    rates: &'a BTreeMap<String, f64>,
    /// Of both lists.
    window: &'static str,
    keywords: &'a [Item],
    posts: &'a [Item],
}

impl Streams {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place, unless all are taken; the first one starts the thread.
    pub(super) fn enter(self: &Arc<Streams>, app: &Arc<App>) -> Option<Place> {
        let mut state = self.lock();
        if state.readers >= STREAMS_MAX {
            return None;
        }
        if !state.computing {
            let (streams, app) = (self.clone(), app.clone());
            let thread = std::thread::Builder::new().name("board".into());
            thread.spawn(move || Computing(&streams).run(&app)).ok()?;
            state.computing = true;
        }
        state.readers += 1;
        Some(Place(self.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.lock().readers -= 1;
    }
}

/// The thread's work; however it ends, the next stream starts it again.
struct Computing<'s>(&'s Streams);

impl Drop for Computing<'_> {
    fn drop(&mut self) {
        self.0.lock().computing = false;
    }
}

impl Computing<'_> {
    fn run(self, app: &App) {
        let mut maker = Maker::default();
        loop {
            let begun = Instant::now();
            let event = maker.event(app, begun);
            let mut state = self.0.lock();
            if state.readers == 0 {
                // Under the same lock as in `enter`: who comes now starts another.
                state.computing = false;
                drop(state);
                return std::mem::forget(self);
            }
            state.number += 1;
            state.event = event.into();
            drop(state);
            std::thread::sleep(EVERY.saturating_sub(begun.elapsed()));
        }
    }
}

#[derive(Default)]
struct Maker {
    /// Events by type, as they were at some moments of the last seconds.
    totals: VecDeque<(Instant, BTreeMap<String, i64>)>,
    rates: BTreeMap<String, f64>,
    keywords: Vec<Item>,
    posts: Vec<Item>,
}

impl Maker {
    /// While the live store is away the last values stay, marked as stale.
    fn event(&mut self, app: &App, now: Instant) -> Vec<u8> {
        let read = self.read(&*app.live, app.clock.now_ms(), now);
        let (as_of, stale) = answer::live_as_of(app);
        let stale = stale || read.is_err();
        let (rates, keywords, posts) = (&self.rates, &self.keywords[..], &self.posts[..]);
        let board = Board { as_of, stale, rates, window: "10m", keywords, posts };
        let mut event = b"data: ".to_vec();
        // Plain values in memory: nothing of this can fail to be written.
        let _ = serde_json::to_writer(&mut event, &board);
        event.extend_from_slice(b"\n\n");
        event
    }

    fn read(&mut self, live: &dyn LiveStore, now_ms: i64, now: Instant) -> Result<(), StoreError> {
        let totals = live.totals()?.into_iter();
        let of_types = totals.filter(|(dimension, ..)| *dimension == Dimension::Type);
        self.rate(of_types.map(|(_, name, count)| (name, count)).collect(), now);
        let top = |dimension, named| {
            let parts = vec![(dimension, 1.0)];
            let query = TopQuery { parts, window: Window::TenMinutes, hot: false, limit: STREAM_LIST_ROWS };
            let rows = live.top(&query, now_ms)?.items.into_iter().enumerate();
            Ok(rows.map(|(at, (name, count))| Item::exact(named, at + 1, name, count as i64)).collect())
        };
        self.keywords = top(Dimension::Keyword, Named::Keyword)?;
        self.posts = top(Dimension::PostViews, Named::Post)?;
        Ok(())
    }

    /// Rates since the oldest totals that are remembered.
    fn rate(&mut self, totals: BTreeMap<String, i64>, now: Instant) {
        if let Some((then, before)) = self.totals.front() {
            let seconds = now.duration_since(*then).as_secs_f64().max(0.001);
            let rate = |(name, count): (&String, &i64)| {
                // A store that was rebuilt from an older ledger may know less: no rate is negative.
                let more = (count - before.get(name).unwrap_or(&0)).max(0);
                (name.clone(), (more as f64 / seconds * 10.0).round() / 10.0)
            };
            self.rates = totals.iter().map(rate).collect();
        }
        self.totals.push_back((now, totals));
        if self.totals.len() > STREAM_RATE_SECS {
            self.totals.pop_front();
        }
    }
}
