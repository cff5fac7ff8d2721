//! `seed`: synthetic events into a server, into a file, or straight into the ledger; and posts into a server.

mod posts;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use uuid::Uuid;

use super::Failure;
use super::output::{Output, Progress, end_on_signal};
use super::stores::examine_ledger;
use crate::api::{End, MOMENT_FORMS, moment, put_line};
use crate::clock::Clock;
use crate::config::{LedgerKind, RawLedger, Stores};
use crate::events::{Event, Record};
use crate::import::agent;
use crate::limits::{
    REQUEST_EVENTS_MAX, RETRY_MS_MAX, RETRY_MS_MIN, SEED_BATCH_EVENTS, SEED_CONNECTIONS, SEED_PATIENCE_MS,
};
use crate::ports::{Batch, Ledger, LedgerWriter, StoreError, Watermark};
use crate::seed::{Events, Mix, Plan};

const DAY_MS: i64 = 86_400_000;
const PATIENCE: Duration = Duration::from_millis(SEED_PATIENCE_MS);
/// One request: more than the server's own time for a body.
const REQUEST_WAIT: Duration = Duration::from_secs(35);

/// What to make, and where it goes.
#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct Options {
    #[command(subcommand)]
    other: Option<Other>,
    /// How many events
    #[arg(long, value_name = "NUMBER", required = true)]
    events: Option<u64>,
    /// Users, drawn with skew
    #[arg(long, default_value_t = 10_000, value_name = "NUMBER")]
    users: u64,
    /// Posts, drawn with skew
    #[arg(long, default_value_t = 1_000, value_name = "NUMBER")]
    posts: u64,
    /// Keywords, Korean and English, drawn with skew
    #[arg(long, default_value_t = 5_000, value_name = "NUMBER")]
    keywords: u64,
    /// Exponent of Zipf's distribution: 0 is even
    #[arg(long, default_value_t = 1.1, value_name = "NUMBER")]
    skew: f64,
    /// Days that the events are spread over
    #[arg(long, default_value_t = 7, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=3_650))]
    days: u32,
    /// When the days end: RFC 3339, milliseconds since 1970, or the end of a UTC date; now if it is left out
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// The same seed makes the same events (with --until, to the millisecond)
    #[arg(long, default_value_t = 42, value_name = "NUMBER")]
    seed: u64,
    /// Shares of the types
    #[arg(long, default_value = "click=40,page_view=35,search=20,like=5", value_name = "TYPE=SHARE,…")]
    types: String,
    /// Send them to a server; its key is in the environment variable API_KEY (an admin key, if days are older than its EVENT_AGE_MAX)
    #[arg(long, default_value = "http://127.0.0.1:8080", value_name = "URL", group = "target")]
    url: String,
    /// Write them straight into the ledger (DATABASE_URL, or SQLite in DATA_DIR), rollups included
    #[arg(long, group = "target")]
    direct: bool,
    /// Write them to a file as NDJSON (compressed if its name ends with .gz or .zst), or - for standard output
    #[arg(long, short, value_name = "FILE", group = "target")]
    output: Option<PathBuf>,
    #[command(flatten, next_help_heading = "With --direct")]
    ledger: RawLedger,
}

/// What is not events.
#[derive(Clone, Debug, Subcommand)]
enum Other {
    /// Make the posts that the predecessor's load likes and searches, on a server
    Posts(posts::Options),
}

impl Options {
    fn plan(&self) -> Result<Plan, String> {
        let wrong = || format!("--until {MOMENT_FORMS}");
        let to_ms = match &self.until {
            Some(text) => moment(text, End::To, |day| day.saturating_mul(DAY_MS)).ok_or_else(wrong)?,
            None => Clock::System.now_ms(),
        };
        Ok(Plan {
            events: self.events.unwrap_or_default(),
            users: self.users,
            posts: self.posts,
            keywords: self.keywords,
            skew: self.skew,
            mix: Mix::parse(&self.types).map_err(|error| format!("--types {error}"))?,
            from_ms: to_ms.saturating_sub(i64::from(self.days) * DAY_MS),
            to_ms,
            seed: self.seed,
        })
    }
}

