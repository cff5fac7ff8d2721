//! The server from outside: its settings, its start and its stop, and the request that a handler sees.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::access_log::Sampling;
use super::registry::Registry;
use super::response::{self, Answer};
use super::{Exchange, Headers, Method, Stats, Tls, acceptor};
use crate::limits;
use crate::limits::ACCEPT_BACKLOG;
use crate::runtime::worker_count;

/// How often a stop looks whether the last connection has ended.
const STOP_LOOK: Duration = Duration::from_millis(5);
/// After a cut, sockets that were reset need this long to be closed.
const CUT_WAIT: Duration = Duration::from_millis(250);

/// Tells the addresses that count as ours, such as trusted proxies.
pub type Trusted = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// Every bound of the server. The defaults are those of `limits`.
#[derive(Clone)]
pub struct Config {
    /// Port 0 takes any.
    pub listen: SocketAddr,
    /// Past it the longest idle connection makes room, or the new one gets 503.
    pub connections_max: usize,
    /// Past it a new connection of the address gets 429; never counts loopback.
    pub connections_per_address_max: Option<usize>,
    /// Addresses that are never counted, such as trusted proxies.
    pub is_trusted: Trusted,
    /// Request line without its end.
    pub request_line_bytes_max: usize,
    /// Request line, headers and the empty line; below 64 KiB.
    pub head_bytes_max: usize,
    /// Header fields of a request; `limits::HEADERS_MAX` at most.
    pub headers_max: usize,
    /// A body, declared or counted.
    pub body_bytes_max: usize,
    /// What the bodies of all connections have in memory beyond their lent buffers.
    pub bodies_bytes_max: usize,
    /// Hexadecimal digits of a chunk's size.
    pub chunk_size_digits_max: usize,
    /// Extensions of one chunk.
    pub chunk_extension_bytes_max: usize,
    /// Extensions of all chunks of a body.
    pub chunk_extensions_bytes_max: usize,
    /// Trailers of a body.
    pub trailers_bytes_max: usize,
    /// Connecting to the first byte.
    pub first_byte_ms: u64,
    /// First byte of a head to its last.
    pub head_ms: u64,
    /// A whole body.
    pub body_ms: u64,
    /// A body may be slower than the rate below for this long.
    pub body_rate_after_ms: u64,
    /// Slower than this on the whole, a body is given up.
    pub body_bytes_per_second_min: u64,
    /// Between two requests.
    pub idle_ms: u64,
    /// A write without progress.
    pub write_stall_ms: u64,
    /// Requests answered before other connections get their turn.
    pub pipeline_requests_max: usize,
    /// Unsent answers, past which no further request is answered.
    pub unsent_bytes_max: usize,
    /// Unsent responses of all connections that wait for their clients; one that would exceed it is reset.
    pub unsent_all_bytes_max: usize,
    /// What is read and thrown away after an error.
    pub linger_close_bytes_max: usize,
    /// … and for how long.
    pub linger_close_ms: u64,
    /// Speaks TLS and nothing else.
    pub tls: Option<Arc<Tls>>,
    /// 0: no access log. Otherwise one request in so many, and every one that is answered with 400 or more.
    pub access_log: u64,
    /// Paths that name a person after this prefix, which is all that the log shows of them.
    pub private_paths: &'static [&'static str],
    /// Takes the place of held answers whose ticket failed.
    pub on_failed: fn() -> Answer<'static>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            connections_max: limits::CONNECTIONS_MAX,
            connections_per_address_max: None,
            is_trusted: Arc::new(|_| false),
            request_line_bytes_max: limits::REQUEST_LINE_BYTES_MAX,
            head_bytes_max: limits::HEAD_BYTES_MAX,
            headers_max: limits::HEADERS_MAX,
            body_bytes_max: limits::BODY_BYTES_MAX,
            bodies_bytes_max: limits::of_memory(limits::BODIES_BYTES_MAX),
            chunk_size_digits_max: limits::CHUNK_SIZE_DIGITS_MAX,
            chunk_extension_bytes_max: limits::CHUNK_EXTENSION_BYTES_MAX,
            chunk_extensions_bytes_max: limits::CHUNK_EXTENSIONS_BYTES_MAX,
            trailers_bytes_max: limits::TRAILERS_BYTES_MAX,
            first_byte_ms: limits::FIRST_BYTE_MS,
            head_ms: limits::HEAD_MS,
            body_ms: limits::BODY_MS,
            body_rate_after_ms: limits::BODY_RATE_AFTER_MS,
            body_bytes_per_second_min: limits::BODY_BYTES_PER_SECOND_MIN,
            idle_ms: limits::IDLE_MS,
            write_stall_ms: limits::WRITE_STALL_MS,
            pipeline_requests_max: limits::PIPELINE_REQUESTS_MAX,
            unsent_bytes_max: limits::UNSENT_BYTES_MAX,
            unsent_all_bytes_max: limits::of_memory(limits::UNSENT_ALL_BYTES_MAX),
            linger_close_bytes_max: limits::LINGER_CLOSE_BYTES_MAX,
            linger_close_ms: limits::LINGER_CLOSE_MS,
            tls: None,
            access_log: 0,
            private_paths: &[],
            on_failed: response::failed,
        }
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config").field("listen", &self.listen).finish_non_exhaustive()
    }
}

