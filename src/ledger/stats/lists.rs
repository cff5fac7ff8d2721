//! The lists of a ranking in the store: heads of buckets in the order of their counts, and sums of names.

use super::exact::{Terms, name_sum_sql};
use super::leaders::{Counts, Heads, Led, List, Wanted};
use crate::ledger::sql::{Cell, Column, Dialect, Sql, Value};
use crate::limits::LEADERS_MISSING_MAX;
use crate::ports::StoreError;

pub struct Lists<'s, 'q> {
    sql: &'s mut (dyn Sql + 'q),
    led: Led,
    /// Lists that were read to their end.
    ends: Vec<bool>,
}

impl<'s, 'q> Lists<'s, 'q> {
    pub fn new(sql: &'s mut (dyn Sql + 'q), led: Led) -> Lists<'s, 'q> {
        let ends = vec![false; led.lists.len()];
        Lists { sql, led, ends }
    }
}

impl Counts for Lists<'_, '_> {
    type Error = StoreError;

    fn heads(&mut self, depth: usize) -> Result<Heads, StoreError> {
        let found = match self.sql.dialect() {
            Dialect::Postgres => all_heads(self.sql, &self.led.lists, depth)?,
            Dialect::Sqlite => each_head(self.sql, &self.led.lists, depth)?,
        };
        let mut heads = Heads::default();
        for (number, (list, head)) in self.led.lists.iter().zip(&found).enumerate() {
            heads.add(number, list, depth, head);
            self.ends[number] |= head.len() < depth;
        }
        Ok(heads)
    }

