//! The tables of the Kotlin tracker arrive by the pipes that docs/operations.md documents: the test
//! reads the lines there and runs them.

use std::process::{Command, Output};

use postgres::{Client, NoTls};
use serde_json::{Value, json};

use super::{embedded, now_ms};
use crate::support::bench::Bench;
use crate::support::postgres::Server;

/// The section of the document.
fn section() -> &'static str {
    let rest =
        include_str!("../../../docs/operations.md").split("### From the Kotlin tracker\n").nth(1).expect("the section");
    rest.split("\n## ").next().expect("its end")
}

/// The shell blocks for events and for posts; the first block sets the addresses.
fn documented() -> [&'static str; 2] {
    let blocks: Vec<&str> = section().split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    let [_, events, posts] = blocks[..] else { panic!("{} blocks", blocks.len()) };
    [events, posts]
}

/// Pastes lines into a shell, where `event-tracker` is this build.
fn paste(lines: &str, old: &str, bench: &Bench) -> Output {
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_event-tracker"));
    let path = format!("{}:{}", program.parent().expect("a directory").display(), std::env::var("PATH").unwrap());
    let url = format!("http://{}", bench.address());
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(lines).current_dir(&bench.data_dir);
    shell.env_clear().env("PATH", path).env("OLD", old).env("TRACKER_URL", url).output().expect("a shell")
}

/// Does a program of the documented lines exist here? If not, says that the test is skipped.
fn has(program: &str) -> bool {
    let found = Command::new("sh").arg("-c").arg(format!("command -v {program}")).output().expect("a shell");
    if !found.status.success() {
        eprintln!("skipped: there is no {program} here");
    }
    found.status.success()
}

fn seconds(time: &Value) -> i64 {
    time.as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok()).expect("a time").as_second()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A database of the Kotlin tracker, whose times are `at` (seconds): ids as numbers and true types,
/// or all of them as text.
fn old_database(server: &Server, is_text: bool, at: i64) -> (String, Client) {
    let url = server.database("old", "");
    let (id, list, json, time) = match is_text {
        false => ("bigint", "text[]", "jsonb", "timestamptz"),
        true => ("varchar(40)", "text", "text", "timestamp"),
    };
    let (hashtags, images) = match is_text {
        false => ("ARRAY['oak', 'desk']", "ARRAY['https://x/a.png', 'https://x/b.png']"),
        true => ("'oak,desk'", "'https://x/a.png,https://x/b.png'"),
    };
    let sql = format!(
        "CREATE TABLE statistics (event_type varchar(20), metadata {json}, count bigint);
         CREATE TABLE post (post_id {id} PRIMARY KEY, user_id {id}, content text, image_urls {list}, hashtags {list}, created_at {time});
         CREATE TABLE post_like (user_id {id}, post_id {id}, liked_at {time}, PRIMARY KEY (user_id, post_id));
         INSERT INTO post_like SELECT u, p, to_timestamp({at}) AT TIME ZONE 'UTC'
             FROM generate_series(1, 30) u, generate_series(1, 50) p WHERE (u + p) % 2 = 0;
         INSERT INTO statistics VALUES ('CLICK', '{{\"componentId\":1001}}', 1500), ('CLICK', '{{\"componentId\":\"1002\"}}', 250),
             ('SEARCH', '{{\"keyword\":\"it''s oak\"}}', 3), ('SEARCH', '{{\"keyword\":\"it''s oak\"}}', 4), ('PAGE_VIEW', '{{\"url\":\"/a\"}}', 0),
             ('LIKE', '{{\"postId\":\"1\"}}', 1000000), ('DANCE', '{{}}', 7);
         INSERT INTO post SELECT p, p % 7, 'post ' || p || E'\\nand \"more\"', {images}, {hashtags}, to_timestamp({at}) AT TIME ZONE 'UTC' FROM generate_series(1, 120) p"
    );
    let mut client = Client::connect(&url, NoTls).unwrap();
    client.batch_execute("SET TimeZone = 'UTC'").and_then(|()| client.batch_execute(&sql)).unwrap();
    (url, client)
}

