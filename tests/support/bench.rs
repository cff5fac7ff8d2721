//! The real program on real stores: started on a free port and a directory of its own, killed when its test is over.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::client::Client;
use super::program::{self, Ended, Running};
use super::tables::{self, Rows};
use super::{eventually, now_ms, postgres, redis, wait_until};

/// Start, recovery included; PostgreSQL may be away, which the program waits for.
const START_WAIT: Duration = Duration::from_secs(30);
/// What the sums have after the load has ended.
pub(crate) const SETTLE_WAIT: Duration = Duration::from_secs(20);

/// A pair of stores, and the program on them.
pub(crate) struct Bench {
    pub(crate) name: String,
    directory: tempfile::TempDir,
    pub(crate) data_dir: PathBuf,
    pub(crate) database_url: Option<String>,
    pub(crate) redis: Option<redis::Server>,
    settings: Vec<(String, String)>,
    tracker: Option<Tracker>,
    _postgres: Option<Arc<postgres::Server>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ledger {
    Postgres,
    Sqlite,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Live {
    Redis,
    Memory,
}

/// The pairs that are shipped as such.
pub(crate) const MAIN_PAIRS: [(Ledger, Live); 2] = [(Ledger::Postgres, Live::Redis), (Ledger::Sqlite, Live::Memory)];
/// The others.
pub(crate) const MIXED_PAIRS: [(Ledger, Live); 2] = [(Ledger::Sqlite, Live::Redis), (Ledger::Postgres, Live::Memory)];

/// Runs a claim over pairs of stores, each fresh, with the program started.
pub(crate) fn on_pairs(pairs: [(Ledger, Live); 2], claim: impl Fn(&mut Bench)) {
    on_pairs_stopped(pairs, |bench| {
        bench.start();
        claim(bench);
    });
}

/// Runs a claim over the pairs that are shipped as such, with a client of the program.
pub(crate) fn each_pair(claim: impl Fn(&mut Bench, &mut Client)) {
    on_pairs(MAIN_PAIRS, |bench| {
        let mut client = bench.client();
        claim(bench, &mut client);
    });
}

/// As [`on_pairs`], with the program not started.
pub(crate) fn on_pairs_stopped(pairs: [(Ledger, Live); 2], claim: impl Fn(&mut Bench)) {
    for (ledger, live) in pairs {
        let mut bench = Bench::new(ledger, live);
        eprintln!("-- {}", bench.name);
        claim(&mut bench);
    }
}

/// The settings of the read path, one a class of keys.
const CACHES: [&str; 5] = ["CACHE_SEARCH", "CACHE_POPULAR", "CACHE_RANKINGS", "CACHE_COUNTS", "CACHE_LIKES"];

impl Bench {
    /// The read path as it is by default.
    pub(crate) fn cached(&mut self) {
        self.settings.retain(|(set, _)| !CACHES.contains(&set.as_str()));
    }

    /// Fresh stores, program not started.
    pub(crate) fn new(ledger: Ledger, live: Live) -> Bench {
        let mut bench = Bench::on(None, (live == Live::Redis).then(redis::Server::start));
        if ledger == Ledger::Postgres {
            let server = postgres::Server::shared();
            bench.database_url = Some(server.database("tracker", ""));
            bench._postgres = Some(server);
        }
        bench.name = format!("{ledger:?} + {live:?}");
        bench
    }

    pub(crate) fn started(ledger: Ledger, live: Live) -> Bench {
        let mut bench = Bench::new(ledger, live);
        bench.start();
        bench
    }

    /// On stores that the test holds itself.
    pub(crate) fn on(database_url: Option<String>, redis: Option<redis::Server>) -> Bench {
        let directory = tempfile::Builder::new().prefix("tracker").tempdir().expect("a directory");
        let data_dir = directory.path().join("data");
        let mut settings = vec![("JOURNAL_MIN_FREE".to_owned(), "0".to_owned())];
        // Most suites write and read at once; those of the cache switch it on.
        settings.extend(CACHES.map(|name| (name.to_owned(), "off".to_owned())));
        if is_tmpfs(directory.path()) {
            settings.push(("ALLOW_TMPFS".to_owned(), "true".to_owned()));
        }
        let name = "private stores".to_owned();
        Bench { name, directory, data_dir, database_url, redis, settings, tracker: None, _postgres: None }
    }

    /// The program on its embedded stores, started with these settings.
    pub(crate) fn embedded(settings: &[(&str, &str)]) -> Bench {
        let mut bench = Bench::on(None, None);
        settings.iter().for_each(|(name, value)| bench.set(name, value));
        bench.start();
        bench
    }

    /// The same, with a client of it.
    pub(crate) fn with_client(settings: &[(&str, &str)]) -> (Bench, Client) {
        let bench = Bench::embedded(settings);
        let client = bench.client();
        (bench, client)
    }

    /// A second program, not started, on the stores of this one.
    pub(crate) fn beside(&self) -> Bench {
        let mut second = Bench::on(self.database_url.clone(), None);
        second.set("REDIS_URL", &self.redis.as_ref().expect("Redis").url());
        second.name = "the second".to_owned();
        second
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.settings.retain(|(set, _)| set != name);
        self.settings.push((name.to_owned(), value.to_owned()));
    }

    /// The program, not started, with the settings of this bench and nothing else.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_event-tracker"));
        command.env_clear().env("LISTEN", "127.0.0.1:0").env("DATA_DIR", &self.data_dir);
        command.env("LOG", "info").envs(self.settings.iter().map(|(name, value)| (name, value)));
        if let Some(url) = &self.database_url {
            command.env("DATABASE_URL", url);
        }
        if let Some(redis) = &self.redis {
            command.env("REDIS_URL", redis.url());
        }
        command.stdin(Stdio::null());
        command
    }

    #[track_caller]
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        program::run(self.command().args(arguments))
    }

