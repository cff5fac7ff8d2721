//! Exact rankings, series and users: rollups, and raw rows of the parts of hours at the edges.
//!
//! A statement that the server gave up on is no failure of the store: more was asked for than a read may take.

use std::ops::Range;
use std::sync::LazyLock;

use jiff::Timestamp;
use postgres::error::SqlState;
use postgres::types::Type;
use postgres::{GenericClient, Row, Statement, Transaction};

use super::connect::{Failure, Session};
use super::reading::{Reading, Typed};
use super::{deltas, edges, user_sets};
use crate::events::{Dimension, EventType};
use crate::ledger_fold::{
    Counts, Cover, Folded, Heads, Led, List, OPEN_DAYS, Page, RankPlan, Sums, Terms, Wanted, besides, cover,
    events_sql, hours_of_hot, known_points, known_sql, leaders, led_by, name_sum_sql, open_sql, plan_leaders,
    points_sql, raw_sql, rest_sql, rollup_sql, runs,
};
use crate::limits::{EXACT_MINUTES, LEADERS_MISSING_MAX};
use crate::ports::{Interval, Ranked, RankingQuery, SeriesPoint, SeriesQuery, TopQuery};

const MINUTE_MS: i64 = 60_000;
/// The minute of a row of `events`. `extract` answers a `numeric`, which takes five times as long to divide.
pub(super) const MINUTE: &str = "floor(date_part('epoch', event_time) / 60)::int8";

/// `None` where the server gave up on it.
fn in_time<T>(result: Result<T, postgres::Error>) -> Result<Option<T>, Failure> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.code() == Some(&SqlState::QUERY_CANCELED) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Where the range has no more than `few` events, all its names are read.
pub(super) fn ranking(
    session: &mut Session,
    query: &RankingQuery,
    now_ms: i64,
    few: i64,
) -> Result<Option<Ranked>, Failure> {
    deltas::add(session)?;
    in_time(rank(session, query, now_ms, few))
}

fn rank(session: &mut Session, query: &RankingQuery, now_ms: i64, few: i64) -> Result<Ranked, postgres::Error> {
    let mut reading = Reading::begin(session)?;
    let folded = folded(reading.transaction())?;
    let minutes_since = folded.minutes_since.max(now_ms.div_euclid(MINUTE_MS) - EXACT_MINUTES);
    let cover = cover(query.from_ms..query.to_ms, Some(minutes_since));
    let raw = raw_counts(&mut reading, &query.parts, &cover)?;
    let of_part = |(dimension, weight): &(Dimension, i64)| Terms {
        dimension: *dimension,
        weight: *weight as f64,
        sums: Sums::of(&cover, folded, *dimension),
    };
    let terms: Vec<Terms> = query.parts.iter().map(of_part).collect();
    if has_few(&mut reading, &cover, folded, few)? {
        return rank_all(&mut reading, query, &terms, &cover, raw);
    }
    let open = open_sql(&terms, &query.parts, &cover);
    let known: Vec<(&str, f64)> =
        raw.0.iter().zip(&raw.1).map(|(name, count)| (name.as_str(), *count as f64)).collect();
    match lead(&mut reading, &terms, open, &known, Page::of(query))? {
        Some(first) => Ok(first.into_iter().map(|(name, sum)| (name, sum as i64)).collect()),
        None => rank_all(&mut reading, query, &terms, &cover, raw),
    }
}

/// A range has hours, and no more than `few` events in them.
fn has_few(reading: &mut Reading<'_>, cover: &Cover, folded: Folded, few: i64) -> Result<bool, postgres::Error> {
    let Some(sql) = events_sql(cover, folded) else { return Ok(false) };
    Ok(reading.query(&sql, &[])?.first().is_some_and(|row| row.get::<_, i64>(0) <= few))
}

