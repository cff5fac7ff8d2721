//! A new generation from a snapshot of the ledger, written beside the old one and switched to by one script.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use redis::{Cmd, Pipeline, RedisResult, cmd, pipe};
use uuid::Uuid;

use crate::limits::{
    GENERATION_KEPT_SECS, LIVE_TOMBSTONE_KEPT_MS, REBUILD_CLEAN_UP_SECS_MAX, REBUILD_LOCK_MS,
    REBUILD_PIECE_MEMBERS_MAX, REBUILD_SCAN_KEYS, RECENT_SEARCHES_MS,
};
use crate::live::{Calendar, Image};
use crate::ports::{Snapshot, StoreError};

use super::connection::{Connector, Wire, store_error};
use super::keys::{GENERATIONS_KEY, bucket_name, recent_element, total_field};
use super::script::watermark_text;

/// By what a generation's name is told from other keys under our prefix.
const NAME_LETTER: char = 'g';
const NAME_DIGITS: usize = 16;

/// A HyperLogLog weighs as much as so many members of a bucket.
const USERS_MEMBERS: usize = 500;

const RENEW: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end return 0";
const RELEASE: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";
/// Switches to a generation while the lock is ours: a rebuild that was overtaken changes nothing.
const SWITCH: &str = "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end \
     redis.call('SET', KEYS[2], ARGV[2]) return 1";
/// Removes the name of a generation that was not used for some seconds, by Redis' own clock.
const DROP: &str = "local at = redis.call('ZSCORE', KEYS[1], KEYS[2]) \
     if not at or tonumber(at) > redis.call('TIME')[1] - ARGV[1] then return 0 end \
     redis.call('DEL', KEYS[2]) return 1";

pub(super) struct Rebuild<'a> {
    pub(super) connector: &'a Connector,
    pub(super) calendar: &'a Calendar,
    pub(super) generation_key: &'a str,
    pub(super) now_ms: i64,
}

/// See `LiveWriter::rebuild`. `is_needed` and `snapshot` are asked under the lock.
pub(super) fn rebuild(
    wire: &mut Wire,
    about: &Rebuild<'_>,
    is_needed: impl FnOnce(&mut Wire) -> Result<bool, StoreError>,
    snapshot: &mut dyn FnMut(&TimeZone) -> Result<Snapshot, StoreError>,
) -> Result<(), StoreError> {
    let Rebuild { calendar, generation_key, now_ms, .. } = *about;
    let Some(mut piece) = Piece::lock(wire, generation_key)? else {
        return Err(StoreError::Retry("redis: another instance rebuilds the live store".into()));
    };
    let (prefix, name) = (prefix_of(generation_key), piece.name.clone());
    let done = is_needed(piece.wire).and_then(|is_needed| {
        if !is_needed {
            return Ok(());
        }
        let current: Option<String> = exchange(piece.wire, cmd("GET").arg(generation_key))?;
        // What is left of rebuilds that failed takes the memory that this one needs.
        piece.clean_up(prefix, current.as_deref().unwrap_or_default());
        let read = || snapshot(calendar.time_zone());
        let snapshot = keeping_lock(about.connector, &piece.lock, &piece.token, read)?;
        let switched = piece.write(&snapshot, now_ms, calendar).and_then(|()| piece.switch(generation_key, &name));
        let kept = if switched.is_ok() { name.as_str() } else { current.as_deref().unwrap_or_default() };
        piece.clean_up(prefix, kept);
        switched
    });
    // Without it the lock would only run out a little later.
    let _ = piece.release();
    done
}

/// Deletes a generation, named by its key, that no program has used for `GENERATION_KEPT_SECS`. What the time of a call does
/// not suffice for is left to the next call.
pub(super) fn delete_unused(wire: &mut Wire, generation_key: &str) -> Result<(), StoreError> {
    // Without the lock a program of its own rebuilds it: it is used again.
    let Some(mut piece) = Piece::lock(wire, generation_key)? else { return Ok(()) };
    let drop_name = eval(DROP, &[GENERATIONS_KEY, generation_key], &[&GENERATION_KEPT_SECS.to_string()]);
    let is_unused: i64 = exchange(piece.wire, &drop_name)?;
    if is_unused == 1 && piece.clean_up(prefix_of(generation_key), "") {
        exchange::<i64>(piece.wire, &command(&["ZREM", GENERATIONS_KEY, generation_key]))?;
    }
    let _ = piece.release();
    Ok(())
}

fn prefix_of(generation_key: &str) -> &str {
    generation_key.strip_suffix("gen").unwrap_or(generation_key)
}