#[test]
fn likes_and_counts_of_the_old_tables_arrive_once_by_the_documented_lines() {
    if !has("psql") {
        return;
    }
    let server = Server::shared();
    let [lines, _] = documented();
    for is_text in [false, true] {
        let bench = embedded();
        let at = now_ms() / 1_000 - 86_400;
        let (url, mut old) = old_database(&server, is_text, at);
        // A second run sends the same ids, so it changes nothing.
        for _ in 0..2 {
            let output = paste(lines, &url, &bench);
            let said = said(&output);
            assert_eq!(output.status.code(), Some(3), "{said}");
            assert!(said.contains("750 accepted, 0 refused"), "{said}");
            assert!(said.contains("1,757 accepted, 7 refused (unknown_event_type 7)"), "{said}");
            bench.check_sums();
            assert_eq!(bench.number("SELECT count(*) FROM post_like"), 750);
            assert_eq!(bench.number("SELECT count(*) FROM post_like WHERE post_id = '2' AND user_id = '4'"), 1);
            assert_eq!(bench.number("SELECT like_count FROM post_stat WHERE post_id = '7'"), 15);
            let count = |filter: &str| bench.number(&format!("SELECT count(*) FROM events WHERE {filter}"));
            assert_eq!(count("event_type = 'CLICK' AND component_id = 1001 AND session_id = 'imported'"), 1_500);
            assert_eq!(count("component_id = 1002"), 250);
            assert_eq!(count("event_type = 'SEARCH' AND keyword = 'it''s oak'"), 7);
            assert_eq!(bench.event_rows(), 750 + 1_757);
        }
        let export = bench.client().get("/api/export?eventType=LIKE").expect(200);
        let like: Value = serde_json::from_str(export.text().lines().next().expect("a row")).expect("JSON");
        assert_eq!(seconds(&like["timestamp"]), at);
        // Only rows that were added since are added.
        old.batch_execute(
            "UPDATE statistics SET count = count + 3 WHERE count = 250; INSERT INTO post_like VALUES ('77', '1', now())",
        )
        .expect("more rows");
        paste(lines, &url, &bench);
        bench.check_sums();
        assert_eq!(bench.number("SELECT count(*) FROM events WHERE component_id = 1002"), 253);
        assert_eq!(bench.number("SELECT count(*) FROM post_like"), 751);
        assert_eq!(bench.event_rows(), 751 + 1_760);
    }
}

#[test]
fn old_posts_arrive_by_the_documented_line() {
    if !(has("psql") && has("curl")) {
        return;
    }
    let server = Server::shared();
    for is_text in [false, true] {
        let bench = embedded();
        let at = now_ms() / 1_000 - 86_400;
        let (url, _old) = old_database(&server, is_text, at);
        let mut lines = documented()[1].to_owned();
        for (field, column) in [("hashtags", "hashtags"), ("imageUrls", "image_urls")].into_iter().filter(|_| is_text) {
            let (list, text) = (format!("'{field}', {column}"), format!("string_to_array({column}, ',')"));
            assert!(lines.contains(&list) && section().contains(&text), "{column}");
            lines = lines.replace(&list, &format!("'{field}', {text}"));
        }
        for _ in 0..2 {
            let output = paste(&lines, &url, &bench);
            assert!(output.status.success(), "{}", said(&output));
            let found = bench.client().read("/api/posts/33");
            let content = "post 33\nand \"more\"";
            let expected = json!(["5", content, ["oak", "desk"], ["https://x/a.png", "https://x/b.png"]]);
            assert_eq!(json!(["userId", "content", "hashtags", "imageUrls"].map(|name| &found[name])), expected);
            assert_eq!(seconds(&found["createdAt"]), at);
            bench.settle();
            assert_eq!(bench.number("SELECT count(*) FROM post"), 120);
        }
    }
}
