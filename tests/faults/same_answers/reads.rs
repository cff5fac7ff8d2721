//! What is read: posts, likes, searches and every statistic, exact ones at once, live ones once the live store has come
//! as far as they need.

use std::time::Duration;

use rand::RngExt;
use serde_json::{Value, json};

use super::Run;
use super::draw::{self, encoded};
use super::model::{Sent, folded, page_of};
use super::programs::{Answers, Ended, Reply, Request};
use super::statistics::{Filter, KINDS, LISTS, List, Ranked, WINDOWS, window};
use crate::support::now_ms;

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

pub(crate) fn items(ranked: &[(String, i64)], name: &str, ranked_before: usize) -> Value {
    let items = ranked.iter().enumerate();
    let of_row = |(at, (who, count)): (usize, &(String, i64))| {
        // An element stands among components behind a sign.
        let (name, who) = match who.strip_prefix('#').filter(|_| name == "componentId") {
            Some(element) => ("elementId", element),
            None => (name, who.as_str()),
        };
        json!({"rank":ranked_before + at + 1,name:who,"count":count})
    };
    items.map(of_row).collect()
}

impl Run {
    pub(crate) fn read_post(&mut self) -> Result<(), Ended> {
        self.reach_ledger()?;
        let post = self.any_post();
        let expected = self.model.post(&post);
        self.programs.expect(&Request::get(format!("/api/posts/{}", encoded(&post))), &expected)
    }

    pub(crate) fn read_likes(&mut self) -> Result<(), Ended> {
        self.reach_ledger()?;
        let (post, user) = (self.any_post(), draw::user(&mut self.random));
        let user = self.random.random_bool(0.6).then_some(user);
        let query = user.as_deref().map(|user| format!("?userId={}", encoded(user))).unwrap_or_default();
        let expected = self.model.likes(&post, user.as_deref());
        self.programs.expect(&Request::get(format!("/api/posts/{}/like{query}", encoded(&post))), &expected)
    }

    pub(crate) fn search(&mut self) -> Result<(), Ended> {
        self.reach_ledger()?;
        let typed = draw::one(&mut self.random, &draw::KEYWORDS);
        let user = self.random.random_bool(0.6).then(|| draw::user(&mut self.random));
        let limit = self.random.random_bool(0.5).then(|| self.random.random_range(1..40));
        self.search_for(typed, user, limit)
    }

    fn search_for(&mut self, typed: &str, user: Option<String>, limit: Option<usize>) -> Result<(), Ended> {
        let answers = self.send_search(typed, user.as_deref(), limit);
        let (keyword, mut posts) = (draw::kept(typed), self.model.found(&draw::kept(typed)));
        let has_next = posts.len() > limit.unwrap_or(20);
        posts.truncate(limit.unwrap_or(20));
        self.record_search(keyword.clone(), user, posts.len(), &answers);
        let mut body = json!({"keyword":keyword,"posts":posts,"source":"ledger","stale":false});
        if has_next {
            body["next"] = json!("<cursor>");
        }
        self.check(&answers, &Reply::new(200, body))
    }

    pub(crate) fn send_search(&mut self, typed: &str, user: Option<&str>, limit: Option<usize>) -> Answers {
        let mut path = format!("/api/search?keyword={}", encoded(typed));
        if let Some(user) = user {
            path.push_str(&format!("&userId={}", encoded(user)));
        }
        if let Some(limit) = limit {
            path.push_str(&format!("&limit={limit}"));
        }
        self.programs.ask(&Request::get(path))
    }

    /// A search is an event itself, of the number of posts that it was answered with.
    pub(crate) fn record_search(&mut self, keyword: String, user: Option<String>, found: usize, answers: &Answers) {
        let session = user.is_none().then(|| "search".to_owned());
        let results = Some(i64::try_from(found).expect("few posts"));
        let sent = Sent { user, session, keyword: Some(keyword), results, kind: "SEARCH", ..Sent::default() };
        self.model.take(&sent, answers.span);
        self.is_pending = true;
    }

    pub(crate) fn read_recent(&mut self) -> Result<(), Ended> {
        self.reach_live()?;
        let user = draw::user(&mut self.random);
        self.read_recent_of(&user)
    }

    pub(crate) fn read_recent_of(&mut self, user: &str) -> Result<(), Ended> {
        let limit = self.random.random_range(1..=10);
        let expected = self.model.recent(user, limit, now_ms());
        self.programs.expect(&Request::get(format!("/api/search/recent/{}?limit={limit}", encoded(user))), &expected)
    }

    // ---- exact ----

