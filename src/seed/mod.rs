//! Synthetic events: skewed as real ones are, and the same for the same seed.
//!
//! Owns what the events say; where they go is the caller's business. Users, posts and keywords are
//! drawn from Zipf's distribution, keywords are Korean and English, times run evenly to the end of
//! the span: events come in their order.

mod posts;
mod words;

pub use posts::post;

use rand::rngs::ChaCha8Rng;
use rand::{Rng, RngExt, SeedableRng};
use rand_distr::{Distribution, Zipf};

use crate::events::{Event, EventType};
use words::keyword;

/// Shares of the types; need not add up to anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mix(Vec<(EventType, u32)>);

#[derive(Clone, Debug)]
pub struct Plan {
    pub events: u64,
    pub users: u64,
    pub posts: u64,
    pub keywords: u64,
    /// Exponent of Zipf's distribution: 0 is even, 1.1 gives the first of 10,000 about an eighth.
    pub skew: f64,
    pub mix: Mix,
    /// Milliseconds since 1970: the first event's time, and the end of the span.
    pub from_ms: i64,
    pub to_ms: i64,
    pub seed: u64,
}

/// The events of a plan, in the order of their time.
pub struct Events {
    plan: Plan,
    random: ChaCha8Rng,
    users: Zipf<f64>,
    posts: Zipf<f64>,
    keywords: Zipf<f64>,
    made: u64,
}

/// Percentage of events without a user.
const ANONYMOUS_PERCENT: u32 = 20;
/// Components of the synthetic site.
const COMPONENTS: u64 = 200;
/// Searches for every 17th keyword find no post.
const EMPTY_KEYWORD_EVERY: u64 = 17;

impl Mix {
    /// Reads `click=40,page_view=35,…`.
    pub fn parse(text: &str) -> Result<Mix, String> {
        let share = |part: &str| {
            let (name, weight) = part.split_once('=')?;
            Some((EventType::from_name(name.trim())?, weight.trim().parse::<u32>().ok()?))
        };
        let shares: Option<Vec<_>> = text.split(',').map(share).collect();
        match shares {
            Some(shares) if shares.iter().any(|(_, weight)| *weight > 0) => Ok(Mix(shares)),
            _ => Err(format!("`{text}` is not like click=40,page_view=35,search=20,like=5")),
        }
    }

    fn draw(&self, random: &mut impl Rng) -> EventType {
        let total: u64 = self.0.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let mut at = random.random_range(0..total);
        for (event_type, weight) in &self.0 {
            let weight = u64::from(*weight);
            if at < weight {
                return *event_type;
            }
            at -= weight;
        }
        unreachable!("the number is below the sum of the weights")
    }
}

impl Plan {
    /// The events, from the first one on. The error names what is out of bounds.
    pub fn start(self) -> Result<Events, String> {
        let zipf = |name: &str, number: u64| {
            Zipf::new(number as f64, self.skew).map_err(|error| format!("{name} {number}, skew {}: {error}", self.skew))
        };
        if self.from_ms >= self.to_ms {
            return Err("the span of time is empty".to_owned());
        }
        let (users, posts) = (zipf("users", self.users)?, zipf("posts", self.posts)?);
        let keywords = zipf("keywords", self.keywords)?;
        let random = ChaCha8Rng::seed_from_u64(self.seed);
        Ok(Events { plan: self, random, users, posts, keywords, made: 0 })
    }
}

impl Iterator for Events {
    type Item = Event<'static>;

    fn next(&mut self) -> Option<Event<'static>> {
        if self.made >= self.plan.events {
            return None;
        }
        let span = i128::from(self.plan.to_ms - self.plan.from_ms);
        let at_ms = self.plan.from_ms + (span * i128::from(self.made) / i128::from(self.plan.events)) as i64;
        self.made += 1;
        Some(self.event(at_ms))
    }
}

