//! The thread that takes connections in, makes room for them, and hands each to the worker of its socket.
//!
//! It blocks in accept, so it is no coroutine. Whatever goes wrong there, it pauses rather than spins, and sheds.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::Config;
use super::connection::{self, Service};
use super::refusal::Refusal;
use super::registry::network_of;
use super::shared::Shared;
use crate::limits::{CONNECTIONS_BEYOND_MAX, SOCKET_UNSENT_BYTES_MAX};
use crate::runtime::{spawn_on, worker_of};

/// First and longest pause when the process has no descriptor or memory left.
const PAUSE_MS: (u64, u64) = (5, 320);

pub(super) fn run(service: &Arc<Service>, listener: &TcpListener) {
    let shared = &service.shared;
    let mut pause_ms = PAUSE_MS.0;
    while !shared.is_stopping() {
        match listener.accept() {
            Ok((stream, peer)) => {
                pause_ms = PAUSE_MS.0;
                if !shared.is_stopping() {
                    take_in(service, stream, peer);
                }
            }
            Err(error) => {
                if shared.is_stopping() || is_one_connections(&error) {
                    continue;
                }
                tracing::warn!(%error, pause_ms, "accepting pauses");
                shared.stats.accept_pauses.fetch_add(1, Ordering::Relaxed);
                shed(shared);
                thread::sleep(Duration::from_millis(pause_ms));
                pause_ms = (pause_ms * 2).min(PAUSE_MS.1);
            }
        }
    }
}

/// The error of a connection that ended while it waited (accept(2)), not of the listener.
fn is_one_connections(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EINTR
                | libc::ECONNABORTED
                | libc::EPROTO
                | libc::ENETDOWN
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::EHOSTUNREACH
                | libc::ENONET
                | libc::ENOPROTOOPT
                | libc::EOPNOTSUPP
                | libc::EPERM
        )
    )
}

fn take_in(service: &Arc<Service>, stream: TcpStream, peer: SocketAddr) {
    let shared = &service.shared;
    let (stats, config) = (&shared.stats, &shared.config);
    stats.connections_accepted.fetch_add(1, Ordering::Relaxed);
    // A socket that refuses this is about to end anyway.
    let _ = stream.set_nodelay(true);
    bound_unsent(&stream);
    let counted = counted_as(peer.ip(), config);
    if counted.is_some_and(|(client, max)| !shared.registry.count_address(client, max)) {
        return refuse(service, stream, peer, Refusal::AddressFull);
    }
    let worker = worker_of(stream.as_raw_fd());
    let open = stats.connections_open.fetch_add(1, Ordering::Relaxed);
    stats.connections_of_worker[worker].fetch_add(1, Ordering::Relaxed);
    let presence = Presence { shared: shared.clone(), worker, counted: counted.map(|(client, _)| client) };
    let has_room =
        open < config.connections_max || (open < config.connections_max + CONNECTIONS_BEYOND_MAX && shed(shared));
    if !has_room {
        drop(presence);
        return refuse(service, stream, peer, Refusal::ConnectionsFull);
    }
    let service = service.clone();
    spawn_on(worker, move || {
        let _presence = presence;
        connection::serve(&service, worker, stream, peer);
    });
}

/// The client that a connection counts for, and how many it may have. `None`: it is not counted.
fn counted_as(address: IpAddr, config: &Config) -> Option<(IpAddr, usize)> {
    let max = config.connections_per_address_max;
    let address = address.to_canonical();
    let is_free = max == 0 || address.is_loopback() || (config.is_trusted)(address);
    (!is_free).then(|| (network_of(address), max))
}

/// Without this the kernel takes up to 4 MB of responses for a client that does not read, uncounted.
fn bound_unsent(stream: &TcpStream) {
    let bytes = SOCKET_UNSENT_BYTES_MAX;
    // SAFETY: the kernel reads the four bytes of `bytes`, which outlives the call. A refusal leaves the kernel's bound.
    unsafe {
        let (value, length) = ((&raw const bytes).cast(), size_of_val(&bytes) as libc::socklen_t);
        libc::setsockopt(stream.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, value, length);
    }
}

fn shed(shared: &Shared) -> bool {
    let has_shed = shared.registry.shed_longest_idle();
    if has_shed {
        shared.stats.connections_shed.fetch_add(1, Ordering::Relaxed);
    }
    has_shed
}

fn refuse(service: &Arc<Service>, stream: TcpStream, peer: SocketAddr, refusal: Refusal) {
    static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);
    service.shared.stats.connections_refused.fetch_add(1, Ordering::Relaxed);
    if UNDER_WAY.load(Ordering::Relaxed) >= CONNECTIONS_BEYOND_MAX {
        // Too many to be polite to: a close without a word.
        return;
    }
    UNDER_WAY.fetch_add(1, Ordering::Relaxed);
    let service = service.clone();
    let worker = worker_of(stream.as_raw_fd());
    spawn_on(worker, move || {
        connection::turn_away(&service, worker, stream, peer, refusal);
        UNDER_WAY.fetch_sub(1, Ordering::Relaxed);
    });
}

/// A connection's share of the counts, given back however its coroutine ends.
struct Presence {
    shared: Arc<Shared>,
    worker: usize,
    counted: Option<IpAddr>,
}

impl Drop for Presence {
    fn drop(&mut self) {
        if let Some(address) = self.counted {
            self.shared.registry.uncount_address(address);
        }
        let stats = &self.shared.stats;
        stats.connections_of_worker[self.worker].fetch_sub(1, Ordering::Relaxed);
        stats.connections_open.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No test can come from elsewhere than loopback, which is not counted: so the rule itself is asked.
    #[test]
    fn a_client_of_ipv6_is_its_network_and_loopback_and_proxies_are_not_counted() {
        let proxy: IpAddr = "2001:db8:0:9::1".parse().unwrap();
        let config = Config {
            connections_per_address_max: 3,
            is_trusted: Arc::new(move |address| address == proxy || address == IpAddr::from([192, 0, 2, 9])),
            ..Config::default()
        };
        let counted = |text: &str| counted_as(text.parse().unwrap(), &config).map(|(client, _)| client.to_string());
        for (address, client) in [
            ("192.0.2.1", Some("192.0.2.1")),
            ("::ffff:192.0.2.1", Some("192.0.2.1")),
            ("2001:db8:0:7::1", Some("2001:db8:0:7::")),
            ("2001:db8:0:7:ffff:ffff:ffff:ffff", Some("2001:db8:0:7::")),
            ("2001:db8:0:8::1", Some("2001:db8:0:8::")),
            ("2001:db8:0:9::2", Some("2001:db8:0:9::")),
            ("2001:db8:0:9::1", None),
            ("192.0.2.9", None),
            ("::ffff:192.0.2.9", None),
            ("127.0.0.1", None),
            ("127.9.9.9", None),
            ("::1", None),
            ("::ffff:127.0.0.1", None),
        ] {
            assert_eq!(counted(address).as_deref(), client, "{address}");
        }
        assert_eq!(counted_as([192, 0, 2, 1].into(), &Config::default()), None, "no limit is set");
    }
}
