//! The server from outside: its start and its stop.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::access_log::Sampling;
use super::connection::Service;
use super::registry::Registry;
use super::shared::Shared;
use super::{Config, Exchange, Request, Stats, acceptor};
use crate::limits::ACCEPT_BACKLOG;
use crate::runtime::worker_count;

/// How often a stop checks whether the last connection has ended.
const STOP_LOOK: Duration = Duration::from_millis(5);
/// After a cut, sockets that were reset need this long to be closed.
const CUT_WAIT: Duration = Duration::from_millis(250);

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

    pub fn stats(&self) -> Arc<Stats> {
        self.stats.clone()
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    pub fn start<H>(self, handler: H) -> Running
    where
        H: Fn(&Request<'_>, &mut Exchange<'_>) + Send + Sync + 'static,
    {
        let workers = worker_count();
        let shared = Arc::new(Shared {
            config: self.config,
            stats: self.stats,
            registry: Registry::new(workers),
            sampling: Sampling::default(),
            stopping: AtomicBool::new(false),
        });
        let service = Arc::new(Service { shared: shared.clone(), handler: Box::new(handler) });
        let listener = Arc::new(self.listener);
        let acceptor = {
            let listener = listener.clone();
            crate::process::spawn("acceptor", move || acceptor::run(&service, &listener))
        };
        Running { shared, listener, acceptor: Some(acceptor), address: self.address }
    }
}

pub struct Running {
    shared: Arc<Shared>,
    listener: Arc<TcpListener>,
    acceptor: Option<JoinHandle<()>>,
    address: SocketAddr,
}

impl Running {
    pub fn stats(&self) -> Arc<Stats> {
        self.shared.stats.clone()
    }

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
