//! Every limit of the server as a flag and an environment variable of the same name, checked once into a [`Config`].

use std::net::SocketAddr;

use clap::Args;

use super::server::{Config, Trusted};
use crate::limits;

/// Limits as they are given. The short help leaves them out.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Limits of the HTTP server")]
pub struct RawLimits {
    /// Connections at most; 0 for as many as the system allows, up to 10,000
    #[arg(long, env = "CONNECTIONS_MAX", default_value_t = 0, value_name = "NUMBER", hide_short_help = true)]
    pub connections_max: usize,
    /// Connections of one client, an IPv6 client being its /64 (429 past it); loopback and trusted proxies are never
    /// counted; 0: no limit
    #[arg(
        long,
        env = "CONNECTIONS_PER_ADDRESS_MAX",
        default_value_t = 0,
        value_name = "NUMBER",
        hide_short_help = true
    )]
    connections_per_address_max: usize,
    /// Request line (414 past it)
    #[arg(long, env = "REQUEST_LINE_BYTES_MAX", default_value_t = limits::REQUEST_LINE_BYTES_MAX, value_name = "BYTES", hide_short_help = true)]
    request_line_bytes_max: usize,
    /// Request line and header fields together (431 past it)
    #[arg(long, env = "HEAD_BYTES_MAX", default_value_t = limits::HEAD_BYTES_MAX, value_name = "BYTES", hide_short_help = true)]
    head_bytes_max: usize,
    /// Header fields (431 past it)
    #[arg(long, env = "HEADERS_MAX", default_value_t = limits::HEADERS_MAX, value_name = "NUMBER", hide_short_help = true)]
    headers_max: usize,
    /// Body on the wire (413 past it)
    #[arg(long, env = "BODY_BYTES_MAX", default_value_t = limits::BODY_BYTES_MAX, value_name = "BYTES", hide_short_help = true)]
    body_bytes_max: usize,
    /// Bodies in memory, of all connections (503 past it); auto: 256 MiB or an eighth of the memory, whichever is less
    #[arg(long, env = "BODIES_BYTES_MAX", default_value = "auto", value_name = "BYTES|auto", hide_short_help = true)]
    bodies_bytes_max: String,
    /// Hexadecimal digits of a chunk's size (400 past it)
    #[arg(long, env = "CHUNK_SIZE_DIGITS_MAX", default_value_t = limits::CHUNK_SIZE_DIGITS_MAX, value_name = "NUMBER", hide_short_help = true)]
    chunk_size_digits_max: usize,
    /// Extensions of one chunk (400 past it)
    #[arg(long, env = "CHUNK_EXTENSION_BYTES_MAX", default_value_t = limits::CHUNK_EXTENSION_BYTES_MAX, value_name = "BYTES", hide_short_help = true)]
    chunk_extension_bytes_max: usize,
    /// Extensions of all chunks of a body (400 past it)
    #[arg(long, env = "CHUNK_EXTENSIONS_BYTES_MAX", default_value_t = limits::CHUNK_EXTENSIONS_BYTES_MAX, value_name = "BYTES", hide_short_help = true)]
    chunk_extensions_bytes_max: usize,
    /// Trailers of a chunked body (400 past it)
    #[arg(long, env = "TRAILERS_BYTES_MAX", default_value_t = limits::TRAILERS_BYTES_MAX, value_name = "BYTES", hide_short_help = true)]
    trailers_bytes_max: usize,
    /// From connecting to the first byte (silent close)
    #[arg(long, env = "FIRST_BYTE_MS", default_value_t = limits::FIRST_BYTE_MS, value_name = "MILLISECONDS", hide_short_help = true)]
    first_byte_ms: u64,
    /// From the first byte of a head to its last (408)
    #[arg(long, env = "HEAD_MS", default_value_t = limits::HEAD_MS, value_name = "MILLISECONDS", hide_short_help = true)]
    head_ms: u64,
    /// A whole body (408)
    #[arg(long, env = "BODY_MS", default_value_t = limits::BODY_MS, value_name = "MILLISECONDS", hide_short_help = true)]
    body_ms: u64,
    /// A body may be slower than BODY_BYTES_PER_SECOND_MIN for this long
    #[arg(long, env = "BODY_RATE_AFTER_MS", default_value_t = limits::BODY_RATE_AFTER_MS, value_name = "MILLISECONDS", hide_short_help = true)]
    body_rate_after_ms: u64,
    /// A body slower than this on the whole is given up (408)
    #[arg(long, env = "BODY_BYTES_PER_SECOND_MIN", default_value_t = limits::BODY_BYTES_PER_SECOND_MIN, value_name = "BYTES", hide_short_help = true)]
    body_bytes_per_second_min: u64,
    /// Between two requests of a connection (silent close)
    #[arg(long, env = "IDLE_MS", default_value_t = limits::IDLE_MS, value_name = "MILLISECONDS", hide_short_help = true)]
    idle_ms: u64,
    /// A write without progress (reset)
    #[arg(long, env = "WRITE_STALL_MS", default_value_t = limits::WRITE_STALL_MS, value_name = "MILLISECONDS", hide_short_help = true)]
    write_stall_ms: u64,
    /// Requests of one connection answered before others get their turn
    #[arg(long, env = "PIPELINE_REQUESTS_MAX", default_value_t = limits::PIPELINE_REQUESTS_MAX, value_name = "NUMBER", hide_short_help = true)]
    pipeline_requests_max: usize,
    /// Unsent answers of one connection, past which nothing more is read from it
    #[arg(long, env = "UNSENT_BYTES_MAX", default_value_t = limits::UNSENT_BYTES_MAX, value_name = "BYTES", hide_short_help = true)]
    unsent_bytes_max: usize,
    /// Unsent responses of all connections; past it a client that does not read is cut off. auto: as BODIES_BYTES_MAX
    #[arg(
        long,
        env = "UNSENT_ALL_BYTES_MAX",
        default_value = "auto",
        value_name = "BYTES|auto",
        hide_short_help = true
    )]
    unsent_all_bytes_max: String,
    /// Log one request in so many, and every one that is answered with 400 or more; 0: none
    #[arg(long, env = "ACCESS_LOG", default_value_t = 0, value_name = "NUMBER", help_heading = None)]
    access_log: u64,
    /// Graceful stop: what is under way after this is cut
    #[arg(long, env = "SHUTDOWN_MS", default_value_t = limits::SHUTDOWN_MS, value_name = "MILLISECONDS", hide_short_help = true)]
    pub shutdown_ms: u64,
}

