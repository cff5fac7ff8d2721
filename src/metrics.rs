//! `/metrics`: one registry of everything that is counted.
//!
//! The parts count in atomics of their own, which the hot path touches without a lock; here they are named and read
//! when a scrape asks. A new metric is one line of a collector.

use std::fmt::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use crate::app::App;
use crate::cache::WAIT_BOUNDS_MS;
use crate::events::STRATEGIES;
use crate::http::{DURATION_BOUNDS_US, Stats, weight};
use crate::sinks::{SinkState, SinkStatus};

pub struct Metrics(Registry);

impl Metrics {
    pub fn new(app: Arc<App>, http: Arc<Stats>) -> Metrics {
        let mut registry = Registry::with_prefix("event_tracker");
        registry.register_collector(Box::new(Collected { app, http }));
        Metrics(registry)
    }

    pub fn encode(&self, format: Format) -> Result<String, fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.0)?;
        Ok(if format == Format::OpenMetrics { out } else { as_text(&out) })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The text format of Prometheus, version 0.0.4.
    Text,
    OpenMetrics,
}

impl Format {
    /// OpenMetrics, if `Accept` gives it a higher weight than the text format.
    pub fn preferred(accept: Option<&[u8]>) -> Format {
        let accept = accept.and_then(|accept| std::str::from_utf8(accept).ok()).unwrap_or_default();
        let of = |kinds: &[&str]| {
            weight(accept, |named| kinds.iter().any(|kind| named.eq_ignore_ascii_case(kind))).unwrap_or(0.0)
        };
        let (open, text) = (of(&["application/openmetrics-text"]), of(&["text/plain", "text/*", "*/*"]));
        if open > text { Format::OpenMetrics } else { Format::Text }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The text format out of OpenMetrics: a counter is declared under the name of its samples, and units and the end mark
/// are left out.
fn as_text(open: &str) -> String {
    let mut out = String::with_capacity(open.len());
    let mut help = "";
    for line in open.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest;
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let total = if kind == "counter" { "_total" } else { "" };
            let text = help.strip_prefix(name).unwrap_or_default();
            // A write into a String does not fail.
            let _ = writeln!(out, "# HELP {name}{total}{text}\n# TYPE {name}{total} {kind}");
        } else if !line.starts_with('#') {
            let _ = writeln!(out, "{line}");
        }
    }
    out
}

struct Collected {
    app: Arc<App>,
    http: Arc<Stats>,
}

impl fmt::Debug for Collected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Collected")
    }
}

impl Collector for Collected {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out { encoder, result: Ok(()) };
        self.put_http(&mut out);
        self.put_events(&mut out);
        self.put_journal(&mut out);
        self.put_sinks(&mut out);
        self.put_cache(&mut out);
        let help = "Log lines dropped: nobody read them in time, or standard error refused them";
        out.counter("log_lines_dropped", help, crate::logging::dropped());
        out.result
    }
}

/// Where metrics go; keeps the first error.
struct Out<'e> {
    encoder: DescriptorEncoder<'e>,
    result: fmt::Result,
}

impl Out<'_> {
    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.counters(name, help, "", [("", value)]);
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.gauges(name, help, "", [("", value)]);
    }

    fn counters<L: AsRef<str>>(&mut self, name: &str, help: &str, label: &str, values: impl Values<L>) {
        self.family(name, help, None, label, values, ConstCounter::new);
    }

    fn gauges<L: AsRef<str>>(&mut self, name: &str, help: &str, label: &str, values: impl Values<L>) {
        self.family(name, help, None, label, values, |value| ConstGauge::new(value.cast_signed()));
    }

    /// Microseconds, shown as seconds.
    fn seconds<L: AsRef<str>>(&mut self, name: &str, help: &str, label: &str, us: impl Values<L>) {
        self.family(name, help, Some(&Unit::Seconds), label, us, |us| ConstCounter::new(us as f64 / 1e6));
    }

    fn family<L: AsRef<str>, M: EncodeMetric>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        label: &str,
        values: impl Values<L>,
        metric: impl Fn(u64) -> M,
    ) {
        let encode = |encoder: &mut DescriptorEncoder<'_>| {
            let mut family = encoder.encode_descriptor(name, help, unit, metric(0).metric_type())?;
            for (key, value) in values {
                let metric = metric(value);
                match key.as_ref() {
                    "" => return metric.encode(family),
                    key => metric.encode(family.encode_family(&[(label, key)])?)?,
                }
            }
            Ok(())
        };
        self.result = self.result.and_then(|()| encode(&mut self.encoder));
    }

    /// Counts by bucket, whose bounds are seconds; the last bucket has none.
    fn histogram(&mut self, name: &str, help: &str, sum: f64, bounds: impl Iterator<Item = f64>, counts: &[u64]) {
        let buckets: Vec<(f64, u64)> = bounds.chain([f64::INFINITY]).zip(counts.iter().copied()).collect();
        let encode = |encoder: &mut DescriptorEncoder<'_>| {
            encoder
                .encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?
                .encode_histogram::<NoLabelSet>(sum, counts.iter().sum(), &buckets, None)
        };
        self.result = self.result.and_then(|()| encode(&mut self.encoder));
    }
}

