//! What reads foreign bytes against slow models, on generated input: mostly right, a little wrong, cut anywhere. The same
//! checks run on input that coverage guides under `make fuzz`. `SEED=… cargo test --test units http_models` has a run again.

#[path = "../fuzz/models/mod.rs"]
mod models;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Select, select};
use proptest::test_runner::RngSeed;
use serde_json::{Map, Value, json};

const CASES: u32 = 4_000;

fn cases() -> ProptestConfig {
    // A failure prints the smallest input, too; the seed has the whole run again.
    let rng_seed = RngSeed::Fixed(crate::seed::seed());
    ProptestConfig { cases: CASES, failure_persistence: None, rng_seed, ..ProptestConfig::default() }
}

/// Bytes of which some are replaced, left out or doubled.
fn damaged(bytes: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let bytes_of_interest = select(b"\r\n \t:,;0aA#%\x00\x7f\xff".to_vec());
    let wound = (any::<prop::sample::Index>(), 0..3, prop_oneof![bytes_of_interest, any::<u8>()]);
    let wounds = prop_oneof![Just(Vec::new()), vec(wound, 1..3)];
    (bytes, wounds).prop_map(|(mut bytes, wounds)| {
        for (at, how, byte) in wounds {
            let at = at.index(bytes.len() + 1);
            match how {
                0 if at < bytes.len() => bytes[at] = byte,
                1 if at < bytes.len() => drop(bytes.remove(at)),
                _ => bytes.insert(at, byte),
            }
        }
        bytes
    })
}

fn cuts() -> impl Strategy<Value = Vec<usize>> {
    vec(0..400usize, 0..4)
}

/// Parts of heads; what is there several times is drawn more often. The method with two spaces before it is empty.
const METHODS: &str = "GET GET GET PUT DELETE POST OPTIONS CONNECT HEAD get BREW  METHODOFTHIRTYTHREEBYTESANDNOLESS";
const TARGETS: &str = "/ /b /c/d? /a?b=c /%20 * http://h/x HTTPS://h:1?y http://u@h/ ftp://h/ a /a#b /{|}<\"> h:443 \
    /?? //h/.. /aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const VERSIONS: &str = "HTTP/1.1 HTTP/1.1 HTTP/1.1 HTTP/1.1 HTTP/1.1 HTTP/1.0 HTTP/1.0 HTTP/2.0 HTTP/1.2 HTTP/1 \
    HTCPCP/1.0 http/1.1";
const FIELDS: &str = "Host: h|Host: h|HOST:\th:80 |Host: [::1]:8|Host: a b|Host: |Host: h:123456|Host: [x]|\
    Content-Length: 4|Content-Length: 0|Content-Length: +4|Content-Length: 4, 4|\
    content-length: 99999999999999999999999|Transfer-Encoding: chunked|Transfer-Encoding: CHUNKED |\
    Transfer-Encoding: gzip, chunked|Transfer-Encoding: chunked, gzip|Transfer-Encoding: chunked,|\
    Transfer-Encoding: ,|Transfer-Encoding: gzip|Transfer-Encoding:|Connection: close|\
    Connection: Keep-Alive , x|Connection: ,close|Expect: 100-Continue|Expect: more|\
    X: y|X:|X : y| X: y|: y|X|X-Y!#$: \u{e9}\t\u{7e}";

