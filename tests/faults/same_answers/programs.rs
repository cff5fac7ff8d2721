//! The four programs: each request goes to all of them at once, and what may differ by nature is made the same.
//!
//! By nature differ: ids that a server made (the first program's stand for those of the others), the moments at which it
//! did something, cursors, and `asOf`. Everything else of an answer is compared as it came.

use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use uuid::Uuid;

use super::model::When;
use crate::support::bench::{Bench, MAIN_PAIRS, MIXED_PAIRS};
use crate::support::client::{Answer, Client};
use crate::support::{eventually, now_ms};

/// How many of the last requests a failure prints.
const REQUESTS_TOLD: usize = 25;
/// A request that took so long may have met one of the program's deadlines (1.5 s for reads, 2 s for writes).
const SLOW: Duration = Duration::from_millis(1_400);
/// More than a cached value is ever old.
const SOON: Duration = Duration::from_secs(20);

#[derive(Clone, Debug)]
pub(crate) struct Request {
    method: &'static str,
    path: String,
    content_type: &'static str,
    is_packed: bool,
    body: String,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

pub(crate) struct Answers {
    /// From before it was sent until the last answer was there.
    pub(crate) span: When,
    pub(crate) all: Vec<Answer>,
    slowest: Duration,
}

/// Why a sequence ends before its end: nothing is wrong, and what comes cannot be judged.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The machine was too slow, and an answer came by a deadline.
    Late(String),
    /// A server's own time may lie on either side of a minute.
    Blurred,
}

pub(crate) struct Programs {
    pub(crate) all: Vec<Program>,
    told: VecDeque<String>,
}

pub(crate) struct Program {
    pub(crate) bench: Bench,
    client: Client,
    /// What it made, beside what stands for it: of ids, and of moments.
    ids: Vec<(String, String)>,
    moments: BTreeMap<String, String>,
}

impl Request {
    pub(crate) fn get(path: impl Into<String>) -> Request {
        Request { method: "GET", path: path.into(), content_type: "", is_packed: false, body: String::new() }
    }

    pub(crate) fn delete(path: impl Into<String>) -> Request {
        Request { method: "DELETE", ..Request::get(path) }
    }

    pub(crate) fn post(path: impl Into<String>, body: &Value) -> Request {
        Request::with(path, "application/json", body.to_string())
    }

    pub(crate) fn put(path: impl Into<String>, body: &Value) -> Request {
        Request { method: "PUT", ..Request::post(path, body) }
    }

    pub(crate) fn with(path: impl Into<String>, content_type: &'static str, body: impl Into<String>) -> Request {
        Request { method: "POST", content_type, body: body.into(), ..Request::get(path) }
    }

    pub(crate) fn packed(self) -> Request {
        Request { is_packed: true, ..self }
    }

    pub(crate) fn method(self, method: &'static str) -> Request {
        Request { method, ..self }
    }
}

impl Reply {
    pub(crate) fn new(status: u16, body: Value) -> Reply {
        Reply { status, body }
    }

    /// A problem as the contract words it; what is said about it is for people.
    pub(crate) fn problem(status: u16, tag: &str, field: Option<&str>) -> Reply {
        let mut body = json!({"status": status, "error": tag});
        if let Some(field) = field {
            body["errors"] = json!({field: "<said>"});
        }
        Reply { status, body }
    }
}

impl Programs {
    pub(crate) fn start(zone: &str, is_cached: bool) -> Programs {
        let pairs = MAIN_PAIRS.into_iter().chain(MIXED_PAIRS);
        let mut benches: Vec<Bench> = pairs.map(|(ledger, live)| Bench::new(ledger, live)).collect();
        benches.iter_mut().for_each(|bench| bench.set("TIME_ZONE", zone));
        benches.iter_mut().filter(|_| is_cached).for_each(Bench::cached);
        // By this thread: a program ends with the thread that started it.
        benches.iter_mut().for_each(Bench::start);
        benches.iter().for_each(Bench::settle);
        let program =
            |bench: Bench| Program { client: bench.client(), bench, ids: Vec::new(), moments: BTreeMap::new() };
        Programs { all: benches.into_iter().map(program).collect(), told: VecDeque::new() }
    }

    pub(crate) fn ask(&mut self, request: &Request) -> Answers {
        self.tell(&format!("{} {} {}", request.method, request.path, request.body));
        self.gather(&vec![request; self.all.len()])
    }

    /// Sends each its own request: with what it made itself, such as a cursor.
    pub(crate) fn ask_each(&mut self, requests: &[Request]) -> Answers {
        self.tell(&format!("{} {} (and of the others their own)", requests[0].method, requests[0].path));
        self.gather(&requests.iter().collect::<Vec<_>>())
    }