/// A request, whole.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// What to do.
    pub method: Method,
    /// As sent, still percent-encoded; `*` for an OPTIONS of the server.
    pub path: &'a str,
    /// As sent; empty where there is none.
    pub query: &'a str,
    /// Host and port of a target in absolute form, else empty.
    pub authority: &'a str,
    /// As sent, in their order.
    pub headers: Headers<'a>,
    /// Without its framing; content codings are the handler's.
    pub body: &'a [u8],
    /// The other end of the connection, which may be a proxy.
    pub peer: SocketAddr,
}

pub(super) type Handler = Box<dyn Fn(&Request<'_>, &mut Exchange<'_>) + Send + Sync>;

/// What all connections of a server share.
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) handler: Handler,
    pub(super) stats: Arc<Stats>,
    pub(super) registry: Registry,
    pub(super) sampling: Sampling,
    stopping: AtomicBool,
}

impl Shared {
    /// Ordered with `Entry::idle`.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }
}

impl Shared {
    /// Counts more body bytes in memory. False: there is no room for them.
    pub(super) fn take_body_bytes(&self, more: usize) -> bool {
        take(&self.stats.bodies_bytes, more, self.config.bodies_bytes_max)
    }

    pub(super) fn give_body_bytes(&self, bytes: usize) {
        self.stats.bodies_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Counts unsent bytes of a connection that waits for its client. False: too many wait already.
    pub(super) fn take_unsent_bytes(&self, more: usize) -> bool {
        take(&self.stats.unsent_bytes, more, self.config.unsent_all_bytes_max)
    }

    pub(super) fn give_unsent_bytes(&self, bytes: usize) {
        self.stats.unsent_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

fn take(account: &AtomicUsize, more: usize, max: usize) -> bool {
    let fits = account.fetch_add(more, Ordering::Relaxed) + more <= max;
    if !fits {
        account.fetch_sub(more, Ordering::Relaxed);
    }
    fits
}

/// Body bytes that one request has in memory beside its connection's buffer. They are counted until this is dropped.
pub struct BodyBytes {
    shared: Arc<Shared>,
    bytes: usize,
}

impl BodyBytes {
    pub(super) fn new(shared: Arc<Shared>) -> BodyBytes {
        BodyBytes { shared, bytes: 0 }
    }

    /// Counts more bytes, before the caller allocates them. False: bodies fill their share of memory (`bodies_full`).
    pub fn take(&mut self, more: usize) -> bool {
        let fits = self.shared.take_body_bytes(more);
        self.bytes += if fits { more } else { 0 };
        fits
    }
}

impl Drop for BodyBytes {
    fn drop(&mut self) {
        self.shared.give_body_bytes(self.bytes);
    }
}

/// A socket that listens and accepts nothing yet.
pub struct Server {
    config: Config,
    listener: TcpListener,
    address: SocketAddr,
    stats: Arc<Stats>,
}

impl Server {
    /// Takes the port; `runtime::start` comes before. A port that another process listens on is an error: SO_REUSEPORT would share it in silence.
    pub fn bind(config: Config) -> io::Result<Server> {
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("cannot listen on {}: {error}", config.listen));
        let socket =
            Socket::new(Domain::for_address(config.listen), Type::STREAM, Some(Protocol::TCP)).map_err(named)?;
        // A restart must not wait for the old connections' TIME_WAIT.
        socket.set_reuse_address(true).map_err(named)?;
        if config.listen.is_ipv6() {
            socket.set_only_v6(false).map_err(named)?;
        }
        socket.bind(&config.listen.into()).map_err(named)?;
        socket.listen(ACCEPT_BACKLOG).map_err(named)?;
        let listener = TcpListener::from(socket);
        let address = listener.local_addr().map_err(named)?;
        Ok(Server { config, listener, address, stats: Arc::new(Stats::new(worker_count())) })
    }

    /// What the server is going to count: a handler may show it.
    pub fn stats(&self) -> Arc<Stats> {
        self.stats.clone()
    }

    /// The address with the port that was taken.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Starts accepting, on a thread of its own.
    pub fn start<H>(self, handler: H) -> Running
    where
        H: Fn(&Request<'_>, &mut Exchange<'_>) + Send + Sync + 'static,
    {
        let workers = worker_count();
        let mut config = self.config;
        // Offsets within a head are 16 bits wide.
        config.head_bytes_max = config.head_bytes_max.min(usize::from(u16::MAX));
        config.pipeline_requests_max = config.pipeline_requests_max.max(1);
        let shared = Arc::new(Shared {
            config,
            handler: Box::new(handler),
            stats: self.stats,
            registry: Registry::new(workers),
            sampling: Sampling::default(),
            stopping: AtomicBool::new(false),
        });
        let listener = Arc::new(self.listener);
        let acceptor = {
            let (shared, listener) = (shared.clone(), listener.clone());
            crate::process::spawn("acceptor", move || acceptor::run(&shared, &listener))
        };
        Running { shared, listener, acceptor: Some(acceptor), address: self.address }
    }
}

/// A server that serves.
pub struct Running {
    shared: Arc<Shared>,
    listener: Arc<TcpListener>,
    acceptor: Option<JoinHandle<()>>,
    address: SocketAddr,
}

impl Running {
    /// The counts, which go on after a stop.
    pub fn stats(&self) -> Arc<Stats> {
        self.shared.stats.clone()
    }

    /// The address with the port that was taken.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting, ends what is idle, lets the rest finish with `Connection: close`, and cuts what is still there
    /// after `grace`. True: nothing had to be cut. Blocks: not for a coroutine.
    pub fn stop(mut self, grace: Duration) -> bool {
        self.end_acceptor();
        self.shared.registry.dismiss_idle();
        if self.wait_closed(grace) {
            return true;
        }
        self.shared.registry.cut_all();
        self.wait_closed(CUT_WAIT);
        false
    }

    fn end_acceptor(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Wakes the thread out of accept.
        let _ = SockRef::from(&*self.listener).shutdown(std::net::Shutdown::Both);
        if self.acceptor.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the acceptor had panicked");
        }
    }

    fn wait_closed(&self, at_most: Duration) -> bool {
        let until = Instant::now() + at_most;
        loop {
            if self.shared.stats.connections_open.load(Ordering::Acquire) == 0 {
                return true;
            }
            if Instant::now() >= until {
                return false;
            }
            thread::sleep(STOP_LOOK);
        }
    }
}
