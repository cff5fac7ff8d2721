//! CSV as other programs write it: quotes, blanks, numbers and times.

use serde_json::Value;

use super::{Desk, at_a_desk, embedded, name, now_ms};
use crate::support::bench::Bench;

const HEADER: &str = "eventType,userId,componentId,keyword";

fn stored(bench: &Bench, columns: &str) -> Vec<Vec<String>> {
    bench.settle();
    bench.rows(&format!("SELECT {columns} FROM events ORDER BY 1"))
}

fn users(bench: &Bench) -> Vec<String> {
    stored(bench, "user_id").concat()
}

/// Line, error and input of each refused row.
fn refused(desk: &Desk, file: &str) -> Vec<(u64, String, String)> {
    desk.rejects(&format!("{file}.rejects.ndjson"))
}

#[test]
fn a_bad_quote_costs_its_line_and_no_other() {
    // The line, and whether it is refused.
    let lines: [(&str, bool); 14] = [
        ("CLICK,a,1,", false),
        ("CLICK,\"b,1,", true),
        ("CLICK,c,1,", false),
        ("CLICK,\"d\",1,", false),
        ("CLICK,\"e\"x,1,", true),
        ("CLICK, \"f\" ,1,", false),
        ("SEARCH,\"g\",,\"5\"\" oak\"", false),
        ("SEARCH,h,,5\" oak", false),
        ("SEARCH,i,,\"5\" oak\"", true),
        ("SEARCH,j,,\"two, words\"", false),
        ("CLICK,k,1", true),
        ("CLICK,l,1,,,", true),
        ("SEARCH,m,,\"\"\"oak\"\"\"", false),
        ("CLICK,\"n,1,", true),
    ];
    let text = lines.iter().fold(HEADER.to_owned(), |text, (line, _)| text + "\r\n" + line);
    for (file, packed) in [("in.csv", None), ("in.csv.gz", Some(super::Packing::Gzip))] {
        let (bench, desk) = at_a_desk();
        let bytes = packed.map_or(text.clone().into_bytes(), |packing| super::input::pack(text.as_bytes(), packing));
        desk.write(file, &bytes);
        desk.import(&[file]).expect(3).says("8 accepted, 6 refused (invalid_csv 6)");
        assert_eq!(users(&bench), ["a", "c", "d", "f", "g", "h", "j", "m"].map(str::to_owned));
    }
}

#[test]
fn lines_after_an_unclosed_quote_are_read_however_many_they_are() {
    const ROWS: usize = 20_000;
    let (bench, desk) = at_a_desk();
    let row = |number: usize| match number {
        7 | 15_000 => format!("CLICK,\"u{number},1,\n"),
        _ => format!("CLICK,u{number},1,\n"),
    };
    let text = (0..ROWS).map(row).fold(format!("{HEADER}\n"), |text, line| text + &line);
    let report = desk.import_from(text.as_bytes(), &["--rejects", "r", "--format", "csv", "-"]).expect(3);
    report.says("19,998 accepted, 2 refused (invalid_csv 2)");
    let listed = desk.rejects("r");
    let lines: Vec<(u64, &str)> = listed.iter().map(|(line, _, input)| (*line, input.as_str())).collect();
    assert_eq!(lines, [(9, "CLICK,\"u7,1,"), (15_002, "CLICK,\"u15000,1,")]);
    bench.settle();
    assert_eq!(bench.event_rows(), ROWS as i64 - 2);
}

#[test]
fn a_record_over_several_lines_is_one_row_and_a_resumed_import_reads_on_after_a_bad_quote() {
    let (bench, desk) = at_a_desk();
    let file =
        desk.write("in.csv", format!("{HEADER}\nSEARCH,a,,\"two\nlines\"\nSEARCH,\"b\nSEARCH,c,,x\n").as_bytes());
    desk.import(&["--batch", "1", "--connections", "1", name(&file)]).expect(3).says("2 accepted, 1 refused");
    assert_eq!(stored(&bench, "user_id, keyword"), [["a", "two\nlines"], ["c", "x"]]);
    assert_eq!(refused(&desk, "in.csv"), [(4, "invalid_csv".to_owned(), "SEARCH,\"b".to_owned())]);
}

