//! Statistics as the model has them: facts of the rows, added up anew at every question.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::model::{Model, Row, Sent, When, folded, rfc3339};
use super::programs::{Reply, between};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    Keyword,
    ZeroResult,
    Views,
    Clicks,
    Likes,
    Page,
    Component,
}

/// A list of the API: its path, what an item's name is called, what is summed with which weight.
#[derive(Clone, Copy, Debug)]
pub(crate) struct List {
    pub(crate) path: &'static str,
    pub(crate) name: &'static str,
    pub(crate) parts: &'static [(Counted, i64)],
}

pub(crate) const LISTS: [List; 8] = [
    List { path: "keywords?mode=count", name: "keyword", parts: &[(Counted::Keyword, 1)] },
    List { path: "keywords?mode=zero-result", name: "keyword", parts: &[(Counted::ZeroResult, 1)] },
    List { path: "posts?by=views", name: "postId", parts: &[(Counted::Views, 1)] },
    List { path: "posts?by=clicks", name: "postId", parts: &[(Counted::Clicks, 1)] },
    List { path: "posts?by=likes", name: "postId", parts: &[(Counted::Likes, 1)] },
    List {
        path: "posts?by=score",
        name: "postId",
        parts: &[(Counted::Views, 1), (Counted::Clicks, 3), (Counted::Likes, 10)],
    },
    List { path: "pages?", name: "url", parts: &[(Counted::Page, 1)] },
    List { path: "components?", name: "componentId", parts: &[(Counted::Component, 1)] },
];

pub(crate) const WINDOWS: [&str; 4] = ["10m", "1h", "24h", "7d"];
pub(crate) const KINDS: [&str; 5] = ["CLICK", "PAGE_VIEW", "SEARCH", "LIKE", "UNLIKE"];

/// What `/api/statistics` is asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    pub(crate) kind: Option<&'static str>,
    pub(crate) component: Option<i64>,
    pub(crate) keyword: Option<String>,
    pub(crate) post: Option<String>,
    pub(crate) page: Option<String>,
    pub(crate) from: Option<i64>,
    pub(crate) to: Option<i64>,
}

/// When it happened, what counts, under which name, and how much.
struct Fact<'m> {
    at: When,
    counted: Counted,
    name: String,
    by: i64,
    post: Option<&'m str>,
}

pub(crate) type Ranked = Vec<(String, i64)>;

fn facts_of(row: &Row) -> Vec<Fact<'_>> {
    let fact = |counted, name: Option<String>, post| name.map(|name| Fact { at: row.at, counted, name, by: 1, post });
    let sent = &row.sent;
    let post = sent.post.as_deref();
    let facts = match sent.kind {
        "CLICK" => [fact(Counted::Component, component_of(sent), None), fact(Counted::Clicks, sent.post.clone(), post)],
        "PAGE_VIEW" => [fact(Counted::Page, row.page.clone(), None), fact(Counted::Views, sent.post.clone(), post)],
        "SEARCH" => {
            let keyword = sent.keyword.as_deref().map(folded);
            let nothing = keyword.clone().filter(|_| sent.results == Some(0));
            [fact(Counted::Keyword, keyword, None), fact(Counted::ZeroResult, nothing, None)]
        }
        _ => [None, None],
    };
    facts.into_iter().flatten().collect()
}

fn component_of(sent: &Sent) -> Option<String> {
    sent.component.map(|id| id.to_string()).or_else(|| sent.element.as_ref().map(|element| format!("#{element}")))
}

/// Whether a moment lies in a range; its ends are chosen so that it lies wholly on one side.
fn lies_in(at: When, from: i64, to: i64) -> bool {
    let inside = |ms: i64| (from..to).contains(&ms);
    assert_eq!(inside(at.from), inside(at.to), "{at:?} is cut by {from} to {to}");
    inside(at.from)
}

fn ranked(sums: BTreeMap<String, i64>) -> Ranked {
    let mut ranked: Ranked = sums.into_iter().filter(|(_, sum)| *sum > 0).collect();
    ranked.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.as_bytes().cmp(b.0.as_bytes())));
    ranked
}