/// Runs `job`, which may take minutes, while the lock is renewed on a connection of its own.
fn keeping_lock<T>(connector: &Connector, lock: &str, token: &str, job: impl FnOnce() -> T) -> T {
    let (done, is_done) = channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let pause = Duration::from_millis(REBUILD_LOCK_MS / 3);
            while is_done.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                // A renewal that fails shows when the first piece is sent: the lock is then another's or nobody's.
                let renew = |mut wire: Wire| exchange(&mut wire, eval(RENEW, &[lock], &[token]).arg(REBUILD_LOCK_MS));
                let _: Option<i64> = connector.open().ok().and_then(|wire| renew(wire).ok());
            }
        });
        let result = job();
        drop(done);
        result
    })
}

fn exchange<T: redis::FromRedisValue>(wire: &mut Wire, command: &Cmd) -> Result<T, StoreError> {
    wire.exchange(|connection| command.query(connection)).map_err(|error| store_error(&error))
}

/// A rebuild under way: what is written goes out by pieces of bounded size.
struct Piece<'w> {
    wire: &'w mut Wire,
    lock: String,
    token: String,
    /// The new generation's.
    name: String,
    base: String,
    pipeline: Pipeline,
    members: usize,
}

impl<'w> Piece<'w> {
    /// Takes the lock of a program's generations; `None` if another instance has it.
    fn lock(wire: &'w mut Wire, generation_key: &str) -> Result<Option<Piece<'w>>, StoreError> {
        let prefix = prefix_of(generation_key);
        let token = Uuid::new_v4().simple().to_string();
        let name = format!("{NAME_LETTER}{}", &token[..NAME_DIGITS]);
        let (lock, base) = (format!("{prefix}rebuild"), format!("{prefix}{name}:"));
        let taken: Option<String> =
            exchange(wire, cmd("SET").arg(&lock).arg(&token).arg("NX").arg("PX").arg(REBUILD_LOCK_MS))?;
        Ok(taken.map(|_| Piece { wire, lock, token, name, base, pipeline: pipe(), members: 0 }))
    }
}

impl Piece<'_> {
    fn write(&mut self, snapshot: &Snapshot, now_ms: i64, calendar: &Calendar) -> Result<(), StoreError> {
        let image = Image::new(snapshot, now_ms, calendar);
        for ((bucket, dimension), (counts, trimmed)) in &image.buckets {
            let (kind, number) = bucket_name(*bucket);
            let name = format!("{kind}{}:{number}", *dimension as u8);
            let key = format!("{}{name}", self.base);
            let expires = calendar.expires_s(*bucket);
            let mut counts = counts.iter().peekable();
            while counts.peek().is_some() {
                let mut add = cmd("ZADD");
                add.arg(&key);
                let mut members = 0;
                for (member, count) in counts.by_ref().take(REBUILD_PIECE_MEMBERS_MAX) {
                    add.arg(*count).arg(*member);
                    members += 1;
                }
                self.add(add, members)?;
            }
            self.add(command(&["EXPIREAT", &key, &expires.to_string()]), 1)?;
            if *trimmed {
                self.add(command(&["ZADD", &format!("{}trimmed", self.base), &expires.to_string(), &name]), 1)?;
            }
        }
        for (bucket, users) in &image.users {
            let (kind, number) = bucket_name(*bucket);
            let key = format!("{}{kind}users:{number}", self.base);
            let mut set = cmd("SET");
            // As much as a bucket of some thousand members.
            set.arg(key).arg(users.to_redis()).arg("EXAT").arg(calendar.expires_s(*bucket));
            self.add(set, USERS_MEMBERS)?;
        }
        for (user, list) in &image.recent {
            let key = format!("{}r:{user}", self.base);
            let mut push = cmd("RPUSH");
            push.arg(&key);
            for search in list {
                push.arg(recent_element(search));
            }
            self.add(push, list.len())?;
            self.add(command(&["PEXPIREAT", &key, &(list[0].at_ms + RECENT_SEARCHES_MS).to_string()]), 1)?;
        }
        self.write_forgotten(snapshot)?;
        self.write_tombstones(snapshot, now_ms)?;
        self.write_sums(snapshot, image.folded_until)
    }

    fn write_forgotten(&mut self, snapshot: &Snapshot) -> Result<(), StoreError> {
        let key = format!("{}forgotten", self.base);
        for (user, folded, at_ms) in &snapshot.forgotten {
            self.add(command(&["ZADD", &key, "GT", &at_ms.to_string(), &format!("{user}\0{folded}")]), 1)?;
        }
        match snapshot.forgotten.iter().map(|(.., at_ms)| at_ms).max() {
            Some(newest) => self.add(command(&["PEXPIREAT", &key, &(newest + RECENT_SEARCHES_MS).to_string()]), 1),
            None => Ok(()),
        }
    }

