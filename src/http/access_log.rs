//! The access log, one line a request where it is asked for, and the ids by which a request is
//! found in it.
//!
//! A line begins with its request, learns its status with the answer and is told once the answer is
//! sent. It holds no query at all, so no key and no word that was searched for, and of a private
//! path only what comes before the person. While the log is off nothing here is called but the
//! making of an id for an error of ours.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use uuid::Uuid;

use super::{Config, Method};
use crate::limits::ACCESS_LOG_PATH_BYTES_MAX;

/// Lines that wait for their answers to be sent. Holds no memory while the log is off.
#[derive(Default)]
pub(super) struct Lines(Vec<Line>);

#[derive(Default)]
struct Line {
    is_sampled: bool,
    method: Option<Method>,
    path: String,
    status: u16,
    bytes: u64,
    request_id: String,
    refusal: &'static str,
}

/// Which of them are told whatever they are.
#[derive(Default)]
pub(super) struct Sampling(AtomicU64);

impl Sampling {
    /// One in `every`, the first among them.
    fn takes(&self, every: u64) -> bool {
        self.0.fetch_add(1, Ordering::Relaxed).is_multiple_of(every)
    }
}

impl Lines {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// For a request that goes to the handler: the id that it has now, if any. One that is told
    /// anyway gets one.
    pub(super) fn begin(
        &mut self,
        (config, sampling): (&Config, &Sampling),
        (method, path): (Method, &str),
        request_id: Option<&str>,
    ) -> Option<String> {
        let is_sampled = sampling.takes(config.access_log);
        let request_id = request_id.map(str::to_owned).or_else(|| is_sampled.then(new_id));
        let line =
            Line { is_sampled, method: Some(method), path: shown(path, config.private_paths), ..Line::default() };
        self.0.push(Line { request_id: request_id.clone().unwrap_or_default(), ..line });
        request_id
    }

    /// For a request that no handler saw, perhaps because it could not be read.
    pub(super) fn refused(&mut self, tag: &'static str, request: Option<(Method, &str)>, config: &Config) {
        let path = request.map_or_else(|| "-".to_owned(), |(_, path)| shown(path, config.private_paths));
        self.0.push(Line { method: request.map(|(method, _)| method), path, refusal: tag, ..Line::default() });
    }

    /// What the answer to a request has become, in place of an earlier one.
    pub(super) fn answered(&mut self, index: usize, status: u16, bytes: usize, made_id: Option<&str>) {
        let Some(line) = self.0.get_mut(index) else { return };
        line.status = status;
        line.bytes = bytes as u64;
        if let Some(id) = made_id {
            id.clone_into(&mut line.request_id);
        }
    }

    pub(super) fn named(&mut self, index: usize, request_id: &str) {
        if let Some(line) = self.0.get_mut(index) {
            request_id.clone_into(&mut line.request_id);
        }
    }

    /// The last one's answer is a stream, which wrote this much more.
    pub(super) fn streamed(&mut self, bytes: u64) {
        if let Some(line) = self.0.last_mut() {
            line.bytes += bytes;
        }
    }

    /// The answers are sent, but the last one's where that is still `open`.
    pub(super) fn tell(&mut self, peer: SocketAddr, us: u64, open: bool) {
        let told = self.0.len().saturating_sub(usize::from(open));
        for line in self.0.drain(..told).filter(|line| line.is_sampled || line.status >= 400) {
            line.tell(peer, us);
        }
    }
}

impl Line {
    fn tell(&self, peer: SocketAddr, us: u64) {
        let Line { path, status, bytes, request_id, refusal, .. } = self;
        let (peer, method) = (peer.ip().to_canonical(), self.method.map_or("-", Method::name));
        let (refusal, id) = ((!refusal.is_empty()).then_some(refusal), (!request_id.is_empty()).then_some(request_id));
        tracing::info!(target: "access", %peer, method, path, status, bytes, us, request_id = id, refusal);
    }
}

fn shown(path: &str, private_paths: &[&str]) -> String {
    let private = private_paths.iter().find(|prefix| path.len() > prefix.len() && path.starts_with(**prefix));
    match private {
        Some(prefix) => format!("{prefix}…"),
        // ASCII: the parser has seen to it.
        None => path.get(..path.len().min(ACCESS_LOG_PATH_BYTES_MAX)).unwrap_or_default().to_owned(),
    }
}

/// An id that no other request has, on this instance or another.
pub(super) fn new_id() -> String {
    Uuid::now_v7().simple().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_path_ends_before_the_person_and_a_long_one_is_cut() {
        let private = ["/api/users/"];
        assert_eq!(shown("/api/users/alice", &private), "/api/users/…");
        assert_eq!(shown("/api/users/", &private), "/api/users/");
        assert_eq!(shown("/api/events", &private), "/api/events");
        assert_eq!(shown(&"/a".repeat(4_000), &private).len(), ACCESS_LOG_PATH_BYTES_MAX);
    }
}