/// One of the words of a list.
fn words(list: &'static str, separator: char) -> Select<&'static str> {
    select(list.split(separator).collect::<Vec<_>>())
}

fn heads() -> impl Strategy<Value = Vec<u8>> {
    let line = (words(METHODS, ' '), words(TARGETS, ' '), words(VERSIONS, ' '))
        .prop_map(|(method, target, version)| format!("{method} {target} {version}"));
    let whole = (
        line,
        prop_oneof![vec(words(FIELDS, '|'), 0..3), vec(words(FIELDS, '|'), 0..8)],
        prop::bool::weighted(0.8),
        vec(any::<u8>(), 0..6),
    )
        .prop_map(|(line, mut fields, has_host, rest)| {
            if has_host {
                fields.retain(|field| !field.to_ascii_lowercase().starts_with("host"));
                fields.insert(fields.len() / 2, "Host: example.org");
            }
            let mut bytes = line.into_bytes();
            for field in fields {
                bytes.extend_from_slice(b"\r\n");
                bytes.extend_from_slice(field.as_bytes());
            }
            bytes.extend_from_slice(b"\r\n\r\n");
            bytes.extend_from_slice(&rest);
            bytes
        });
    damaged(whole)
}

fn chunked_bodies() -> impl Strategy<Value = Vec<u8>> {
    let sizes = ["", "", "", "", "", "", "0", "00", "000", "0000", "+", "0x", " "];
    let extensions = [
        "", "", "", "", "", "", ";", ";a=b", ";aaaaa", ";aaaaaa", " ;a", "x", ";a=\"b\"", ";a;b", ";=", ";a=\"",
        ";a=b\t",
    ];
    let chunk = (select(sizes.to_vec()), vec(any::<u8>(), 1..20), select(extensions.to_vec()), 0..20usize);
    let chunk = chunk.prop_map(|(zeros, data, extension, lie)| {
        let length = if lie == 0 { data.len() + 1 } else { data.len() };
        [format!("{zeros}{length:x}{extension}\r\n").as_bytes(), &data, b"\r\n"].concat()
    });
    let trailers = ["A: b", "A: c", "AAAA: bbbbbb", "AAAAAAAAAA: bbbbbb", "A:", "A", ": b", "A b: c", "A: \x07"];
    let whole = (vec(chunk, 0..4), vec(select(trailers.to_vec()), 0..3), vec(any::<u8>(), 0..6)).prop_map(
        |(chunks, trailers, rest)| {
            let mut bytes = chunks.concat();
            bytes.extend_from_slice(b"0\r\n");
            for trailer in trailers {
                bytes.extend_from_slice(format!("{trailer}\r\n").as_bytes());
            }
            bytes.extend_from_slice(b"\r\n");
            bytes.extend_from_slice(&rest);
            bytes
        },
    );
    damaged(whole)
}

fn queries() -> impl Strategy<Value = String> {
    prop_oneof![
        vec(words("a b= = & + % %2 %41 %2B %00 %C3%A9 %c3 %ff %+1 é x 1 %e2%82%ac ?", ' '), 0..12)
            .prop_map(|pieces| pieces.concat()),
        ".{0,20}"
    ]
}

const TEXTS: &str = "|u|undefined|null|NaN|[object Object]|CLICK|search|Like|page_view| cafe\u{301} |고양이|a\u{0}b|a\nb|\
    2027-01-15T07:59:59Z|yesterday|0190c2a4-0000-7000-8000-000000000000|{0190c2a4-0000-7000-8000-000000000000}|  ";

fn scalars() -> impl Strategy<Value = Value> {
    let lengths = [64usize, 65, 128, 129, 200, 201, 2_048, 2_049];
    prop_oneof![
        4 => words(TEXTS, '|').prop_map(|text| json!(text)),
        1 => select(lengths.to_vec()).prop_map(|length| json!("x".repeat(length))),
        1 => select(lengths.to_vec()).prop_map(|length| json!("é".repeat(length / 2))),
        1 => any::<i64>().prop_map(|number| json!(number)),
        1 => any::<u64>().prop_map(|number| json!(number)),
        2 => (-90_000_000i64..90_000_000).prop_map(|off| json!(models::events::NOW_MS + off)),
        1 => (-2i64..9).prop_map(|number| json!(number)),
        1 => any::<f64>().prop_map(|number| json!(number)),
        1 => Just(json!(1_799_999_999_000.5)),
        1 => select(vec![json!(null), json!(true), json!([]), json!({}), json!(["u"])]),
    ]
}

fn nested() -> impl Strategy<Value = Value> {
    let leaf = scalars();
    let tree = leaf.prop_recursive(4, 16, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Value::Array),
            vec(("[a-c\u{0}]{1,2}", inner), 0..3).prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    });
    let deep = (25..40usize).prop_map(|levels| (0..levels).fold(json!({}), |inner, _| json!({ "a": inner })));
    prop_oneof![4 => tree, 1 => deep, 1 => (8_170..8_200usize).prop_map(|length| json!({ "a": "x".repeat(length) }))]
}

fn fields(
    names: &'static [&'static str],
    right: &'static [(&'static str, &'static str)],
) -> impl Strategy<Value = Map<String, Value>> {
    let right = vec(select(right.to_vec()), 0..4);
    let any = vec((select(names.to_vec()), scalars()), 0..2);
    (right, any).prop_map(|(right, any)| {
        let right = right.into_iter().map(|(name, text)| (name.to_owned(), serde_json::from_str(text).expect("JSON")));
        right.chain(any.into_iter().map(|(name, value)| (name.to_owned(), value))).collect()
    })
}