    /// A moment to cut time at that nothing known only roughly lies around.
    fn edge(&mut self) -> i64 {
        let known: Vec<i64> = self.model.rows.iter().map(|row| row.at.from).collect();
        loop {
            let edge = draw::edge(&mut self.random, now_ms(), &known);
            if self.model.is_clear(edge) {
                return edge;
            }
        }
    }

    fn range(&mut self) -> (i64, i64) {
        let (one, other) = (self.edge(), self.edge());
        (one.min(other), one.max(other))
    }

    /// Where rows of erased people were counted by page, only whole hours still tell them.
    fn range_of_pages(&mut self, is_about_pages: bool) -> (i64, i64) {
        let (from, to) = self.range();
        let is_cut = is_about_pages && self.model.has_lost_pages();
        let floor = |at: i64| if is_cut { at - at.rem_euclid(HOUR) } else { at };
        (floor(from), floor(to))
    }

    pub(crate) fn count(&mut self) -> Result<(), Ended> {
        self.reach_ledger()?;
        let random = &mut self.random;
        let mut filter =
            Filter { kind: random.random_bool(0.4).then(|| draw::one(random, &KINDS)), ..Filter::default() };
        let mut query = filter.kind.map(|kind| format!("&eventType={}", kind.to_lowercase())).unwrap_or_default();
        let mut given = 0;
        let chance = if random.random_bool(0.3) { 0.5 } else { 0.25 };
        if random.random_bool(chance) {
            let component = random.random_range(1..5);
            (filter.component, given) = (Some(component), given + 1);
            query.push_str(&format!("&componentId={component}"));
        }
        if random.random_bool(chance) {
            let typed = draw::one(random, &draw::KEYWORDS);
            (filter.keyword, given) = (Some(folded(&draw::kept(typed))), given + 1);
            query.push_str(&format!("&keyword={}", encoded(typed)));
        }
        if random.random_bool(chance) {
            let url = draw::one(random, &draw::URLS);
            (filter.page, given) = (Some(page_of(url)), given + 1);
            query.push_str(&format!("&url={}", encoded(url)));
        }
        if self.random.random_bool(chance) {
            let post = self.any_post();
            query.push_str(&format!("&postId={}", encoded(&post)));
            (filter.post, given) = (Some(post), given + 1);
        }
        let (from, to) = self.range_of_pages(filter.page.is_some());
        filter.from = self.random.random_bool(0.7).then_some(from);
        filter.to = self.random.random_bool(0.7).then_some(to);
        for (name, at) in [("from", filter.from), ("to", filter.to)] {
            query.push_str(&at.map(|at| format!("&{name}={at}")).unwrap_or_default());
        }
        let is_short = filter.from.zip(filter.to).is_some_and(|(from, to)| to - from <= 31 * DAY);
        let expected = match given {
            2.. if !is_short => Reply::problem(400, "missing_range", Some("from")),
            _ => self.model.count(&filter),
        };
        self.programs.expect(&Request::get(format!("/api/statistics?{query}")), &expected)
    }

    pub(crate) fn ranking(&mut self) -> Result<(), Ended> {
        self.reach_ledger()?;
        let list = LISTS[self.random.random_range(0..LISTS.len())];
        let (from, to) = self.range_of_pages(list.name == "url");
        let limit = self.random.random_range(1..5);
        let ranked = self.model.ranking(&list, (from, to));
        let path = format!("/api/statistics/rankings/{}&from={from}&to={to}&limit={limit}", list.path);
        let mut requests = vec![Request::get(path.clone()); self.programs.all.len()];
        let mut before = 0;
        loop {
            let answers = self.programs.ask_each(&requests);
            let page = &ranked[before..ranked.len().min(before + limit)];
            let is_last = ranked.len() <= before + limit;
            let next = if is_last { Value::Null } else { json!("<cursor>") };
            let (from, to) = (super::model::rfc3339(from), super::model::rfc3339(to));
            let body = json!({"from":from,"to":to,"source":"ledger","stale":false,
                "items":items(page, list.name, before),"next":next});
            self.check(&answers, &Reply::new(200, body))?;
            if is_last {
                return Ok(());
            }
            before += limit;
            let cursor = |text: &Value| Request::get(format!("{path}&cursor={}", text.as_str().expect("a cursor")));
            requests = answers.all.iter().map(|answer| cursor(&answer.json()["next"])).collect();
        }
    }

    pub(crate) fn series(&mut self) -> Result<(), Ended> {
        self.reach_ledger()?;
        let (interval, unit) = [("minute", MINUTE), ("hour", HOUR), ("day", DAY)][self.random.random_range(0..3)];
        let from = self.edge();
        let to = (from + self.random.random_range(0..100 * unit)).min(now_ms() + 2 * MINUTE).max(from);
        let kind = self.random.random_bool(0.5).then(|| draw::one(&mut self.random, &KINDS));
        let of_kind = kind.map(|kind| format!("&eventType={kind}")).unwrap_or_default();
        let path = format!("/api/statistics/timeseries?interval={interval}&from={from}&to={to}{of_kind}");
        let expected = self.model.series(interval, kind, from, to, self.zone);
        self.programs.expect(&Request::get(path), &expected)
    }