/// The first names, read from lists in order; `None` where all names have to be read.
fn lead(
    reading: &mut Reading<'_>,
    terms: &[Terms],
    open: Option<String>,
    raw: &[(&str, f64)],
    page: Page<'_>,
) -> Result<Option<Vec<(String, f64)>>, postgres::Error> {
    let Some(led) = led_by(terms) else { return Ok(None) };
    let open = match open {
        // One row: thousands of them take longer to send than to find.
        Some(open) => {
            let sql =
                format!("SELECT array_agg(key), array_agg(CAST(count AS double precision)) FROM ({open}) AS open");
            reading.query(&sql, &[])?
        }
        None => Vec::new(),
    };
    // Of no names there is no array.
    let open = open.first().and_then(|row| row.get::<_, Option<Vec<&str>>>(0).zip(row.get::<_, Option<Vec<f64>>>(1)));
    let (names, counts) = open.unwrap_or_default();
    let known = besides(raw.iter().copied(), names.into_iter().zip(counts));
    let ends = vec![false; led.lists.len()];
    leaders(&mut Lists { reading, led, ends, sums: [None, None] }, &known, page)
}

struct Lists<'r, 's> {
    reading: &'r mut Reading<'s>,
    led: Led,
    /// Lists that were read to their end.
    ends: Vec<bool>,
    /// The statements of sums, once there were some: they are long, and may run several times.
    sums: [Option<Statement>; 2],
}

impl Counts for Lists<'_, '_> {
    type Error = postgres::Error;

    /// One walk down the index by count for each list, which is one row of the answer: to join and to group them took the
    /// server three times as long as to read them.
    fn heads(&mut self, depth: usize) -> Result<Heads, postgres::Error> {
        let mut columns = [(); 3].map(|()| (Vec::<i32>::new(), Vec::<i16>::new(), Vec::<i64>::new()));
        for (number, list) in self.led.lists.iter().enumerate() {
            let place = if list.is_taken_off { 2 } else { usize::from(list.is_span) };
            let (numbers, dimensions, buckets) = &mut columns[place];
            numbers.push(number as i32);
            dimensions.push(list.dimension as i16);
            buckets.push(list.bucket);
        }
        let [days, spans, taken_off] = &columns;
        let rows = i64::try_from(depth).unwrap_or(i64::MAX);
        let values: [Typed<'_>; 10] = [
            (&days.0, Type::INT4_ARRAY),
            (&days.1, Type::INT2_ARRAY),
            (&days.2, Type::INT8_ARRAY),
            (&spans.0, Type::INT4_ARRAY),
            (&spans.1, Type::INT2_ARRAY),
            (&spans.2, Type::INT8_ARRAY),
            (&rows, Type::INT8),
            (&taken_off.0, Type::INT4_ARRAY),
            (&taken_off.1, Type::INT2_ARRAY),
            (&taken_off.2, Type::INT8_ARRAY),
        ];
        // Where there is none, less has to be planned.
        let (sql, values) = match taken_off.0.is_empty() {
            true => (&HEADS[0], &values[..7]),
            false => (&HEADS[1], &values[..]),
        };
        let mut heads = Heads::default();
        for row in self.reading.query(sql, values)? {
            let number = row.get::<_, i32>(0) as usize;
            let list = &self.led.lists[number];
            // Of no names there is no array.
            let names: Vec<&str> = row.get::<_, Option<_>>(1).unwrap_or_default();
            let counts: Vec<i64> = row.get::<_, Option<_>>(2).unwrap_or_default();
            let head: Vec<_> = names.into_iter().zip(counts).collect();
            heads.add(number, list, depth, &head);
            if head.len() < depth {
                self.ends[number] = true;
            }
        }
        Ok(heads)
    }

