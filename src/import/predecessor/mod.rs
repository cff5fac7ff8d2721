//! The tables of the Kotlin system that this one replaces, turned into calls of our API.
//!
//! One REPEATABLE READ snapshot, read by a cursor in the order of keys: memory is bounded, and a later run goes on behind
//! the last key that was confirmed. Ids are made of what a row says, so that the same row is the same event in every
//! run. What a table holds is asked of its catalogue: ids may be numbers or text, lists arrays or text.

mod like;
mod post;
mod reader;
mod statistics;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use postgres::Client;
use uuid::Uuid;

use super::batch::Target;
use super::files::absolute;
use super::job::{Files, Job, Opened, TABLE};
use super::row::Place;
use super::state::State;
use super::text::Identity;
use super::{Ended, Judge, Settings, Stop};
use reader::{Reader, Record, Shape};

/// Ids of what is taken over are UUIDv5 in it.
const NAMESPACE: Uuid = Uuid::from_u128(0x6576_656e_742d_4074_8261_636b_6572_2e31);

/// A table of the predecessor that can be taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum PredecessorTable {
    /// Posts, under their ids
    Post,
    /// Who likes what: LIKE events of the time of the like
    PostLike,
    /// Counts: as many events of that type with that metadata
    Statistics,
}

/// The predecessor's database.
pub struct Predecessor {
    /// Reads it; nothing else uses it.
    pub client: Client,
    /// In the names of files.
    pub name: String,
    pub tables: Vec<PredecessorTable>,
    /// Event time of what had none, in milliseconds; the start of the import where not given.
    pub statistics_at_ms: Option<i64>,
    /// Whose local time columns without a time zone are in.
    pub time_zone: String,
}

impl PredecessorTable {
    fn name(self) -> &'static str {
        match self {
            PredecessorTable::Post => "post",
            PredecessorTable::PostLike => "post_like",
            PredecessorTable::Statistics => "statistics",
        }
    }
}

/// What a table's records are read as and made into.
trait Translation: Send {
    /// The columns and their order.
    fn shape(&self) -> Shape;
    /// The rows of one record.
    fn translate(&mut self, record: &Record) -> Rows;
}

/// Rows that a record becomes: events by their number, or one refusal for all.
enum Rows {
    One(Result<Vec<u8>, super::Refusal>),
    Many { count: u64, event: Box<dyn Fn(u64) -> Vec<u8> + Send> },
}

/// Takes the tables over, one after the other; the worst end counts. The error is one line.
pub fn import_predecessor(from: Predecessor, settings: &Settings, stop: &Arc<Stop>) -> Result<Ended, String> {
    let Predecessor { mut client, name, tables, statistics_at_ms, time_zone } = from;
    let origin = reader::begin(&mut client)?;
    let client = Arc::new(Mutex::new(client));
    let mut worst = Ended::Accepted;
    for table in tables {
        let stem = absolute(format!("event-tracker-{name}.{}", table.name()).into());
        let job = Job {
            name: table.name().to_owned(),
            identity: Identity { size: None, modified_ms: None, head: Uuid::new_v5(&origin, table.name().as_bytes()) },
            format: TABLE,
            size: None,
            target: if table == PredecessorTable::Post { Target::Posts } else { Target::Events },
            files: Files::of(&stem, true, settings),
        };
        let open_table = |state: &State| {
            let at_ms = statistics_at_ms.unwrap_or(state.started_at_ms);
            let translation = translation(table, &time_zone, origin, at_ms, settings.judge.clone());
            open(&client, table, translation, state)
        };
        let ended = job.run(open_table, settings, stop)?;
        worst = worst.max(ended);
        if ended == Ended::Interrupted {
            break;
        }
    }
    Ok(worst)
}

fn translation(
    table: PredecessorTable,
    time_zone: &str,
    origin: Uuid,
    at_ms: i64,
    judge: Judge,
) -> Box<dyn Translation> {
    match table {
        PredecessorTable::Post => Box::new(post::Posts { time_zone: time_zone.to_owned() }),
        PredecessorTable::PostLike => Box::new(like::Likes { time_zone: time_zone.to_owned() }),
        PredecessorTable::Statistics => Box::new(statistics::Statistics { origin, at_ms, judge }),
    }
}

fn open(
    client: &Arc<Mutex<Client>>,
    table: PredecessorTable,
    translation: Box<dyn Translation>,
    state: &State,
) -> Result<Opened, String> {
    let place: &Place = &state.confirmed.all_before;
    let reader = Reader::open(client.clone(), table.name(), translation, place)?;
    Ok(Opened { source: Box::new(reader), read: Arc::new(AtomicU64::new(0)) })
}