    pub(crate) fn users(&mut self) -> Result<(), Ended> {
        self.reach_ledger()?;
        let (from, to) = self.range();
        let expected = self.model.users(from, to);
        self.programs.expect(&Request::get(format!("/api/statistics/users?from={from}&to={to}")), &expected)
    }

    pub(crate) fn export(&mut self) -> Result<(), Ended> {
        self.reach_ledger()?;
        let range = if self.random.random_bool(0.5) { Some(self.range()) } else { None };
        let kind = self.random.random_bool(0.3).then(|| draw::one(&mut self.random, &KINDS));
        self.export_of(range, kind)
    }

    pub(crate) fn export_of(&mut self, range: Option<(i64, i64)>, kind: Option<&'static str>) -> Result<(), Ended> {
        let mut query = range.map(|(from, to)| format!("&from={from}&to={to}")).unwrap_or_default();
        query.push_str(&kind.map(|kind| format!("&eventType={kind}")).unwrap_or_default());
        let answers = self.programs.ask(&Request::get(format!("/api/export?format=ndjson{query}")));
        let (from, to) = range.unwrap_or((i64::MIN, i64::MAX));
        let expected = self.model.exported(kind, from, to);
        for (program, answer) in self.programs.all.iter().zip(&answers.all) {
            let name = &program.bench.name;
            assert_eq!(answer.status, 200, "{name}: {}", answer.text());
            let text = program.common(answer.text());
            let lines: Vec<(String, i64, i64)> = text.lines().map(without_times).collect();
            assert!(lines.is_sorted_by_key(|(_, at, _)| *at), "{name}: in the order of time");
            let mut lines = lines;
            lines.sort();
            let said: Vec<&String> = lines.iter().map(|(line, ..)| line).collect();
            let wanted: Vec<&String> = expected.iter().map(|(line, ..)| line).collect();
            assert_eq!(said, wanted, "{name} exports (left) what the model has (right)");
            for ((line, at, received), (_, when, came)) in lines.iter().zip(&expected) {
                assert!((when.from..=when.to).contains(at), "{name}: {line} at {at}, not {when:?}");
                assert!((came.from..=came.to).contains(received), "{name}: {line} came at {received}, not {came:?}");
            }
        }
        Ok(())
    }

    // ---- live ----

    /// Live lists of one window each, or of all.
    pub(crate) fn look(&mut self, is_thorough: bool) -> Result<(), Ended> {
        self.reach_live()?;
        // A list may be a second old.
        let now = now_ms();
        std::thread::sleep(Duration::from_millis((1_005 - now.rem_euclid(1_000)).unsigned_abs()));
        for list in &LISTS {
            let some = self.random.random_range(0..WINDOWS.len());
            for window in if is_thorough { &WINDOWS[..] } else { &WINDOWS[some..=some] } {
                self.top(list, window)?;
            }
            if list.path != "keywords?mode=zero-result" && matches!(list.name, "keyword" | "postId") {
                self.hot(list)?;
            }
        }
        WINDOWS.iter().try_for_each(|window| self.live_users(window))
    }

    /// Asks what depends on the minute it is asked in.
    fn ask_in_a_minute(&mut self, path: &str) -> Answers {
        loop {
            let answers = self.programs.ask(&Request::get(path));
            if answers.span.from.div_euclid(MINUTE) == answers.span.to.div_euclid(MINUTE) {
                return answers;
            }
        }
    }

    fn top(&mut self, list: &List, name: &str) -> Result<(), Ended> {
        let limit = if self.random.random_bool(0.3) { self.random.random_range(1..5) } else { 100 };
        let path = format!("/api/statistics/popular/{}&window={name}&limit={limit}", list.path);
        let answers = self.ask_in_a_minute(&path);
        let mut top: Ranked = self.model.ranking(list, window(name, answers.span.from, self.zone));
        top.truncate(limit);
        let body = json!({"window":name,"source":"live","stale":false,"approximate":false,
            "items":items(&top, list.name, 0)});
        self.check(&answers, &Reply::new(200, body))
    }