    /// Names that most lists were read down to are looked up in the others alone.
    fn sums(&mut self, wanted: &[Wanted<'_>]) -> Result<Vec<f64>, postgres::Error> {
        let mut sums = vec![0.0; wanted.len()];
        let (mut missing, mut known, mut unknown) = (Missing::default(), Vec::new(), Vec::new());
        for (at, Wanted { found, .. }) in wanted.iter().enumerate() {
            sums[at] = found.iter().map(|(number, count)| *count as f64 * self.led.lists[*number].counted).sum();
            // Where a list was read to its end, who is not in it has nothing there.
            let mut is_settled = self.ends.clone();
            found.iter().for_each(|(number, _)| is_settled[*number] = true);
            let lists = self.led.lists.iter().zip(is_settled);
            let absent: Vec<&List> =
                lists.filter(|(list, is_settled)| list.counted > 0.0 && !is_settled).map(|(list, _)| list).collect();
            if absent.len() > LEADERS_MISSING_MAX {
                sums[at] = 0.0;
                unknown.push(at);
            } else {
                absent.into_iter().for_each(|list| missing.push(at, list));
                known.push(at);
            }
        }
        for (row, (at, weight)) in missing.look_up(self.reading, wanted)?.into_iter().zip(missing.whose()) {
            sums[at] += row as f64 * weight;
        }
        for (some, is_whole) in [(&known, false), (&unknown, true)] {
            let some_names: Vec<&str> = some.iter().map(|at| wanted[*at].name).collect();
            for (at, sum) in some.iter().zip(self.name_sums(&some_names, is_whole)?) {
                sums[*at] += sum;
            }
        }
        Ok(sums)
    }
}

impl Lists<'_, '_> {
    /// Sums of names, with what lists have or without.
    fn name_sums(&mut self, names: &[&str], is_whole: bool) -> Result<Vec<f64>, postgres::Error> {
        let terms = if is_whole { &self.led.terms } else { &self.led.without_lists };
        let is_nothing =
            |Terms { sums, .. }: &Terms| sums.hours.is_empty() && sums.days_off.is_empty() && sums.begun.is_none();
        if names.is_empty() || !is_whole && terms.iter().all(is_nothing) {
            return Ok(Vec::new());
        }
        let place = &mut self.sums[usize::from(is_whole)];
        let statement = match place {
            Some(statement) => statement.clone(),
            None => {
                let sum = name_sum_sql(terms, "names.key", false);
                let sql = format!(
                    "SELECT CAST({sum} AS double precision) FROM unnest($1::text[]) WITH ORDINALITY AS names(key, number) \
                     ORDER BY number"
                );
                place.insert(self.reading.transaction().prepare(&sql)?).clone()
            }
        };
        Ok(self.reading.query_prepared(&statement, &[&names])?.iter().map(|row| row.get(0)).collect())
    }
}

/// Counts that no head has: of a name in a list.
#[derive(Default)]
struct Missing {
    names: Vec<usize>,
    are_spans: Vec<bool>,
    dimensions: Vec<i16>,
    buckets: Vec<i64>,
    weights: Vec<f64>,
}

impl Missing {
    fn push(&mut self, name: usize, list: &List) {
        self.names.push(name);
        self.are_spans.push(list.is_span);
        self.dimensions.push(list.dimension as i16);
        self.buckets.push(list.bucket);
        self.weights.push(list.counted);
    }

    /// The name's place and the list's weight, one for each.
    fn whose(&self) -> impl Iterator<Item = (usize, f64)> {
        self.names.iter().copied().zip(self.weights.iter().copied())
    }

    /// One after the other by the key.
    fn look_up(&self, reading: &mut Reading<'_>, wanted: &[Wanted<'_>]) -> Result<Vec<i64>, postgres::Error> {
        if self.names.is_empty() {
            return Ok(Vec::new());
        }
        let of = |table: &str| {
            format!(
                "(SELECT count FROM {table} AS r WHERE r.dimension = m.dimension AND r.key = m.key AND r.bucket = m.bucket)"
            )
        };
        let sql = format!(
            "SELECT coalesce(CASE WHEN is_span THEN {} ELSE {} END, 0) FROM \
               (SELECT number, is_span, dimension, bucket, key COLLATE \"C\" AS key \
                FROM unnest($1::text[], $2::bool[], $3::int2[], $4::int8[]) WITH ORDINALITY \
                  AS missing(key, is_span, dimension, bucket, number)) AS m ORDER BY number",
            of("rollup_span"),
            of("rollup_day")
        );
        let keys: Vec<&str> = self.names.iter().map(|name| wanted[*name].name).collect();
        let values: [Typed<'_>; 4] = [
            (&keys, Type::TEXT_ARRAY),
            (&self.are_spans, Type::BOOL_ARRAY),
            (&self.dimensions, Type::INT2_ARRAY),
            (&self.buckets, Type::INT8_ARRAY),
        ];
        Ok(reading.query(&sql, &values)?.iter().map(|row| row.get(0)).collect())
    }
}