    /// A name that most lists were read down to is looked up in the others alone.
    fn sums(&mut self, wanted: &[Wanted<'_>]) -> Result<Vec<f64>, StoreError> {
        let mut sums = vec![0.0; wanted.len()];
        let (mut missing, mut known, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
        for (at, Wanted { found, .. }) in wanted.iter().enumerate() {
            // A name that is not in a list that was read to its end has nothing there.
            let mut is_settled = self.ends.clone();
            found.iter().for_each(|(number, _)| is_settled[*number] = true);
            let lists = self.led.lists.iter().zip(is_settled);
            let absent: Vec<&List> =
                lists.filter(|(list, is_settled)| list.counted > 0.0 && !is_settled).map(|(list, _)| list).collect();
            if absent.len() > LEADERS_MISSING_MAX {
                unknown.push(at);
            } else {
                sums[at] = found.iter().map(|(number, count)| *count as f64 * self.led.lists[*number].counted).sum();
                missing.extend(absent.into_iter().map(|list| (at, list)));
                known.push(at);
            }
        }
        for (count, (at, list)) in look_up(self.sql, wanted, &missing)?.into_iter().zip(&missing) {
            sums[*at] += count as f64 * list.counted;
        }
        for (some, terms) in [(&known, &self.led.without_lists), (&unknown, &self.led.terms)] {
            let names = some.iter().map(|at| wanted[*at].name).collect();
            for (at, sum) in some.iter().zip(name_sums(self.sql, terms, names)?) {
                sums[*at] += sum;
            }
        }
        Ok(sums)
    }
}

type Head = Vec<(String, i64)>;

/// Table, count and order of a list.
type Source = (&'static str, &'static str, &'static str);

fn source(list: &List) -> Source {
    match list {
        List { is_taken_off: true, .. } => ("rollup_day", "-count", "AND count < 0 ORDER BY count"),
        List { is_span: true, .. } => ("rollup_span", "count", "ORDER BY count DESC"),
        List { .. } => ("rollup_day", "count", "ORDER BY count DESC"),
    }
}

fn each_head(sql: &mut dyn Sql, lists: &[List], depth: usize) -> Result<Vec<Head>, StoreError> {
    let mut heads = Vec::with_capacity(lists.len());
    for list in lists {
        let (table, count, order) = source(list);
        let query = format!(
            "SELECT key, {count} FROM {table} WHERE dimension = $1 AND bucket = $2 AND dimension BETWEEN 2 AND 8 {order} LIMIT $3"
        );
        let values = [list.dimension as i64, list.bucket, depth as i64].map(Value::Int);
        let mut rows = sql.query(&query, &values)?;
        heads.push(rows.iter_mut().map(|row| (row.take_text(0), row.int(1))).collect());
    }
    Ok(heads)
}

/// In one statement, with one row per list. A join and a group over their rows took the server three times as long as reading.
fn all_heads(sql: &mut dyn Sql, lists: &[List], depth: usize) -> Result<Vec<Head>, StoreError> {
    let mut kinds: Vec<(Source, Vec<usize>)> = Vec::new();
    for (number, list) in lists.iter().enumerate() {
        let of = source(list);
        match kinds.iter_mut().find(|(kind, _)| *kind == of) {
            Some((_, numbers)) => numbers.push(number),
            None => kinds.push((of, vec![number])),
        }
    }
    let columns: Vec<[Column<'_>; 3]> = kinds.iter().map(|(_, numbers)| columns_of(lists, numbers)).collect();
    let parts: Vec<String> = kinds
        .iter()
        .enumerate()
        .map(|(at, ((table, count, order), _))| {
            let rows =
                sql.dialect().rows(1 + 3 * at, &[("list", "bigint"), ("dimension", "bigint"), ("bucket", "bigint")]);
            format!(
                "SELECT r.list, h.keys, h.counts FROM {rows} \
                 CROSS JOIN LATERAL (SELECT array_agg(key) AS keys, array_agg({count}) AS counts \
                   FROM (SELECT key, count FROM {table} AS d WHERE d.dimension = r.dimension AND d.bucket = r.bucket \
                           AND d.dimension BETWEEN 2 AND 8 {order} LIMIT {depth}) AS head) AS h"
            )
        })
        .collect();
    let values: Vec<Value<'_>> = columns.iter().map(|columns| Value::Rows(columns)).collect();
    let mut heads = vec![Head::new(); lists.len()];
    sql.each(&parts.join(" UNION ALL "), &values, &mut |row| {
        let list = row.int(0) as usize;
        // Of no names there is no array.
        if let Ok([_, Cell::Texts(names), Cell::Ints(counts)]) = <[Cell; 3]>::try_from(row.0) {
            heads[list] = names.into_iter().zip(counts).collect();
        }
        Ok(())
    })?;
    Ok(heads)
}

fn columns_of(lists: &[List], numbers: &[usize]) -> [Column<'static>; 3] {
    let of = |value: &dyn Fn(usize) -> i64| Column::Ints(numbers.iter().map(|number| value(*number)).collect());
    [of(&|number| number as i64), of(&|number| lists[number].dimension as i64), of(&|number| lists[number].bucket)]
}

/// Counts of names in lists whose head does not have them, by the key.
fn look_up(sql: &mut dyn Sql, wanted: &[Wanted<'_>], missing: &[(usize, &List)]) -> Result<Vec<i64>, StoreError> {
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    let of = |table: &str| {
        format!(
            "(SELECT count FROM {table} AS t WHERE t.dimension = r.dimension AND t.key = r.key AND t.bucket = r.bucket)"
        )
    };
    let rows =
        sql.dialect().rows(1, &[("key", "text"), ("is_span", "bigint"), ("dimension", "bigint"), ("bucket", "bigint")]);
    let query = format!(
        "SELECT coalesce(CASE is_span WHEN 1 THEN {} ELSE {} END, 0) FROM {rows} ORDER BY r.number",
        of("rollup_span"),
        of("rollup_day")
    );
    let ints = |value: &dyn Fn(&List) -> i64| Column::Ints(missing.iter().map(|(_, list)| value(list)).collect());
    let columns = [
        Column::Texts(missing.iter().map(|(at, _)| wanted[*at].name).collect()),
        ints(&|list| i64::from(list.is_span)),
        ints(&|list| list.dimension as i64),
        ints(&|list| list.bucket),
    ];
    sql.numbers(&query, &[Value::Rows(&columns)])
}

/// Sums of names, in their order.
fn name_sums(sql: &mut dyn Sql, terms: &[Terms], names: Vec<&str>) -> Result<Vec<f64>, StoreError> {
    let is_nothing = |Terms { sums, .. }: &Terms| {
        sums.spans.is_empty() && sums.days.is_empty() && sums.hours.is_empty() && sums.days_off.is_empty()
    };
    if names.is_empty() || terms.iter().all(is_nothing) {
        return Ok(Vec::new());
    }
    let sum = name_sum_sql(terms, "r.key", false);
    let rows = sql.dialect().rows(1, &[("key", "text")]);
    let query = format!("SELECT CAST({sum} AS double precision) FROM {rows} ORDER BY r.number");
    Ok(sql.query(&query, &[Value::Rows(&[Column::Texts(names)])])?.iter().map(|row| row.real(0)).collect())
}
