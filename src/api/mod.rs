//! The HTTP API: requests to use cases and back, one file a resource, routed by hand in one visible table.
//!
//! Owns names, statuses and error tags of the contract; leaves bytes to `http` and effects to `app`.

mod access;
mod answer;
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
mod moments;
mod names;
mod operations;
mod posts;
#[doc(hidden)]
pub mod probe;
mod query;
mod rankings;
mod rates;
mod recent;
mod rows;
mod search;
mod statistics;
mod statistics_stream;
mod timeseries;
mod users;
mod wire;

use crate::app::App;
use crate::http::{Answer, Exchange, METHODS, Method, Request};
use keys::Right;
use std::sync::Arc;

pub use access::{Access, AccessRules, events_alias};
pub use answer::{not_durable, rfc3339};
pub use client::Proxies;
pub use cors::Origins;
pub use export::Exports;
pub use export_format::{Format, put_line};
pub use hosts::Hosts;
pub use keys::{KeyList, Keys};
pub use moments::{End, MOMENT_FORMS, moment};
pub use operations::starting;
pub use query::TIME_MS_MAX;
pub use statistics_stream::Streams;
pub use wire::judge_event;

/// What the handlers share.
pub struct Api {
    pub app: Arc<App>,
    pub metrics: crate::metrics::Metrics,
    pub access: Access,
    pub exports: Arc<Exports>,
    pub streams: Arc<Streams>,
}

type Handler = fn(&Api, &Request<'_>, &mut Exchange<'_>);

impl Api {
    /// Answers one request: the routing table.
    pub fn handle(&self, request: &Request<'_>, exchange: &mut Exchange<'_>) {
        use Method::Post;
        let method = request.method;
        // Before the rules of access, which look at the path: a slash at its end means nothing.
        let request = &Request { path: without_slash(request.path), ..*request };
        if !self.lets_in(request, exchange) {
            return;
        }
        if method != Post {
            // All others may wait: their deadline must not decide about the answers before them.
            exchange.settle();
        }
        match request.path {
            path if self.access.takes_events(path) => match method {
                Post if self.admits(Right::Ingest, request, exchange) => self.post_events(request, exchange),
                Post => {}
                _ => self.not_here(request, "POST", exchange),
            },
            "/api/posts" => match method {
                Post if self.admits(Right::Write, request, exchange) => self.post_post(request, exchange),
                Post => {}
                _ => self.not_here(request, "POST", exchange),
            },
            path if path.starts_with("/api/posts/") => {
                self.under_posts(&path["/api/posts/".len()..], request, exchange);
            }
            "*" => self.not_here(request, METHODS, exchange),
            path => self.route_other(path, request, exchange),
        }
    }

    /// Paths that end with an id, and those that are only read.
    fn route_other(&self, path: &str, request: &Request<'_>, exchange: &mut Exchange<'_>) {
        use Method::{Delete, Get, Head};
        let method = request.method;
        if let Some(user) = id_below("/api/search/recent/", path) {
            return match method {
                Get | Head if self.admits(Right::Read, request, exchange) => self.get_recent(user, request, exchange),
                Delete if self.admits(Right::Write, request, exchange) => self.delete_recent(user, request, exchange),
                Get | Head | Delete => {}
                _ => self.not_here(request, "GET, HEAD, DELETE", exchange),
            };
        }
        if let Some(user) = id_below("/api/users/", path) {
            return match method {
                Delete if self.admits(Right::Admin, request, exchange) => self.delete_user(user, request, exchange),
                Delete => {}
                _ => self.not_here(request, "DELETE", exchange),
            };
        }
        match self.reads(path) {
            Some((route, right)) if matches!(method, Get | Head) => {
                if right.is_none_or(|right| self.admits(right, request, exchange)) {
                    route(self, request, exchange);
                }
            }
            Some(_) => self.not_here(request, "GET, HEAD", exchange),
            None => answer::error(exchange, 404, "not_found", "there is nothing under this path"),
        }
    }

    /// What is read under a path, and the right that it takes.
    fn reads(&self, path: &str) -> Option<(Handler, Option<Right>)> {
        let read = Some(Right::Read);
        Some(match path {
            "/api/statistics" => (Api::count, read),
            "/api/statistics/popular/keywords" => (Api::popular_keywords, read),
            "/api/statistics/popular/posts" => (Api::popular_posts, read),
            "/api/statistics/popular/pages" => (Api::popular_pages, read),
            "/api/statistics/popular/components" => (Api::popular_components, read),
            "/api/search" => (Api::search, read),
            "/api/statistics/rankings/keywords" => (Api::ranked_keywords, read),
            "/api/statistics/rankings/posts" => (Api::ranked_posts, read),
            "/api/statistics/rankings/pages" => (Api::ranked_pages, read),
            "/api/statistics/rankings/components" => (Api::ranked_components, read),
            "/api/statistics/timeseries" => (Api::timeseries, read),
            "/api/statistics/users" => (Api::users, read),
            "/api/statistics/stream" => (Api::statistics_stream, read),
            "/api/export" => (Api::export, Some(Right::Admin)),
            "/healthz/live" => (Api::live, None),
            "/healthz/ready" => (Api::ready, None),
            "/healthz/deps" => (Api::deps, None),
            "/metrics" => (Api::metrics_text, read),
            _ => return None,
        })
    }

    fn not_here(&self, request: &Request<'_>, allow: &'static str, exchange: &mut Exchange<'_>) {
        if request.method == Method::Options {
            if !self.access.preflight(request, allow, exchange) {
                let headers = [("Allow", allow)];
                exchange.respond(Answer { status: 204, content_type: "", headers: &headers, body: b"" });
            }
            return;
        }
        let message = format!("this path takes {allow}");
        answer::error_with(exchange, 405, "method_not_allowed", &message, &[("Allow", allow)]);
    }
}

/// A path without the slash at its end; the root is one.
fn without_slash(path: &str) -> &str {
    path.strip_suffix('/').filter(|path| !path.is_empty()).unwrap_or(path)
}

/// The id below a path, still encoded: one segment, in which a slash of its own is `%2F`.
fn id_below<'p>(prefix: &str, path: &'p str) -> Option<&'p str> {
    path.strip_prefix(prefix).filter(|id| !id.contains('/'))
}