impl Events {
    fn event(&mut self, at_ms: i64) -> Event<'static> {
        let event_type = self.plan.mix.draw(&mut self.random);
        let user = self.users.sample(&mut self.random) as u64;
        let post = self.posts.sample(&mut self.random) as u64;
        let keyword_rank = self.keywords.sample(&mut self.random) as u64;
        let component = self.random.random_range(1..=COMPONENTS);
        let results = self.random.random_range(1..200);
        let is_anonymous = self.random.random_range(0..100) < ANONYMOUS_PERCENT && !event_type.is_like();
        let is_on_post = self.random.random_range(0..2) == 0;
        let mut noise = [0; 10];
        self.random.fill_bytes(&mut noise);
        let at = u64::try_from(at_ms).unwrap_or(0);
        let id = uuid::Builder::from_unix_timestamp_millis(at, &noise).into_uuid();
        let mut event = Event {
            id_from_client: true,
            user_id: (!is_anonymous).then(|| format!("u{user}").into()),
            session_id: Some(format!("s{user}-{}", at_ms.div_euclid(3_600_000)).into()),
            ..Event::new(id, event_type, at_ms)
        };
        match event_type {
            EventType::Click => {
                event.component_id = Some(component.cast_signed());
                event.post_id = is_on_post.then(|| format!("p{post}").into());
            }
            EventType::PageView => {
                event.url = Some(format!("https://example.org/posts/{post}?from=feed").into());
                event.referrer = is_on_post.then(|| "https://example.org/".into());
                event.post_id = Some(format!("p{post}").into());
            }
            EventType::Search => {
                event.keyword = Some(keyword(keyword_rank).into());
                event.result_count = Some(if keyword_rank.is_multiple_of(EMPTY_KEYWORD_EVERY) { 0 } else { results });
            }
            EventType::Like | EventType::Unlike | EventType::Toggle => event.post_id = Some(format!("p{post}").into()),
        }
        event
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{HashMap, HashSet};

    fn plan(events: u64, seed: u64) -> Plan {
        let mix = Mix::parse("click=40,page_view=35,search=20,like=5").unwrap();
        let (from_ms, to_ms) = (1_795_000_000_000, 1_795_600_000_000);
        Plan { events, users: 1_000, posts: 100, keywords: 500, skew: 1.1, mix, from_ms, to_ms, seed }
    }

    #[test]
    fn the_same_seed_makes_the_same_events_in_the_order_of_time() {
        let make = |seed| plan(2_000, seed).start().unwrap().collect::<Vec<_>>();
        let events = make(7);
        assert_eq!(events, make(7));
        assert_ne!(events, make(8));
        assert!(events.is_sorted_by_key(|event| event.event_time_ms));
        assert_eq!(events.iter().map(|event| event.id).collect::<HashSet<_>>().len(), 2_000);
        assert!(events.iter().all(|event| (event.event_type.strategy().missing)(event).is_none()));
        let last = events.last().unwrap().event_time_ms;
        assert!((1_795_599_000_000..1_795_600_000_000).contains(&last), "{last}");
    }

    #[test]
    fn a_few_names_are_most_of_the_events() {
        let mut users: HashMap<String, u32> = HashMap::new();
        for event in plan(20_000, 1).start().unwrap() {
            *users.entry(event.session_id.unwrap().split('-').next().unwrap().to_owned()).or_default() += 1;
        }
        let mut counts: Vec<u32> = users.into_values().collect();
        counts.sort_unstable_by_key(|count| std::cmp::Reverse(*count));
        let top: u32 = counts[..10].iter().sum();
        assert!((6_000..14_000).contains(&top) && counts.len() > 500, "{top} of {} users", counts.len());
    }

    #[test]
    fn what_is_out_of_bounds_is_named() {
        assert!(Mix::parse("click=40,hover=2").is_err() && Mix::parse("click=0").is_err() && Mix::parse("").is_err());
        assert!(Plan { users: 0, ..plan(1, 1) }.start().err().unwrap().contains("users"));
        assert!(Plan { skew: -1.0, ..plan(1, 1) }.start().is_err());
        assert!(Plan { to_ms: 0, ..plan(1, 1) }.start().is_err());
    }
}
