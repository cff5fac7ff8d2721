//! The HTTP API: requests to use cases and back, one file a resource, routed by hand in one visible table.
//!
//! Owns names, statuses and error tags of the contract; leaves bytes to `http` and effects to `app`.

mod answer;
mod content;
mod events;
mod json_guard;
mod likes;
mod operations;
mod posts;
mod query;
mod recent;
mod statistics;
mod wire;

use crate::app::App;
use crate::http::{Answer, Exchange, Method, Request};
use std::sync::Arc;

pub use answer::not_durable;

/// What the handlers share.
pub struct Api {
    pub app: Arc<App>,
    pub metrics: crate::metrics::Metrics,
}

impl Api {
    /// Answers one request: the routing table.
    pub fn handle(&self, request: &Request<'_>, exchange: &mut Exchange<'_>) {
        use Method::{Delete, Get, Head, Post};
        let method = request.method;
        let read = matches!(method, Get | Head);
        if method != Post {
            // All others may wait: their deadline must not decide about the answers before them.
            exchange.settle();
        }
        match request.path {
            "/api/events" | "/api/users/events" | "/api/events/batch" => match method {
                Post => self.post_events(request, exchange),
                _ => self.not_here(method, "POST", exchange),
            },
            "/api/posts" => match method {
                Post => self.post_post(request, exchange),
                _ => self.not_here(method, "POST", exchange),
            },
            path if path.starts_with("/api/posts/") => {
                self.under_posts(&path["/api/posts/".len()..], request, exchange);
            }
            path if path.starts_with("/api/search/recent/") => {
                let user = &path["/api/search/recent/".len()..];
                match method {
                    Get | Head => self.get_recent(user, request, exchange),
                    Delete => self.delete_recent(user, request, exchange),
                    _ => self.not_here(method, "GET, HEAD, DELETE", exchange),
                }
            }
            path => match self.reads(path) {
                Some(route) if read => route(self, request, exchange),
                Some(_) => self.not_here(method, "GET, HEAD", exchange),
                None => answer::error(exchange, 404, "not_found", "there is nothing under this path"),
            },
        }
    }

    fn reads(&self, path: &str) -> Option<fn(&Api, &Request<'_>, &mut Exchange<'_>)> {
        Some(match path {
            "/api/statistics" => Api::count,
            "/api/statistics/popular/keywords" => Api::popular_keywords,
            "/api/statistics/popular/posts" => Api::popular_posts,
            "/api/statistics/popular/pages" => Api::popular_pages,
            "/api/statistics/popular/components" => Api::popular_components,
            "/healthz/live" => Api::live,
            "/healthz/ready" => Api::ready,
            "/healthz/deps" => Api::deps,
            "/metrics" => Api::metrics_text,
            _ => return None,
        })
    }

    fn not_here(&self, method: Method, allow: &'static str, exchange: &mut Exchange<'_>) {
        if method == Method::Options {
            let headers = [("Allow", allow)];
            return exchange.respond(Answer { status: 204, content_type: "", headers: &headers, body: b"" });
        }
        let message = format!("this path takes {allow}");
        answer::error_with(exchange, 405, "method_not_allowed", &message, &[("Allow", allow)]);
    }
}