/// Without days that are taken off, and with.
static HEADS: LazyLock<[String; 2]> = LazyLock::new(|| {
    let of = |table: &str, first: usize, count: &str, order: &str| {
        format!(
            "SELECT l.number, r.keys, r.counts \
             FROM unnest(${first}::int4[], ${}::int2[], ${}::int8[]) AS l(number, dimension, bucket) \
             CROSS JOIN LATERAL (SELECT array_agg(key) AS keys, array_agg({count}) AS counts \
                                 FROM (SELECT key, count FROM {table} AS d WHERE d.dimension = l.dimension \
                                         AND d.bucket = l.bucket AND d.dimension BETWEEN 2 AND 8 {order} \
                                       LIMIT $7) AS head) AS r",
            first + 1,
            first + 2
        )
    };
    let highest = "ORDER BY count DESC";
    let heads = [of("rollup_day", 1, "count", highest), of("rollup_span", 4, "count", highest)].join(" UNION ALL ");
    let taken_off = of("rollup_day", 8, "-count", "AND count < 0 ORDER BY count");
    [heads.clone(), format!("{heads} UNION ALL {taken_off}")]
});

/// Everything that a range has, summed up by the server.
fn rank_all(
    reading: &mut Reading<'_>,
    query: &RankingQuery,
    terms: &[Terms],
    cover: &Cover,
    (names, counts): (Vec<String>, Vec<i64>),
) -> Result<Ranked, postgres::Error> {
    let rollups = rollup_sql(terms, cover).map_or(String::new(), |sql| format!("{sql} UNION ALL "));
    let sql = format!(
        "SELECT key, sum(count)::int8 FROM ({rollups}SELECT key COLLATE \"C\", count FROM \
           unnest($1::text[], $2::int8[]) AS raw(key, count)) AS counted \
         GROUP BY key HAVING sum(count) > 0 \
           AND ($3::int8 IS NULL OR sum(count) < $3 OR sum(count) = $3 AND key > $4::text COLLATE \"C\") \
         ORDER BY sum(count) DESC, key LIMIT $5"
    );
    let (sum, name) = query.after.as_ref().map(|(sum, name)| (*sum, name.as_str())).unzip();
    let limit = i64::try_from(query.limit).unwrap_or(i64::MAX);
    let values: [Typed<'_>; 5] = [
        (&names, Type::TEXT_ARRAY),
        (&counts, Type::INT8_ARRAY),
        (&sum, Type::INT8),
        (&name, Type::TEXT),
        (&limit, Type::INT8),
    ];
    let rows = reading.query(&sql, &values)?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// The first names of a window of hours; `None` where all have to be read, or looking for the first took too long.
pub(super) fn top(
    session: &mut Session,
    query: &TopQuery,
    plan: &RankPlan,
    now_ms: i64,
    few: i64,
) -> Result<Option<Vec<(String, f64)>>, Failure> {
    Ok(in_time(lead_top(session, query, plan, now_ms, few))?.flatten())
}

fn lead_top(
    session: &mut Session,
    query: &TopQuery,
    plan: &RankPlan,
    now_ms: i64,
    few: i64,
) -> Result<Option<Vec<(String, f64)>>, postgres::Error> {
    let mut reading = Reading::begin(session)?;
    let folded = folded(reading.transaction())?;
    if let Some(hours) = hours_of_hot(query, now_ms)
        && has_few(&mut reading, &Cover { hours: Some(hours), ..Cover::default() }, folded, few)?
    {
        return Ok(None);
    }
    let terms = plan_leaders(query, plan, folded);
    if terms.is_empty() {
        return Ok(None);
    }
    let edges = edge_scores(reading.transaction(), plan)?;
    let edges: Vec<(&str, f64)> = edges.iter().map(|(name, score)| (name.as_str(), *score)).collect();
    let open = open_sql(&terms, &[], &Cover::default());
    lead(&mut reading, &terms, open, &edges, Page::first(query.limit))
}

/// What parts of hours add to a list.
pub(super) fn edge_scores(
    client: &mut impl GenericClient,
    plan: &RankPlan,
) -> Result<Vec<(String, f64)>, postgres::Error> {
    let ranges: Vec<Range<i64>> = plan.edges.iter().map(|(range, _)| range.clone()).collect();
    Ok(plan.edge_scores(edges::count(client, &ranges, &plan.edge_dimensions())?))
}

/// How far hours are folded.
pub(super) fn folded(transaction: &mut Transaction<'_>) -> Result<Folded, postgres::Error> {
    let sql = "SELECT until_hour, until_day, minutes_since, hour_dimension::int8, day_dimension > 0 FROM rollup_folded";
    let row = transaction.query_typed_one(sql, &[])?;
    let (until_hour, until_day, minutes_since, hour_dimension) = (row.get(0), row.get(1), row.get(2), row.get(3));
    Ok(Folded { until_hour, until_day, minutes_since, hour_dimension, is_day_begun: row.get(4) })
}

/// What raw rows add, by name.
fn raw_counts(
    reading: &mut Reading<'_>,
    parts: &[(Dimension, i64)],
    cover: &Cover,
) -> Result<(Vec<String>, Vec<i64>), postgres::Error> {
    let Some(sql) = raw_sql(parts, cover, during) else { return Ok(Default::default()) };
    let rows = reading.query(&sql, &[])?;
    let weighed = |row: &Row| {
        let (_, weight) = parts[row.get::<_, i32>(0) as usize];
        (row.get(1), row.get::<_, i64>(2) * weight)
    };
    Ok(rows.iter().map(weighed).unzip())
}

/// That a column's time lies in a range of milliseconds.
pub(super) fn during(column: &str, range: &Range<i64>) -> String {
    format!("{column} >= {} AND {column} < {}", literal(range.start), literal(range.end))
}

pub(super) fn literal(ms: i64) -> String {
    format!("'{}'::timestamptz", Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX))
}

