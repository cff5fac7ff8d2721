//! A new generation from a snapshot of the ledger, written beside the old one and switched to by one script.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use redis::{Cmd, Pipeline, RedisResult, cmd, pipe};
use uuid::Uuid;

use crate::limits::{
    GENERATION_KEPT_SECS, LIVE_TOMBSTONE_KEPT_MS, REBUILD_CLEAN_UP_SECS_MAX, REBUILD_LOCK_MS,
    REBUILD_PIECE_MEMBERS_MAX, REBUILD_SCAN_KEYS, RECENT_SEARCHES_MS,
};
use crate::live::{Calendar, Image};
use crate::ports::{LiveState, ReadSnapshot, Snapshot, StoreError};

use super::connection::{Connector, Wire, store_error};
use super::keys::{GENERATIONS_KEY, bucket_name, recent_element, total_field};
use super::script::{self, watermark_text};
use super::writer::RedisWriter;

/// By what a generation's name is told from other keys under our prefix.
const NAME_LETTER: char = 'g';
const NAME_DIGITS: usize = 16;

/// A HyperLogLog weighs as much as so many members of a bucket.
const USERS_MEMBERS: usize = 500;

/// Runs one command while the lock is ours: a rebuild that was overtaken changes nothing.
const GUARDED: &str = "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end redis.call(unpack(ARGV, 2)) return 1";
/// Removes the name of a generation that was not used for some seconds, by Redis' own clock.
const DROP: &str = "local at = redis.call('ZSCORE', KEYS[1], KEYS[2]) \
     if not at or tonumber(at) > redis.call('TIME')[1] - ARGV[1] then return 0 end \
     redis.call('DEL', KEYS[2]) return 1";

impl RedisWriter {
    /// See `LiveWriter::rebuild`. The state and the snapshot are read under the lock.
    pub(super) fn rebuild_unless_done(
        &mut self,
        stream: Uuid,
        seen: LiveState,
        read: ReadSnapshot<'_>,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let RedisWriter { connector, wire, calendar, generation_key } = self;
        let Some(mut piece) = Piece::lock(wire, generation_key)? else {
            return Err(StoreError::Retry("redis: another instance rebuilds the live store".into()));
        };
        let done = script::state(piece.wire, generation_key, stream).and_then(|state| {
            if state != seen {
                return Ok(());
            }
            let current: Option<String> = piece.wire.query(cmd("GET").arg(&**generation_key))?;
            let (current, name) = (current.unwrap_or_default(), piece.name.clone());
            // What is left of rebuilds that failed takes the memory that this one needs.
            piece.clean_up(&current);
            let read = || read(calendar.time_zone());
            let snapshot = keeping_lock(connector, &piece.lock, &piece.token, read)?;
            let switch = guarded(&piece.lock, &piece.token, &["SET", generation_key, &name]);
            let switched = piece.write(&snapshot, now_ms, calendar).and_then(|()| piece.guarded(&switch));
            piece.clean_up(if switched.is_ok() { &name } else { &current });
            switched
        });
        piece.release();
        done
    }

    /// Deletes a generation, named by its key, that no program has used for `GENERATION_KEPT_SECS`, as far as time
    /// allows.
    pub(super) fn delete_unused(&mut self, generation_key: &str) -> Result<(), StoreError> {
        // Without the lock a program of its own rebuilds it: it is used again.
        let Some(mut piece) = Piece::lock(&mut self.wire, generation_key)? else { return Ok(()) };
        let drop_name = eval(DROP, &[GENERATIONS_KEY, generation_key], &[&GENERATION_KEPT_SECS.to_string()]);
        if piece.wire.query(&drop_name)? && piece.clean_up("") {
            piece.wire.query::<()>(cmd("ZREM").arg(GENERATIONS_KEY).arg(generation_key))?;
        }
        piece.release();
        Ok(())
    }
}

/// Runs `job`, which may take minutes, while the lock is renewed on a connection of its own.
fn keeping_lock<T>(connector: &Connector, lock: &str, token: &str, job: impl FnOnce() -> T) -> T {
    let (done, is_done) = channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let pause = Duration::from_millis(REBUILD_LOCK_MS / 3);
            while is_done.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                // A renewal that fails shows when the first piece is sent: the lock is then another's or nobody's.
                let _ = connector.wire().query::<bool>(&renewal(lock, token));
            }
        });
        let result = job();
        drop(done);
        result
    })
}

fn renewal(lock: &str, token: &str) -> Cmd {
    guarded(lock, token, &["PEXPIRE", lock, &REBUILD_LOCK_MS.to_string()])
}