    /// Starts the program, the first time or again, and waits until it listens.
    pub(crate) fn start(&mut self) {
        self.start_as(|_| {});
    }

    /// The same, after `prepare` has changed what is started.
    pub(crate) fn start_as(&mut self, prepare: impl FnOnce(&mut Command)) {
        assert!(self.tracker.is_none(), "it runs already");
        let mut command = self.command();
        prepare(&mut command);
        self.tracker = Some(Tracker::start(command, &self.directory.path().join("log")));
    }

    pub(crate) fn tracker(&mut self) -> &mut Tracker {
        self.tracker.as_mut().expect("the program was started")
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.tracker.as_ref().expect("the program was started").address
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.address())
    }

    pub(crate) fn kill(&mut self) {
        drop(self.tracker.take());
    }

    pub(crate) fn lose_live(&mut self) {
        if let Some(redis) = &self.redis {
            return drop(redis.admin("FLUSHALL").expect("Redis answers"));
        }
        self.kill();
        self.start();
    }

    /// SIGTERM; the program must end by itself.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.tracker.take().expect("the program was started").stop()
    }

    /// What the program has said so far, in all of its lives.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Waits for words in the log: a line is written a moment after what it tells.
    #[track_caller]
    pub(crate) fn says(&self, words: &str) {
        wait_until(SETTLE_WAIT, || self.log(), |log| log.contains(words));
    }

    pub(crate) fn rows(&self, sql: &str) -> Rows {
        match &self.database_url {
            Some(url) => tables::of_postgres(url, sql),
            None => tables::of_sqlite(&self.data_dir.join("ledger.sqlite"), sql),
        }
    }

    pub(crate) fn execute(&self, sql: &str) {
        self.rows(sql);
    }

    pub(crate) fn number(&self, sql: &str) -> i64 {
        self.rows(sql)[0][0].parse().unwrap_or_else(|_| panic!("{sql}"))
    }

    pub(crate) fn event_rows(&self) -> i64 {
        self.number("SELECT count(*) FROM events")
    }

    /// Waits until both sinks follow and nothing is behind.
    pub(crate) fn settle(&self) {
        let mut client = self.client();
        eventually(SETTLE_WAIT, || {
            let deps = client.get("/healthz/deps");
            let body = deps.json();
            let behind = ["ledger", "live"].iter().any(|sink| body["sinks"][sink]["lagEvents"] != 0);
            // Right after a start nobody has looked yet whether anything new is there.
            let stale = client.get("/api/statistics/popular/keywords").json()["stale"] != false;
            let at_rest = deps.status == 200 && !behind && !stale;
            if at_rest { Ok(()) } else { Err(format!("the sinks do not come to rest (stale: {stale}): {body}")) }
        });
    }

    /// Once all is applied: rows of the ledger = Σ rollups = Σ totals of the live store = its lists.
    #[track_caller]
    pub(crate) fn check_sums(&self) {
        self.settle();
        let by_type = self.counts("SELECT event_type, count(*) FROM events GROUP BY event_type");
        let rolled = self.counts("SELECT key, sum(count) FROM rollup_hour WHERE dimension = 1 GROUP BY key");
        assert_eq!(rolled, by_type, "rollups of types and rows");
        if let Some(redis) = &self.redis {
            let rest =
                "SELECT dimension, sum(count) FROM rollup_hour WHERE dimension BETWEEN 2 AND 8 GROUP BY dimension";
            let mut expected = self.counts(rest);
            expected.extend(rolled.iter().map(|(name, count)| (format!("1:{name}"), *count)));
            assert_eq!(totals(redis), expected, "totals of the live store and rollups");
        }
        self.check_lists();
    }

    fn counts(&self, sql: &str) -> BTreeMap<String, i64> {
        let rows = self.rows(sql).into_iter();
        let counts = rows.map(|row| (row[0].clone(), row[1].parse().expect("a count")));
        counts.filter(|(_, count)| *count != 0).collect()
    }

    /// The live lists of a week are what the hours of the ledger say; a list may be a second old.
    fn check_lists(&self) {
        let mut client = self.client();
        for (path, field, dimension) in LISTS {
            eventually(Duration::from_secs(5), || {
                let first_hour = (now_ms().div_euclid(86_400_000) - 6) * 24;
                let sql = format!(
                    "SELECT key, sum(count) FROM rollup_hour WHERE dimension = {dimension} AND bucket >= {first_hour} \
                     AND NOT (dimension BETWEEN 4 AND 6 AND key IN (SELECT post_id FROM tombstone)) \
                     GROUP BY key HAVING sum(count) > 0 ORDER BY 2 DESC, 1 LIMIT 100"
                );
                let expected: Vec<(String, i64)> =
                    self.rows(&sql).into_iter().map(|row| (row[0].clone(), row[1].parse().expect("a count"))).collect();
                let answer = client.read(&format!("/api/statistics/popular/{path}window=7d&limit=100"));
                if answer["source"] != "live" || items(&answer, field) != expected {
                    return Err(format!("{path}: {answer} is not {expected:?}"));
                }
                Ok(())
            });
        }
    }
}

