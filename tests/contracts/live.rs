//! The contract of the live store, run over both adapters; then what only a server can do: go away, hang, forget.
//!
//! Each test has a Redis of its own. The test hands in the time, which is never earlier than the real one because Redis
//! expires keys by its own clock. `// claims:` names what src/ports.rs says.

#![allow(clippy::print_stdout, reason = "seeds and measurements are for whoever reads the test's output")]

mod bench;
mod counting;
mod lists;
mod rebuilding;
mod recent;
mod servers;
mod tombstones;
mod zones;
