//! What is written: events in all shapes, likes, posts, forgotten searches, people who go.

use std::time::Duration;

use rand::RngExt;
use serde_json::{Value, json};

use super::Run;
use super::draw::{self, encoded, id_value};
use super::model::{Fate, Said, Sent};
use super::programs::{Ended, Reply, Request};
use crate::support::now_ms;

/// Whatever a server stamps next has a later millisecond.
fn next_millisecond() {
    std::thread::sleep(Duration::from_millis(2));
}

/// A row of a batch as it is sent, and what it is: taken, or refused with a tag.
type Line = (Value, Result<Sent, &'static str>);

impl Run {
    pub(crate) fn write_event(&mut self) -> Result<(), Ended> {
        let (event, sent) = self.draw_event();
        let path = draw::one(&mut self.random, &["/api/events", "/api/users/events"]);
        let wait = self.random.random_bool(0.5);
        self.send_event(path, &event, &sent, wait)
    }

    pub(crate) fn write_like_event(&mut self) -> Result<(), Ended> {
        loop {
            let (event, sent) = self.draw_event();
            if sent.kind.ends_with("LIKE") {
                return self.send_event("/api/events", &event, &sent, true);
            }
        }
    }

    pub(crate) fn write_predecessors_event(&mut self) -> Result<(), Ended> {
        let random = &mut self.random;
        let (kind, user) = (if random.random_bool(0.5) { "CLICK" } else { "PAGE_VIEW" }, random.random_range(1..4));
        let component = random.random_range(1..5);
        let (session, element) = (format!("session-{user}"), format!("button-{component}"));
        let event = json!({"eventType":kind,"userId":user,"sessionId":session,
            "metadata":{"componentId":component,"elementId":element}});
        let mut sent = Sent { kind, ..Sent::default() };
        (sent.user, sent.session) = (Some(user.to_string()), Some(session));
        (sent.component, sent.element) = (Some(component), Some(element));
        self.send_event("/api/users/events", &event, &sent, false)
    }

    fn send_event(&mut self, path: &str, event: &Value, sent: &Sent, wait: bool) -> Result<(), Ended> {
        let answers = self.programs.ask(&Request::post(format!("{path}{}", waiting(wait)), event));
        let fate = self.model.take(sent, answers.span);
        let id = sent.id.map_or("<made>".to_owned(), |id| id.to_string());
        let expected = match fate {
            _ if !wait => Reply::new(202, json!({"eventId":id})),
            Fate::Erased => Reply::problem(410, "user_erased", None),
            fate => Reply::new(201, json!({"eventId":id,"duplicate":fate == Fate::Duplicate})),
        };
        self.is_pending = !wait;
        self.check(&answers, &expected)
    }

    pub(crate) fn write_refused_event(&mut self) -> Result<(), Ended> {
        let (event, tag, field) = draw::refused_event(&mut self.random);
        self.programs.expect(&Request::post("/api/events?wait=true", &event), &Reply::problem(400, tag, field))
    }

    pub(crate) fn write_batch(&mut self) -> Result<(), Ended> {
        let mut rows: Vec<Line> = Vec::new();
        for _ in 0..self.random.random_range(2..9) {
            rows.push(if self.random.random_bool(0.15) {
                let (event, tag, _) = draw::refused_event(&mut self.random);
                (event, Err(tag))
            } else {
                let (event, sent) = self.draw_event();
                (event, Ok(sent))
            });
        }
        tell_searches_apart(&mut rows);
        self.send_batch(&rows)
    }

    /// More searches of one person than are kept.
    pub(crate) fn write_searches(&mut self) -> Result<(), Ended> {
        let user = draw::user(&mut self.random);
        let row = |typed: &&str| {
            let keyword = Some(draw::kept(typed));
            let sent = Sent { user: Some(user.clone()), keyword, kind: "SEARCH", ..Sent::default() };
            (json!({"eventType":"SEARCH","userId":user,"metadata":{"keyword":typed}}), Ok(sent))
        };
        let first = self.random.random_range(0..8);
        let mut rows: Vec<Line> = draw::KEYWORDS[first..].iter().map(row).collect();
        tell_searches_apart(&mut rows);
        self.send_batch(&rows)
    }

    fn send_batch(&mut self, rows: &[Line]) -> Result<(), Ended> {
        let wait = self.random.random_bool(0.5);
        let request = self.shape(rows, wait);
        let answers = self.programs.ask(&request);
        let (mut results, mut accepted, mut duplicates) = (Vec::new(), 0, 0);
        let mut is_any_good = false;
        for (index, (_, line)) in rows.iter().enumerate() {
            let sent = match line {
                Err(tag) => {
                    results.push(json!({"index":index,"status":"rejected","error":tag}));
                    continue;
                }
                Ok(sent) => sent,
            };
            is_any_good = true;
            match self.model.take(sent, answers.span) {
                Fate::Erased if wait => {
                    let id = sent.id.map_or("<made>".to_owned(), |id| id.to_string());
                    results.push(json!({"index":index,"eventId":id,"status":"rejected","error":"user_erased"}));
                    continue;
                }
                Fate::Duplicate if wait => duplicates += 1,
                _ => {}
            }
            accepted += 1;
        }
        let status = match (accepted, wait) {
            (0, _) => 400,
            (_, true) => 201,
            (_, false) => 202,
        };
        let body = json!({"received":rows.len(),"accepted":accepted,"rejected":rows.len() - accepted,
            "duplicates":duplicates,"results":results});
        self.is_pending = if is_any_good { !wait } else { self.is_pending };
        self.check(&answers, &Reply::new(status, body))
    }

    fn shape(&mut self, rows: &[Line], wait: bool) -> Request {
        let events: Vec<&Value> = rows.iter().map(|(event, _)| event).collect();
        let lines: String = events.iter().map(|event| format!("{event}\n")).collect();
        let path = draw::one(&mut self.random, &["/api/events", "/api/events/batch", "/api/users/events"]);
        let path = format!("{path}{}", waiting(wait));
        match self.random.random_range(0..5) {
            0 => Request::post(path, &json!(events)),
            1 => Request::post(path, &json!({ "events": events })),
            2 => Request::with(path, "application/x-ndjson", lines),
            3 => Request::with(path, "text/plain;charset=UTF-8", lines),
            _ => Request::post(path, &json!(events)).packed(),
        }
    }

    pub(crate) fn write_like(&mut self) -> Result<(), Ended> {
        let (user, post) = (draw::user(&mut self.random), self.any_post());
        let id = self.random.random_bool(0.25).then(|| self.any_id());
        let mut body = json!({"userId":id_value(&mut self.random, &user)});
        if let Some(id) = id {
            body["eventId"] = json!(id.to_string());
        }
        let path = format!("/api/posts/{}/like", encoded(&post));
        let (request, action) = match self.random.random_range(0..7) {
            0 => (Request::put(path, &body), "like"),
            1 => (Request::put(path, &body).method("DELETE"), "unlike"),
            2 if id.is_none() => (Request::delete(format!("{path}?userId={}", encoded(&user))), "unlike"),
            _ => {
                let action = draw::one(&mut self.random, &["", "toggle", "Like", "unlike"]);
                body["postId"] = id_value(&mut self.random, &post);
                if !action.is_empty() {
                    body["action"] = json!(action);
                }
                (Request::post("/api/posts/like", &body), action)
            }
        };
        let answers = self.programs.ask(&request);
        let expected = self.model.like(&user, &post, &action.to_lowercase(), id, answers.span);
        self.is_pending = false;
        self.check(&answers, &expected)
    }

    pub(crate) fn write_post(&mut self) -> Result<(), Ended> {
        let mut body = draw::post(&mut self.random, now_ms());
        let given = self.random.random_bool(0.75).then(|| self.any_post());
        if let Some(given) = &given {
            body["postId"] = id_value(&mut self.random, given);
        }
        let answers = self.programs.ask(&Request::post("/api/posts", &body));
        self.made += 1;
        let name = format!("made {}", self.made);
        let learnt = self.programs.learn(&answers, &name);
        let id = given.or(learnt).unwrap_or_default();
        let expected = self.model.put(&id, &body, answers.span, &name);
        self.is_pending = false;
        next_millisecond();
        self.check(&answers, &expected)
    }

    pub(crate) fn delete_post(&mut self) -> Result<(), Ended> {
        let post = self.any_post();
        let answers = self.programs.ask(&Request::delete(format!("/api/posts/{}", encoded(&post))));
        self.model.delete(&post, answers.span);
        self.is_pending = false;
        self.check(&answers, &Reply::new(204, Value::Null))
    }

    /// Forgets one search or all. Past ten it is not promised whether an eleventh comes back for one that is forgotten.
    pub(crate) fn forget_searches(&mut self) -> Result<(), Ended> {
        let user = draw::user(&mut self.random);
        let one = self.random.random_bool(0.7) && !self.model.has_searched_many(&user);
        let typed = one.then(|| draw::one(&mut self.random, &draw::KEYWORDS));
        let query = typed.map(|typed| format!("?keyword={}", encoded(typed))).unwrap_or_default();
        let answers = self.programs.ask(&Request::delete(format!("/api/search/recent/{}{query}", encoded(&user))));
        self.model.forget(&user, typed.map(draw::kept).as_deref(), answers.span);
        self.is_pending = false;
        self.check(&answers, &Reply::new(204, Value::Null))
    }

    pub(crate) fn erase(&mut self, wait: bool) -> Result<(), Ended> {
        let user = draw::user(&mut self.random);
        let path = format!("/api/users/{}{}", encoded(&user), waiting(wait));
        let answers = self.programs.ask(&Request::delete(path));
        self.model.erase(&user, answers.span);
        self.is_pending = !wait;
        next_millisecond();
        let (status, word) = if wait { (200, "erased") } else { (202, "queued") };
        self.check(&answers, &Reply::new(status, json!({"userId":user,"status":word})))
    }

    fn draw_event(&mut self) -> (Value, Sent) {
        let posts = self.posts();
        draw::event(&mut self.random, now_ms(), &self.ids, &posts)
    }
}

/// Gives searches of one request that would happen as they come in a millisecond each. Of those that share one the ledger in
/// PostgreSQL does not know the order for certain, and so a live store that was built anew does not either.
fn tell_searches_apart(rows: &mut [Line]) {
    let begin = now_ms();
    std::thread::sleep(Duration::from_millis(rows.len() as u64 + 1));
    for ((event, sent), at) in rows.iter_mut().zip(begin + 1..) {
        if let Ok(sent @ Sent { kind: "SEARCH", said: Said::Nothing, .. }) = sent {
            event.as_object_mut().expect("an object").remove("sentAt");
            event["timestamp"] = json!(at);
            sent.said = Said::At(at);
        }
    }
}

fn waiting(wait: bool) -> &'static str {
    if wait { "?wait=true" } else { "" }
}
