//! The first names of a ranking, without reading the others.
//!
//! Fagin's threshold algorithm: of each bucket the names with the highest counts are read, down to a depth; a name that
//! is among none of them sums up to no more than the lowest counts read, taken together. Once the names that are wanted
//! have more than that, nobody can come before them. What such names sum up to is looked up, name by name. (R. Fagin,
//! A. Lotem, M. Naor: Optimal aggregation algorithms for middleware, 2003.)

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;

use super::exact::{Terms, has_many_open, listed};
use super::plan::{SCORE_NOTHING, sort_ranked};
use crate::events::Dimension;
use crate::limits::{LEADERS_DEEPER, LEADERS_DEPTH_MAX, LEADERS_DEPTH_MORE, LEADERS_NAMES_MAX, LEADERS_STEP};
use crate::ports::RankingQuery;

/// A bucket, its names in the order of their counts.
#[derive(Clone, Debug, PartialEq)]
pub struct List {
    /// Of `rollup_span`; else of `rollup_day`.
    pub is_span: bool,
    /// A day that is taken off: its counts below zero, the lowest first and turned round. So much more has a name without it.
    pub is_taken_off: bool,
    pub dimension: Dimension,
    pub bucket: i64,
    /// What its counts are multiplied by, 0 or more.
    pub weight: f64,
    /// What it has of a name, times this, is a part of the name's sum; 0 where it is there for the bound alone.
    pub counted: f64,
}

/// What a name was seen with in lists.
#[derive(Clone, Debug)]
struct Seen {
    /// What its counts, each times its weight, are above the lowest read of their list, taken together.
    beyond: f64,
    /// Its counts in lists that count: number of the list, count.
    found: Vec<(usize, i64)>,
}

/// A name whose sum is wanted, with its counts in lists that count, as far as they were read: number of the list, count.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'h> {
    pub name: &'h str,
    pub found: &'h [(usize, i64)],
}

/// The highest names of some lists.
#[derive(Clone, Debug, Default)]
pub struct Heads {
    names: HashMap<String, Seen>,
    /// The sum of the lowest counts read, each times its weight, of lists that hold more; none below 0.
    pub bound: f64,
}

impl Heads {
    /// Adds the `depth` highest names of a list, fewer where it has no more: in any order, counts not weighed yet.
    pub fn add(&mut self, number: usize, list: &List, depth: usize, head: &[(impl AsRef<str>, i64)]) {
        let counts = head.iter().map(|(_, count)| *count);
        let lowest = counts.min().filter(|_| head.len() == depth).unwrap_or(0).max(0);
        self.bound += lowest as f64 * list.weight;
        for (name, count) in head {
            let name = name.as_ref();
            let beyond = (count - lowest) as f64 * list.weight;
            let found = (list.counted > 0.0).then_some((number, *count));
            match self.names.get_mut(name) {
                Some(seen) => {
                    seen.beyond += beyond;
                    seen.found.extend(found);
                }
                None => {
                    let seen = Seen { beyond, found: found.into_iter().collect() };
                    self.names.insert(name.to_owned(), seen);
                }
            }
        }
    }
}

/// The part of a ranking that is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    /// Behind this score and name.
    pub after: Option<(f64, &'a str)>,
    /// About how many are before it: how deep and in which steps it is looked depends on this, and whether at all. What is found
    /// does not.
    pub before: usize,
    pub limit: usize,
}

impl<'a> Page<'a> {
    pub fn first(limit: usize) -> Page<'a> {
        Page { after: None, before: 0, limit }
    }

    pub fn of(query: &'a RankingQuery) -> Page<'a> {
        let after = query.after.as_ref().map(|(sum, name)| (*sum as f64, name.as_str()));
        Page { after, before: query.before, limit: query.limit }
    }
}

/// Where counts are read from.
pub trait Counts {
    type Error;

    /// The `depth` highest names of each list.
    fn heads(&mut self, depth: usize) -> Result<Heads, Self::Error>;

