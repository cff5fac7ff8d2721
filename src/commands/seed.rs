//! `seed`: synthetic events for a server or a file, and posts for a server.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use serde_json::json;

use super::failure::Failure;
use super::output::{Output, Progress, counted, end_on_signal};
use crate::api::{End, MOMENT_FORMS, moment, put_line};
use crate::clock::{Backoff, Clock};
use crate::import::agent;
use crate::limits::{REQUEST_EVENTS_MAX, RETRY_MS_MAX, RETRY_MS_MIN};
use crate::seed::{Events, Mix, Plan, post};

const DAY_MS: i64 = 86_400_000;
/// A server that accepts nothing for this long is given up.
const PATIENCE: Duration = Duration::from_secs(60);
const CONNECTIONS: usize = 4;
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
    /// When the days end: RFC 3339, milliseconds since 1970, or the end of a UTC date; now if it is
    /// left out
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// The same seed makes the same events (with --until, to the millisecond)
    #[arg(long, default_value_t = 42, value_name = "NUMBER")]
    seed: u64,
    /// Shares of the types
    #[arg(long, default_value = "click=40,page_view=35,search=20,like=5", value_name = "TYPE=SHARE,…")]
    types: String,
    /// Send them to a server; its key is in the environment variable API_KEY (an admin key, if days
    /// are older than its EVENT_AGE_MAX)
    #[arg(long, default_value = "http://127.0.0.1:8080", value_name = "URL", group = "target")]
    url: String,
    /// Write them to a file as NDJSON (compressed if its name ends with .gz or .zst), or - for
    /// standard output
    #[arg(long, short, value_name = "FILE", group = "target")]
    output: Option<PathBuf>,
}

/// Data other than events.
#[derive(Clone, Debug, Subcommand)]
enum Other {
    /// Make the posts that the predecessor's load likes and searches, on a server
    Posts(Posts),
}

/// How many posts, and where.
#[derive(Clone, Debug, Args)]
struct Posts {
    /// How many posts: ids 1 to this; a post that exists is replaced by the same one
    #[arg(long, default_value_t = 1_000, value_name = "NUMBER")]
    count: u64,
    /// The server; its key is in the environment variable API_KEY
    #[arg(long, default_value = "http://127.0.0.1:8080", value_name = "URL")]
    url: String,
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

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    if let Some(Other::Posts(posts)) = &options.other {
        return make_posts(posts).map_err(Failure::Failed);
    }
    let events = options.plan().and_then(Plan::start).map_err(Failure::Usage)?;
    match &options.output {
        Some(path) => write_file(path, events).map_err(|error| format!("{}: {error}", path.display()))?,
        None => {
            end_on_signal(None).map_err(|e| format!("cannot catch signals: {e}"))?;
            send_events(&options.url, events)?;
        }
    }
    Ok(())
}

fn write_file(path: &Path, events: Events) -> std::io::Result<()> {
    let mut output = Output::open(path)?;
    let progress = Progress::start();
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

fn send_events(url: &str, mut events: Events) -> Result<(), String> {
    let bodies = std::iter::from_fn(|| {
        let (mut body, mut count) = (Vec::new(), 0);
        for event in events.by_ref().take(REQUEST_EVENTS_MAX) {
            put_line(&mut body, &event, false);
            count += 1;
        }
        (count > 0).then_some(Body { bytes: body, events: count })
    });
    let target = Target { url: endpoint(url, "events"), content_type: "application/x-ndjson" };
    let progress = Progress::start();
    target.send_all(bodies, |events| progress.add(events))?;
    progress.end("sent");
    Ok(())
}

fn make_posts(options: &Posts) -> Result<(), String> {
    let begun = Instant::now();
    let bodies = (1..=options.count).map(|number| {
        let put = post(number, Clock::System.now_ms());
        let body = json!({"postId":put.post_id,"userId":put.user_id,"content":put.content,"hashtags":put.hashtags});
        Body { bytes: body.to_string().into_bytes(), events: 0 }
    });
    let target = Target { url: endpoint(&options.url, "posts"), content_type: "application/json" };
    target.send_all(bodies, |_| {})?;
    eprintln!("made {} in {:.1} s", counted(options.count, "post"), begun.elapsed().as_secs_f64());
    Ok(())
}

fn endpoint(url: &str, name: &str) -> String {
    format!("{}/api/{name}", url.trim_end_matches('/'))
}

/// A request body; `events` is 0 for a post.
struct Body {
    bytes: Vec<u8>,
    events: usize,
}

struct Target {
    url: String,
    content_type: &'static str,
}

impl Target {
    /// Sends over a few connections, one request at a time on each. For posts, whose answers wait
    /// for the ledger, the server then commits several per transaction.
    fn send_all(&self, bodies: impl Iterator<Item = Body> + Send, sent: impl Fn(usize) + Sync) -> Result<(), String> {
        let bodies = Mutex::new(bodies);
        let connection = || {
            let agent = agent(&self.url, REQUEST_WAIT);
            loop {
                let next = bodies.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some(body) = next else { return Ok(()) };
                self.send(&agent, &body)?;
                sent(body.events);
            }
        };
        std::thread::scope(|scope| {
            let connections: Vec<_> = (0..CONNECTIONS).map(|_| scope.spawn(connection)).collect();
            let panicked = |_| Err("a connection's thread has panicked".to_owned());
            connections.into_iter().try_for_each(|connection| connection.join().unwrap_or_else(panicked))
        })
    }

    /// Sends a body until the server accepts or refuses it. Ids make a repeated body count once.
    fn send(&self, agent: &ureq::Agent, body: &Body) -> Result<(), String> {
        let url = &self.url;
        let begun = Instant::now();
        let mut backoff = Backoff::new(RETRY_MS_MIN, RETRY_MS_MAX);
        loop {
            let why = match self.try_once(agent, body) {
                // A 202 for a post: it is in the journal, and the ledger will have it.
                Ok((200..300, text)) if body.events == 0 || accepted(&text) == Some(body.events) => return Ok(()),
                Ok((status @ 200..300, text)) => return Err(format!("{url} did not take all of it: {status} {text}")),
                Ok((status @ (429 | 503), text)) => format!("{status} {text}"),
                Ok((status, text)) => return Err(format!("{url} answers {status}: {text}")),
                Err(error) => error.to_string(),
            };
            if begun.elapsed() > PATIENCE {
                return Err(format!("{url}: {why}"));
            }
            std::thread::sleep(backoff.pause());
        }
    }

    fn try_once(&self, agent: &ureq::Agent, body: &Body) -> Result<(u16, String), ureq::Error> {
        let mut request = agent.post(&self.url).content_type(self.content_type);
        // As for `import`: from the environment alone.
        if let Some(key) = std::env::var("API_KEY").ok().filter(|key| !key.is_empty()) {
            request = request.header("Authorization", format!("Bearer {key}"));
        }
        let mut answer = request.send(&body.bytes)?;
        let text = answer.body_mut().read_to_string().unwrap_or_default();
        Ok((answer.status().as_u16(), text))
    }
}

fn accepted(text: &str) -> Option<usize> {
    let answer: serde_json::Value = serde_json::from_str(text).ok()?;
    usize::try_from(answer["accepted"].as_u64()?).ok()
}