    fn gather(&mut self, requests: &[&Request]) -> Answers {
        let from = now_ms();
        let asked: Vec<(Answer, Duration)> = std::thread::scope(|scope| {
            let pairs = self.all.iter_mut().zip(requests);
            let all: Vec<_> = pairs.map(|(program, request)| scope.spawn(|| program.ask(request))).collect();
            all.into_iter().map(|asked| asked.join().expect("every program answers")).collect()
        });
        let slowest = asked.iter().map(|(_, took)| *took).max().unwrap_or_default();
        let all = asked.into_iter().map(|(answer, _)| answer).collect();
        Answers { span: When { from, to: now_ms() }, all, slowest }
    }

    /// Sends a request and compares what all of them answer.
    #[track_caller]
    pub(crate) fn expect(&mut self, request: &Request, expected: &Reply) -> Result<(), Ended> {
        let answers = self.ask(request);
        self.check(&answers, expected)
    }

    #[track_caller]
    pub(crate) fn check(&self, answers: &Answers, expected: &Reply) -> Result<(), Ended> {
        match self.judge(answers, expected) {
            Ok(()) => Ok(()),
            Err(why) if answers.slowest >= SLOW => Err(Ended::Late(format!("after {:?}: {why}", answers.slowest))),
            Err(why) => panic!("{why}"),
        }
    }

    /// The same, asked again until it is so: of what may be some seconds old.
    #[track_caller]
    pub(crate) fn expect_soon(&mut self, request: &Request, expected: impl Fn(When) -> Reply) {
        eventually(SOON, || {
            let answers = self.ask(request);
            self.judge(&answers, &expected(answers.span))
        });
    }

    fn judge(&self, answers: &Answers, expected: &Reply) -> Result<(), String> {
        let judge_one = |(program, answer): (&Program, &Answer)| program.judge(answer, expected);
        let said = self.all.iter().zip(&answers.all).map(judge_one).collect::<Result<Vec<Reply>, String>>()?;
        match self.all.iter().zip(&said).find(|(_, other)| **other != said[0]) {
            None => Ok(()),
            Some((program, other)) => {
                let (one, first) = (&program.bench.name, &self.all[0].bench.name);
                Err(format!("{one} | {first}: {}", differences(other, &said[0])))
            }
        }
    }

    /// Asks one of them alone, within a minute.
    #[track_caller]
    pub(crate) fn expect_of(
        &mut self,
        which: usize,
        request: &Request,
        expected: impl Fn(i64) -> Reply,
    ) -> Result<(), Ended> {
        self.tell(&format!("{} {} (of {})", request.method, request.path, self.all[which].bench.name));
        loop {
            let from = now_ms();
            let (answer, took) = self.all[which].ask(request);
            if from.div_euclid(60_000) != now_ms().div_euclid(60_000) {
                continue;
            }
            return match self.all[which].judge(&answer, &expected(from)) {
                Ok(_) => Ok(()),
                Err(why) if took >= SLOW => Err(Ended::Late(format!("after {took:?}: {why}"))),
                Err(why) => panic!("{why}"),
            };
        }
    }

    /// An id and a moment that each server made itself: from here on the first one's id and `name` stand for them.
    pub(crate) fn learn(&mut self, answers: &Answers, name: &str) -> Option<String> {
        let made: Vec<Value> = answers.all.iter().filter(|answer| answer.status == 201).map(Answer::json).collect();
        if made.len() < self.all.len() {
            return None;
        }
        let text = |body: &Value, field: &str| body[field].as_str().expect("a text").to_owned();
        let id = text(&made[0], "postId");
        for (program, body) in self.all.iter_mut().zip(&made) {
            if text(body, "postId") != id {
                program.ids.push((text(body, "postId"), id.clone()));
            }
            let at = text(body, "createdAt");
            let at_ms = at.parse::<jiff::Timestamp>().expect("RFC 3339").as_millisecond();
            if (answers.span.from..=answers.span.to).contains(&at_ms) {
                program.moments.insert(at, name.to_owned());
            }
        }
        Some(id)
    }

    pub(crate) fn tell(&mut self, what: &str) {
        if self.told.len() == REQUESTS_TOLD {
            self.told.pop_front();
        }
        self.told.push_back(format!("{} {what}", jiff::Timestamp::now()));
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.told.iter().for_each(|told| eprintln!("{told}"));
        }
    }
}

impl Program {
    fn ask(&mut self, request: &Request) -> (Answer, Duration) {
        let Request { method, path, content_type, is_packed, body } = request;
        let path = self.own(path);
        let mut body = self.own(body).into_bytes();
        if *is_packed {
            let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
            packed.write_all(&body).expect("into a Vec");
            body = packed.finish().expect("into a Vec");
        }
        let headers = [("Content-Type", *content_type), ("Content-Encoding", "gzip")];
        let headers = &headers[..usize::from(!content_type.is_empty()) + usize::from(*is_packed)];
        let begun = Instant::now();
        (self.client.send(method, &path, headers, &body), begun.elapsed())
    }

    fn own(&self, text: &str) -> String {
        self.ids.iter().fold(text.to_owned(), |text, (own, common)| text.replace(common, own))
    }

    pub(crate) fn common(&self, text: &str) -> String {
        self.ids.iter().fold(text.to_owned(), |text, (own, common)| text.replace(own, common))
    }