/// Values by label; an empty label has none.
trait Values<L>: IntoIterator<Item = (L, u64)> {}
impl<L, I: IntoIterator<Item = (L, u64)>> Values<L> for I {}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Relaxed)
}

impl Collected {
    fn put_http(&self, out: &mut Out<'_>) {
        let stats = &self.http;
        out.counter("http_requests", "Requests handled", stats.requests());
        let classes = (1..=5).map(|class| (format!("{class}xx"), stats.responses(class)));
        out.counters("http_responses", "Responses by class of status", "class", classes);
        out.gauge("http_connections", "Open connections", stats.connections_open.load(Relaxed) as u64);
        for (name, help, value) in [
            ("http_connections_accepted", "Connections accepted", &stats.connections_accepted),
            ("http_connections_refused", "Connections turned away", &stats.connections_refused),
            ("http_connections_shed", "Idle connections closed for others", &stats.connections_shed),
            ("http_accept_pauses", "Pauses of accepting for want of descriptors or memory", &stats.accept_pauses),
            ("http_timeouts", "Deadlines that ended a connection", &stats.timeouts),
            ("http_tls_failures", "TLS connections broken off", &stats.tls_failures),
            ("http_handler_panics", "Panics of handlers", &stats.handler_panics),
        ] {
            out.counter(name, help, read(value));
        }
        out.counter("http_received_bytes", "Bytes received", stats.bytes_in());
        out.counter("http_sent_bytes", "Bytes sent", stats.bytes_out());
        let workers = stats.connections_of_worker.iter().enumerate();
        let workers = workers.map(|(id, open)| (id.to_string(), open.load(Relaxed) as u64));
        out.gauges("http_worker_connections", "Open connections by worker", "worker", workers);
        let spread = stats.durations();
        let bounds = DURATION_BOUNDS_US.iter().map(|us| *us as f64 / 1e6);
        let help = "From the first byte of a request to the write of its answer";
        out.histogram("http_request_duration", help, spread.sum_us as f64 / 1e6, bounds, &spread.counts);
    }

    fn put_events(&self, out: &mut Out<'_>) {
        let counters = &self.app.counters;
        let outcomes =
            [("accepted", &counters.accepted), ("rejected", &counters.rejected), ("refused", &counters.refused)];
        let help = "Events by outcome: rejected is the client's fault, refused is ours";
        out.counters("events", help, "outcome", outcomes.map(|(outcome, value)| (outcome, read(value))));
        let help = "Accepted events whose url or referrer was cut at its limit";
        out.counter("events_truncated", help, read(&counters.truncated));
        let types = STRATEGIES.iter().map(|s| (s.name, read(&counters.decoded_by_type[s.event_type as usize])));
        out.counters("events_decoded", "Valid events by type", "type", types);
    }

    fn put_journal(&self, out: &mut Out<'_>) {
        let journal = &self.app.journal;
        let stats = journal.stats();
        let (bytes, segments) = journal.size();
        for (name, help, value) in [
            ("journal_records", "Records made durable", &stats.records),
            ("journal_written_bytes", "Bytes of frames written", &stats.bytes),
            ("journal_syncs", "Frames synced: one each", &stats.syncs),
            ("journal_rests", "Times that records were left to share a sync with others", &stats.rests),
            ("journal_failures", "Writes and syncs that failed", &stats.failures),
            ("journal_refused", "Appends refused", &stats.refused),
        ] {
            out.counter(name, help, read(value));
        }
        out.seconds("journal_sync", "Time in writing and syncing frames", "", [("", read(&stats.sync_us))]);
        out.gauge("journal_segments", "Segments kept", segments as u64);
        out.gauge("journal_allocated_bytes", "Bytes of the segments kept", bytes);
        out.gauge("journal_writable", "1 while events are taken", u64::from(journal.is_writable().is_ok()));
        out.gauge("journal_position", "The last durable position", journal.end_position());
    }