pub(super) fn series(session: &mut Session, query: &SeriesQuery) -> Result<Option<Vec<SeriesPoint>>, Failure> {
    deltas::add(session)?;
    in_time(read_series(session, query))
}

/// Points that were counted before, and what is left, run by run.
fn read_series(session: &mut Session, query: &SeriesQuery) -> Result<Vec<SeriesPoint>, postgres::Error> {
    let mut reading = Reading::begin(session)?;
    let rows = reading.query(&points_sql(query), &[])?;
    let rows = rows
        .iter()
        .map(|row| (row.get::<_, i32>(0).into(), row.get::<_, i32>(1).into(), row.get(2), row.get(3), row.get(4)));
    let (mut points, mut missing) = known_points(query, rows);
    if query.interval == Interval::Day && !missing.is_empty() {
        read_open_days(&mut reading, query, &mut points, &mut missing)?;
    }
    for run in runs(&missing) {
        let edges_ms = query.edges_ms[run.start..=run.end].to_vec();
        let counted = count_in(&mut reading, &SeriesQuery { edges_ms, ..query.clone() })?;
        points[run].copy_from_slice(&counted);
    }
    Ok(points)
}

/// Days that are not over, as far as their users are known; they are missing no more.
fn read_open_days(
    reading: &mut Reading<'_>,
    query: &SeriesQuery,
    points: &mut [SeriesPoint],
    missing: &mut Vec<usize>,
) -> Result<(), postgres::Error> {
    for row in reading.query(OPEN_DAYS, &[])? {
        let day: Range<i64> = row.get(0)..row.get(1);
        let is_it =
            |number: &usize| query.edges_ms[*number..*number + 2] == [day.start * MINUTE_MS, day.end * MINUTE_MS];
        let Some(place) = missing.iter().position(is_it) else { continue };
        let known = reading.query(&known_sql(&day, query.event_type), &[])?;
        let known: Vec<(i64, i64)> = known.iter().map(|row| (row.get::<_, i32>(0).into(), row.get(1))).collect();
        let (sql, users) = rest_sql(&day, query.event_type, &known);
        for row in reading.query(&sql, &[])? {
            points[missing[place]] = SeriesPoint { count: number(&row, 0), users: users + number(&row, 1) };
        }
        missing.remove(place);
    }
    Ok(())
}

