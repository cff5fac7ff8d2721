//! Stores that die, hang, come back with and without their data; a full disk; a second program; signals.
//!
//! Every store is the test's own. The load sends what was not acknowledged again, with the same ids, and knows what it
//! sent: see its oracle.

mod clocks;

use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::support::bench::{Bench, Ledger, Live, MAIN_PAIRS, on_pairs};
use crate::support::load::Load;
use crate::support::program::{Ended, run};
use crate::support::small_disk::SmallDisk;
use crate::support::{eventually, eventually_is, postgres, redis, wait_until};
use serde_json::{Value, json};

const CLIENTS: u64 = 2;
/// What a load adds in each phase of a test: a few hundred requests of two clients.
const SOME_EVENTS: u64 = 1_000;
/// How soon sums agree once a store is back.
const BACK_WAIT: Duration = Duration::from_secs(10);
/// An answer that needs no store: far below any time-out of a store's client.
const ANSWER_MAX: Duration = Duration::from_secs(4);

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn click() -> Value {
    json!({"eventType": "CLICK", "userId": 1, "metadata": {"componentId": 1}})
}

/// A program on a private PostgreSQL and a private Redis.
struct Pair {
    postgres: postgres::Server,
    bench: Bench,
}

impl Pair {
    fn new() -> Pair {
        let postgres = postgres::Server::private();
        let database = postgres.database("tracker", "");
        let bench = Bench::on(Some(postgres.tcp(&database)), Some(redis::Server::start()));
        Pair { postgres, bench }
    }

    fn under_load() -> (Pair, Load) {
        let mut pair = Pair::new();
        pair.bench.start();
        let load = pair.load();
        load.goes_on(SOME_EVENTS);
        (pair, load)
    }

    fn redis(&mut self) -> &mut redis::Server {
        self.bench.redis.as_mut().expect("a private Redis")
    }

    fn load(&self) -> Load {
        Load::start(self.bench.address(), CLIENTS, crate::support::seed())
    }

    fn state(&self, sink: &str) -> Value {
        self.bench.client().get("/healthz/deps").json()["sinks"][sink]["state"].clone()
    }

    fn wait_until_away(&self, sink: &str) {
        wait_until(seconds(15), || self.state(sink), |state| state == "retrying");
    }

    /// A list while the live store is away: from the ledger, and it says so.
    fn list_is_from_the_ledger(&self) {
        eventually(seconds(5), || {
            let answer = self.bench.client().read("/api/statistics/popular/keywords");
            let says_so = answer["source"] == "ledger" && answer["stale"] == true;
            let is_filled = answer["items"].as_array().is_some_and(|items| !items.is_empty());
            if says_so && is_filled { Ok(()) } else { Err(answer.to_string()) }
        });
    }

    /// The load goes on for a while and ends: every post was answered with a 2xx, soon; both followers are soon where the
    /// journal is; nothing is lost or counted twice.
    fn no_post_noticed(&self, load: Load) {
        load.goes_on(SOME_EVENTS);
        let history = load.finish();
        assert!(history.failures.is_empty(), "{:?}", history.failures);
        assert!(history.slowest < ANSWER_MAX, "an answer took {:?}", history.slowest);
        self.is_back();
        history.check(&self.bench);
    }

    fn is_back(&self) {
        let started = Instant::now();
        self.bench.settle();
        let took = started.elapsed();
        assert!(took < BACK_WAIT, "back after {took:?}");
    }
}

#[test]
fn redis_may_die_and_come_back_older_or_empty() {
    let (mut pair, load) = Pair::under_load();
    pair.redis().save();
    load.goes_on(SOME_EVENTS);
    // Comes back with what it had a while before it died, then with nothing.
    for empty in [false, true] {
        pair.redis().stop();
        pair.wait_until_away("live");
        pair.list_is_from_the_ledger();
        assert_eq!(pair.state("ledger"), "following", "the ledger goes on");
        pair.bench.client().get("/healthz/ready").expect(200);
        pair.bench.client().get("/healthz/deps").expect(503);
        load.goes_on(SOME_EVENTS);
        if empty {
            pair.redis().forget_saved();
        }
        pair.redis().spawn();
        wait_until(
            BACK_WAIT,
            || pair.bench.client().read("/api/statistics/popular/keywords"),
            |answer| answer["source"] == "live" && answer["stale"] == false,
        );
    }
    pair.no_post_noticed(load);
}

