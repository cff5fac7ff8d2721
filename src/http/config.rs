//! The server's settings: every limit is a flag and an environment variable of the same name, with
//! a default and a range.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, LazyLock};

use clap::builder::{RangedU64ValueParser, Resettable};
use clap::{Args, FromArgMatches};

use super::Tls;
use super::response::{self, Answer};
use crate::limits;

/// Extensions and trailers are read within one lent buffer.
const LINE_BYTES_MAX: u64 = limits::READ_BUFFER_BYTES as u64 / 2;
const DAY_MS: u64 = 86_400_000;

/// Tells the addresses that belong to trusted proxies.
pub type Trusted = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// Every bound of the server, and what its owner sets up.
#[derive(Clone, Args)]
#[command(next_help_heading = "Limits of the HTTP server")]
pub struct Config {
    /// Connections at most; 0 for as many as the system allows, up to 10,000
    #[arg(long, env, default_value_t = 0, value_name = "NUMBER")]
    pub connections_max: usize,
    /// Connections per client, an IPv6 client being its /64 (429 past it). Loopback and trusted
    /// proxies are never counted; 0: no limit
    #[arg(long, env, default_value_t = 0, value_name = "NUMBER")]
    pub connections_per_address_max: usize,
    /// Request line (414 past it)
    #[arg(long, env, default_value_t = limits::REQUEST_LINE_BYTES_MAX, value_parser = number(64, 65_000), value_name = "BYTES", hide_short_help = true)]
    pub request_line_bytes_max: usize,
    /// Request line and header fields together (431 past it)
    // Offsets within a head are 16 bits wide.
    #[arg(long, env, default_value_t = limits::HEAD_BYTES_MAX, value_parser = number(256, 65_000), value_name = "BYTES", hide_short_help = true)]
    pub head_bytes_max: usize,
    /// Header fields (431 past it)
    #[arg(long, env, default_value_t = limits::HEADERS_MAX, value_parser = number(1, limits::HEADERS_MAX as u64), value_name = "NUMBER", hide_short_help = true)]
    pub headers_max: usize,
    /// Body on the wire (413 past it)
    #[arg(long, env, default_value_t = limits::BODY_BYTES_MAX, value_parser = number(1, limits::BODY_DECODED_BYTES_MAX as u64), value_name = "BYTES", hide_short_help = true)]
    pub body_bytes_max: usize,
    /// Bodies in memory, of all connections (503 past it); auto: 256 MiB or an eighth of the memory,
    /// whichever is less
    #[arg(long, env, default_value = "auto", value_parser = bytes_or_auto::<{ limits::BODIES_BYTES_MAX }>, value_name = "BYTES|auto", hide_short_help = true)]
    pub bodies_bytes_max: usize,
    /// Hexadecimal digits of a chunk's size (400 past it)
    #[arg(long, env, default_value_t = limits::CHUNK_SIZE_DIGITS_MAX, value_parser = number(1, 16), value_name = "NUMBER", hide_short_help = true)]
    pub chunk_size_digits_max: usize,
    /// Extensions of one chunk (400 past it)
    #[arg(long, env, default_value_t = limits::CHUNK_EXTENSION_BYTES_MAX, value_parser = number(0, LINE_BYTES_MAX), value_name = "BYTES", hide_short_help = true)]
    pub chunk_extension_bytes_max: usize,
    /// Extensions of all chunks of a body (400 past it)
    #[arg(long, env, default_value_t = limits::CHUNK_EXTENSIONS_BYTES_MAX, value_name = "BYTES", hide_short_help = true)]
    pub chunk_extensions_bytes_max: usize,
    /// Trailers of a chunked body (400 past it)
    #[arg(long, env, default_value_t = limits::TRAILERS_BYTES_MAX, value_parser = number(0, LINE_BYTES_MAX), value_name = "BYTES", hide_short_help = true)]
    pub trailers_bytes_max: usize,
    /// From connecting to the first byte (silent close)
    #[arg(long, env, default_value_t = limits::FIRST_BYTE_MS, value_parser = ms(1), value_name = "MILLISECONDS", hide_short_help = true)]
    pub first_byte_ms: u64,
    /// From the first byte of a head to its last (408)
    #[arg(long, env, default_value_t = limits::HEAD_MS, value_parser = ms(1), value_name = "MILLISECONDS", hide_short_help = true)]
    pub head_ms: u64,
    /// A whole body (408)
    #[arg(long, env, default_value_t = limits::BODY_MS, value_parser = ms(1), value_name = "MILLISECONDS", hide_short_help = true)]
    pub body_ms: u64,
    /// A body may be slower than BODY_BYTES_PER_SECOND_MIN for this long
    #[arg(long, env, default_value_t = limits::BODY_RATE_AFTER_MS, value_parser = ms(1), value_name = "MILLISECONDS", hide_short_help = true)]
    pub body_rate_after_ms: u64,
    /// The server gives up a body that is slower than this on average (408)
    #[arg(long, env, default_value_t = limits::BODY_BYTES_PER_SECOND_MIN, value_parser = RangedU64ValueParser::<u64>::new().range(0..=1 << 30), value_name = "BYTES", hide_short_help = true)]
    pub body_bytes_per_second_min: u64,
    /// Between two requests of a connection (silent close)
    #[arg(long, env, default_value_t = limits::IDLE_MS, value_parser = ms(1), value_name = "MILLISECONDS", hide_short_help = true)]
    pub idle_ms: u64,
    /// A write without progress (reset)
    #[arg(long, env, default_value_t = limits::WRITE_STALL_MS, value_parser = ms(1), value_name = "MILLISECONDS", hide_short_help = true)]
    pub write_stall_ms: u64,
    /// Requests of one connection answered before other connections get their turn
    #[arg(long, env, default_value_t = limits::PIPELINE_REQUESTS_MAX, value_parser = number(1, 100_000), value_name = "NUMBER", hide_short_help = true)]
    pub pipeline_requests_max: usize,
    /// Unsent responses of one connection, past which nothing more is read from it
    #[arg(long, env, default_value_t = limits::UNSENT_BYTES_MAX, value_parser = number(1, 1 << 30), value_name = "BYTES", hide_short_help = true)]
    pub unsent_bytes_max: usize,
    /// Unsent responses of all connections; past it the server resets a client that does not read.
    /// auto: as BODIES_BYTES_MAX
    #[arg(long, env, default_value = "auto", value_parser = bytes_or_auto::<{ limits::UNSENT_ALL_BYTES_MAX }>, value_name = "BYTES|auto", hide_short_help = true)]
    pub unsent_all_bytes_max: usize,
    /// Graceful stop: connections still busy after this are cut
    #[arg(long, env, default_value_t = limits::SHUTDOWN_MS, value_parser = ms(0), value_name = "MILLISECONDS")]
    pub shutdown_ms: u64,
    /// Log one of this number of requests, and each that is answered with 400 or more; 0: none
    #[arg(long, env, default_value_t = 0, value_name = "NUMBER", help_heading = None)]
    pub access_log: u64,
    /// Port 0 takes any.
    #[arg(skip = SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))]
    pub listen: SocketAddr,
    /// Addresses that `connections_per_address_max` does not count.
    #[arg(skip = Arc::new(|_| false) as Trusted)]
    pub is_trusted: Trusted,
    /// Speaks TLS and nothing else.
    #[arg(skip)]
    pub tls: Option<Arc<Tls>>,
    /// Prefixes of paths that name a person next: the log shows nothing after them.
    #[arg(skip)]
    pub private_paths: &'static [&'static str],
    /// Replaces deferred responses whose ticket failed.
    #[arg(skip = response::failed as fn() -> Answer<'static>)]
    pub on_failed: fn() -> Answer<'static>,
    /// After an error, this much of the client's rest is read and thrown away …
    #[arg(skip = limits::LINGER_CLOSE_BYTES_MAX)]
    pub linger_close_bytes_max: usize,
    /// … for this long at most.
    #[arg(skip = limits::LINGER_CLOSE_MS)]
    pub linger_close_ms: u64,
}