/// Counts every point of a series, whether or not it was counted before.
pub(super) fn count_points(
    transaction: &mut Transaction<'_>,
    query: &SeriesQuery,
) -> Result<Vec<SeriesPoint>, postgres::Error> {
    let transaction = transaction.transaction()?;
    count_in(&mut Reading::within(transaction), query)
}

fn count_in(reading: &mut Reading<'_>, query: &SeriesQuery) -> Result<Vec<SeriesPoint>, postgres::Error> {
    match query.interval {
        Interval::Minute => minutes(reading, query),
        Interval::Hour | Interval::Day => hours(reading, query),
    }
}

/// Distinct users of a minute are in raw rows alone, and then its count is there too.
fn minutes(reading: &mut Reading<'_>, query: &SeriesQuery) -> Result<Vec<SeriesPoint>, postgres::Error> {
    let (Some(first), Some(end)) = (query.edges_ms.first(), query.edges_ms.last()) else { return Ok(Vec::new()) };
    let mut points = vec![SeriesPoint::default(); query.edges_ms.len() - 1];
    let sql = format!(
        "SELECT {MINUTE}, count(*), count(DISTINCT user_id COLLATE \"C\") FROM events \
         WHERE {}{} GROUP BY 1",
        during("event_time", &(*first..*end)),
        query.event_type.map_or(String::new(), |kind| format!(" AND event_type = '{}'", kind.name())),
    );
    let first = first.div_euclid(MINUTE_MS);
    for row in reading.query(&sql, &[])? {
        let point = usize::try_from(row.get::<_, i64>(0) - first).ok().and_then(|at| points.get_mut(at));
        if let Some(point) = point {
            *point = SeriesPoint { count: number(&row, 1), users: number(&row, 2) };
        }
    }
    Ok(points)
}

/// Each bucket by itself, so that the server's plan is a walk through the key of the bucket's hours, however many there
/// are. Where a day begins within an hour, the parts of hours are read from raw rows.
fn hours(reading: &mut Reading<'_>, query: &SeriesQuery) -> Result<Vec<SeriesPoint>, postgres::Error> {
    let covers: Vec<Cover> = query.edges_ms.windows(2).map(|edge| cover(edge[0]..edge[1], None)).collect();
    let mut points = whole_hours(reading, query.event_type, &covers)?;
    for (point, cover) in points.iter_mut().zip(&covers).filter(|(_, cover)| !cover.raw.is_empty()) {
        let kind = of_type(query.event_type);
        let ranges: Vec<String> = cover.raw.iter().map(|range| format!("({})", during("event_time", range))).collect();
        let raw = format!("SELECT count(*) FROM events WHERE ({}){}", ranges.join(" OR "), kind.of_rows);
        point.count += reading.query(&raw, &[])?.first().map_or(0, |row| number(row, 0));
        point.users = distinct_users(reading, cover, &kind)?;
    }
    Ok(points)
}