fn guarded(lock: &str, token: &str, command: &[&str]) -> Cmd {
    eval(GUARDED, &[lock], &[&[token], command].concat())
}

/// A rebuild under way: what is written goes out by pieces of bounded size.
struct Piece<'w> {
    wire: &'w mut Wire,
    prefix: &'w str,
    lock: String,
    token: String,
    /// The new generation's.
    name: String,
    pipeline: Pipeline,
    members: usize,
}

impl<'w> Piece<'w> {
    /// Takes the lock of a program's generations; `None` if another instance has it.
    fn lock(wire: &'w mut Wire, generation_key: &'w str) -> Result<Option<Piece<'w>>, StoreError> {
        let prefix = generation_key.strip_suffix("gen").unwrap_or(generation_key);
        let token = Uuid::new_v4().simple().to_string();
        let name = format!("{NAME_LETTER}{}", &token[..NAME_DIGITS]);
        let lock = format!("{prefix}rebuild");
        let taken: Option<String> =
            wire.query(cmd("SET").arg(&lock).arg(&token).arg("NX").arg("PX").arg(REBUILD_LOCK_MS))?;
        Ok(taken.map(|_| Piece { wire, prefix, lock, token, name, pipeline: pipe(), members: 0 }))
    }
}

impl Piece<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}{}:{name}", self.prefix, self.name)
    }

    fn write(&mut self, snapshot: &Snapshot, now_ms: i64, calendar: &Calendar) -> Result<(), StoreError> {
        let image = Image::new(snapshot, now_ms, calendar);
        for (bucket, dimensions) in &image.buckets {
            let ((kind, number), expires) = (bucket_name(*bucket), calendar.expires_s(*bucket));
            for (dimension, counts) in dimensions {
                let name = format!("{kind}{}:{number}", *dimension as u8);
                let (key, trimmed) = (self.key(&name), self.key("trimmed"));
                let members: Vec<(i64, &str)> = counts.by_name.iter().map(|(name, count)| (*count, &**name)).collect();
                for some in members.chunks(REBUILD_PIECE_MEMBERS_MAX) {
                    self.pipeline.zadd_multiple(&key, some).ignore();
                    self.added(some.len())?;
                }
                self.pipeline.expire_at(key, expires).ignore();
                if counts.trimmed {
                    self.pipeline.zadd(trimmed, name, expires).ignore();
                }
                self.added(1)?;
            }
        }
        for (bucket, users) in &image.users {
            let (kind, number) = bucket_name(*bucket);
            let key = self.key(&format!("{kind}users:{number}"));
            let set = self.pipeline.cmd("SET").arg(key).arg(users.to_redis());
            set.arg("EXAT").arg(calendar.expires_s(*bucket)).ignore();
            self.added(USERS_MEMBERS)?;
        }
        for (user, list) in &image.recent {
            let key = self.key(&format!("r:{user}"));
            let elements: Vec<String> = list.iter().map(recent_element).collect();
            self.pipeline.rpush(&key, &elements).ignore();
            self.pipeline.pexpire_at(key, list[0].at_ms + RECENT_SEARCHES_MS).ignore();
            self.added(elements.len())?;
        }
        self.write_forgotten(snapshot)?;
        self.write_tombstones(snapshot, now_ms)?;
        self.write_sums(snapshot, image.folded_until)
    }

    fn write_forgotten(&mut self, snapshot: &Snapshot) -> Result<(), StoreError> {
        let key = self.key("forgotten");
        for (user, folded, at_ms) in &snapshot.forgotten {
            self.pipeline.cmd("ZADD").arg(&key).arg("GT").arg(*at_ms).arg(format!("{user}\0{folded}")).ignore();
            self.added(1)?;
        }
        if let Some(newest) = snapshot.forgotten.iter().map(|(.., at_ms)| at_ms).max() {
            self.pipeline.pexpire_at(key, newest + RECENT_SEARCHES_MS).ignore();
        }
        Ok(())
    }

    fn write_tombstones(&mut self, snapshot: &Snapshot, now_ms: i64) -> Result<(), StoreError> {
        let (versions, times) = (self.key("tombstones"), self.key("tombstone_times"));
        for (post_id, version) in &snapshot.tombstones {
            self.pipeline.hset(&versions, post_id, *version).ignore().zadd(&times, post_id, now_ms).ignore();
            self.added(2)?;
        }
        let expires_ms = now_ms + LIVE_TOMBSTONE_KEPT_MS;
        self.pipeline.pexpire_at(versions, expires_ms).ignore().pexpire_at(times, expires_ms).ignore();
        Ok(())
    }

    fn write_sums(&mut self, snapshot: &Snapshot, folded_until: i64) -> Result<(), StoreError> {
        let (totals, watermarks, folded) = (self.key("totals"), self.key("wm"), self.key("folded"));
        for (dimension, name, count) in &snapshot.totals {
            self.pipeline.hincr(&totals, total_field(*dimension, name), *count).ignore();
            self.added(1)?;
        }
        // There also where no stream is known yet: a missing one means that it was evicted.
        self.pipeline.hset(&watermarks, "rebuilt", 1).ignore();
        for (stream, watermark) in &snapshot.watermarks {
            self.pipeline.hset(&watermarks, stream.to_string(), watermark_text(*watermark)).ignore();
            self.added(1)?;
        }
        self.pipeline.set(folded, folded_until).ignore();
        self.send()
    }

    /// Some members more are in the pipeline: sends it once that are enough.
    fn added(&mut self, members: usize) -> Result<(), StoreError> {
        self.members += members;
        if self.members >= REBUILD_PIECE_MEMBERS_MAX { self.send() } else { Ok(()) }
    }

    fn send(&mut self) -> Result<(), StoreError> {
        let renewal = renewal(&self.lock, &self.token);
        self.guarded(&renewal)?;
        let pipeline = std::mem::replace(&mut self.pipeline, pipe());
        self.members = 0;
        self.wire.exchange(|connection| pipeline.exec(connection)).map_err(|error| store_error(&error))
    }

    /// Runs a guarded command; an error if the lock is another's.
    fn guarded(&mut self, command: &Cmd) -> Result<(), StoreError> {
        if self.wire.query(command)? {
            return Ok(());
        }
        Err(StoreError::Retry("redis: the rebuild took too long and another instance took over".into()))
    }

    fn release(mut self) {
        // Without it the lock would only run out a little later.
        let _ = self.guarded(&guarded(&self.lock, &self.token, &["DEL", &self.lock]));
    }

    /// Deletes every other generation, those of rebuilds that never ended too, a thousand keys at a time. A failure
    /// leaves keys that expire, or wait for the next rebuild: not worth failing this one. True if nothing is left.
    fn clean_up(&mut self, current: &str) -> bool {
        let begun = Instant::now();
        let mut cursor = 0;
        while begun.elapsed().as_secs() < REBUILD_CLEAN_UP_SECS_MAX {
            match self.clean_step(current, cursor) {
                Ok(0) => return true,
                Ok(next) => cursor = next,
                Err(_) => return false,
            }
        }
        false
    }

    fn clean_step(&mut self, current: &str, cursor: u64) -> RedisResult<u64> {
        let mut scan = cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(format!("{}{NAME_LETTER}*", self.prefix)).arg("COUNT").arg(REBUILD_SCAN_KEYS);
        // Users' ids are in keys: text by contract, but a foreign key under our prefix may be anything.
        let (next, mut keys): (u64, Vec<Vec<u8>>) = self.wire.exchange(|connection| scan.query(connection))?;
        keys.retain(|key| is_old_generation(key, self.prefix, current));
        if !keys.is_empty() {
            self.wire.exchange(|connection| cmd("UNLINK").arg(&keys).exec(connection))?;
        }
        Ok(next)
    }
}