    /// What each name sums up to in the lists' part of the range, in the order of `wanted`.
    fn sums(&mut self, wanted: &[Wanted<'_>]) -> Result<Vec<f64>, Self::Error>;
}

/// The lists of some terms, whose ranges of time share nothing. Likes may be taken back: their parts of days are bound by no list
/// of the day, and read whole (`open_sql`); of a span without some days they are no more than the span and what was
/// taken back on these.
fn lists(terms: &[Terms]) -> Vec<List> {
    let mut lists: BTreeMap<(bool, bool, u8, i64), List> = BTreeMap::new();
    for Terms { dimension, weight, sums } in terms {
        let is_of_likes = *dimension == Dimension::PostLikes;
        let of_hours = sums.hours.iter().filter(|(_, times)| *times > 0 && !is_of_likes);
        // A part of a day is no more than the day.
        let days = sums.days.iter().cloned().flatten().map(|day| (false, false, day, *weight));
        let parts = of_hours.map(|(hour, _)| (false, false, hour.div_euclid(24), 0.0));
        let whole = sums.spans.clone().map(|bucket| (true, false, bucket, *weight));
        let taken_off = sums.days_off.clone().filter(|_| is_of_likes).map(|day| (false, true, day, 0.0));
        for (is_span, is_taken_off, bucket, counted) in whole.chain(days).chain(parts).chain(taken_off) {
            let list = List { is_span, is_taken_off, dimension: *dimension, bucket, weight: *weight, counted: 0.0 };
            let kept = lists.entry((is_span, is_taken_off, *dimension as u8, bucket)).or_insert(list);
            kept.weight = kept.weight.max(*weight);
            kept.counted += counted;
        }
    }
    lists.into_values().collect()
}

/// What a ranking's first names are read from, and what a name's sum is then made of.
#[derive(Clone, Debug)]
pub struct Led {
    pub lists: Vec<List>,
    /// The sum, without what [`besides`] knows.
    pub terms: Vec<Terms>,
    /// … and without what lists have.
    pub without_lists: Vec<Terms>,
}

/// `None` where all names have to be read: there are no lists, or so many hours that are in none.
pub fn led_by(terms: &[Terms]) -> Option<Led> {
    if has_many_open(terms) {
        return None;
    }
    let (lists, terms) = (lists(terms), listed(terms));
    let mut without_lists = terms.clone();
    for term in &mut without_lists {
        term.sums.spans = 0..0;
        term.sums.days.clear();
    }
    (!lists.is_empty()).then_some(Led { lists, terms, without_lists })
}

/// What names have besides the lists, added up: by raw rows, and by what is open.
pub fn besides<'a>(
    raw: impl ExactSizeIterator<Item = (&'a str, f64)>,
    open: impl ExactSizeIterator<Item = (&'a str, f64)>,
) -> HashMap<&'a str, f64> {
    let mut known: HashMap<&str, f64> = HashMap::with_capacity(raw.len() + open.len());
    for (name, count) in raw.chain(open) {
        *known.entry(name).or_default() += count;
    }
    known
}

/// The names of a page, by score, then name. `known` is what names have besides the lists. `None`: the counts are too even,
/// nothing but reading all of them would tell.
pub fn leaders<C: Counts, S: BuildHasher>(
    counts: &mut C,
    known: &HashMap<&str, f64, S>,
    page: Page<'_>,
) -> Result<Option<Vec<(String, f64)>>, C::Error> {
    let Page { after, before, limit } = page;
    let mut scores: HashMap<String, f64> = HashMap::new();
    let wanted = before.saturating_add(limit);
    if wanted > LEADERS_DEPTH_MAX {
        return Ok(None);
    }
    let mut depth = (wanted + wanted / 4 + LEADERS_DEPTH_MORE).min(LEADERS_DEPTH_MAX);
    loop {
        let Heads { names, bound } = counts.heads(depth)?;
        // No name can have more than what it was seen with and the bound together: the most promising first.
        let mut most: Vec<(Wanted<'_>, f64)> = Vec::with_capacity(names.len() + known.len());
        most.extend(names.iter().map(|(name, Seen { beyond, found })| {
            (Wanted { name, found }, beyond + known.get(name.as_str()).copied().unwrap_or_default())
        }));
        let unseen = known.iter().filter(|(name, _)| !names.contains_key(**name));
        most.extend(unseen.map(|(name, has)| (Wanted { name, found: &[] }, *has)));
        most.retain(|(wanted, _)| !scores.contains_key(wanted.name));
        most.sort_unstable_by(|one, other| one.1.total_cmp(&other.1));
        // Twice as many each time: where counts are so even that many have to be looked up, they are few steps.
        let mut step = (wanted + wanted / 4).max(LEADERS_STEP);
        while let Some((_, highest)) = most.last() {
            let lowest = lowest_wanted(&scores, after, limit).unwrap_or(f64::MIN_POSITIVE);
            if highest + bound < lowest {
                break;
            }
            if scores.len() > LEADERS_NAMES_MAX {
                return Ok(None);
            }
            let open = most.len() - most.partition_point(|(_, beyond)| beyond + bound < lowest);
            let next = most.split_off(most.len() - open.min(step).min(LEADERS_NAMES_MAX + 1 - scores.len()));
            step *= 2;
            look_up(counts, next.into_iter().map(|(wanted, _)| wanted).collect(), known, &mut scores)?;
            // As it is, somebody unseen might have as much. To look up more may change that; to look deeper mostly takes less.
            let is_bound = bound > 0.0 && lowest_wanted(&scores, after, limit).is_none_or(|lowest| lowest <= bound);
            if is_bound && depth < LEADERS_DEPTH_MAX {
                break;
            }
        }
        if bound <= 0.0 || lowest_wanted(&scores, after, limit).is_some_and(|lowest| lowest > bound) {
            let behind: Vec<_> = scores.into_iter().filter(|(name, score)| is_behind(name, *score, after)).collect();
            return Ok(Some(sort_ranked(behind, limit)));
        }
        if depth == LEADERS_DEPTH_MAX {
            return Ok(None);
        }
        depth = (depth * LEADERS_DEEPER).min(LEADERS_DEPTH_MAX);
    }
}

fn look_up<C: Counts, S: BuildHasher>(
    counts: &mut C,
    mut wanted: Vec<Wanted<'_>>,
    known: &HashMap<&str, f64, S>,
    scores: &mut HashMap<String, f64>,
) -> Result<(), C::Error> {
    wanted.sort_unstable_by_key(|wanted| wanted.name);
    let sums = counts.sums(&wanted)?;
    for (Wanted { name, .. }, sum) in wanted.into_iter().zip(sums) {
        scores.insert(name.to_owned(), sum + known.get(name).copied().unwrap_or_default());
    }
    Ok(())
}

fn is_behind(name: &str, score: f64, after: Option<(f64, &str)>) -> bool {
    score > SCORE_NOTHING && after.is_none_or(|(last, last_name)| score < last || score == last && name > last_name)
}

/// The score of the last name that is asked for; `None` where there are not so many yet.
fn lowest_wanted(scores: &HashMap<String, f64>, after: Option<(f64, &str)>, limit: usize) -> Option<f64> {
    let mut behind: Vec<f64> =
        scores.iter().filter(|(name, score)| is_behind(name, **score, after)).map(|(_, score)| *score).collect();
    let at = limit.checked_sub(1).filter(|at| *at < behind.len())?;
    let (_, lowest, _) = behind.select_nth_unstable_by(at, |one, other| other.total_cmp(one));
    Some(*lowest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};
    use std::convert::Infallible;

    const LIST: List = List {
        is_span: false,
        is_taken_off: false,
        dimension: Dimension::Keyword,
        bucket: 0,
        weight: 1.0,
        counted: 1.0,
    };

    /// Lists of names with counts.
    struct Plain(Vec<HashMap<String, i64>>);

    impl Counts for Plain {
        type Error = Infallible;

        fn heads(&mut self, depth: usize) -> Result<Heads, Infallible> {
            let mut heads = Heads::default();
            for list in &self.0 {
                let mut rows: Vec<_> = list.iter().collect();
                rows.sort_by(|a, b| b.1.cmp(a.1));
                rows.truncate(depth);
                let head: Vec<_> = rows.into_iter().map(|(name, count)| (name, *count)).collect();
                heads.add(0, &LIST, depth, &head);
            }
            Ok(heads)
        }

        fn sums(&mut self, wanted: &[Wanted<'_>]) -> Result<Vec<f64>, Infallible> {
            let sum = |of: &Wanted<'_>| self.0.iter().filter_map(|list| list.get(of.name)).sum::<i64>() as f64;
            Ok(wanted.iter().map(sum).collect())
        }
    }

    #[test]
    fn page_after_page_is_what_reading_everything_gives() {
        let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random::<u64>);
        eprintln!("SEED={seed}");
        let mut random = StdRng::seed_from_u64(seed);
        for round in 0..200 {
            // Mostly few: each page reads all names again.
            let names = random.random_range(1..[50, 150, 400][round / 3 % 3]);
            let spread = [3, 50, 5_000][round % 3];
            let mut list = |lowest: i64| -> HashMap<String, i64> {
                let some = random.random_range(0..2 * names);
                let row = |_| (format!("n{}", random.random_range(0..names)), random.random_range(lowest..spread));
                (0..some).map(row).collect()
            };
            let mut plain = Plain(vec![list(0), list(0), list(-3), list(1)]);
            let besides = list(-2);
            let known: HashMap<&str, f64> = besides.iter().map(|(name, n)| (name.as_str(), *n as f64)).collect();
            let mut all: HashMap<String, f64> = known.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect();
            for (name, count) in plain.0.iter().flatten() {
                *all.entry(name.clone()).or_default() += *count as f64;
            }
            let expected = sort_ranked(all.into_iter().collect(), usize::MAX);
            let mut after: Option<(String, f64)> = None;
            let mut read = Vec::new();
            // It is a hint, and changes nothing where it is wrong.
            let before = |read: usize| [0, read, LEADERS_DEPTH_MAX - 10][round % 3];
            loop {
                let from = after.as_ref().map(|(name, score)| (*score, name.as_str()));
                let wanted = Page { after: from, before: before(read.len()), limit: 1 + round % 7 };
                let page = leaders(&mut plain, &known, wanted).unwrap().expect("few names");
                let Some(last) = page.last() else { break };
                after = Some(last.clone());
                read.extend(page);
            }
            assert_eq!(read, expected);
        }
    }

    /// What a deleted post had is taken back on one day: nobody else has more for that.
    #[test]
    fn one_who_lost_much_on_a_day_that_is_taken_off_is_looked_up_and_keeps_no_page_from_being_found() {
        struct Lost {
            heads_read: usize,
            looked_up: Vec<String>,
        }
        impl Counts for Lost {
            type Error = Infallible;
            fn heads(&mut self, depth: usize) -> Result<Heads, Infallible> {
                self.heads_read += 1;
                let mut heads = Heads::default();
                let names: Vec<(String, i64)> = (0..depth as i64).map(|n| (format!("p{n}"), 5_000 / (n + 1))).collect();
                heads.add(0, &LIST, depth, &names);
                heads.add(1, &List { is_taken_off: true, counted: 0.0, ..LIST }, depth, &[("deleted", 9_000)]);
                Ok(heads)
            }
            fn sums(&mut self, wanted: &[Wanted<'_>]) -> Result<Vec<f64>, Infallible> {
                self.looked_up.extend(wanted.iter().map(|wanted| wanted.name.to_owned()));
                let in_list = |found: &[(usize, i64)]| found.iter().map(|(_, count)| *count as f64).sum::<f64>();
                Ok(wanted
                    .iter()
                    .map(|wanted| if wanted.name == "deleted" { 7_000.0 } else { in_list(wanted.found) })
                    .collect())
            }
        }
        let mut lost = Lost { heads_read: 0, looked_up: Vec::new() };
        let page = leaders(&mut lost, &HashMap::new(), Page::first(3)).unwrap().expect("found");
        assert_eq!(page.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["deleted", "p0", "p1"]);
        assert!(lost.heads_read == 1 && lost.looked_up.len() <= 16, "{:?}", lost.looked_up);
    }

    #[test]
    fn a_page_behind_more_names_than_lists_are_read_of_is_not_looked_for() {
        let page = Page { after: Some((1.0, "x")), before: LEADERS_DEPTH_MAX, limit: 1 };
        struct Nothing;
        impl Counts for Nothing {
            type Error = Infallible;
            fn heads(&mut self, _: usize) -> Result<Heads, Infallible> {
                panic!("nothing is read")
            }
            fn sums(&mut self, _: &[Wanted<'_>]) -> Result<Vec<f64>, Infallible> {
                panic!("nothing is read")
            }
        }
        assert!(leaders(&mut Nothing, &HashMap::new(), page).unwrap().is_none());
    }
}