/// The range of a live window, whole buckets: `zone` is how far local time is ahead.
pub(crate) fn window(name: &str, now: i64, zone: i64) -> (i64, i64) {
    let floor = |unit: i64, shift: i64| now - (now + shift).rem_euclid(unit);
    match name {
        "10m" => (floor(MINUTE, 0) - 9 * MINUTE, floor(MINUTE, 0) + MINUTE),
        "1h" => (floor(MINUTE, 0) - 59 * MINUTE, floor(MINUTE, 0) + MINUTE),
        "24h" => (floor(HOUR, 0) - 23 * HOUR, floor(HOUR, 0) + HOUR),
        _ => (floor(DAY, zone) - 6 * DAY, floor(DAY, zone) + DAY),
    }
}

impl Model {
    fn facts(&self) -> impl Iterator<Item = Fact<'_>> {
        let likes = self.nets.iter().map(|net| Fact {
            at: net.at,
            counted: Counted::Likes,
            name: net.post.clone(),
            by: net.by,
            post: Some(&net.post),
        });
        self.rows.iter().flat_map(facts_of).chain(likes)
    }

    /// Nothing that is known only roughly happened around this moment.
    pub(crate) fn is_clear(&self, edge: i64) -> bool {
        let is_cut = |at: When| at.from < edge && edge <= at.to;
        !self.rows.iter().any(|row| is_cut(row.at)) && !self.nets.iter().any(|net| is_cut(net.at))
    }

    /// Pages of those who were erased are counted, and no row tells them any more.
    pub(crate) fn has_lost_pages(&self) -> bool {
        self.rows.iter().any(|row| row.page.is_some() && row.sent.url.is_none())
    }

    pub(crate) fn ranking(&self, list: &List, (from, to): (i64, i64)) -> Ranked {
        let mut sums = BTreeMap::new();
        for fact in self.shown().filter(|fact| lies_in(fact.at, from, to)) {
            let weights = list.parts.iter().filter(|(counted, _)| *counted == fact.counted);
            weights.for_each(|(_, weight)| *sums.entry(fact.name.clone()).or_default() += fact.by * weight);
        }
        ranked(sums)
    }

    /// What lists show: no deleted post.
    fn shown(&self) -> impl Iterator<Item = Fact<'_>> {
        self.facts().filter(|fact| fact.post.is_none_or(|post| !self.tombstones.contains(post)))
    }

    /// Counts that halve with each quarter of a window of minutes, as they are at `as_of`.
    pub(crate) fn hot(&self, list: &List, range: (i64, i64), as_of: i64) -> BTreeMap<String, f64> {
        let half_life = (range.1 - range.0) as f64 / 4.0;
        let mut sums: BTreeMap<String, f64> = BTreeMap::new();
        for fact in self.shown().filter(|fact| lies_in(fact.at, range.0, range.1)) {
            let age = (as_of - (fact.at.from - fact.at.from.rem_euclid(MINUTE) + MINUTE)).max(0);
            let weights = list.parts.iter().filter(|(counted, _)| *counted == fact.counted);
            let weight: i64 = weights.map(|(_, weight)| weight * fact.by).sum();
            *sums.entry(fact.name.clone()).or_default() += weight as f64 * 0.5_f64.powf(age as f64 / half_life);
        }
        sums.retain(|_, sum| *sum > 1e-9);
        sums
    }

    pub(crate) fn count(&self, filter: &Filter) -> Reply {
        let given =
            [filter.component.is_some(), filter.keyword.is_some(), filter.post.is_some(), filter.page.is_some()];
        let is_of_rows = given.into_iter().filter(|given| *given).count() > 1;
        let matches = |row: &&Row| {
            let sent = &row.sent;
            let page = if is_of_rows && sent.url.is_none() { &None } else { &row.page };
            filter.kind.is_none_or(|kind| sent.kind == kind)
                && filter.component.is_none_or(|component| sent.component == Some(component))
                && filter
                    .keyword
                    .as_ref()
                    .is_none_or(|wanted| sent.keyword.as_deref().map(folded).as_ref() == Some(wanted))
                && filter.post.as_ref().is_none_or(|post| sent.post.as_ref() == Some(post))
                && filter.page.as_ref().is_none_or(|wanted| page.as_ref() == Some(wanted))
                && lies_in(row.at, filter.from.unwrap_or(i64::MIN), filter.to.unwrap_or(i64::MAX))
        };
        let count = self.rows.iter().filter(matches).count();
        Reply::new(200, json!({"count":count,"source":"ledger","stale":false}))
    }

    fn users_of<'m>(rows: impl Iterator<Item = &'m Row>) -> usize {
        rows.filter_map(|row| row.sent.user.as_deref()).collect::<BTreeSet<_>>().len()
    }

    pub(crate) fn users(&self, from: i64, to: i64) -> Reply {
        let users = Model::users_of(self.rows.iter().filter(|row| lies_in(row.at, from, to)));
        let (from, to) = (rfc3339(from), rfc3339(to));
        let body = json!({"from":from,"to":to,"source":"ledger","stale":false,"approximate":false,"users":users});
        Reply::new(200, body)
    }

    /// Those who are there; and those together with whoever was erased.
    fn users_with_erased<'m>(rows: impl Iterator<Item = &'m Row> + Clone) -> (usize, usize) {
        let all = rows.clone().filter_map(|row| row.sent.user.as_deref().or(row.was.as_deref()));
        (Model::users_of(rows), all.collect::<BTreeSet<_>>().len())
    }

    /// A sketch of so few is exact, but that it cannot forget who was erased.
    pub(crate) fn live_users(&self, window: &str, range: (i64, i64)) -> Reply {
        let (least, most) = Model::users_with_erased(self.rows.iter().filter(|row| lies_in(row.at, range.0, range.1)));
        let users = between(least, most);
        Reply::new(200, json!({"window":window,"source":"live","stale":false,"approximate":true,"users":users}))
    }

    pub(crate) fn series(&self, interval: &str, kind: Option<&str>, from: i64, to: i64, zone: i64) -> Reply {
        let (unit, shift) = match interval {
            "minute" => (MINUTE, 0),
            "hour" => (HOUR, 0),
            _ => (DAY, zone),
        };
        let first = if from == to { from } else { from - (from + shift).rem_euclid(unit) };
        let points: Vec<Value> = (0..)
            .map(|number| first + number * unit)
            .take_while(|begin| *begin < to)
            .map(|begin| {
                let rows = self.rows.iter().filter(|row| kind.is_none_or(|kind| row.sent.kind == kind));
                let rows: Vec<&Row> = rows.filter(|row| lies_in(row.at, begin, begin + unit)).collect();
                // A point that was counted before somebody was erased may say so still.
                let (least, most) = Model::users_with_erased(rows.iter().copied());
                json!({"at":rfc3339(begin),"count":rows.len(),"users":between(least, most)})
            })
            .collect();
        let end = first + points.len() as i64 * unit;
        let mut body = json!({"interval":interval,"from":rfc3339(first),"to":rfc3339(end),"source":"ledger",
            "stale":false,"points":points});
        if let Some(kind) = kind {
            body["eventType"] = json!(kind);
        }
        Reply::new(200, body)
    }

    /// The rows of an export, each as a line without its times, beside them; in the order of text and time.
    pub(crate) fn exported(&self, kind: Option<&str>, from: i64, to: i64) -> Vec<(String, When, When)> {
        let rows = self.rows.iter().filter(|row| kind.is_none_or(|kind| row.sent.kind == kind));
        let rows = rows.filter(|row| lies_in(row.at, from, to));
        let mut lines: Vec<_> = rows.map(|row| (line_of(row), row.at, row.received)).collect();
        lines.sort_by_key(|(line, at, _)| (line.clone(), at.from));
        lines
    }
}

fn line_of(row: &Row) -> String {
    let sent = &row.sent;
    let mut metadata = Map::new();
    for (name, value) in [
        ("componentId", json!(sent.component)),
        ("elementId", json!(sent.element)),
        ("keyword", json!(sent.keyword)),
        ("postId", json!(sent.post)),
        ("url", json!(sent.url)),
        ("referrer", json!(sent.referrer)),
        ("resultCount", json!(sent.results)),
    ] {
        if !value.is_null() {
            metadata.insert(name.to_owned(), value);
        }
    }
    let id = sent.id.map_or("<made>".to_owned(), |id| id.to_string());
    let mut line = json!({"eventId":id,"eventType":sent.kind});
    if !metadata.is_empty() {
        line["metadata"] = Value::Object(metadata);
    }
    for (name, value) in [("userId", json!(sent.user)), ("sessionId", json!(sent.session))] {
        if !value.is_null() {
            line[name] = value;
        }
    }
    if let Some(properties) = &sent.properties {
        line["properties"] = properties.clone();
    }
    line.to_string()
}