#[test]
fn redis_may_hang() {
    let (mut pair, load) = Pair::under_load();
    pair.redis().signal(libc::SIGSTOP);
    pair.list_is_from_the_ledger();
    pair.wait_until_away("live");
    pair.list_is_from_the_ledger();
    assert_eq!(pair.state("ledger"), "following", "the ledger goes on");
    pair.redis().signal(libc::SIGCONT);
    pair.no_post_noticed(load);
}

#[test]
fn postgres_may_die_and_come_back() {
    let (mut pair, load) = Pair::under_load();
    pair.postgres.kill();
    pair.wait_until_away("ledger");
    without_postgres(&pair);
    pair.postgres.revive();
    pair.no_post_noticed(load);
}

/// What is answered without the ledger: events are taken, who waits is told after the deadline, lists are stale.
fn without_postgres(pair: &Pair) {
    let mut client = pair.bench.client();
    let click = json!({"eventType": "CLICK", "userId": "u", "sessionId": "by hand", "metadata": {"componentId": 1}});
    let started = Instant::now();
    let body = client.post("/api/events", &click).expect(202).json();
    assert!(started.elapsed() < seconds(1), "a 202 took {:?}", started.elapsed());
    assert!(body["eventId"].is_string());
    let started = Instant::now();
    let body = client.post("/api/events?wait=true", &click).expect(202).json();
    let took = started.elapsed();
    assert!((Duration::from_millis(1_900)..ANSWER_MAX).contains(&took), "waited {took:?}");
    assert!(body["eventId"].is_string() && body.get("duplicate").is_none(), "{body}");
    client.get("/healthz/live").expect(200);
    client.get("/healthz/ready").expect(200);
    let deps = client.get("/healthz/deps").expect(503).json();
    assert_eq!((&deps["status"], &deps["sinks"]["ledger"]["store"]), (&json!("degraded"), &json!("down")), "{deps}");
    assert!(deps["sinks"]["ledger"]["lastError"].is_string(), "{deps}");
    assert!(deps["sinks"]["ledger"]["lagEvents"].as_u64().is_some_and(|lag| lag >= 2), "{deps}");
    let list = client.read("/api/statistics/popular/keywords");
    assert_eq!((&list["source"], &list["stale"]), (&json!("live"), &json!(true)), "{list}");
    let answer = client.get("/api/statistics?eventType=CLICK").expect(503);
    assert!(answer.header("retry-after").is_some() && answer.json()["error"] == "store_unavailable");
}

#[test]
fn postgres_may_hang() {
    let (mut pair, load) = Pair::under_load();
    pair.postgres.freeze();
    eventually_is(seconds(15), &503, || pair.bench.client().get("/healthz/deps").status);
    pair.bench.client().get("/healthz/ready").expect(200);
    load.goes_on(SOME_EVENTS);
    pair.postgres.thaw();
    pair.no_post_noticed(load);
    pair.bench.kill();
}

#[test]
fn both_stores_may_die_at_once() {
    let (mut pair, load) = Pair::under_load();
    pair.postgres.kill();
    pair.redis().stop();
    pair.wait_until_away("ledger");
    pair.wait_until_away("live");
    let mut client = pair.bench.client();
    client.get("/healthz/ready").expect(200);
    let answer = client.get("/api/statistics/popular/keywords").expect(503);
    assert!(answer.header("retry-after").is_some());
    pair.redis().spawn();
    load.goes_on(SOME_EVENTS);
    pair.postgres.revive();
    pair.no_post_noticed(load);
}

#[test]
fn both_stores_may_be_away_at_the_start() {
    let mut pair = Pair::new();
    pair.postgres.kill();
    pair.redis().stop();
    pair.bench.start();
    let load = pair.load();
    load.goes_on(SOME_EVENTS);
    // Killed before any store had heard of it: the journal alone knows.
    pair.bench.kill();
    pair.bench.start();
    load.point_at(pair.bench.address());
    load.goes_on(SOME_EVENTS);
    pair.bench.client().get("/healthz/ready").expect(200);
    pair.bench.client().get("/healthz/deps").expect(503);
    pair.postgres.revive();
    pair.redis().spawn();
    let history = load.finish();
    pair.is_back();
    assert!(history.acknowledged() > 0);
    history.check(&pair.bench);
}

