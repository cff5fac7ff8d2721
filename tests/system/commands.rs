//! The commands beside `serve`: what `check` finds on good and on broken set-ups, and what `seed` makes.

mod logs;
mod privacy;
mod settings;
mod settings_page;
mod starting;

use std::fs::DirEntry;
use std::path::Path;
use std::process::{Command, Output};

use event_tracker::adapters::{postgres as postgres_ledger, sqlite as sqlite_ledger};

use crate::support::bench::{Bench, Ledger, Live, MAIN_PAIRS, on_pairs, on_pairs_stopped};
use crate::support::certificate::Files;
use crate::support::program::{Ended, run};
use crate::support::{click, eventually_is, is_root, permit, postgres, tables};
use serde_json::Value;
const PASSWORD: &str = "s3cret-of-the-database";

// ---- check ----

/// Its exit code and what it found.
fn check(command: &mut Command) -> (i32, Vec<Value>) {
    let Ended { code, out: text, err } = run(command.args(["check", "--json"]));
    let code = code.expect("it ends by itself");
    assert!(!text.contains(PASSWORD) && !err.contains(PASSWORD), "{text}");
    if code == 2 {
        return (code, Vec::new());
    }
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let findings = report["findings"].as_array().expect("findings").clone();
    let failed = findings.iter().filter(|finding| finding["level"] == "fail").count();
    assert_eq!((report["failed"].as_u64(), code), (Some(failed as u64), i32::from(failed > 0)), "{text}");
    (code, findings)
}

#[track_caller]
fn expect(findings: &[Value], level: &str, about: &str, words: &str) {
    let says = |finding: &Value| finding["message"].as_str().is_some_and(|message| message.contains(words));
    let mut of_it = findings.iter().filter(|finding| finding["level"] == level && finding["about"] == about);
    assert!(of_it.any(says), "no {level} about {about} with `{words}` in {findings:#?}");
}

/// With a password that the server does not ask for.
fn with_password(url: &str) -> String {
    url.replacen("test@", &format!("test:{PASSWORD}@"), 1)
}

#[test]
fn a_good_set_up_passes_and_is_left_as_it_was() {
    on_pairs_stopped(MAIN_PAIRS, |bench| {
        if let Some(url) = &bench.database_url {
            bench.database_url = Some(with_password(url));
        }
        let (code, findings) = check(&mut bench.command());
        assert_eq!(code, 0, "{findings:#?}");
        expect(&findings, "ok", "journal", "none yet");
        expect(&findings, "ok", "port", "is free");
        expect(&findings, "ok", "limits", "connections");
        assert!(!bench.data_dir.exists(), "nothing is made");
        let is_postgres = bench.database_url.is_some();
        let about = if is_postgres { "PostgreSQL" } else { "SQLite" };
        if is_postgres {
            expect(&findings, "ok", about, "encoding UTF8");
            expect(&findings, "ok", about, "may create tables");
            let tables = bench.number("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'");
            assert_eq!(tables, 0, "no schema is made");
            expect(&findings, "ok", "Redis", "runs our scripts");
            expect(&findings, "ok", "Redis", "its clock differs from ours by");
        }
        bench.start();
        bench.client().post("/api/events", &click(1)).expect(202);
        bench.settle();
        let taken = bench.address().to_string();
        let (code, findings) = check(bench.command().env("LISTEN", &taken));
        assert_eq!(code, 0, "{findings:#?}");
        expect(&findings, "ok", "journal", "a running server");
        expect(&findings, "ok", "port", "in use");
        let versions = [sqlite_ledger::inspect::KNOWN_SCHEMA, postgres_ledger::inspect::KNOWN_SCHEMA.into()];
        expect(&findings, "ok", about, &format!("schema {}", versions[usize::from(is_postgres)]));
        bench.stop();
        let files = || (names(&bench.data_dir), names(&bench.data_dir.join("journal")));
        let before = files();
        let (code, findings) = check(&mut bench.command());
        assert_eq!(code, 0, "{findings:#?}");
        expect(&findings, "ok", "journal", "end 1, ");
        assert_eq!(files(), before);
        // The same for people: a line a finding.
        let text = bench.run(&["check"]).printed();
        assert!(text.lines().count() == findings.len() && text.lines().all(|line| line.len() > 6), "{text}");
        assert!(!text.contains(PASSWORD));
    });
}

