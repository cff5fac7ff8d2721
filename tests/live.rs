//! The contract of the live store, run over both adapters; then what only a server can do: go away, hang, forget.
//!
//! Redis is a private server of each test, or `TEST_REDIS_URL` (its database is flushed). Time is handed in, near the
//! real one because Redis expires keys by its own clock: never behind it. `// claims:` names what src/ports.rs says.

#![allow(clippy::print_stdout, reason = "seeds and measurements are for whoever reads the test's output")]

#[path = "live/bench.rs"]
mod bench;
#[path = "live/counting.rs"]
mod counting;
#[path = "support/faulty.rs"]
mod faulty;
#[path = "live/lists.rs"]
mod lists;
#[path = "live/model.rs"]
mod model;
#[path = "live/places.rs"]
mod places;
#[path = "live/rebuilding.rs"]
mod rebuilding;
#[path = "live/recent.rs"]
mod recent;
#[path = "support/redis.rs"]
mod server;
#[path = "live/servers.rs"]
mod servers;
#[path = "live/zones.rs"]
mod zones;
