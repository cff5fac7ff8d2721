//! A front between importer and server, over TCP, that misbehaves as it is told: cuts connections
//! after some bytes, swallows answers, or answers in the server's place for a while.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::support::relay::{self, Filter};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// What an honest connection takes between two that swallow.
const HONEST_BYTES: u64 = 50_000;

#[derive(Clone, Debug)]
pub(crate) enum Manner {
    /// Passes all on.
    Honest,
    /// Passes all on, each piece of a request after a while.
    Slow { piece_ms: u64 },
    /// Cuts each connection after some number of bytes below this, in either direction.
    Cut { bytes_max: u64 },
    /// Takes requests to the server and keeps what it answers to itself, then hangs up; every so
    /// many connections it lets one through for a while.
    Swallow { honest_every: u64 },
    /// Answers each request with this and hangs up.
    Answer(String),
}

struct Shared {
    to: SocketAddr,
    manner: Mutex<Manner>,
    random: Mutex<StdRng>,
    connections: AtomicU64,
    is_over: AtomicBool,
    /// The first bytes of the last request that it answered itself.
    seen: Mutex<String>,
}

pub(crate) struct Front {
    shared: Arc<Shared>,
    pub(crate) address: SocketAddr,
}

impl Front {
    pub(crate) fn start(to: SocketAddr, manner: Manner) -> Front {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            to,
            manner: Mutex::new(manner),
            random: Mutex::new(StdRng::seed_from_u64(crate::support::seed())),
            connections: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
            seen: Mutex::new(String::new()),
        });
        let accepting = shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if accepting.is_over.load(Ordering::SeqCst) {
                    return;
                }
                let shared = accepting.clone();
                thread::spawn(move || shared.serve(stream));
            }
        });
        Front { shared, address }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn behave(&self, manner: Manner) {
        *self.shared.manner.lock().unwrap() = manner;
    }

    pub(crate) fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn seen(&self) -> String {
        self.shared.seen.lock().unwrap().clone()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn serve(&self, client: TcpStream) {
        let number = self.connections.fetch_add(1, Ordering::SeqCst);
        let manner = self.manner.lock().unwrap().clone();
        match manner {
            Manner::Answer(answer) => self.answer(client, &answer),
            Manner::Honest => self.relay(client, u64::MAX, u64::MAX),
            Manner::Slow { piece_ms } => relay::both_ways(client, self.to, [slowly(piece_ms), relay::all()]),
            Manner::Cut { bytes_max } => {
                let bytes = self.random.lock().unwrap().random_range(0..bytes_max);
                // Either the request is cut or, more rarely as answers are short, the answer.
                match self.random.lock().unwrap().random_range(0..3) {
                    0 => self.relay(client, u64::MAX, bytes % 400),
                    _ => self.relay(client, bytes, u64::MAX),
                }
            }
            Manner::Swallow { honest_every } if number.is_multiple_of(honest_every) => {
                self.relay(client, HONEST_BYTES, u64::MAX)
            }
            Manner::Swallow { .. } => self.relay(client, u64::MAX, 0),
        }
    }

    /// Passes bytes on in both directions, until one of them is used up or hangs up.
    fn relay(&self, client: TcpStream, up_max: u64, down_max: u64) {
        relay::both_ways(client, self.to, [at_most(up_max), at_most(down_max)]);
    }

    fn answer(&self, mut client: TcpStream, answer: &str) {
        client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let mut request = Vec::new();
        // The whole request, so that hanging up is no reset: until nothing more comes for a while.
        let _ = client.read_to_end(&mut request);
        *self.seen.lock().unwrap() = String::from_utf8_lossy(&request[..request.len().min(2_000)]).into_owned();
        let _ = client.write_all(answer.as_bytes());
        let _ = client.shutdown(Shutdown::Both);
    }
}

fn slowly(piece_ms: u64) -> Filter {
    Box::new(move |_, piece| {
        thread::sleep(Duration::from_millis(piece_ms));
        piece.len()
    })
}

fn at_most(mut bytes_max: u64) -> Filter {
    Box::new(move |_, piece| {
        let passed = bytes_max.min(piece.len() as u64);
        bytes_max -= passed;
        passed as usize
    })
}