fn names(directory: &Path) -> Vec<(String, u64)> {
    let entries = std::fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry"));
    let name =
        |entry: DirEntry| (entry.file_name().into_string().expect("UTF-8"), entry.metadata().expect("a file").len());
    let mut names: Vec<_> = entries.map(name).collect();
    names.sort();
    names
}

#[test]
fn what_is_wrong_with_postgresql_is_said_with_what_to_do() {
    let server = postgres::Server::shared();
    let bench = Bench::on(None, None);
    let on = |url: &str| check(bench.command().env("DATABASE_URL", url));
    let (_, findings) = on(&format!("postgres://test:{PASSWORD}@127.0.0.1:1/nowhere"));
    expect(&findings, "fail", "PostgreSQL", "mend DATABASE_URL (postgres://127.0.0.1:1/nowhere)");
    let ascii = server.database("ascii", "ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
    let (_, findings) = on(&ascii);
    expect(&findings, "fail", "PostgreSQL", "CREATE DATABASE events ENCODING 'UTF8' TEMPLATE template0");
    let url = server.database("schema", "");
    postgres_ledger::prepare(&url).expect("a fresh database takes the schema");
    let set = |sql: &str| drop(tables::of_postgres(&url, sql));
    let (code, findings) = on(&url);
    assert_eq!(code, 0, "{findings:#?}");
    // What people add to our database is theirs to add.
    set("CREATE TABLE a_report (a int)");
    assert_eq!(on(&url).0, 0);
    set("UPDATE schema_version SET version = 99");
    expect(&on(&url).1, "fail", "PostgreSQL", "start the newer program");
    set("UPDATE schema_version SET version = 0; UPDATE schema_version SET version = 1");
    // A role of its own for this test: others share the server.
    let role = format!("weak_{}", uuid::Uuid::new_v4().simple());
    set(&format!(
        "CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'; REVOKE CREATE ON SCHEMA public FROM PUBLIC; \
         GRANT SELECT ON schema_version TO {role}"
    ));
    let (_, findings) = on(&as_role(&url, &role));
    expect(&findings, "fail", "PostgreSQL", "GRANT CREATE ON SCHEMA");
    expect(&findings, "fail", "PostgreSQL", "ALTER TABLE events OWNER");
    set(&format!("REVOKE ALL ON schema_version FROM {role}; DROP ROLE {role}"));
}

fn as_role(url: &str, role: &str) -> String {
    let (scheme, rest) = url.split_once("://").expect("a URL");
    let (_, host) = rest.split_once('@').expect("a user");
    format!("{scheme}://{role}:{PASSWORD}@{host}")
}

/// A database with one statement of another program's in it.
fn foreign_database(server: &postgres::Server, sql: &str) -> String {
    let url = server.database("foreign", "");
    tables::of_postgres(&url, sql);
    url
}

/// Another program's tables and views, and the name that is told of each.
const FOREIGN: [(&str, &str); 5] = [
    ("CREATE TABLE zoo (a int); CREATE TABLE post (id bigint)", "`post`"),
    ("CREATE TABLE post_like (id bigint)", "`post_like`"),
    ("CREATE TABLE schema_version (installed_rank int, version text)", "`schema_version`"),
    ("CREATE TABLE schema_version (version int); INSERT INTO schema_version VALUES (9)", "`schema_version`"),
    ("CREATE VIEW events AS SELECT 1 AS a", "`events`"),
];

#[test]
fn a_database_of_another_program_is_refused_by_name_and_gets_no_journal() {
    let server = postgres::Server::shared();
    for (sql, name) in FOREIGN {
        let mut bench = Bench::on(Some(foreign_database(&server, sql)), None);
        expect(&check(&mut bench.command()).1, "fail", "PostgreSQL", name);
        bench.run(&[]).fails(name);
        assert!(!bench.data_dir.exists(), "{sql}: something was made");
        bench.run(&["export"]).fails(name);
        bench.kill();
    }
    // An extension's tables belong to no program.
    let url =
        foreign_database(&server, "CREATE EXTENSION pg_trgm; CREATE SCHEMA other; CREATE TABLE other.post (a int)");
    let (code, findings) = check(&mut Bench::on(Some(url), None).command());
    assert_eq!(code, 0, "{findings:#?}");
}

#[test]
fn a_file_of_another_program_stays_as_it_is() {
    for sql in
        ["CREATE TABLE post (a)", "CREATE VIEW v AS SELECT 1", "PRAGMA user_version = 99", "PRAGMA application_id = 7"]
    {
        let bench = Bench::on(None, None);
        std::fs::create_dir(&bench.data_dir).expect("makes");
        let file = bench.data_dir.join("ledger.sqlite");
        rusqlite::Connection::open(&file).and_then(|file| file.execute_batch(sql)).expect("another program's");
        let before = std::fs::read(&file).expect("a file");
        expect(&check(&mut bench.command()).1, "fail", "SQLite", "");
        bench.run(&[]).fails("");
        assert!(std::fs::read(&file).expect("a file") == before, "{sql}: the file was changed");
        assert_eq!(names(&bench.data_dir).len(), 1, "{sql}: {:?}", names(&bench.data_dir));
    }
}

#[test]
fn a_pooler_that_shares_connections_by_transaction_is_told() {
    let server = postgres::Server::private();
    let name = server.database("pooled", "");
    let direct = server.tcp(&name);
    let pooler = crate::support::pooler::start(server.address());
    let pooled = direct.replace(&server.address().to_string(), &pooler.to_string());
    let bench = Bench::on(Some(pooled), None);
    expect(&check(&mut bench.command()).1, "fail", "PostgreSQL", "pool_mode = session");
    bench.run(&[]).fails("pool_mode = session");
    assert!(!bench.data_dir.exists(), "something was made");
    assert_eq!(check(&mut Bench::on(Some(direct), None).command()).0, 0, "the server itself");
}

#[test]
fn a_remote_database_without_encryption_is_warned_of() {
    let bench = Bench::on(None, None);
    // Addresses of this machine that no server answers on; only their form is judged.
    let warns = |url: &str| {
        let findings = check(bench.command().env("DATABASE_URL", url)).1;
        findings.iter().any(|finding| finding["message"].as_str().expect("text").contains("sslmode=require"))
    };
    for local in ["localhost", "127.0.0.1", "[::1]", "%2Ftmp"] {
        assert!(!warns(&format!("postgres://u@{local}:1/x")), "{local}");
    }
    assert!(warns("postgres://u@database.invalid:1/x"));
    assert!(!warns("postgres://u@database.invalid:1/x?sslmode=disable"));
}

#[test]
fn a_redis_that_forbids_info_works_and_is_checked() {
    let mut bench = Bench::new(Ledger::Sqlite, Live::Redis);
    let redis = bench.redis.as_ref().expect("Redis");
    redis.admin("ACL SETUSER default -info").expect("sets");
    let (code, findings) = check(&mut bench.command());
    assert_eq!(code, 0, "{findings:#?}");
    expect(&findings, "warn", "Redis", "may not run INFO");
    expect(&findings, "ok", "Redis", "runs our scripts");
    bench.start();
    bench.settle();
}

#[test]
fn what_is_wrong_with_files_ports_and_redis_is_said() {
    let bench = Bench::on(None, None);
    let root = tempfile::tempdir().expect("a directory");
    let at = |name: &str| root.path().join(name);
    let on = |name: &str| check(bench.command().env("DATA_DIR", at(name))).1;
    std::fs::write(at("file"), "").expect("writes");
    expect(&on("file"), "fail", "data directory", "is no directory");
    expect(&on("file/below"), "fail", "data directory", "is no directory");
    if Path::new("/dev/shm").is_dir() && crate::support::bench::is_tmpfs(Path::new("/dev/shm")) {
        let strict = |command: &mut Command| check(command.env("DATA_DIR", "/dev/shm").env_remove("ALLOW_TMPFS"));
        expect(&strict(&mut bench.command()).1, "fail", "disk", "tmpfs loses events");
    }
    // The super-user may write everywhere: then there is nothing to find.
    if !is_root() {
        std::fs::create_dir(at("sealed")).expect("makes");
        permit(&at("sealed"), 0o555);
        expect(&on("sealed"), "fail", "data directory", "cannot be written");
    }
    let too_much = check(bench.command().env("JOURNAL_MIN_FREE", u64::MAX.to_string())).1;
    expect(&too_much, "fail", "space", "JOURNAL_MIN_FREE");
    for (name, sql, level, words) in [
        ("newer", "PRAGMA user_version = 99", "fail", "start the newer program"),
        ("older", "PRAGMA user_version = 1", "fail", "before the first release"),
        ("foreign", "CREATE TABLE zoo (a); CREATE TABLE post (a)", "fail", "`post`"),
        ("marked", "PRAGMA application_id = 7", "fail", "application_id 7"),
        ("ours", "CREATE TABLE t (a)", "ok", "no damage"),
    ] {
        std::fs::create_dir(at(name)).expect("makes");
        let file = at(name).join("ledger.sqlite");
        if name == "ours" {
            drop(sqlite_ledger::SqliteLedger::open(&file).expect("opens"));
        }
        rusqlite::Connection::open(file).and_then(|file| file.execute_batch(sql)).expect("sets");
        expect(&on(name), level, "SQLite", words);
    }
    let slashes = format!("/{}", at("ours").display());
    expect(&check(bench.command().env("DATA_DIR", slashes)).1, "ok", "SQLite", "no damage");
    let file = at("ours").join("ledger.sqlite");
    let mut bytes = std::fs::read(&file).expect("a file");
    bytes[4096..].fill(0x5a);
    std::fs::write(&file, bytes).expect("writes");
    expect(&on("ours"), "fail", "SQLite", "restore a backup");
    std::fs::create_dir_all(at("odd/journal")).expect("makes");
    std::fs::write(at("odd/journal/stream"), "no id").expect("writes");
    expect(&on("odd"), "fail", "journal", "holds no UUID");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let taken = listener.local_addr().expect("an address").to_string();
    expect(&check(bench.command().env("LISTEN", taken)).1, "fail", "port", "choose another LISTEN");
    let away = format!("redis://:{PASSWORD}@127.0.0.1:1");
    expect(&check(bench.command().env("REDIS_URL", away)).1, "fail", "Redis", "mend REDIS_URL (redis://127.0.0.1:1)");
    for (name, value) in [("DATABASE_URL", "mysql://x"), ("WORKERS", "many"), ("ADMIN_KEYS", "short")] {
        assert_eq!(check(bench.command().env(name, value)).0, 2, "{name}");
    }
    let open = check(bench.command().env("LISTEN", "0.0.0.0:0").env("INSECURE_OPEN", "true")).1;
    expect(&open, "warn", "keys", "ADMIN_KEYS");
}

#[test]
fn a_file_of_keys_that_others_can_read_is_warned_of_and_no_key_is_told() {
    let files = Files::ecdsa();
    let mut bench = Bench::on(None, None);
    let root = tempfile::tempdir().expect("a directory");
    let settings = ["INGEST_KEYS_FILE", "WRITE_KEYS_FILE", "READ_KEYS_FILE", "ADMIN_KEYS_FILE", "TLS_KEY"];
    let path = |setting: &str| root.path().join(setting);
    let secret = |setting: &str| format!("{}-{PASSWORD}", setting.to_lowercase());
    settings[..4].iter().for_each(|setting| std::fs::write(path(setting), secret(setting)).expect("writes"));
    std::fs::copy(files.key(), path("TLS_KEY")).expect("copies");
    let warned = || {
        let mut command = bench.command();
        command.env("TLS_CERT", files.certificate()).envs(settings.map(|setting| (setting, path(setting))));
        let (code, findings) = check(&mut command);
        assert_eq!(code, 0, "{findings:#?}");
        let warnings = findings.iter().filter(|found| found["level"] == "warn");
        let warnings = warnings.map(|found| found["message"].to_string());
        warnings.filter(|message| message.contains("every user")).collect::<Vec<String>>()
    };
    settings.iter().for_each(|setting| permit(&path(setting), 0o640));
    assert_eq!(warned(), [""; 0]);
    for setting in settings {
        permit(&path(setting), 0o604);
        let warnings = warned();
        let names_it = warnings.iter().all(|warning| warning.contains(setting) && warning.contains("chmod 600"));
        assert!(warnings.len() == 1 && names_it, "{warnings:?}");
        permit(&path(setting), 0o600);
    }
    // The server says it too, once it runs.
    permit(&path("ADMIN_KEYS_FILE"), 0o644);
    bench.set("ADMIN_KEYS_FILE", path("ADMIN_KEYS_FILE").to_str().expect("a path"));
    bench.start();
    bench.says("can be read by every user of this machine: chmod 600");
    assert!(!bench.log().contains(PASSWORD), "a key is in the log");
}

#[test]
fn help_shows_each_setting_where_it_is_used() {
    let help =
        |command: &str| run(Command::new(env!("CARGO_BIN_EXE_event-tracker")).args([command, "--help"])).printed();
    let check = help("check");
    let limits = check.find("Limits of the HTTP server:").expect("a heading");
    for general in ["--json", "--access-log"] {
        assert!(check.find(general).is_some_and(|at| at < limits), "{general}: {check}");
    }
    assert!(!check.contains("--salvage"), "{check}");
    // An export reads dates, which begin in a time zone. `seed` and `import` know no store.
    let stores = ["DATABASE_URL", "DATA_DIR", "TIME_ZONE", "REDIS_URL", "REDIS_POOL", "PG_POOL"];
    for (command, used) in [("export", 3), ("seed", 0), ("import", 0)] {
        let help = help(command);
        for (index, name) in stores.iter().enumerate() {
            assert_eq!(help.contains(&format!("[env: {name}")), index < used, "{name}: {help}");
        }
    }
}

// ---- seed ----

fn seed(bench: &Bench, arguments: &str) -> Output {
    bench.command().arg("seed").args(arguments.split(' ')).output().expect("runs")
}

#[track_caller]
fn seeded(bench: &Bench, arguments: &str) -> Output {
    let output = seed(bench, arguments);
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

const SMALL: &str = "--users 50 --posts 20 --keywords 100 --days 3";

#[test]
fn the_same_seed_makes_the_same_bytes() {
    let bench = Bench::on(None, None);
    let make =
        |more: &str| seeded(&bench, &format!("--events 3000 {SMALL} --until 1795343430000 --output - {more}")).stdout;
    let first = make("--seed 7");
    assert!(first == make("--seed 7") && first != make("--seed 8") && first != make("--seed 7 --skew 0.5"));
    assert_eq!(first.iter().filter(|byte| **byte == b'\n').count(), 3_000);
    let searches = String::from_utf8(make("--types search=1")).expect("UTF-8");
    assert!(searches.lines().all(|line| line.contains("\"SEARCH\"")));
    assert!(searches.contains("책상") && searches.contains("desk"));
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("events.ndjson.zst");
    seeded(&bench, &format!("--events 3000 {SMALL} --until 1795343430000 --seed 7 --output {}", file.display()));
    assert!(zstd::decode_all(&std::fs::read(file).expect("a file")[..]).expect("zstd") == first);
    for wrong in [
        "--events 1 --types hover=1 --output -",
        "--events 1 --users 0 --output -",
        "--events 1 --until noon",
        "--events 1 --url http://127.0.0.1:1 --output -",
    ] {
        assert_eq!(seed(&bench, wrong).status.code(), Some(2), "{wrong}");
    }
    assert!(seeded(&bench, "--events 0 --output -").stdout.is_empty(), "none is a number too");
}

#[test]
fn posts_are_made_once_however_often() {
    on_pairs(MAIN_PAIRS, |bench| {
        let mut made = Vec::new();
        for _ in 0..2 {
            let output = seeded(bench, &format!("posts --count 60 --url http://{}", bench.address()));
            let said = String::from_utf8(output.stderr).expect("UTF-8");
            assert!(said.starts_with("made 60 posts in "), "{said}");
            bench.settle();
            made.push(bench.rows("SELECT post_id, content, hashtags, created_at FROM post ORDER BY post_id"));
            assert_eq!(made[made.len() - 1].len(), 60);
            let found = bench.client().read("/api/search?keyword=%EA%B3%A0%EC%96%91%EC%9D%B4&limit=100");
            let found = found["posts"].as_array().expect("posts").len();
            assert!((8..30).contains(&found), "{found} of 60 with one of ten hashtags");
        }
        assert_eq!(made[0], made[1], "replaced by the same");
    });
    let bench = Bench::on(None, None);
    for wrong in ["posts --events 1", "--events 1 posts", "posts --count many"] {
        assert_eq!(seed(&bench, wrong).status.code(), Some(2), "{wrong}");
    }
}

#[test]
fn events_sent_to_a_server_are_stored_once_even_when_sent_again() {
    on_pairs(MAIN_PAIRS, |bench| {
        let (now, address) = (crate::support::now_ms(), bench.address());
        let arguments = format!("--events 4321 {SMALL} --until {now} --url http://{address}");
        for _ in 0..2 {
            let output = seeded(bench, &arguments);
            let said = String::from_utf8(output.stderr).expect("UTF-8");
            assert!(said.contains("4321 events") && said.contains("a second"), "{said}");
        }
        eventually_is(crate::support::bench::SETTLE_WAIT, &4321, || bench.event_rows());
        bench.check_sums();
    });
}