fn whole_hours(
    reading: &mut Reading<'_>,
    kind: Option<EventType>,
    covers: &[Cover],
) -> Result<Vec<SeriesPoint>, postgres::Error> {
    let hours = |cover: &Cover| cover.hours.clone().unwrap_or(0..0);
    let (firsts, ends): (Vec<i64>, Vec<i64>) = covers.iter().map(hours).map(|range| (range.start, range.end)).unzip();
    let kind = of_type(kind);
    let sql = format!(
        "SELECT (SELECT coalesce(sum(count), 0)::int8 FROM rollup_hour \
                 WHERE dimension = 1 AND bucket >= p.first AND bucket < p.behind{}), \
                (SELECT count(*) FROM (SELECT DISTINCT user_id FROM user_hour \
                                       WHERE hour >= p.first AND hour < p.behind{}) AS u) \
         FROM unnest($1::int8[], $2::int8[]) WITH ORDINALITY AS p(first, behind, number) ORDER BY p.number",
        kind.of_rollup, kind.of_users
    );
    let rows = reading.query(&sql, &[(&firsts, Type::INT8_ARRAY), (&ends, Type::INT8_ARRAY)])?;
    Ok(rows.iter().map(|row| SeriesPoint { count: number(row, 0), users: number(row, 1) }).collect())
}

pub(super) fn users(session: &mut Session, from_ms: i64, to_ms: i64) -> Result<Option<u64>, Failure> {
    in_time(count_users(session, &cover(from_ms..to_ms, None)))
}

fn count_users(session: &mut Session, cover: &Cover) -> Result<u64, postgres::Error> {
    let (mut reading, kind) = (Reading::begin(session)?, of_type(None));
    if let Some(hours) = &cover.hours {
        let rest = |hours: &[Range<i64>]| seen_users(hours, &cover.raw, &kind);
        if let Some(users) = user_sets::count(&mut reading, hours, rest)? {
            return Ok(users);
        }
    }
    distinct_users(&mut reading, cover, &kind)
}

/// The conditions of a type, each with its AND.
struct OfType {
    of_rows: String,
    of_rollup: String,
    of_users: String,
}

fn of_type(kind: Option<EventType>) -> OfType {
    let write = |condition: &dyn Fn(EventType) -> String| kind.map_or(String::new(), condition);
    OfType {
        of_rows: write(&|kind| format!(" AND event_type = '{}'", kind.name())),
        of_rollup: write(&|kind| format!(" AND key = '{}'", kind.name())),
        of_users: write(&|kind| format!(" AND event_type = {}", kind as u8)),
    }
}

fn distinct_users(reading: &mut Reading<'_>, cover: &Cover, kind: &OfType) -> Result<u64, postgres::Error> {
    let Some(seen) = seen_users(cover.hours.as_slice(), &cover.raw, kind) else { return Ok(0) };
    let sql = format!("SELECT count(*) FROM (SELECT DISTINCT user_id FROM ({seen}) AS seen) AS u");
    Ok(reading.query(&sql, &[])?.first().map_or(0, |row| number(row, 0)))
}

/// `SELECT user_id` of hours and of raw rows, some more than once; `None` where there are neither.
fn seen_users(hours: &[Range<i64>], raw: &[Range<i64>], kind: &OfType) -> Option<String> {
    let of_hours = hours.iter().map(|Range { start, end }| {
        format!("SELECT user_id FROM user_hour WHERE hour >= {start} AND hour < {end}{}", kind.of_users)
    });
    let of_rows = raw.iter().map(|range| {
        let during = during("event_time", range);
        format!("SELECT user_id COLLATE \"C\" FROM events WHERE {during}{} AND user_id IS NOT NULL", kind.of_rows)
    });
    let all: Vec<String> = of_hours.chain(of_rows).collect();
    (!all.is_empty()).then(|| all.join(" UNION ALL "))
}

fn number(row: &Row, column: usize) -> u64 {
    row.get::<_, i64>(column).max(0).cast_unsigned()
}