const LISTS: [(&str, &str, u8); 7] = [
    ("keywords?", "keyword", 2),
    ("keywords?mode=zero-result&", "keyword", 3),
    ("posts?by=views&", "postId", 4),
    ("posts?by=clicks&", "postId", 5),
    ("posts?by=likes&", "postId", 6),
    ("pages?", "url", 7),
    ("components?", "componentId", 8),
];

/// The names and counts of a list's answer, which must be ranked from 1.
pub(crate) fn items(answer: &Value, field: &str) -> Vec<(String, i64)> {
    let items = answer["items"].as_array().unwrap_or_else(|| panic!("a list: {answer}")).iter().enumerate();
    let pairs = items.map(|(at, item)| {
        assert_eq!(item["rank"], at + 1, "{answer}");
        // Among components there are elements, which are stored under a name with a sign.
        let name = match item["elementId"].as_str().filter(|_| field == "componentId") {
            Some(element) => format!("#{element}"),
            None => item[field].as_str().unwrap_or_else(|| panic!("{field}: {item}")).to_owned(),
        };
        (name, item["count"].as_i64().expect("a whole count"))
    });
    pairs.collect()
}

/// The totals of the generation that Redis answers from, without those that are zero.
fn totals(server: &redis::Server) -> BTreeMap<String, i64> {
    let generation: String = server.ask("GET et:{t0}:3:UTC:gen");
    let totals: BTreeMap<String, i64> = server.ask(&format!("HGETALL et:{{t0}}:3:UTC:{generation}:totals"));
    totals.into_iter().filter(|(_, count)| *count != 0).collect()
}

pub(crate) fn is_tmpfs(path: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).expect("a path");
    // SAFETY: statfs is plain numbers, for which zero is a value; the call only fills it.
    let mut about: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path ends with a zero byte and `about` outlives the call.
    assert_eq!(unsafe { libc::statfs(path.as_ptr(), &raw mut about) }, 0);
    about.f_type == libc::TMPFS_MAGIC
}

pub(crate) struct Tracker {
    process: Running,
    pub(crate) address: SocketAddr,
}

impl Tracker {
    fn start(mut command: Command, log: &Path) -> Tracker {
        let file = std::fs::File::options().create(true).append(true).open(log).expect("a log");
        let told_before = std::fs::metadata(log).expect("a log").len() as usize;
        command.stdout(Stdio::null()).stderr(file);
        let mut process = Running::start(&mut command);
        let deadline = Instant::now() + START_WAIT;
        loop {
            let told = std::fs::read_to_string(log).expect("a log");
            let since = &told[told_before..];
            if let Some((_, rest)) = since.split_once("listening on http")
                && let Some((address, _)) = rest.trim_start_matches(['s', ':', '/']).split_once([' ', '\n'])
            {
                return Tracker { address: address.parse().expect("an address"), process };
            }
            let ended = process.ended();
            assert!(ended.is_none() && Instant::now() < deadline, "it does not start ({ended:?}): {since}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.process.pid()
    }

    fn stop(mut self) -> ExitStatus {
        self.process.signal(libc::SIGTERM);
        let status = self.process.end_within(START_WAIT);
        assert_eq!(status.signal(), None, "it must end by itself");
        status
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- the program's log ({}) ----\n{}----", self.name, self.log());
        }
    }
}