#[test]
fn a_full_disk_refuses_and_loses_nothing() {
    let mut pair = Pair::new();
    let parent = tempfile::tempdir().expect("a directory");
    let Some(disk) = SmallDisk::mount(parent.path().join("disk"), "200m") else { return };
    // Room for the segment in use and its spare, 64 MiB each, and for nothing else.
    let ballast = disk.path().join("ballast");
    std::fs::write(&ballast, vec![1; 64 << 20]).expect("there is room");
    pair.bench.data_dir = disk.path().join("data");
    pair.bench.set("ALLOW_TMPFS", "true");
    pair.bench.set("JOURNAL_MIN_FREE", "1000000");
    // Without the ledger every segment is still needed.
    pair.postgres.kill();
    pair.bench.start();
    let mut taken = 0;
    let refused = loop {
        let answer = post_large(&pair.bench, taken);
        match answer.status {
            202 => taken += LARGE_EVENTS,
            _ => break answer,
        }
        assert!(taken < 200 * LARGE_EVENTS, "it never fills");
    };
    eprintln!("full after {taken} large events: {}", refused.text());
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(refused.header("retry-after").is_some());
    assert!(taken > 0, "nothing fitted at all");
    // Small ones may still fit into what is left of the segment: each is either refused or kept.
    let load = pair.load();
    sleep(seconds(2));
    pair.bench.client().get("/healthz/live").expect(200);
    std::fs::remove_file(&ballast).expect("there");
    eventually_is(BACK_WAIT, &202, || post_large(&pair.bench, taken).status);
    taken += LARGE_EVENTS;
    pair.postgres.revive();
    let history = load.finish();
    assert!(history.failures.iter().all(|failure| failure.starts_with("503 ")), "{:?}", history.failures);
    pair.bench.settle();
    let large = "SELECT count(*), count(DISTINCT session_id) FROM events WHERE user_id = 'large'";
    let rows = pair.bench.rows(large);
    // The batch that was refused may have been taken in part; what was acknowledged is there, once each.
    assert_eq!(rows[0][0], rows[0][1], "each once");
    assert!(rows[0][0].parse::<usize>().expect("a count") >= taken, "{rows:?} of {taken}");
    history.check(&pair.bench);
    pair.bench.kill();
}

fn fill(path: &Path) {
    let mut file = std::fs::File::create(path).expect("a file");
    for size in [1 << 20, 1 << 12, 1] {
        let piece = vec![1; size];
        while std::io::Write::write_all(&mut file, &piece).is_ok() {}
    }
}

#[test]
fn a_start_with_a_full_disk_serves_and_takes_events_once_there_is_room() {
    let parent = tempfile::tempdir().expect("a directory");
    let Some(disk) = SmallDisk::mount(parent.path().join("disk"), "200m") else { return };
    let mut bench = Bench::new(Ledger::Sqlite, Live::Memory);
    bench.data_dir = disk.path().join("data");
    bench.set("ALLOW_TMPFS", "true");
    bench.set("JOURNAL_MIN_FREE", "1000000");
    let post = |bench: &Bench| {
        let event = json!({"eventType": "SEARCH", "userId": 1, "metadata": {"keyword": "oak"}});
        bench.client().post("/api/events", &event)
    };
    let ballast = disk.path().join("ballast");
    let mut taken = 0;
    for kills in [false, true] {
        bench.start();
        post(&bench).expect(202);
        taken += 1;
        bench.settle();
        if kills {
            bench.kill();
        } else {
            assert!(bench.stop().success());
        }
        fill(&ballast);
        bench.start();
        bench.client().get("/healthz/live").expect(200);
        eventually(BACK_WAIT, || {
            let answer = post(&bench);
            taken += i64::from(answer.status == 202);
            let is_refused = answer.status == 503 && answer.header("retry-after").is_some();
            if is_refused { Ok(()) } else { Err(answer.text().to_owned()) }
        });
        std::fs::remove_file(&ballast).expect("there");
        eventually_is(BACK_WAIT, &202, || post(&bench).status);
        taken += 1;
        bench.settle();
        assert_eq!(bench.event_rows(), taken);
        assert!(bench.stop().success());
    }
}

