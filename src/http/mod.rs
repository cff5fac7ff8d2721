//! The HTTP/1.1 server: bytes to requests and answers to bytes. Knows nothing of what a request means.
//!
//! ```text
//! acceptor ──spawns──▶ connection ──▶ input ──▶ head, body ──▶ Request ──▶ the handler
//!                          ▲                                                  │ Exchange
//!                          └── socket ◀── one write a turn ◀── response ◀─────┘
//! ```
//!
//! One coroutine per connection, on the worker of its socket for good. A turn is one read, every whole
//! request of it, one write. Read in this order: `config` (the limits), `server` (start, stop),
//! `acceptor`, `connection` (the turn, the deadlines), `head` and `body` (which requests are valid),
//! `exchange` and `outlet` (responses that wait), then the small ones.
//!
//! Invariants: answers leave in the order of their requests; a broken request never reaches the handler, and nothing
//! after it is read as a request; every wait has a deadline or a ticket; every buffer has a bound.

mod acceptor;
mod access_log;
mod body;
mod config;
mod connection;
mod desk;
mod durations;
mod exchange;
mod head;
mod input;
mod method;
mod outlet;
#[cfg(feature = "test-hooks")]
pub mod probe;
mod refusal;
mod registry;
mod request;
mod response;
mod server;
mod shared;
mod socket;
mod stats;
mod stream;
mod tls;
mod watch;
mod wire;

pub use config::{Config, Trusted};
pub use durations::{DURATION_BOUNDS_US, Spread};
pub use exchange::{Exchange, Waited};
pub use head::{Headers, weight};
pub use method::{METHODS, Method};
pub use registry::network_of;
pub use request::Request;
pub use response::Answer;
pub use server::{Running, Server};
pub use shared::BodyBytes;
pub use stats::Stats;
pub use stream::Stream;
pub use tls::Tls;