pub(super) fn run(options: Options) -> Result<(), Failure> {
    if let Some(Other::Posts(posts)) = &options.other {
        return posts::run(posts).map_err(Failure::Failed);
    }
    let events = options.plan().and_then(Plan::start).map_err(Failure::Usage)?;
    if options.output.is_none() {
        end_on_signal(None).map_err(|e| format!("cannot catch signals: {e}"))?;
    }
    match &options.output {
        Some(path) => Ok(write_file(path, events).map_err(|error| format!("{}: {error}", path.display()))?),
        None if options.direct => {
            let stores = options.ledger.check().map_err(Failure::Usage)?;
            write_ledger(&stores, events)
        }
        None => Ok(send(options.url.trim_end_matches('/'), events)?),
    }
}

fn write_file(path: &std::path::Path, events: Events) -> std::io::Result<()> {
    let mut output = Output::open(path)?;
    let mut progress = Progress::start();
    let mut line = Vec::new();
    for event in events {
        line.clear();
        put_line(&mut line, &event, false);
        output.write(&line)?;
        progress.add(1);
    }
    output.finish()?;
    progress.end("wrote");
    Ok(())
}

// ---- into a server ----

type Bodies = Arc<Mutex<Receiver<(Vec<u8>, usize)>>>;

/// Over a few connections, each with one request under way. Ids make a request that is sent again count once.
fn send(url: &str, events: Events) -> Result<(), String> {
    let progress = Mutex::new(Progress::start());
    let (bodies, waiting) = sync_channel(SEED_CONNECTIONS);
    let waiting: Bodies = Arc::new(Mutex::new(waiting));
    let target = format!("{url}/api/events");
    let sent = std::thread::scope(|scope| {
        let senders: Vec<_> = (0..SEED_CONNECTIONS)
            .map(|_| {
                let waiting = waiting.clone();
                let (target, progress) = (&target, &progress);
                scope.spawn(move || send_bodies(target, &waiting, progress))
            })
            .collect();
        drop(waiting);
        make_bodies(events, &bodies);
        drop(bodies);
        senders.into_iter().try_for_each(|sender| sender.join().unwrap_or_else(|_| Err("a sender panicked".into())))
    });
    sent?;
    progress.into_inner().unwrap_or_else(PoisonError::into_inner).end("sent");
    Ok(())
}

fn make_bodies(events: Events, bodies: &SyncSender<(Vec<u8>, usize)>) {
    let mut body = Vec::new();
    let mut count = 0;
    let mut events = events.peekable();
    while let Some(event) = events.next() {
        put_line(&mut body, &event, false);
        count += 1;
        if count == REQUEST_EVENTS_MAX || events.peek().is_none() {
            // All senders are gone: the first of them says why.
            if bodies.send((std::mem::take(&mut body), std::mem::take(&mut count))).is_err() {
                return;
            }
        }
    }
}

fn send_bodies(target: &str, waiting: &Bodies, progress: &Mutex<Progress>) -> Result<(), String> {
    let agent = agent(target, REQUEST_WAIT);
    loop {
        let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((body, count)) = next else { return Ok(()) };
        until_taken(&agent, target, "application/x-ndjson", &body, |status, text| {
            matches!(status, 201 | 202) && accepted(text) == Some(count)
        })?;
        progress.lock().unwrap_or_else(PoisonError::into_inner).add(count);
    }
}

/// Sends until it is taken; `is_whole` judges a success. What the server refuses for good ends the run.
fn until_taken(
    agent: &ureq::Agent,
    target: &str,
    content_type: &str,
    body: &[u8],
    is_whole: impl Fn(u16, &str) -> bool,
) -> Result<(), String> {
    // As for `import`: from the environment alone.
    let key = std::env::var("API_KEY").ok().filter(|key| !key.is_empty());
    let begun = Instant::now();
    let mut pause_ms = RETRY_MS_MIN;
    loop {
        let mut request = agent.post(target).content_type(content_type);
        if let Some(key) = &key {
            request = request.header("Authorization", format!("Bearer {key}"));
        }
        let answer = request.send(body);
        let why = match answer {
            Ok(mut answer) => {
                let status = answer.status().as_u16();
                let text = answer.body_mut().read_to_string().unwrap_or_default();
                match status {
                    200..300 if is_whole(status, &text) => return Ok(()),
                    200..300 => return Err(format!("{target} did not take all of it: {status} {text}")),
                    429 | 503 => format!("{status} {text}"),
                    _ => return Err(format!("{target} answers {status}: {text}")),
                }
            }
            Err(error) => error.to_string(),
        };
        if begun.elapsed() > PATIENCE {
            return Err(format!("{target}: {why}"));
        }
        std::thread::sleep(Duration::from_millis(pause_ms));
        pause_ms = (pause_ms * 2).min(RETRY_MS_MAX);
    }
}