impl RawLimits {
    /// The server's settings, or one line that says which of them is wrong. `connections_max` is 0 for "as many as the
    /// system allows" still.
    pub fn check(self, listen: SocketAddr, is_trusted: Trusted) -> Result<Config, String> {
        let config = Config {
            listen,
            is_trusted,
            connections_max: self.connections_max,
            connections_per_address_max: Some(self.connections_per_address_max).filter(|max| *max > 0),
            request_line_bytes_max: within("REQUEST_LINE_BYTES_MAX", self.request_line_bytes_max, 64, 65_000)?,
            // Offsets within a head are 16 bits wide.
            head_bytes_max: within("HEAD_BYTES_MAX", self.head_bytes_max, 256, 65_000)?,
            headers_max: within("HEADERS_MAX", self.headers_max, 1, limits::HEADERS_MAX)?,
            body_bytes_max: within("BODY_BYTES_MAX", self.body_bytes_max, 1, limits::BODY_DECODED_BYTES_MAX)?,
            bodies_bytes_max: bytes_or_auto("BODIES_BYTES_MAX", &self.bodies_bytes_max, limits::BODIES_BYTES_MAX)?,
            chunk_size_digits_max: within("CHUNK_SIZE_DIGITS_MAX", self.chunk_size_digits_max, 1, 16)?,
            chunk_extension_bytes_max: within(
                "CHUNK_EXTENSION_BYTES_MAX",
                self.chunk_extension_bytes_max,
                0,
                LINE_BYTES_MAX,
            )?,
            chunk_extensions_bytes_max: self.chunk_extensions_bytes_max,
            trailers_bytes_max: within("TRAILERS_BYTES_MAX", self.trailers_bytes_max, 0, LINE_BYTES_MAX)?,
            first_byte_ms: within("FIRST_BYTE_MS", self.first_byte_ms, 1, DAY_MS)?,
            head_ms: within("HEAD_MS", self.head_ms, 1, DAY_MS)?,
            body_ms: within("BODY_MS", self.body_ms, 1, DAY_MS)?,
            body_rate_after_ms: within("BODY_RATE_AFTER_MS", self.body_rate_after_ms, 1, DAY_MS)?,
            body_bytes_per_second_min: within("BODY_BYTES_PER_SECOND_MIN", self.body_bytes_per_second_min, 0, 1 << 30)?,
            idle_ms: within("IDLE_MS", self.idle_ms, 1, DAY_MS)?,
            write_stall_ms: within("WRITE_STALL_MS", self.write_stall_ms, 1, DAY_MS)?,
            pipeline_requests_max: within("PIPELINE_REQUESTS_MAX", self.pipeline_requests_max, 1, 100_000)?,
            unsent_bytes_max: within("UNSENT_BYTES_MAX", self.unsent_bytes_max, 1, 1 << 30)?,
            unsent_all_bytes_max: bytes_or_auto(
                "UNSENT_ALL_BYTES_MAX",
                &self.unsent_all_bytes_max,
                limits::UNSENT_ALL_BYTES_MAX,
            )?,
            access_log: self.access_log,
            ..Config::default()
        };
        within("SHUTDOWN_MS", self.shutdown_ms, 0, DAY_MS)?;
        if config.request_line_bytes_max > config.head_bytes_max {
            return Err("REQUEST_LINE_BYTES_MAX must not be more than HEAD_BYTES_MAX".into());
        }
        if config.body_bytes_max > config.bodies_bytes_max {
            return Err("BODY_BYTES_MAX must not be more than BODIES_BYTES_MAX".into());
        }
        Ok(config)
    }
}

/// Extensions and trailers are read within one lent buffer.
const LINE_BYTES_MAX: usize = limits::READ_BUFFER_BYTES / 2;
const DAY_MS: u64 = 86_400_000;

/// A bound as it is given, or what [`limits::of_memory`] allows of its default.
fn bytes_or_auto(name: &str, text: &str, default: usize) -> Result<usize, String> {
    if text.eq_ignore_ascii_case("auto") {
        return Ok(limits::of_memory(default));
    }
    text.parse()
        .ok()
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| format!("{name} must be auto or a number of bytes, not `{text}`"))
}

/// The value, if it lies between the two; else one line that names the setting.
pub fn within<T: Copy + PartialOrd + std::fmt::Display>(name: &str, value: T, min: T, max: T) -> Result<T, String> {
    if value < min || value > max {
        return Err(format!("{name} must be {min} to {max}, not {value}"));
    }
    Ok(value)
}
