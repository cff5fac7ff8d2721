//! The HTTP API: requests to use cases and back, one file a resource, routed by hand in one visible table.
//!
//! Owns names, statuses and error tags of the contract; leaves bytes to `http` and effects to `app`.

mod access;
mod answer;
mod board;
mod cacheable;
mod cached;
mod client;
mod content;
mod cors;
mod erasure;
mod events;
mod export;
mod export_format;
mod hosts;
mod json_guard;
mod keys;
mod likes;
mod lists;
mod moments;
mod names;
mod operations;
mod places;
mod posts;
#[cfg(feature = "test-hooks")]
pub mod probe;
mod query;
mod rankings;
mod rates;
mod recent;
mod rows;
mod search;
mod state;
mod statistics;
mod stream;
mod timeseries;
mod users;
mod wire;

use crate::http::{Answer, Exchange, METHODS, Method, Request};
use answer::{Answered, Failure};
use keys::Right;

pub use access::{Access, AccessRules, events_alias};
pub use answer::{not_durable, rfc3339};
pub use board::Streams;
pub use client::Proxies;
pub use cors::Origins;
pub use export_format::{Format, put_line};
pub use hosts::Hosts;
pub use keys::{KeyList, Keys};
pub use moments::{End, MOMENT_FORMS, moment};
pub use operations::starting;
pub use places::Exports;
pub use query::TIME_MS_MAX;
pub use state::Api;
pub use wire::judge_event;

/// A handler, given the id in its path, still encoded.
type Handler = fn(&Api, &str, &Request<'_>, &mut Exchange<'_>) -> Answered;
/// What a method does under a path, and the right that it takes. GET is for HEAD, too.
type Route = (Method, Option<Right>, Handler);

/// What is under a path: the id that the path names, if it names one, and its methods.
fn routes<'p>(access: &Access, path: &'p str) -> Option<(&'p str, &'static [Route])> {
    use Method::{Delete, Get, Post};
    use Right::{Admin, Ingest, Read, Write};
    if access.takes_events(path) {
        return Some(("", &[(Post, Some(Ingest), Api::post_events)]));
    }
    let routes: &'static [Route] = match path {
        "/api/posts" => &[(Post, Some(Write), Api::post_post)],
        "/api/statistics" => &[(Get, Some(Read), Api::count)],
        "/api/search" => &[(Get, Some(Read), Api::search)],
        "/api/statistics/timeseries" => &[(Get, Some(Read), Api::timeseries)],
        "/api/statistics/users" => &[(Get, Some(Read), Api::users)],
        "/api/statistics/stream" => &[(Get, Some(Read), Api::stream)],
        "/api/export" => &[(Get, Some(Admin), Api::export)],
        "/healthz/live" => &[(Get, None, Api::live)],
        "/healthz/ready" => &[(Get, None, Api::ready)],
        "/healthz/deps" => &[(Get, None, Api::deps)],
        "/metrics" => &[(Get, Some(Read), Api::metrics_text)],
        // A post may itself be called `like`: only POST means the action.
        "/api/posts/like" => {
            let routes: &[Route] = &[
                (Get, Some(Read), Api::get_post),
                (Post, Some(Write), Api::post_like),
                (Delete, Some(Write), Api::delete_post),
            ];
            return Some(("like", routes));
        }
        _ => return routes_with_id(path),
    };
    Some(("", routes))
}

/// Paths that end with an id, or with one and `/like`. An id is one segment, in which a slash of its own is `%2F`.
fn routes_with_id(path: &str) -> Option<(&str, &'static [Route])> {
    use Method::{Delete, Get, Put};
    use Right::{Admin, Read, Write};
    let (id, routes): (&str, &'static [Route]) = if let Some(list) = path.strip_prefix("/api/statistics/popular/") {
        (known_list(list)?, &[(Get, Some(Read), Api::popular)])
    } else if let Some(list) = path.strip_prefix("/api/statistics/rankings/") {
        (known_list(list)?, &[(Get, Some(Read), Api::ranking)])
    } else if let Some(user) = path.strip_prefix("/api/search/recent/") {
        (user, &[(Get, Some(Read), Api::get_recent), (Delete, Some(Write), Api::delete_recent)])
    } else if let Some(user) = path.strip_prefix("/api/users/") {
        (user, &[(Delete, Some(Admin), Api::delete_user)])
    } else {
        let post = path.strip_prefix("/api/posts/").filter(|post| !post.is_empty())?;
        match post.strip_suffix("/like") {
            Some("") => return None,
            Some(post) => (
                post,
                &[
                    (Get, Some(Read), Api::get_like),
                    (Put, Some(Write), Api::set_like),
                    (Delete, Some(Write), Api::set_like),
                ],
            ),
            None => (post, &[(Get, Some(Read), Api::get_post), (Delete, Some(Write), Api::delete_post)]),
        }
    };
    (!id.contains('/')).then_some((id, routes))
}

impl Api {
    pub fn handle(&self, request: &Request<'_>, exchange: &mut Exchange<'_>) {
        // Before the rules of access, which look at the path: a slash at its end means nothing.
        let request = &Request { path: without_slash(request.path), ..*request };
        if !self.access.lets_in(request, exchange) {
            return;
        }
        if request.method != Method::Post {
            // All others may wait: their deadline must not decide about the answers before them.
            exchange.settle();
        }
        if let Err(failure) = self.answer(request, exchange) {
            failure.answer(exchange);
        }
    }

    fn answer(&self, request: &Request<'_>, exchange: &mut Exchange<'_>) -> Answered {
        if request.path == "*" {
            return self.not_here(request, METHODS, exchange);
        }
        let found = routes(&self.access, request.path);
        let (id, routes) = found.ok_or(Failure::NotFound("there is nothing under this path"))?;
        let method = if request.method == Method::Head { Method::Get } else { request.method };
        match routes.iter().find(|(of, ..)| *of == method) {
            Some((_, right, handle)) => {
                if let Some(right) = right {
                    self.access.admit(*right, request)?;
                }
                handle(self, id, request, exchange)
            }
            None => {
                let names = routes.iter().map(|(of, ..)| if *of == Method::Get { "GET, HEAD" } else { of.name() });
                self.not_here(request, &names.collect::<Vec<_>>().join(", "), exchange)
            }
        }
    }

    fn not_here(&self, request: &Request<'_>, allow: &str, exchange: &mut Exchange<'_>) -> Answered {
        let headers = [("Allow", allow)];
        if request.method != Method::Options {
            let message = format!("this path takes {allow}");
            answer::error_with(exchange, 405, "method_not_allowed", &message, &headers);
        } else if !self.access.preflight(request, allow, exchange) {
            exchange.respond(Answer { status: 204, content_type: "", headers: &headers, body: b"" });
        }
        Ok(())
    }
}

fn known_list(list: &str) -> Option<&str> {
    lists::Named::of(list).map(|_| list)
}

/// A path without the slash at its end; the root is one.
fn without_slash(path: &str) -> &str {
    path.strip_suffix('/').filter(|path| !path.is_empty()).unwrap_or(path)
}