#[test]
fn kills_leave_one_segment_and_every_event() {
    let mut bench = Bench::new(Ledger::Sqlite, Live::Memory);
    for life in 1..=10 {
        bench.start();
        let event = json!({"eventType": "SEARCH", "userId": life, "metadata": {"keyword": "oak"}});
        bench.client().post("/api/events", &event).expect(202);
        bench.kill();
        let names = std::fs::read_dir(bench.data_dir.join("journal")).expect("a directory");
        let names = names.map(|entry| entry.expect("an entry").file_name().into_string().expect("text"));
        let segments: Vec<String> = names.filter(|name| name.ends_with(".segment")).collect();
        assert_eq!(segments.len(), 1, "{segments:?} after {life} kills");
    }
    bench.start();
    bench.settle();
    assert_eq!(bench.event_rows(), 10);
}

#[test]
fn a_full_disk_under_sqlite_is_lag_and_no_loss() {
    let parent = tempfile::tempdir().expect("a directory");
    let Some(disk) = SmallDisk::mount(parent.path().join("disk"), "200m") else { return };
    let mut bench = Bench::on(None, None);
    bench.data_dir = disk.path().join("data");
    bench.set("ALLOW_TMPFS", "true");
    bench.start();
    let load = Load::start(bench.address(), CLIENTS, crate::support::seed());
    load.goes_on(SOME_EVENTS);
    // Whatever is left, to the last block.
    let ballast = disk.path().join("ballast");
    let _ = std::fs::write(&ballast, vec![1; 200 << 20]);
    eventually(seconds(15), || {
        let deps = bench.client().get("/healthz/deps").json();
        let state = &deps["sinks"]["ledger"]["state"];
        if state == "retrying" { Ok(()) } else { Err(format!("the ledger's sink does not notice: {deps}")) }
    });
    // What fits into the segments that are allocated already is taken.
    load.goes_on(SOME_EVENTS);
    std::fs::remove_file(&ballast).expect("there");
    load.goes_on(SOME_EVENTS);
    let history = load.finish();
    assert!(history.failures.iter().all(|failure| failure.starts_with("503 ")), "{:?}", history.failures);
    history.check(&bench);
    bench.kill();
}

const LARGE_EVENTS: usize = 500;

/// Events of 8 KiB, small on the wire. The same number is the same event.
fn post_large(bench: &Bench, first: usize) -> crate::support::client::Answer {
    use std::io::Write;
    let mut body = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for number in first..first + LARGE_EVENTS {
        let id = uuid::Uuid::from_u128(number as u128 + 1);
        // Each differs, so that gzip stays within the ratio that the server decodes.
        let properties = id.to_string().repeat(222);
        writeln!(
            body,
            r#"{{"eventType":"CLICK","eventId":"{id}","userId":"large","sessionId":"l{number}","metadata":{{"componentId":9}},"properties":{{"x":"{properties}"}}}}"#
        )
        .expect("compresses");
    }
    let headers = [("Content-Type", "application/x-ndjson"), ("Content-Encoding", "gzip")];
    bench.client().send("POST", "/api/events", &headers, &body.finish().expect("compresses"))
}

#[test]
fn a_second_program_on_the_same_directory_or_port_ends_with_one_line() {
    let bench = Bench::started(Ledger::Sqlite, Live::Memory);
    bench.run(&[]).says(1, &["another process uses this directory"]);
    let other = tempfile::tempdir().expect("a directory");
    let mut command = bench.command();
    command.env("LISTEN", bench.address().to_string()).env("DATA_DIR", other.path().join("data"));
    run(&mut command).says(1, &[&bench.address().to_string()]);
    assert!(!Path::exists(&other.path().join("data")), "it touched a directory");
    // The first one noticed nothing.
    bench.client().post("/api/events?wait=true", &click()).expect(201);
}

/// The last line of a start that must fail with exit code 2.
#[track_caller]
fn wrong_setting(bench: &Bench, name: &str, value: &str) {
    let Ended { code, err, .. } = run(bench.command().env(name, value));
    let last = err.lines().last().unwrap_or_default();
    assert_eq!((code, last.contains(name)), (Some(2), true), "{name}: {err}");
    assert!(!bench.data_dir.exists(), "{name}: it touched the directory");
}