    fn write_tombstones(&mut self, snapshot: &Snapshot, now_ms: i64) -> Result<(), StoreError> {
        let keys = ["tombstones", "tombstone_times"].map(|name| format!("{}{name}", self.base));
        for (post_id, version) in &snapshot.tombstones {
            self.add(command(&["HSET", &keys[0], post_id, &version.to_string()]), 1)?;
            self.add(command(&["ZADD", &keys[1], &now_ms.to_string(), post_id]), 1)?;
        }
        let expires_ms = (now_ms + LIVE_TOMBSTONE_KEPT_MS).to_string();
        keys.iter().try_for_each(|key| self.add(command(&["PEXPIREAT", key, &expires_ms]), 1))
    }

    fn write_sums(&mut self, snapshot: &Snapshot, folded_until: i64) -> Result<(), StoreError> {
        for (dimension, name, count) in &snapshot.totals {
            let key = format!("{}totals", self.base);
            self.add(command(&["HINCRBY", &key, &total_field(*dimension, name), &count.to_string()]), 1)?;
        }
        let key = format!("{}wm", self.base);
        // There also where no stream is known yet: a missing one means that it was evicted.
        self.add(command(&["HSET", &key, "rebuilt", "1"]), 1)?;
        for (stream, watermark) in &snapshot.watermarks {
            self.add(command(&["HSET", &key, &stream.to_string(), &watermark_text(*watermark)]), 1)?;
        }
        self.add(command(&["SET", &format!("{}folded", self.base), &folded_until.to_string()]), 1)?;
        self.send()
    }

    fn add(&mut self, command: Cmd, members: usize) -> Result<(), StoreError> {
        self.pipeline.add_command(command).ignore();
        self.members += members;
        if self.members >= REBUILD_PIECE_MEMBERS_MAX { self.send() } else { Ok(()) }
    }

    fn send(&mut self) -> Result<(), StoreError> {
        self.renew()?;
        let pipeline = std::mem::replace(&mut self.pipeline, pipe());
        self.members = 0;
        self.wire.exchange(|connection| pipeline.exec(connection)).map_err(|error| store_error(&error))
    }

    fn renew(&mut self) -> Result<(), StoreError> {
        let held: i64 = exchange(self.wire, eval(RENEW, &[&self.lock], &[&self.token]).arg(REBUILD_LOCK_MS))?;
        if held == 1 { Ok(()) } else { Err(overtaken()) }
    }

    fn switch(&mut self, generation_key: &str, name: &str) -> Result<(), StoreError> {
        let keys = [&*self.lock, generation_key];
        let switched: i64 = exchange(self.wire, &eval(SWITCH, &keys, &[&self.token, name]))?;
        if switched == 1 { Ok(()) } else { Err(overtaken()) }
    }

    fn release(&mut self) -> Result<i64, StoreError> {
        exchange(self.wire, &eval(RELEASE, &[&self.lock], &[&self.token]))
    }

    /// Deletes every other generation, those of rebuilds that never ended too, a thousand keys at a time. A failure
    /// leaves keys that expire, or wait for the next rebuild: not worth failing this one. True if nothing is left.
    fn clean_up(&mut self, prefix: &str, current: &str) -> bool {
        let begun = Instant::now();
        let mut cursor = 0;
        while begun.elapsed().as_secs() < REBUILD_CLEAN_UP_SECS_MAX {
            match self.clean_step(prefix, current, cursor) {
                Ok(0) => return true,
                Ok(next) => cursor = next,
                Err(_) => return false,
            }
        }
        false
    }

    fn clean_step(&mut self, prefix: &str, current: &str, cursor: u64) -> RedisResult<u64> {
        let mut scan = cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(format!("{prefix}{NAME_LETTER}*")).arg("COUNT").arg(REBUILD_SCAN_KEYS);
        // Users' ids are in keys: text by contract, but a foreign key under our prefix may be anything.
        let (next, keys): (u64, Vec<Vec<u8>>) = self.wire.exchange(|connection| scan.query(connection))?;
        let old: Vec<&Vec<u8>> = keys.iter().filter(|key| is_old_generation(key, prefix, current)).collect();
        if !old.is_empty() {
            let mut unlink = cmd("UNLINK");
            unlink.arg(&old);
            self.wire.exchange(|connection| unlink.exec(connection))?;
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

fn overtaken() -> StoreError {
    StoreError::Retry("redis: the rebuild took too long and another instance took over".into())
}

fn command(words: &[&str]) -> Cmd {
    let mut command = cmd(words[0]);
    command.arg(&words[1..]);
    command
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