    /// Decayed counts, as far as they are told; of long windows they depend on what is folded already.
    fn hot(&mut self, list: &List) -> Result<(), Ended> {
        let name = WINDOWS[self.random.random_range(0..2)];
        let path = list.path.replace("mode=count", "");
        let answers = self.ask_in_a_minute(&format!("/api/statistics/popular/{path}&mode=hot&window={name}&limit=100"));
        let range = window(name, answers.span.from, self.zone);
        let second = |at: i64| at - at.rem_euclid(1_000);
        let wanted = [answers.span.from, answers.span.to].map(|at| self.model.hot(list, range, second(at)));
        for (program, answer) in self.programs.all.iter().zip(&answers.all) {
            let text = program.common(answer.text());
            let body: Value = serde_json::from_str(&text).expect("JSON");
            let items = body["items"].as_array().unwrap_or_else(|| panic!("{}: {text}", program.bench.name));
            let said: Vec<(&str, f64)> = items
                .iter()
                .map(|item| (item[list.name].as_str().expect("a name"), item["count"].as_f64().expect("a count")))
                .collect();
            assert!(said.is_sorted_by(|a, b| a.1 >= b.1), "{}: {text}", program.bench.name);
            let is_right = |wanted: &std::collections::BTreeMap<String, f64>| {
                let is_near = |name: &str, count: f64| (wanted.get(name).unwrap_or(&0.0) - count).abs() < 0.002;
                let told = |name: &str| said.iter().find(|(who, _)| *who == name).map_or(0.0, |(_, count)| *count);
                said.iter().all(|(name, count)| is_near(name, *count))
                    && wanted.iter().all(|(name, count)| (told(name) - count).abs() < 0.002)
            };
            assert!(wanted.iter().any(is_right), "{}: {text} is not {wanted:?}", program.bench.name);
        }
        Ok(())
    }

    /// While its live store is away, a program reads the same from the ledger, and says so.
    pub(crate) fn look_without_live(&mut self) -> Result<(), Ended> {
        self.reach_ledger()?;
        let with_redis: Vec<usize> =
            (0..self.programs.all.len()).filter(|at| self.programs.all[*at].bench.redis.is_some()).collect();
        let which = with_redis[self.random.random_range(0..with_redis.len())];
        self.programs.tell(&format!("Redis of {} is away", self.programs.all[which].bench.name));
        self.programs.all[which].bench.redis.as_mut().expect("Redis").stop();
        // Some: each waits half a second for a connection before the ledger is asked.
        for _ in 0..4 {
            let list = LISTS[self.random.random_range(0..LISTS.len())];
            let (name, model, zone) = (WINDOWS[self.random.random_range(0..4)], &self.model, self.zone);
            let request = Request::get(format!("/api/statistics/popular/{}&window={name}&limit=100", list.path));
            self.programs.expect_of(which, &request, |now| {
                let top = items(&model.ranking(&list, window(name, now, zone)), list.name, 0);
                let body = json!({"window":name,"source":"ledger","stale":true,"approximate":false,"items":top});
                Reply::new(200, body)
            })?;
        }
        let (name, model, zone) = (WINDOWS[self.random.random_range(0..4)], &self.model, self.zone);
        let request = Request::get(format!("/api/statistics/users?window={name}"));
        self.programs.expect_of(which, &request, |now| {
            let (from, to) = window(name, now, zone);
            let users = model.users(from, to).body["users"].clone();
            let body = json!({"window":name,"source":"ledger","stale":true,"approximate":false,"users":users});
            Reply::new(200, body)
        })?;
        let (user, model) = (draw::user(&mut self.random), &self.model);
        let request = Request::get(format!("/api/search/recent/{}", encoded(&user)));
        self.programs.expect_of(which, &request, |now| {
            let Reply { status, mut body } = model.recent(&user, 10, now);
            (body["source"], body["stale"]) = (json!("ledger"), json!(true));
            Reply::new(status, body)
        })?;
        let bench = &mut self.programs.all[which].bench;
        bench.redis.as_mut().expect("Redis").spawn();
        bench.settle();
        Ok(())
    }

    fn live_users(&mut self, name: &str) -> Result<(), Ended> {
        let answers = self.ask_in_a_minute(&format!("/api/statistics/users?window={name}"));
        let expected = self.model.live_users(name, window(name, answers.span.from, self.zone));
        self.check(&answers, &expected)
    }
}

/// A line of an export without its times and made id, beside event time and receipt.
fn without_times(line: &str) -> (String, i64, i64) {
    let mut line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    let fields = line.as_object_mut().expect("an object");
    let mut time = |name: &str| {
        let at = fields.remove(name).unwrap_or_else(|| panic!("{name}: {fields:?}"));
        let at: jiff::Timestamp = at.as_str().expect("a text").parse().expect("RFC 3339");
        at.as_millisecond()
    };
    let (at, received) = (time("timestamp"), time("receivedAt"));
    if super::programs::is_of_a_server(line["eventId"].as_str().expect("an id")) {
        line["eventId"] = json!("<made>");
    }
    (line.to_string(), at, received)
}
