//! A proxy in front of a server whose replies it holds back for as long as it is told to.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub(crate) struct Slowness {
    pub(crate) address: SocketAddr,
    delay_ms: Arc<AtomicU64>,
}

impl Slowness {
    pub(crate) fn in_front_of(server: SocketAddr) -> Slowness {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let delay_ms = Arc::new(AtomicU64::new(0));
        let delay = delay_ms.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(server) else { continue };
                let (from, to) = (server.try_clone().expect("a socket"), client.try_clone().expect("a socket"));
                let delay = delay.clone();
                std::thread::spawn(move || pump(from, to, &delay));
                std::thread::spawn(move || pump(client, server, &AtomicU64::new(0)));
            }
        });
        Slowness { address, delay_ms }
    }

    pub(crate) fn set_ms(&self, ms: u64) {
        self.delay_ms.store(ms, Ordering::Relaxed);
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, delay_ms: &AtomicU64) {
    let mut buffer = [0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        std::thread::sleep(Duration::from_millis(delay_ms.load(Ordering::Relaxed)));
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
