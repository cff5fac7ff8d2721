//! `/metrics` as `promtool check metrics` judges it, and which of two formats a client gets.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use crate::support::bench::each_pair;

/// Names of units that are not base units, and of types, which no name may hold.
const NOT_BASE_UNITS: &str = "milliseconds microseconds nanoseconds minutes hours days weeks kilobytes kibibytes megabytes \
    mebibytes gigabytes bits percent";
const ABBREVIATIONS: &str = "s ms us ns sec b kb mb gb m";
const TYPES: [&str; 5] = ["counter", "gauge", "histogram", "summary", "untyped"];

#[derive(Default)]
struct Family {
    help: String,
    kind: String,
    samples: Vec<String>,
}

fn complaints(text: &str) -> Vec<String> {
    let (mut wrong, mut families, mut seen) = (Vec::new(), BTreeMap::<String, Family>::new(), BTreeSet::new());
    let mut current = String::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            if families.contains_key(name) {
                wrong.push(format!("{name}: a second HELP, or samples before it"));
            }
            name.clone_into(&mut current);
            families.entry(current.clone()).or_default().help = help.to_owned();
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            if name != current || !TYPES.contains(&kind) {
                wrong.push(format!("{line}: not right after its HELP, or an unknown type"));
            }
            families.entry(name.to_owned()).or_default().kind = kind.to_owned();
        } else if line.starts_with('#') || line.is_empty() {
            wrong.push(format!("{line}: neither a sample nor HELP nor TYPE"));
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap_or((line, ""));
            if value.parse::<f64>().is_err() || !seen.insert(series.to_owned()) {
                wrong.push(format!("{line}: no number, or a series that is there already"));
            }
            let name = series.split('{').next().expect("a name");
            let family = families.get(&current);
            let is_histogram = family.is_some_and(|family| family.kind == "histogram");
            let suffixes: &[&str] = if is_histogram { &["_bucket", "_sum", "_count"] } else { &[""] };
            if !suffixes.iter().any(|suffix| name.strip_suffix(suffix) == Some(current.as_str())) {
                wrong.push(format!("{line}: a sample of {current}?"));
            }
            families.entry(current.clone()).or_default().samples.push(series.to_owned());
        }
    }
    families.iter().for_each(|(name, family)| wrong.extend(lint(name, family)));
    wrong
}

fn lint(name: &str, family: &Family) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut rule = |is_broken: bool, says: &str| {
        if is_broken {
            wrong.push(format!("{name}: {says}"));
        }
    };
    let words: Vec<&str> = name.split('_').collect();
    let is = |kind: &str| family.kind == kind;
    let is_any_of = |list: &str| list.split_whitespace().any(|word| words.contains(&word));
    rule(family.help.trim().is_empty(), "no help text");
    rule(family.samples.is_empty(), "no samples");
    rule(is("counter") != name.ends_with("_total"), "counters and nothing else end in _total");
    rule(is_any_of(NOT_BASE_UNITS), "use base units: seconds, bytes");
    rule(is_any_of(ABBREVIATIONS), "units are not abbreviated");
    rule(words.iter().any(|word| TYPES.contains(word)), "a name does not say the type");
    rule(["_bucket", "_count", "_sum"].iter().any(|end| name.ends_with(end)), "a suffix of histograms");
    rule(!name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "not snake_case");
    rule(words.contains(&"time") && !words.contains(&"seconds"), "a time without a unit");
    for series in &family.samples {
        let labels = series.split_once('{').map_or("", |(_, labels)| labels);
        rule(!is("histogram") && labels.contains("le=\""), "a label of histograms");
        rule(labels.contains("quantile=\""), "a label of summaries");
    }
    wrong
}

#[test]
fn metrics_pass_the_checks_of_promtool() {
    each_pair(|_, client| {
        let event = json!({"eventType":"SEARCH","userId":1,"metadata":{"keyword":"a \"b\" \\ c"}});
        client.post("/api/events?wait=true", &event).expect(201);
        client.get("/api/search?keyword=none").expect(200);
        let answer = client.get("/metrics").expect(200);
        assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        let wrong = complaints(answer.text());
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        let names = answer.text().lines().filter(|line| line.starts_with("# TYPE ")).count();
        assert!(names > 40, "{names} metrics");
    });
}

#[test]
fn openmetrics_is_for_those_who_prefer_it() {
    each_pair(|_, client| {
        let mut is_open = |accept: Option<&str>| {
            let headers: Vec<(&str, &str)> = accept.map(|accept| ("Accept", accept)).into_iter().collect();
            let answer = client.send("GET", "/metrics", &headers, b"").expect(200);
            let kind = answer.header("content-type").expect("a type").to_owned();
            assert_eq!(answer.header("vary"), Some("Accept"));
            let is_open = kind == "application/openmetrics-text; version=1.0.0; charset=utf-8";
            assert!(is_open || kind == "text/plain; version=0.0.4; charset=utf-8", "{kind}");
            assert_eq!(answer.text().ends_with("# EOF\n"), is_open, "{accept:?}");
            is_open
        };
        // What Prometheus 2.55 and 3.x send.
        let new = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                   application/openmetrics-text;version=0.0.1;q=0.5,\
                   text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        let old = "text/plain;version=0.0.4;q=1,*/*;q=0.1";
        for (accept, expected) in [
            (Some(new), true),
            (Some(old), false),
            (None, false),
            (Some("*/*"), false),
            (Some("text/html,application/xhtml+xml,*/*;q=0.8"), false),
            (Some("application/openmetrics-text"), true),
            (Some("application/openmetrics-text; version=1.0.0; q=0.5, text/plain"), false),
            (Some("text/plain;q=0.5, APPLICATION/OpenMetrics-Text"), true),
            (Some("application/openmetrics-text;q=0, */*"), false),
            (Some("application/openmetrics-text;q=0.5,text/plain;q=0.5"), false),
            (Some("nonsense"), false),
        ] {
            assert_eq!(is_open(accept), expected, "{accept:?}");
        }
    });
}
