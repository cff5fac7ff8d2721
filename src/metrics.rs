//! `/metrics`: one registry of everything that is counted.
//!
//! The parts count in atomics of their own, which the hot path touches without a lock; here they are named and read
//! when somebody asks. A new metric is one line of a collector.

use std::fmt::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use crate::app::App;
use crate::cache::WAIT_BOUNDS_MS;
use crate::events::STRATEGIES;
use crate::http::{DURATION_BOUNDS_US, Stats};
use crate::sinks::SinkState;

/// The registry.
pub struct Metrics(Registry);

impl Metrics {
    /// Registers what the server and the application count.
    pub fn new(app: Arc<App>, http: Arc<Stats>) -> Metrics {
        let mut registry = Registry::with_prefix("event_tracker");
        registry.register_collector(Box::new(Collected { app, http }));
        Metrics(registry)
    }

    /// All metrics.
    pub fn encode(&self, format: Format) -> Result<String, fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.0)?;
        Ok(if format == Format::OpenMetrics { out } else { as_text(&out) })
    }
}

/// How metrics are written.
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
        let open = weight(accept, "application", "openmetrics-text", false);
        let text = weight(accept, "text", "plain", true);
        if open > text { Format::OpenMetrics } else { Format::Text }
    }

    /// As it is named in an answer.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The highest weight that `Accept` gives to a type, by its name or, if `with_ranges`, by a range that holds it.
fn weight(accept: &str, kind: &str, subtype: &str, with_ranges: bool) -> f32 {
    let weights = accept.split(',').filter_map(|one| {
        let mut parts = one.split(';').map(str::trim);
        let (its_kind, its_subtype) = parts.next()?.split_once('/')?;
        let is_range = with_ranges && its_subtype == "*" && (its_kind == "*" || its_kind.eq_ignore_ascii_case(kind));
        let is_it = its_kind.eq_ignore_ascii_case(kind) && its_subtype.eq_ignore_ascii_case(subtype);
        let q = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        (is_it || is_range).then(|| q.map_or(1.0, |q| q.parse().unwrap_or(0.0)))
    });
    weights.fold(0.0, f32::max)
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
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.encode_http(&mut encoder)?;
        self.encode_events(&mut encoder)?;
        self.encode_journal(&mut encoder)?;
        self.encode_sinks(&mut encoder)?;
        self.encode_cache(&mut encoder)?;
        let help = "Log lines dropped: nobody read them in time, or standard error refused them";
        counter(&mut encoder, "log_lines_dropped", help, [(NO_LABELS, crate::logging::dropped())])
    }
}