fn accepted(text: &str) -> Option<usize> {
    let answer: serde_json::Value = serde_json::from_str(text).ok()?;
    usize::try_from(answer["accepted"].as_u64()?).ok()
}

// ---- into the ledger ----

/// In batches of a stream of its own, as a server's journal would hand them on: rollups, likes and the watermark hold.
fn write_ledger(stores: &Stores, mut events: Events) -> Result<(), Failure> {
    if stores.ledger == LedgerKind::Sqlite {
        std::fs::create_dir_all(&stores.data_dir).map_err(|error| format!("{}: {error}", stores.data_dir.display()))?;
    }
    let ledger = examine_ledger(stores)?.open()?;
    let mut feed = Feed::start(&*ledger).map_err(|error| format!("ledger: {error}"))?;
    let mut progress = Progress::start();
    loop {
        let now_ms = Clock::System.now_ms();
        // No client chose these ids: nobody sends them again, and they need not be remembered.
        let of_now = |event| Record::Event(Event { id_from_client: false, received_at_ms: now_ms, ..event });
        let records: Vec<Record<'static>> = events.by_ref().take(SEED_BATCH_EVENTS).map(of_now).collect();
        if records.is_empty() {
            break;
        }
        let count = records.len();
        feed.apply(records).map_err(|error| format!("ledger: {error}"))?;
        progress.add(count);
    }
    feed.writer.prepare(Clock::System.now_ms()).map_err(|error| format!("ledger: {error}"))?;
    progress.end("stored");
    eprintln!(
        "They came by stream {} of the table watermark. A running server that keeps its live statistics in memory does \
         not know them: restart it. With Redis: DEL 'et:{{t0}}:2:<TIME_ZONE>:gen' makes it \
         build them again from the ledger.",
        feed.stream
    );
    Ok(())
}

/// The seed's own side of the ledger.
struct Feed<'l> {
    ledger: &'l dyn Ledger,
    writer: Box<dyn LedgerWriter>,
    stream: Uuid,
    at: Watermark,
}

impl<'l> Feed<'l> {
    fn start(ledger: &'l dyn Ledger) -> Result<Feed<'l>, StoreError> {
        let stream = Uuid::new_v4();
        let mut writer = ledger.open_writer()?;
        writer.register(stream)?;
        Ok(Feed { ledger, writer, stream, at: Watermark::default() })
    }

    /// Once, through an outage too: the watermark tells whether a try whose reply was lost had its effect.
    fn apply(&mut self, records: Vec<Record<'static>>) -> Result<(), StoreError> {
        // There are no frames to have a checksum of.
        let to = Watermark { position: self.at.position + records.len() as u64, crc: 0 };
        let batch = Batch { stream: self.stream, from: self.at, to, records };
        let begun = Instant::now();
        let mut pause_ms = RETRY_MS_MIN;
        loop {
            match self.writer.apply(&batch, &BTreeMap::new()) {
                Ok(_) => break,
                Err(StoreError::Fenced { found: Some(found) }) if found == to => break,
                Err(StoreError::Retry(why)) if begun.elapsed() > PATIENCE => return Err(StoreError::Retry(why)),
                Err(StoreError::Retry(_)) => {
                    std::thread::sleep(Duration::from_millis(pause_ms));
                    pause_ms = (pause_ms * 2).min(RETRY_MS_MAX);
                    if let Ok(writer) = self.ledger.open_writer() {
                        self.writer = writer;
                    }
                }
                Err(other) => return Err(other),
            }
        }
        self.at = to;
        Ok(())
    }
}