    fn put_sinks(&self, out: &mut Out<'_>) {
        let sinks = [&*self.app.ledger_status, &*self.app.live_status];
        let each = |value: &dyn Fn(&SinkStatus) -> u64| sinks.map(|sink| (sink.name, value(sink)));
        let lag = sinks.map(|sink| (sink.name, self.app.lag_events(sink)));
        out.gauges("sink_position", "The last position applied", "sink", each(&|sink| sink.position()));
        out.gauges("sink_lag_events", "Durable records that are not applied yet", "sink", lag);
        let following = each(&|sink| u64::from(sink.state() == SinkState::Following));
        out.gauges("sink_following", "1 while the sink follows", "sink", following);
        out.seconds("sink_apply", "Time in applying batches", "sink", each(&|sink| read(&sink.apply_us)));
        for (name, help, values) in [
            ("sink_batches", "Batches applied", each(&|sink| read(&sink.batches))),
            ("sink_records", "Records applied", each(&|sink| read(&sink.records))),
            ("sink_retries", "Pauses while a store was away", each(&|sink| read(&sink.retries))),
            ("sink_lost_records", "Records passed that the journal has lost", each(&|sink| read(&sink.lost))),
            ("sink_dead_records", "Records in dead_letter", each(&|sink| read(&sink.dead))),
        ] {
            out.counters(name, help, "sink", values);
        }
        let failures = read(&self.app.ledger_status.housekeeping_failures);
        out.counter("housekeeping_failures", "Steps of the ledger's housekeeping that failed", failures);
    }

    fn put_cache(&self, out: &mut Out<'_>) {
        let cache = &self.app.caching.cache;
        let stats = &cache.stats;
        let by = |values: &[(&'static str, &AtomicU64)]| -> Vec<(&'static str, u64)> {
            values.iter().map(|(label, value)| (*label, read(value))).collect()
        };
        let fills = by(&[("held", &stats.fills), ("none", &stats.fills_direct)]);
        let hits = by(&[("local", &stats.hits_local), ("shared", &stats.hits_shared)]);
        let refreshes = by(&[("early", &stats.early), ("due", &stats.refreshes)]);
        let stale = by(&[("revalidate", &stats.stale_revalidated), ("late", &stats.stale_late)]);
        let lock = by(&[("owned", &stats.lock_owned), ("busy", &stats.lock_busy), ("lost", &stats.lock_lost)]);
        for (name, help, label, values) in [
            ("cache_fills", "Values read from a store, under the lock or directly", "lock", fills),
            ("cache_hits", "Fresh values by layer", "layer", hits),
            ("cache_refreshes", "Refreshes begun behind an answer", "why", refreshes),
            ("cache_stale", "Expired values shown", "why", stale),
            ("cache_lock", "Tries at the lock by outcome", "outcome", lock),
        ] {
            out.counters(name, help, label, values);
        }
        for (name, help, value) in [
            ("cache_failures", "Fills that came to nothing", &stats.failures),
            ("cache_ducked", "Refreshes left to another instance", &stats.ducked),
            ("cache_joined", "Requests that joined a fill under way", &stats.joined),
            ("cache_shed", "Fills refused: too much was under way", &stats.shed),
        ] {
            out.counter(name, help, read(value));
        }
        out.seconds("cache_fill", "Time in fills", "", [("", read(&stats.fill_ms).saturating_mul(1_000))]);
        let (flights, held, (copies, bytes)) = cache.sizes();
        for (name, help, value) in [
            ("cache_flights", "Fills under way", flights),
            ("cache_locks_held", "Locks held", held),
            ("cache_copies", "Values kept here", copies),
            ("cache_copies_bytes", "… and their bytes, with what they may be packed to", bytes),
        ] {
            out.gauge(name, help, value as u64);
        }
        let bounds = WAIT_BOUNDS_MS.iter().map(|ms| *ms as f64 / 1e3);
        let counts: Vec<u64> = stats.waits.iter().map(read).collect();
        let sum = read(&stats.waits_ms) as f64 / 1e3;
        out.histogram("cache_wait", "Waits of requests for a fill", sum, bounds, &counts);
    }
}