impl Config {
    /// The settings, if they fit each other; else one line that names the wrong one.
    pub fn check(self) -> Result<Config, String> {
        if self.request_line_bytes_max > self.head_bytes_max {
            return Err("REQUEST_LINE_BYTES_MAX must not be more than HEAD_BYTES_MAX".into());
        }
        if self.body_bytes_max > self.bodies_bytes_max {
            return Err("BODY_BYTES_MAX must not be more than BODIES_BYTES_MAX".into());
        }
        Ok(self)
    }
}

impl Default for Config {
    /// The defaults of all settings, whatever the environment says.
    fn default() -> Config {
        static DEFAULT: LazyLock<Config> = LazyLock::new(|| {
            let command = Config::augment_args(clap::Command::new("defaults")).no_binary_name(true);
            let matches = command.mut_args(|setting| setting.env(Resettable::Reset)).get_matches_from([""; 0]);
            let config = Config::from_arg_matches(&matches).expect("every setting has a default");
            // The program replaces 0 by what the system allows.
            Config { connections_max: limits::CONNECTIONS_MAX, ..config }
        });
        DEFAULT.clone()
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config").field("listen", &self.listen).finish_non_exhaustive()
    }
}

fn number(min: u64, max: u64) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(min..=max)
}

fn ms(min: u64) -> RangedU64ValueParser<u64> {
    RangedU64ValueParser::new().range(min..=DAY_MS)
}

/// A bound as it is given, or what [`limits::of_memory`] allows of its default.
fn bytes_or_auto<const DEFAULT: usize>(text: &str) -> Result<usize, String> {
    if text.eq_ignore_ascii_case("auto") {
        return Ok(limits::of_memory(DEFAULT));
    }
    let bytes = text.parse().ok().filter(|bytes| *bytes > 0);
    bytes.ok_or_else(|| "it must be auto or a number of bytes".into())
}
