//! `/healthz/deps` at the front door, dead letters over restarts, and answers about one person.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::bench::{Bench, Ledger, Live, MAIN_PAIRS, each_pair, on_pairs};
use crate::support::{eventually, eventually_is, postgres};

fn pings(bench: &Bench) -> u64 {
    let info: String = bench.redis.as_ref().expect("Redis").ask("INFO commandstats");
    let line = info.lines().find_map(|line| line.strip_prefix("cmdstat_ping:calls="));
    line.and_then(|line| line.split(',').next()?.parse().ok()).unwrap_or(0)
}

#[test]
fn deps_asks_a_store_once_a_second_and_tells_current_positions() {
    let mut bench = Bench::started(Ledger::Postgres, Live::Redis);
    bench.settle();
    let (before, began) = (pings(&bench), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = bench.client();
                (0..100).for_each(|_| drop(client.get("/healthz/deps").expect(200)));
            });
        }
    });
    let (asked, most) = (pings(&bench) - before, began.elapsed().as_secs() + 2);
    assert!(asked <= most, "{asked} questions in {:?}", began.elapsed());
    let mut client = bench.client();
    for n in 1..=5 {
        let click = json!({"eventType":"CLICK","userId":1,"metadata":{"componentId":1}});
        client.post("/api/events?wait=true", &click).expect(201);
        let deps = client.read("/healthz/deps");
        assert_eq!((&deps["journal"]["position"], &deps["sinks"]["ledger"]["position"]), (&json!(n), &json!(n)));
        assert_eq!(deps["sinks"]["ledger"]["lagEvents"], 0, "{deps}");
    }
    let deps = client.read("/healthz/deps");
    assert_eq!((&deps["version"], &deps["deadLetters"]), (&json!(env!("CARGO_PKG_VERSION")), &json!(0)), "{deps}");
    assert!(deps["commit"].as_str().is_some_and(|commit| !commit.is_empty()), "{deps}");
    assert!(deps["journalBytes"].as_u64().is_some_and(|bytes| bytes > 0), "{deps}");
    bench.redis.as_mut().expect("Redis").stop();
    eventually_is(Duration::from_secs(10), &503, || client.get("/healthz/deps").status);
}

const READ_KEY: &str = "a-key-for-reading-1";

#[test]
fn the_last_error_of_a_store_needs_a_key_for_reading_and_names_no_role() {
    let server = postgres::Server::private();
    let url = server.tcp(&server.database("tracker", ""));
    let mut admin = ::postgres::Client::connect(&url, ::postgres::NoTls).expect("connects");
    admin.batch_execute("CREATE ROLE secret_role SUPERUSER").expect("runs");
    let mut bench = Bench::on(Some(url.replace("://test", "://secret_role")), None);
    for is_open in [true, false] {
        admin.batch_execute("ALTER ROLE secret_role LOGIN").expect("runs");
        if !is_open {
            bench.set("READ_KEYS", READ_KEY);
        }
        bench.start();
        let shut_out = "ALTER ROLE secret_role NOLOGIN; \
                        SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'secret_role'";
        admin.batch_execute(shut_out).expect("runs");
        let mut client = bench.client();
        let error = |deps: Value| deps["sinks"]["ledger"]["lastError"].clone();
        let mut deps = |headers: &[_]| client.send("GET", "/healthz/deps", headers, b"").json();
        let headers: &[(&str, &str)] = if is_open { &[] } else { &[("X-Api-Key", READ_KEY)] };
        eventually(Duration::from_secs(10), || match error(deps(headers)) {
            Value::String(text) if text.contains("28") => Ok(()),
            other => Err(format!("no reason: {other}")),
        });
        let shown = deps(headers);
        assert!(!shown.to_string().contains("secret_role"), "{shown}");
        assert_eq!(shown["status"], "degraded", "{shown}");
        if !is_open {
            for headers in [&[][..], &[("X-Api-Key", "a-key-of-nobody-001")]] {
                let shown = deps(headers);
                assert_eq!((&error(shown.clone()), &shown["status"]), (&Value::Null, &json!("degraded")), "{shown}");
            }
        }
        bench.kill();
    }
}

/// The ledger refuses one row as data.
const POSTGRES_REFUSES: &str = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \
    $$ BEGIN RAISE EXCEPTION 'refused' USING ERRCODE = '22000'; END $$; \
    CREATE TRIGGER refuses BEFORE INSERT ON events FOR EACH ROW WHEN (NEW.keyword = 'refused') EXECUTE FUNCTION refuse()";
const SQLITE_REFUSES: &str = "CREATE TRIGGER refuses BEFORE INSERT ON events WHEN NEW.keyword = 'refused' \
                       BEGIN SELECT RAISE(ABORT, 'refused'); END";

#[test]
fn dead_letters_are_counted_over_restarts() {
    on_pairs(MAIN_PAIRS, |bench| {
        let refuse = match bench.database_url {
            Some(_) => POSTGRES_REFUSES,
            None => SQLITE_REFUSES,
        };
        bench.execute(refuse);
        let event = json!({"eventType":"SEARCH","userId":1,"metadata":{"keyword":"refused"}});
        bench.client().post("/api/events", &event).expect(202);
        for _ in 0..2 {
            let mut client = bench.client();
            eventually(Duration::from_secs(20), || {
                let metric = client.metric("sink_dead_records_total{sink=\"ledger\"}");
                let deps = client.get("/healthz/deps").json();
                let is_counted = metric == 1.0 && deps["deadLetters"] == 1;
                if is_counted { Ok(()) } else { Err(format!("{metric} in metrics, {deps}")) }
            });
            assert_eq!(bench.number("SELECT count(*) FROM dead_letter"), 1);
            bench.stop();
            bench.start();
        }
    });
}

#[test]
fn answers_about_one_person_are_private() {
    each_pair(|_, client| {
        for path in ["/api/search/recent/7", "/api/posts/p/like?userId=7"] {
            for method in ["GET", "HEAD"] {
                let answer = client.send(method, path, &[], b"").expect(200);
                assert_eq!(answer.header("cache-control"), Some("private"), "{method} {path}");
            }
        }
        assert_eq!(client.get("/api/posts/p/like").expect(200).header("cache-control"), None);
    });
}