/// Whether a key belongs to a generation other than `current`.
fn is_old_generation(key: &[u8], prefix: &str, current: &str) -> bool {
    let Some(rest) = key.strip_prefix(prefix.as_bytes()) else { return false };
    let Some(end) = rest.iter().position(|byte| *byte == b':') else { return false };
    let name = &rest[..end];
    let digits = name.strip_prefix(&[NAME_LETTER as u8]).unwrap_or_default();
    digits.len() == NAME_DIGITS && digits.iter().all(u8::is_ascii_hexdigit) && name != current.as_bytes()
}

fn eval(script: &str, keys: &[&str], arguments: &[&str]) -> Cmd {
    let mut command = cmd("EVAL");
    command.arg(script).arg(keys.len()).arg(keys).arg(arguments);
    command
}

#[cfg(test)]
mod tests {
    use super::is_old_generation;

    #[test]
    fn only_other_generations_are_cleaned_up() {
        let current = "g0123456789abcdef";
        let old = |key: &str| is_old_generation(key.as_bytes(), "et:{t0}:", current);
        assert!(old("et:{t0}:gfedcba9876543210:totals"));
        assert!(!old("et:{t0}:g0123456789abcdef:totals"));
        assert!(!old("et:{t0}:gen"));
        assert!(!old("et:{t0}:guests:1"));
        assert!(!old("other:gfedcba9876543210:totals"));
    }
}