#[test]
fn stores_that_refuse_the_url_end_a_start_with_exit_code_2() {
    let bench = Bench::on(None, None);
    let redis = redis::Server::start();
    wrong_setting(&bench, "REDIS_URL", &format!("{}/99", redis.url()));
    redis.admin("CONFIG SET requirepass right").expect("sets");
    wrong_setting(&bench, "REDIS_URL", &redis.url());
    wrong_setting(&bench, "REDIS_URL", &redis.url().replace("//", "//:wrong@"));
    let postgres = postgres::Server::private();
    let url = postgres.tcp(&postgres.database("tracker", ""));
    wrong_setting(&bench, "DATABASE_URL", &url.replace("test@", "nobody@"));
    wrong_setting(&bench, "DATABASE_URL", &format!("{url}?sslmode=require"));
    // No password is right as long as none is asked for.
    let mut open = Bench::on(Some(format!(" {url}\n")), None);
    open.start();
    open.settle();
    open.kill();
    postgres.demand_passwords();
    wait_until(seconds(10), || ::postgres::Client::connect(&url, ::postgres::NoTls).err(), |refused| refused.is_some());
    wrong_setting(&bench, "DATABASE_URL", &url);
    wrong_setting(&bench, "DATABASE_URL", &url.replace("test@", "test:wrong@"));
}

#[test]
fn a_database_that_is_made_later_is_waited_for() {
    let postgres = postgres::Server::private();
    let there = postgres.tcp(&postgres.database("tracker", ""));
    let mut bench = Bench::on(Some(there.clone() + "_later"), None);
    bench.start();
    bench.client().post("/api/events", &click()).expect(202);
    bench.client().get("/healthz/ready").expect(200);
    let name = &there[there.rfind('/').expect("a name") + 1..];
    let mut client = ::postgres::Client::connect(&there, ::postgres::NoTls).expect("connects");
    client.batch_execute(&format!("CREATE DATABASE {name}_later")).expect("makes");
    bench.settle();
    assert_eq!(bench.event_rows(), 1);
}

#[test]
fn an_unreachable_store_is_one_line_under_its_own_name() {
    let mut pair = Pair::new();
    pair.postgres.kill();
    pair.bench.start();
    // Five tries each are enough to see whether each is a line.
    let tries = || {
        let metrics = pair.bench.client().get("/metrics").text().to_owned();
        let of = |sink: &str| metrics.lines().find(|line| line.contains("retries") && line.contains(sink));
        let count = |line: Option<&str>| line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0);
        [count(of("\"ledger\"")), count(of("\"live\""))]
    };
    wait_until(seconds(20), tries, |tries| tries.iter().all(|count: &f64| *count >= 5.0));
    let log = pair.bench.log();
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains("WARN") || line.contains("ERROR")).collect();
    let blames_live = warnings.iter().any(|line| line.contains("live"));
    assert!(warnings.len() == 1 && warnings[0].contains("ledger") && !blames_live, "{warnings:#?}");
    pair.postgres.revive();
    pair.is_back();
}

#[test]
fn a_ledger_that_has_stopped_is_not_ready() {
    let server = postgres::Server::shared();
    let mut bench = Bench::on(Some(server.database("tracker", "")), None);
    bench.start();
    bench.client().get("/healthz/ready").expect(200);
    bench.rows("ALTER TABLE rollup_delta RENAME TO gone");
    bench.client().post("/api/events", &click()).expect(202);
    eventually(seconds(10), || {
        let answer = bench.client().get("/healthz/ready");
        let tells = answer.status == 503 && answer.text().contains("ledger");
        if tells { Ok(()) } else { Err(format!("{}: {}", answer.status, answer.text())) }
    });
}

#[test]
fn a_column_that_changed_costs_a_fresh_connection_and_no_follower() {
    let server = postgres::Server::shared();
    let mut bench = Bench::on(Some(server.database("tracker", "")), None);
    bench.start();
    let mut id = 0;
    let mut post = |bench: &Bench| {
        id += 1;
        let id = uuid::Uuid::from_u128(id + 1);
        let event = json!({"eventType": "CLICK", "eventId": id, "userId": 1, "metadata": {"componentId": 1}});
        bench.client().post("/api/events?wait=true", &event)
    };
    post(&bench).expect(201);
    bench.client().read("/api/posts/p/like");
    // The batch's statement on it is planned, and its result is of another type now.
    bench.rows("ALTER TABLE event_id_current ALTER COLUMN name TYPE varchar(9)");
    post(&bench).expect(201);
    bench.settle();
    assert_eq!(bench.event_rows(), 2);
}