    /// An answer as all would give it, if it is what was expected.
    fn judge(&self, answer: &Answer, expected: &Reply) -> Result<Reply, String> {
        let mut said = self.reply(answer);
        accept_between(&mut said.body, &expected.body);
        let plain = Reply { status: said.status, body: without_words(said.body.clone()) };
        if plain == *expected {
            return Ok(said);
        }
        Err(format!("{} | the model: {}", self.bench.name, differences(&plain, expected)))
    }

    /// An answer as all would give it.
    pub(crate) fn reply(&self, answer: &Answer) -> Reply {
        let mut body = Value::Null;
        if !answer.body.is_empty() {
            let text = self.common(answer.text());
            body = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
            self.make_common(&mut body);
        }
        Reply { status: answer.status, body }
    }

    fn make_common(&self, value: &mut Value) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| self.make_common(item)),
            Value::Object(fields) => {
                if let Some(at) = fields.remove("asOf") {
                    // Null before a store has followed anything.
                    let is_time = at.as_str().is_some_and(|at| at.parse::<jiff::Timestamp>().is_ok());
                    assert!(at.is_null() || is_time, "asOf: {at}");
                }
                for (name, value) in fields {
                    match (name.as_str(), value.as_str()) {
                        ("createdAt", Some(at)) => *value = json!(self.moments.get(at).map_or(at, String::as_str)),
                        ("eventId", Some(id)) if is_of_a_server(id) => *value = json!("<made>"),
                        ("next", Some(_)) => *value = json!("<cursor>"),
                        _ => self.make_common(value),
                    }
                }
            }
            _ => {}
        }
    }

    /// A new life on the same stores, or a live store that was emptied: until all is as it was.
    pub(crate) fn disturb(&mut self, how: &Disturbance) {
        match how {
            Disturbance::Kill => self.bench.kill(),
            Disturbance::Stop => assert!(self.bench.stop().success(), "it ends well"),
            Disturbance::LoseLive => {
                if let Some(redis) = &self.bench.redis {
                    redis.admin("FLUSHALL").expect("Redis answers");
                    return self.bench.settle();
                }
                // The memory of a process is lost with it.
                self.bench.kill();
            }
        }
        self.bench.start();
        self.client = self.bench.client();
        self.bench.settle();
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Disturbance {
    Kill,
    Stop,
    LoseLive,
}

/// Clients of this test draw ids of version 4, servers make those of version 7.
pub(crate) fn is_of_a_server(id: &str) -> bool {
    Uuid::parse_str(id).is_ok_and(|id| id.get_version_num() == 7)
}

/// What is expected of a number that may be any from `least` to `most`.
pub(crate) fn between(least: usize, most: usize) -> Value {
    if least == most { json!(least) } else { json!({"least":least,"most":most}) }
}

/// Puts what was expected in the place of numbers that lie where they may.
fn accept_between(said: &mut Value, expected: &Value) {
    match (&mut *said, expected) {
        (Value::Number(number), Value::Object(ends)) => {
            let (number, least, most) = (number.as_u64(), ends["least"].as_u64(), ends["most"].as_u64());
            if least <= number && number <= most {
                *said = expected.clone();
            }
        }
        (Value::Object(fields), Value::Object(expected)) => {
            let both = fields.iter_mut().filter_map(|(name, value)| Some((value, expected.get(name)?)));
            both.for_each(|(value, expected)| accept_between(value, expected));
        }
        (Value::Array(items), Value::Array(expected)) => {
            items.iter_mut().zip(expected).for_each(|(value, expected)| accept_between(value, expected));
        }
        _ => {}
    }
}

fn without_words(mut body: Value) -> Value {
    match &mut body {
        Value::Array(items) => items.iter_mut().for_each(|item| *item = without_words(item.take())),
        Value::Object(fields) => {
            fields.remove("message");
            for (name, value) in fields {
                match value {
                    Value::Object(said) if name == "errors" => said.values_mut().for_each(|why| *why = json!("<said>")),
                    value => *value = without_words(value.take()),
                }
            }
        }
        _ => {}
    }
    body
}

/// Where two answers differ, a line a place.
fn differences(one: &Reply, other: &Reply) -> String {
    fn look(path: &str, one: &Value, other: &Value, found: &mut Vec<String>) {
        match (one, other) {
            (Value::Object(fields), Value::Object(others)) => {
                let names: std::collections::BTreeSet<&String> = fields.keys().chain(others.keys()).collect();
                names.into_iter().for_each(|name| look(&format!("{path}.{name}"), &one[name], &other[name], found));
            }
            (Value::Array(items), Value::Array(others)) if items.len() == others.len() => {
                let pairs = items.iter().zip(others).enumerate();
                pairs.for_each(|(at, (one, other))| look(&format!("{path}[{at}]"), one, other, found));
            }
            _ if one == other => {}
            _ => found.push(format!("{path}: {one} | {other}")),
        }
    }
    let mut found = vec![format!("{} | {}", one.status, other.status)];
    look("body", &one.body, &other.body, &mut found);
    found.join("\n")
}