fn events() -> impl Strategy<Value = Value> {
    let metadata = fields(
        &["componentId", "elementId", "keyword", "postId", "url", "referrer", "resultCount", "x"],
        &[
            ("componentId", "7"),
            ("elementId", "\"e\""),
            ("keyword", "\" Cat \""),
            ("postId", "\"p\""),
            ("url", "\"/a\""),
            ("resultCount", "0"),
        ],
    );
    let outer = fields(
        &["eventType", "userId", "sessionId", "eventId", "timestamp", "sentAt", "metadata", "events", "x"],
        &[
            ("userId", "1"),
            ("userId", "\"u\""),
            ("sessionId", "\"s\""),
            ("timestamp", "1799999999000"),
            ("sentAt", "1799999990000"),
        ],
    );
    let kinds = select(vec!["CLICK", "page_view", "Search", "LIKE", "UNLIKE"]);
    (kinds, metadata, outer, proptest::option::weighted(0.3, nested())).prop_map(
        |(kind, metadata, mut outer, properties)| {
            outer.entry("eventType").or_insert(json!(kind));
            outer.entry("userId").or_insert(json!("u"));
            outer.entry("metadata").or_insert(Value::Object(metadata));
            if let Some(properties) = properties {
                outer.insert("properties".into(), properties);
            }
            Value::Object(outer)
        },
    )
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_head_says_and_breaks_what_its_model_says(bytes in heads(), cuts in cuts()) {
        models::head::check(&bytes, &cuts);
    }

    #[test]
    fn chunks_are_decoded_as_their_model_does(bytes in chunked_bodies(), cuts in cuts()) {
        models::chunks::check(&bytes, &cuts);
    }

    #[test]
    fn a_query_is_decoded_as_its_model_does(text in queries()) {
        models::query::check(&text);
    }

    #[test]
    fn an_event_is_judged_as_its_model_does_and_survives_the_journal(value in events()) {
        models::events::check_text(&value.to_string());
    }

    #[test]
    fn the_guard_sees_what_a_recursion_sees(value in nested()) {
        models::events::check_guard(&value.to_string(), &value);
    }
}

/// What `SEED` promises.
#[test]
fn the_same_seed_makes_the_same_input() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let input = |seed: u64| -> Vec<String> {
        let mut runner = TestRunner::new(ProptestConfig { rng_seed: RngSeed::Fixed(seed), ..cases() });
        let one = |_| format!("{:?}", (heads(), events()).new_tree(&mut runner).expect("input").current());
        (0..50).map(one).collect()
    };
    assert!(input(1) == input(1), "the same seed, other input");
    assert!(input(1) != input(2), "the seed changes nothing");
}

/// A model that refuses all, or takes all, would agree with a server that does: so the input must hold both.
#[test]
fn generated_input_is_both_good_and_bad() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut counts = [0; 5];
    for _ in 0..1_000 {
        let head = heads().new_tree(&mut runner).expect("a head").current();
        let config = models::head::config();
        counts[0] += usize::from(matches!(models::head::read(&head, &config), models::head::Verdict::Good(_)));
        let body = chunked_bodies().new_tree(&mut runner).expect("a body").current();
        counts[1] += usize::from(matches!(models::chunks::read(&body, &models::chunks::config()), Ok(Some(_))));
        let query = queries().new_tree(&mut runner).expect("a query").current();
        counts[2] += usize::from(event_tracker::api::probe::query(&query).is_some());
        let event = events().new_tree(&mut runner).expect("an event").current().to_string();
        counts[3] += usize::from(
            event_tracker::api::probe::event(&event, models::events::NOW_MS, models::events::RETENTION_MS).is_ok(),
        );
        let guarded = nested().new_tree(&mut runner).expect("JSON").current().to_string();
        counts[4] += usize::from(event_tracker::api::probe::object_fault(&guarded, 5).is_none());
    }
    eprintln!("good of 1,000: heads, bodies, queries, events, JSON: {counts:?}");
    assert!(counts.iter().all(|good| (50..950).contains(good)), "{counts:?}");
}