#[test]
fn a_graceful_stop_under_load_loses_nothing() {
    on_pairs(MAIN_PAIRS, |bench| {
        let load = Load::start(bench.address(), 4, crate::support::seed());
        load.goes_on(SOME_EVENTS);
        let started = Instant::now();
        assert_eq!(bench.stop().code(), Some(0));
        assert!(started.elapsed() < seconds(10), "the stop took {:?}", started.elapsed());
        bench.start();
        load.point_at(bench.address());
        load.goes_on(SOME_EVENTS);
        load.finish().check(bench);
    });
}

#[test]
fn a_stop_as_soon_as_it_listens_is_graceful_and_any_bound_is_taken() {
    let mut bench = Bench::new(Ledger::Sqlite, Live::Memory);
    for _ in 0..10 {
        bench.start();
        let status = bench.stop();
        assert_eq!(status.code(), Some(0), "{status:?}");
    }
    bench.set("JOURNAL_MIN_FREE", &u64::MAX.to_string());
    bench.start();
    // There is never that much room.
    eventually_is(seconds(5), &503, || bench.client().post("/api/events", &click()).status);
}

/// The command sees every file system read-only, but for one directory.
fn seal(command: &mut Command, writable: &Path) {
    use std::ffi::CString;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::process::CommandExt;
    let writable = CString::new(writable.as_os_str().as_bytes()).expect("a path");
    let others = [c"/", c"/tmp", c"/var/tmp", c"/usr/tmp", c"/dev/shm", c"/run"];
    let remount = libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY;
    let check = |result: i32| if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) };
    let sealed = move || {
        let null = std::ptr::null();
        // SAFETY: system calls alone, with strings that end with a zero byte and outlive them.
        unsafe {
            check(libc::unshare(libc::CLONE_NEWNS))?;
            check(libc::mount(null, c"/".as_ptr(), null, libc::MS_REC | libc::MS_PRIVATE, null.cast()))?;
            check(libc::mount(writable.as_ptr(), writable.as_ptr(), null, libc::MS_BIND, null.cast()))?;
            // What is no mount of its own goes with the root.
            others.iter().for_each(|path| _ = libc::mount(null, path.as_ptr(), null, remount, null.cast()));
            let probe = libc::open(c"/var/tmp/probe".as_ptr(), libc::O_CREAT | libc::O_WRONLY, 0o600);
            check(if probe < 0 { 0 } else { -1 })
        }
    };
    // SAFETY: async-signal-safe, see above.
    unsafe { command.current_dir("/").pre_exec(sealed) };
}

#[test]
fn sqlite_needs_no_writable_directory_but_its_own() {
    // SAFETY: reads the process's own user id.
    if unsafe { libc::geteuid() } != 0 {
        return eprintln!("skipped: only root may seal file systems");
    }
    let mut bench = Bench::new(Ledger::Sqlite, Live::Memory);
    let writable = bench.data_dir.clone();
    std::fs::create_dir_all(&writable).expect("a directory to bind");
    bench.start_as(|command| seal(command, &writable));
    let url = format!("http://{}", bench.address());
    let seed = "--events 60000 --users 3000 --posts 3000 --keywords 20000 --days 4 --url";
    run(bench.command().arg("seed").args(seed.split(' ')).arg(url)).printed();
    bench.settle();
    assert!(bench.stop().success());
    // Housekeeping has its turn at the start, then once a minute. Its statements are larger than the memory that SQLite
    // has for one. An hour that got late events is counted after a quiet minute.
    bench.start_as(|command| seal(command, &writable));
    eventually(seconds(150), || {
        assert!(!bench.log().contains("housekeeping failed"), "{}", bench.log());
        let compacted =
            "SELECT count(*) FROM rollup_hour WHERE dimension = 1 AND bucket < (SELECT until_hour FROM rollup_state)";
        let uncounted = "SELECT count(*) FROM series WHERE minutes = 60 AND users IS NULL";
        match (bench.number(compacted), bench.number(uncounted)) {
            (0, _) => Err("no hour is compacted".to_owned()),
            (_, 0) => Ok(()),
            (_, left) => Err(format!("{left} hours are not counted")),
        }
    });
}