#[test]
fn cells_lose_their_blanks_and_ids_of_pandas_their_fraction() {
    let (bench, desk) = at_a_desk();
    let text = "\u{feff}Event Type,USER_ID,metadata.ComponentId,post-id,resultCount,element id\n\
        CLICK, 1 ,9223372036854775807,,,\n\
        CLICK,\" 2\t\", 7 , p 1 ,,\n\
        CLICK,42.0,1001.0,7.0,3.0,2.0\n\
        CLICK,12e5,1,,,\n\
        CLICK,1.50,1,,,\n\
        CLICK,007,1,,,\n\
        CLICK,-3.0,1,\u{a0}\u{3000},,\n";
    desk.write("in.csv", text.as_bytes());
    desk.import(&["in.csv"]).expect(0).says("7 accepted, 0 refused");
    let found = stored(&bench, "user_id, component_id, post_id, result_count, element_id");
    let expected = [
        ["-3", "1", "NULL", "NULL", "NULL"],
        ["007", "1", "NULL", "NULL", "NULL"],
        ["1", "9223372036854775807", "NULL", "NULL", "NULL"],
        ["1.50", "1", "NULL", "NULL", "NULL"],
        ["12e5", "1", "NULL", "NULL", "NULL"],
        ["2", "7", "p 1", "NULL", "NULL"],
        ["42", "1001", "7", "3", "2.0"],
    ];
    assert_eq!(found, expected);
}

/// As the server exports them, by user.
fn times(bench: &Bench) -> Vec<(String, String)> {
    bench.settle();
    let text = bench.client().get("/api/export").expect(200);
    let event = |line: &str| {
        let event: Value = serde_json::from_str(line).expect("JSON");
        let text = |field: &str| event[field].as_str().expect("text").to_owned();
        (text("userId"), text("timestamp"))
    };
    let mut times: Vec<_> = text.text().lines().map(event).collect();
    times.sort();
    times
}

#[test]
fn times_of_warehouses_are_read_from_csv_and_ndjson() {
    let day = jiff::Timestamp::from_millisecond(now_ms() - 2 * 86_400_000).unwrap().strftime("%Y-%m-%d").to_string();
    // What a file says, and the hour and minute (UTC) that it means; a local time is one of Seoul.
    let forms = [
        ("12:34:56.789 UTC", "12:34:56.789"),
        ("12:34:56.789012 UTC", "12:34:56.789"),
        ("12:34:56 utc", "12:34:56.000"),
        ("12:34:56.789 GMT", "12:34:56.789"),
        ("12:34:56.789 Z", "12:34:56.789"),
        ("12:34:56.789Z", "12:34:56.789"),
        ("12:34:56.789 -0800", "20:34:56.789"),
        ("12:34:56.789 +09:00", "03:34:56.789"),
        ("12:34:56.789+00", "12:34:56.789"),
        ("12:34:56.789 +0000 UTC", "12:34:56.789"),
        ("12:34:56.789 Asia/Seoul", "03:34:56.789"),
        ("12:34:56", "03:34:56.000"),
        ("12:34:56.789", "03:34:56.789"),
    ];
    let (bench, desk) = at_a_desk();
    let user = |format: &str, number: usize| format!("{format}{number:02}");
    let mut csv = "eventType,userId,componentId,timestamp\n".to_owned();
    let mut ndjson = String::new();
    let mut expected = Vec::new();
    for (number, (form, meant)) in forms.iter().enumerate() {
        csv.push_str(&format!("CLICK,{},1, {day} {form} \n", user("csv", number)));
        let (user_id, metadata) = (user("ndjson", number), "{\"componentId\":1}");
        ndjson.push_str(&format!(
            "{{\"timestamp\" : \"{day} {form}\",\"eventType\":\"CLICK\",\"userId\":\"{user_id}\",\"metadata\":{metadata}}}\n"
        ));
        expected.extend(["csv", "ndjson"].map(|format| (user(format, number), format!("{day}T{meant}Z"))));
    }
    desk.write("in.csv", csv.as_bytes());
    desk.write("in.ndjson", ndjson.as_bytes());
    desk.import(&["--source-time-zone", "Asia/Seoul", "in.csv", "in.ndjson"]).expect(0);
    expected.sort();
    assert_eq!(times(&bench), expected);
    // Without the option a local time says nothing: it is refused, and the reason names the option.
    desk.write("local.csv", csv.as_bytes());
    desk.import(&["--dry-run", "local.csv"]).expect(3).says("2 refused").says("--source-time-zone");
    desk.import(&["--source-time-zone", "Mars/Base", "local.csv"]).expect(2).says("Mars/Base");
}

#[test]
fn an_export_as_csv_with_a_mark_is_imported_as_it_is() {
    let bench = embedded();
    let event = serde_json::json!({"eventType": "SEARCH", "userId": "가", "metadata": {"keyword": "고양이"}});
    bench.client().post("/api/events?wait=true", &event).expect(201);
    let export = bench.client().get("/api/export?format=csv&bom=true").expect(200);
    assert!(export.body.starts_with("\u{feff}eventId,".as_bytes()), "{}", export.text());
    let (second, desk) = at_a_desk();
    desk.write("in.csv", &export.body);
    desk.import(&["in.csv"]).expect(0).says("1 accepted");
    assert_eq!(stored(&second, "user_id, keyword"), [["가", "고양이"]]);
}