type Labels = [(&'static str, String)];

fn counter<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = (&'a Labels, u64)>,
) -> fmt::Result {
    family(encoder, name, help, None, values, ConstCounter::new)
}

fn gauge<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = (&'a Labels, u64)>,
) -> fmt::Result {
    family(encoder, name, help, None, values, |value| ConstGauge::new(value.cast_signed()))
}

fn seconds<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = (&'a Labels, u64)>,
) -> fmt::Result {
    family(encoder, name, help, Some(&Unit::Seconds), values, |us| ConstCounter::new(us as f64 / 1e6))
}

fn family<'a, M: EncodeMetric>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    values: impl IntoIterator<Item = (&'a Labels, u64)>,
    metric: impl Fn(u64) -> M,
) -> fmt::Result {
    let mut values = values.into_iter().peekable();
    let Some((_, first)) = values.peek() else { return Ok(()) };
    let mut family = encoder.encode_descriptor(name, help, unit, metric(*first).metric_type())?;
    if let Some((_, value)) = values.next_if(|(labels, _)| labels.is_empty()) {
        return metric(value).encode(family);
    }
    for (labels, value) in values {
        let labels: Vec<(&str, &str)> = labels.iter().map(|(name, value)| (*name, value.as_str())).collect();
        metric(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

const NO_LABELS: &Labels = &[];

impl Collected {
    fn encode_http(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let stats = &self.http;
        let one = |value: &AtomicU64| [(NO_LABELS, read(value))];
        counter(encoder, "http_requests", "Requests handled", [(NO_LABELS, stats.requests())])?;
        let classes: Vec<([(&str, String); 1], u64)> =
            (1..=5).map(|class| ([("class", format!("{class}xx"))], stats.responses(class))).collect();
        let classes = classes.iter().map(|(labels, value)| (labels.as_slice(), *value));
        counter(encoder, "http_responses", "Responses by class of status", classes)?;
        let open = stats.connections_open.load(Ordering::Relaxed) as u64;
        gauge(encoder, "http_connections", "Open connections", [(NO_LABELS, open)])?;
        counter(encoder, "http_connections_accepted", "Connections accepted", one(&stats.connections_accepted))?;
        counter(encoder, "http_connections_refused", "Connections turned away", one(&stats.connections_refused))?;
        counter(encoder, "http_connections_shed", "Idle connections closed for others", one(&stats.connections_shed))?;
        counter(encoder, "http_timeouts", "Deadlines that ended a connection", one(&stats.timeouts))?;
        counter(encoder, "http_tls_failures", "TLS connections broken off", one(&stats.tls_failures))?;
        counter(encoder, "http_received_bytes", "Bytes received", [(NO_LABELS, stats.bytes_in())])?;
        counter(encoder, "http_sent_bytes", "Bytes sent", [(NO_LABELS, stats.bytes_out())])?;
        counter(encoder, "http_handler_panics", "Panics of handlers", one(&stats.handler_panics))?;
        let workers: Vec<([(&str, String); 1], u64)> = stats
            .connections_of_worker
            .iter()
            .enumerate()
            .map(|(id, open)| ([("worker", id.to_string())], open.load(Ordering::Relaxed) as u64))
            .collect();
        let workers = workers.iter().map(|(labels, value)| (labels.as_slice(), *value));
        gauge(encoder, "http_worker_connections", "Open connections by worker", workers)?;
        self.encode_durations(encoder)
    }

    fn encode_durations(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let spread = self.http.durations();
        let bounds = DURATION_BOUNDS_US.iter().map(|us| *us as f64 / 1e6).chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(spread.counts.iter().copied()).collect();
        let help = "From the first byte of a request to the write of its answer";
        encoder
            .encode_descriptor("http_request_duration", help, Some(&Unit::Seconds), MetricType::Histogram)?
            .encode_histogram::<NoLabelSet>(spread.sum_us as f64 / 1e6, spread.counts.iter().sum(), &buckets, None)
    }

    fn encode_events(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let counters = &self.app.counters;
        let outcomes = [
            ([("outcome", "accepted".to_owned())], read(&counters.accepted)),
            ([("outcome", "rejected".to_owned())], read(&counters.rejected)),
            ([("outcome", "refused".to_owned())], read(&counters.refused)),
        ];
        let outcomes = outcomes.iter().map(|(labels, value)| (labels.as_slice(), *value));
        counter(encoder, "events", "Events by outcome: rejected is the client's fault, refused is ours", outcomes)?;
        let truncated = read(&counters.truncated);
        let help = "Accepted events whose url or referrer was cut at its limit";
        counter(encoder, "events_truncated", help, [(NO_LABELS, truncated)])?;
        let types: Vec<([(&str, String); 1], u64)> = STRATEGIES
            .iter()
            .map(|s| ([("type", s.name().to_owned())], read(&counters.decoded_by_type[s.event_type() as usize])))
            .collect();
        let types = types.iter().map(|(labels, value)| (labels.as_slice(), *value));
        counter(encoder, "events_decoded", "Valid events by type", types)
    }

    fn encode_journal(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let stats = self.app.journal.stats();
        let one = |value: &AtomicU64| [(NO_LABELS, read(value))];
        let (bytes, segments) = self.app.journal.size();
        counter(encoder, "journal_records", "Records made durable", one(&stats.records))?;
        counter(encoder, "journal_written_bytes", "Bytes of frames written", one(&stats.bytes))?;
        counter(encoder, "journal_syncs", "Frames synced: one each", one(&stats.syncs))?;
        counter(
            encoder,
            "journal_rests",
            "Times that records were left to share a sync with others",
            one(&stats.rests),
        )?;
        seconds(encoder, "journal_sync", "Time in writing and syncing frames", one(&stats.sync_us))?;
        counter(encoder, "journal_failures", "Writes and syncs that failed", one(&stats.failures))?;
        counter(encoder, "journal_refused", "Appends refused", one(&stats.refused))?;
        gauge(encoder, "journal_segments", "Segments kept", [(NO_LABELS, segments as u64)])?;
        gauge(encoder, "journal_allocated_bytes", "Bytes of the segments kept", [(NO_LABELS, bytes)])?;
        let writable = u64::from(self.app.journal.is_writable().is_ok());
        gauge(encoder, "journal_writable", "1 while events are taken", [(NO_LABELS, writable)])?;
        gauge(encoder, "journal_position", "The last durable position", [(NO_LABELS, self.app.journal.end_position())])
    }

    fn encode_sinks(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let sinks = [&self.app.ledger_status, &self.app.live_status];
        let labels: Vec<[(&str, String); 1]> = sinks.iter().map(|s| [("sink", s.name().to_owned())]).collect();
        let each = |value: &dyn Fn(usize) -> u64| {
            let values: Vec<(&Labels, u64)> =
                labels.iter().enumerate().map(|(at, labels)| (labels.as_slice(), value(at))).collect();
            values
        };
        gauge(encoder, "sink_position", "The last position applied", each(&|at| sinks[at].position()))?;
        let lag = each(&|at| self.app.lag_events(sinks[at]));
        gauge(encoder, "sink_lag_events", "Durable records that are not applied yet", lag)?;
        let following = each(&|at| u64::from(sinks[at].state() == SinkState::Following));
        gauge(encoder, "sink_following", "1 while the sink follows", following)?;
        counter(encoder, "sink_batches", "Batches applied", each(&|at| read(&sinks[at].batches)))?;
        counter(encoder, "sink_records", "Records applied", each(&|at| read(&sinks[at].records)))?;
        seconds(encoder, "sink_apply", "Time in applying batches", each(&|at| read(&sinks[at].apply_us)))?;
        counter(encoder, "sink_retries", "Pauses while a store was away", each(&|at| read(&sinks[at].retries)))?;
        let lost = each(&|at| read(&sinks[at].lost));
        counter(encoder, "sink_lost_records", "Records passed that the journal has lost", lost)?;
        counter(encoder, "sink_dead_records", "Records in dead_letter", each(&|at| read(&sinks[at].dead)))?;
        let failures = read(&self.app.ledger_status.housekeeping_failures);
        counter(
            encoder,
            "housekeeping_failures",
            "Steps of the ledger's housekeeping that failed",
            [(NO_LABELS, failures)],
        )
    }

    fn encode_cache(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let cache = &self.app.caching.cache;
        let stats = &cache.stats;
        let one = |value: &AtomicU64| [(NO_LABELS, read(value))];
        let by = |label: &'static str, values: &[(&str, &AtomicU64)]| -> Vec<([(&'static str, String); 1], u64)> {
            values.iter().map(|(name, value)| ([(label, (*name).to_owned())], read(value))).collect()
        };
        fn each<'a>(values: &'a [([(&'static str, String); 1], u64)]) -> impl Iterator<Item = (&'a Labels, u64)> {
            values.iter().map(|(labels, value)| (labels.as_slice(), *value))
        }
        let fills = by("lock", &[("held", &stats.fills), ("none", &stats.fills_direct)]);
        counter(encoder, "cache_fills", "Values read from a store, under the lock or directly", each(&fills))?;
        let fill_us = read(&stats.fill_ms).saturating_mul(1_000);
        seconds(encoder, "cache_fill", "Time in fills", [(NO_LABELS, fill_us)])?;
        counter(encoder, "cache_failures", "Fills that came to nothing", one(&stats.failures))?;
        let hits = by("layer", &[("local", &stats.hits_local), ("shared", &stats.hits_shared)]);
        counter(encoder, "cache_hits", "Fresh values by layer", each(&hits))?;
        let set_out = by("why", &[("early", &stats.early), ("due", &stats.refreshes)]);
        counter(encoder, "cache_refreshes", "Refreshes begun behind an answer", each(&set_out))?;
        counter(encoder, "cache_ducked", "Refreshes left to another instance", one(&stats.ducked))?;
        let stale = by("why", &[("revalidate", &stats.stale_revalidated), ("late", &stats.stale_late)]);
        counter(encoder, "cache_stale", "Expired values shown", each(&stale))?;
        counter(encoder, "cache_joined", "Requests that joined a fill under way", one(&stats.joined))?;
        counter(encoder, "cache_shed", "Fills refused: too much was under way", one(&stats.shed))?;
        let lock =
            by("outcome", &[("owned", &stats.lock_owned), ("busy", &stats.lock_busy), ("lost", &stats.lock_lost)]);
        counter(encoder, "cache_lock", "Tries at the lock by outcome", each(&lock))?;
        let (flights, held, (copies, bytes)) = cache.sizes();
        gauge(encoder, "cache_flights", "Fills under way", [(NO_LABELS, flights as u64)])?;
        gauge(encoder, "cache_locks_held", "Locks held", [(NO_LABELS, held as u64)])?;
        gauge(encoder, "cache_copies", "Values kept here", [(NO_LABELS, copies as u64)])?;
        gauge(
            encoder,
            "cache_copies_bytes",
            "… and their bytes, with what they may be packed to",
            [(NO_LABELS, bytes as u64)],
        )?;
        let bounds = WAIT_BOUNDS_MS.iter().map(|ms| *ms as f64 / 1e3).chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(stats.waits.iter().map(read)).collect();
        let sum = read(&stats.waits_ms) as f64 / 1e3;
        encoder
            .encode_descriptor(
                "cache_wait",
                "Waits of requests for a fill",
                Some(&Unit::Seconds),
                MetricType::Histogram,
            )?
            .encode_histogram::<NoLabelSet>(sum, buckets.iter().map(|(_, count)| count).sum(), &buckets, None)
    }
}
