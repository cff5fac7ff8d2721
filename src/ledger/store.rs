//! A ledger is a store of either product with the reads of [`super::stats`].

use jiff::tz::TimeZone;
use uuid::Uuid;

use super::sql::Sql;
use super::stats::local_days::days_within_hours;
use super::stats::plan::plan_rank;
use super::stats::{counts, posts, rankings, series, snapshot, users};
use crate::limits::SNAPSHOT_MS_MAX;
use crate::ports::{
    Belongings, CountFilter, Erasure, ExportCursor, ExportPage, ExportQuery, Ledger, LedgerWriter, Likes, Position,
    Post, PostSearch, Ranked, RankingQuery, SeriesPoint, SeriesQuery, Snapshot, StoreError, TopQuery, Verdicts,
    Watermark,
};

/// How a read sees the store, and how long it may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// One statement: no transaction, which PostgreSQL would take two more round trips for.
    Statement,
    /// One snapshot, within the time of a read.
    Snapshot,
    /// One snapshot; each statement may take this many milliseconds.
    Long(u64),
}

/// What a product does in its own way.
pub trait Store: Send + Sync {
    /// Runs a job that reads. `Cancelled` once its time is over.
    fn read<R: Send + 'static>(
        &self,
        view: View,
        job: impl Fn(&mut dyn Sql) -> Result<R, StoreError> + Send + Sync + 'static,
    ) -> Result<R, StoreError>;

    /// Rankings of ranges with no more events than this read all their names. Tests bound it.
    fn rank_all_events_max(&self) -> i64;

    fn writer(&self) -> Result<Box<dyn LedgerWriter>, StoreError>;

    fn find_posts(&self, query: &PostSearch) -> Result<Vec<Post>, StoreError>;

    fn export_page(&self, query: &ExportQuery, after: Option<ExportCursor>) -> Result<ExportPage, StoreError>;
}

/// `None` if the time of a read was over.
fn in_time<R>(read: Result<R, StoreError>) -> Result<Option<R>, StoreError> {
    match read {
        Err(StoreError::Cancelled(_)) => Ok(None),
        read => read.map(Some),
    }
}

impl<S: Store> Ledger for S {
    fn open_writer(&self) -> Result<Box<dyn LedgerWriter>, StoreError> {
        self.writer()
    }

    fn watermark(&self, stream: Uuid) -> Result<Option<Watermark>, StoreError> {
        self.read(View::Statement, move |sql| posts::watermark(sql, stream))
    }

    fn verdicts(&self, stream: Uuid, after: Position, up_to: Position) -> Result<Option<Verdicts>, StoreError> {
        self.read(View::Snapshot, move |sql| posts::verdicts(sql, stream, after, up_to))
    }

    fn erasure(&self, stream: Uuid, position: Position) -> Result<Erasure, StoreError> {
        self.read(View::Snapshot, move |sql| posts::erasure(sql, stream, position))
    }

    fn belongings(&self, user_id: &str, limit: usize) -> Result<Belongings, StoreError> {
        let user = user_id.to_owned();
        self.read(View::Snapshot, move |sql| posts::belongings(sql, &user, limit))
    }

    fn count(&self, filter: &CountFilter) -> Result<u64, StoreError> {
        let filter = filter.clone();
        self.read(View::Snapshot, move |sql| counts::count(sql, &filter))
    }

    fn top(&self, query: &TopQuery, now_ms: i64, zone: &TimeZone) -> Result<Vec<(String, f64)>, StoreError> {
        let (query, plan, few_max) = (query.clone(), plan_rank(query, now_ms, zone), self.rank_all_events_max());
        self.read(View::Snapshot, move |sql| rankings::top(sql, &query, &plan, now_ms, few_max))
    }

    fn ranking(&self, query: &RankingQuery, now_ms: i64) -> Result<Option<Ranked>, StoreError> {
        let (query, few_max) = (query.clone(), self.rank_all_events_max());
        in_time(self.read(View::Snapshot, move |sql| rankings::ranking(sql, &query, now_ms, few_max)))
    }

    fn series(&self, query: &SeriesQuery) -> Result<Option<Vec<SeriesPoint>>, StoreError> {
        let query = query.clone();
        in_time(self.read(View::Snapshot, move |sql| series::series(sql, &query)))
    }

    fn users(&self, from_ms: i64, to_ms: i64) -> Result<Option<u64>, StoreError> {
        in_time(self.read(View::Snapshot, move |sql| users::users(sql, from_ms, to_ms)))
    }

    fn recent(&self, user_id: &str, now_ms: i64) -> Result<Vec<String>, StoreError> {
        let user = user_id.to_owned();
        self.read(View::Snapshot, move |sql| snapshot::recent(sql, &user, now_ms))
    }

    fn snapshot(&self, now_ms: i64, zone: &TimeZone) -> Result<Snapshot, StoreError> {
        let days = days_within_hours(zone, now_ms);
        self.read(View::Long(SNAPSHOT_MS_MAX), move |sql| snapshot::snapshot(sql, now_ms, &days))
    }

    fn likes(&self, post_id: &str, user_id: Option<&str>) -> Result<Likes, StoreError> {
        let (post, user) = (post_id.to_owned(), user_id.map(str::to_owned));
        self.read(View::Statement, move |sql| posts::likes(sql, &post, user.as_deref()))
    }

    fn post(&self, post_id: &str) -> Result<Option<Post>, StoreError> {
        let post = post_id.to_owned();
        self.read(View::Statement, move |sql| posts::post(sql, &post))
    }

    fn search(&self, query: &PostSearch) -> Result<Vec<Post>, StoreError> {
        self.find_posts(query)
    }

    fn export(&self, query: &ExportQuery, after: Option<ExportCursor>) -> Result<ExportPage, StoreError> {
        self.export_page(query, after)
    }

    fn dead_letters(&self) -> Result<u64, StoreError> {
        self.read(View::Statement, |sql| {
            Ok(sql.first("SELECT count(*) FROM dead_letter", &[])?.map_or(0, |row| row.count(0)))
        })
    }
}
