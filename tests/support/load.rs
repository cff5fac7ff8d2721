//! A load that knows what it did, and the oracle that compares it with what the stores say.
//!
//! Each client has one request under way and sends it again, with the same ids, until it is acknowledged: so the order
//! in which a client issued its events is the order in which the journal has them, crashes or not. A request with an
//! id that the server chooses is sent once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use uuid::Uuid;

use super::bench::Bench;
use super::client::{Answer, Client};
use super::wait_until;

/// How long a client goes on trying after it was told to end.
const FINISH_WAIT: Duration = Duration::from_secs(30);

/// Rows of a load: a test may add events of its own.
const OURS: &str = "user_id LIKE 'c%-u%'";

pub(crate) struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<History>>,
}

struct Shared {
    address: Mutex<SocketAddr>,
    is_over: AtomicBool,
    acknowledged: AtomicU64,
}

/// What clients did, in the order in which they did it.
#[derive(Default)]
pub(crate) struct History {
    issued: Vec<Issued>,
    /// Answers that were no 2xx, and requests without an answer.
    pub(crate) failures: Vec<String>,
    pub(crate) slowest: Duration,
}

struct Issued {
    /// Names the event in the ledger (`session_id`), whoever chose its id.
    marker: String,
    id: Option<Uuid>,
    is_acknowledged: bool,
    /// User, post, liked.
    like: Option<(String, String, bool)>,
}

impl Load {
    pub(crate) fn start(address: SocketAddr, clients: u64, seed: u64) -> Load {
        let shared = Shared { address: Mutex::new(address), is_over: false.into(), acknowledged: 0.into() };
        let shared = Arc::new(shared);
        let run = |number: u64| {
            let random = StdRng::seed_from_u64(seed.wrapping_add(number));
            let shared = shared.clone();
            std::thread::spawn(move || OneClient::new(number, random, shared).run())
        };
        Load { clients: (0..clients).map(run).collect(), shared }
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::SeqCst)
    }

    /// Waits until this many more events are acknowledged.
    pub(crate) fn goes_on(&self, events: u64) {
        let target = self.acknowledged() + events;
        wait_until(FINISH_WAIT, || self.acknowledged(), |acknowledged| *acknowledged >= target);
    }

    pub(crate) fn point_at(&self, address: SocketAddr) {
        *self.shared.address.lock().unwrap() = address;
    }

    /// Ends the load once every request under way is acknowledged.
    pub(crate) fn finish(self) -> History {
        self.shared.is_over.store(true, Ordering::SeqCst);
        let mut all = History::default();
        for client in self.clients {
            let one = client.join().expect("a client");
            all.issued.extend(one.issued);
            all.failures.extend(one.failures);
            all.slowest = all.slowest.max(one.slowest);
        }
        all
    }
}

struct OneClient {
    number: u64,
    made: u64,
    random: StdRng,
    shared: Arc<Shared>,
    connection: Option<(SocketAddr, Client)>,
    history: History,
}

impl OneClient {
    fn new(number: u64, random: StdRng, shared: Arc<Shared>) -> OneClient {
        OneClient { number, made: 0, random, shared, connection: None, history: History::default() }
    }

    fn run(mut self) -> History {
        while !self.shared.is_over.load(Ordering::SeqCst) {
            match self.random.random_range(0..10) {
                0..5 => self.send_single(),
                5 => self.send_once(),
                _ => self.send_batch(),
            }
            // Faults take time, not speed: two cores also carry the stores.
            std::thread::sleep(Duration::from_millis(self.random.random_range(0..3)));
        }
        self.history
    }

    fn send_single(&mut self) {
        let event = self.event(true);
        self.send_until_acknowledged(&event, 1);
    }

    fn send_batch(&mut self) {
        let count = self.random.random_range(1..30);
        let events: Vec<Value> = (0..count).map(|_| self.event(true)).collect();
        self.send_until_acknowledged(&Value::Array(events), count);
    }

    fn send_once(&mut self) {
        let event = self.event(false);
        let Some(answer) = self.send(&event) else { return };
        let issued = self.history.issued.last_mut().expect("just issued");
        issued.id = answer.json()["eventId"].as_str().map(|id| id.parse().expect("a UUID"));
        issued.is_acknowledged = true;
        self.shared.acknowledged.fetch_add(1, Ordering::SeqCst);
    }

    fn send_until_acknowledged(&mut self, body: &Value, count: usize) {
        let mut over_since = None;
        while self.send(body).is_none() {
            if self.shared.is_over.load(Ordering::SeqCst) {
                let since = *over_since.get_or_insert_with(Instant::now);
                if since.elapsed() > FINISH_WAIT {
                    return self.history.failures.push(format!("never acknowledged: {body}"));
                }
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let from = self.history.issued.len() - count;
        self.history.issued[from..].iter_mut().for_each(|issued| issued.is_acknowledged = true);
        self.shared.acknowledged.fetch_add(count as u64, Ordering::SeqCst);
    }

    /// One try; `None` where it was not acknowledged.
    fn send(&mut self, body: &Value) -> Option<Answer> {
        let address = *self.shared.address.lock().unwrap();
        if self.connection.as_ref().is_none_or(|(to, _)| *to != address) {
            self.connection = Some((address, Client::new(address)));
        }
        let (_, client) = self.connection.as_mut().expect("just made");
        let path = if self.random.random_range(0..20) == 0 { "/api/events?wait=true" } else { "/api/events" };
        let started = Instant::now();
        let json = [("Content-Type", "application/json")];
        let answer = client.try_send("POST", path, &json, body.to_string().as_bytes());
        self.history.slowest = self.history.slowest.max(started.elapsed());
        match answer {
            Ok(answer) if matches!(answer.status, 201 | 202) => {
                if let Some(received) = answer.json().get("received") {
                    assert_eq!(answer.json()["accepted"], *received, "{}", answer.text());
                }
                return Some(answer);
            }
            Ok(answer) => self.history.failures.push(format!("{} {}", answer.status, answer.text())),
            Err(error) => self.history.failures.push(error.to_string()),
        }
        None
    }

    fn event(&mut self, with_id: bool) -> Value {
        let marker = format!("c{}-{}", self.number, self.made);
        self.made += 1;
        let user = format!("c{}-u{}", self.number, self.random.random_range(0..5));
        let post = format!("p{}", self.random.random_range(0..4));
        let name = self.random.random_range(1..8);
        let (kind, metadata, liked) = match self.random.random_range(0..5) {
            0 => ("CLICK", json!({"componentId": name, "postId": post}), None),
            1 => ("PAGE_VIEW", json!({"url": format!("/page/{name}?q"), "postId": post}), None),
            2 => ("SEARCH", json!({"keyword": format!("Word {name}"), "resultCount": name - 1}), None),
            3 => ("LIKE", json!({"postId": post}), Some(true)),
            _ => ("UNLIKE", json!({"postId": post}), Some(false)),
        };
        let mut event = json!({"eventType": kind, "userId": user, "sessionId": marker, "metadata": metadata});
        let id = with_id.then(|| Uuid::from_u128(self.random.random()));
        if let Some(id) = id {
            event["eventId"] = json!(id.to_string());
        }
        let like = liked.map(|liked| (user, post, liked));
        self.history.issued.push(Issued { marker, id, is_acknowledged: false, like });
        event
    }
}

impl History {
    pub(crate) fn acknowledged(&self) -> usize {
        self.issued.iter().filter(|issued| issued.is_acknowledged).count()
    }

    /// Acknowledged ⊆ stored ⊆ issued, each stored once and under its id; likes as issued; all sums agree.
    #[track_caller]
    pub(crate) fn check(&self, bench: &Bench) {
        bench.check_sums();
        let mut stored: HashMap<String, Uuid> = HashMap::new();
        for row in bench.rows(&format!("SELECT session_id, event_id FROM events WHERE {OURS}")) {
            let before = stored.insert(row[0].clone(), row[1].parse().expect("a UUID"));
            assert_eq!(before, None, "{} is stored twice", row[0]);
        }
        let rows = stored.len();
        for issued in &self.issued {
            let id = stored.remove(&issued.marker);
            assert!(id.is_some() || !issued.is_acknowledged, "{} was acknowledged and is not stored", issued.marker);
            assert!(id.is_none() || issued.id.is_none() || id == issued.id, "{} has another id", issued.marker);
        }
        assert!(stored.is_empty(), "never issued: {stored:?}");
        self.check_likes(bench, &bench.rows("SELECT session_id FROM events WHERE event_type IN ('LIKE', 'UNLIKE')"));
        let (name, acknowledged, issued) = (&bench.name, self.acknowledged(), self.issued.len());
        let (failures, slowest) = (self.failures.len(), self.slowest);
        eprintln!(
            "{name}: {rows} rows, {acknowledged} acknowledged, {issued} issued, {failures} failures, {slowest:?}"
        );
    }

    /// A client's users are its own, so the state is the fold of what it issued, as far as that is stored.
    fn check_likes(&self, bench: &Bench, stored: &[Vec<String>]) {
        let stored: std::collections::HashSet<&str> = stored.iter().map(|row| row[0].as_str()).collect();
        let mut expected: BTreeMap<(&str, &str), bool> = BTreeMap::new();
        for issued in self.issued.iter().filter(|issued| stored.contains(issued.marker.as_str())) {
            if let Some((user, post, liked)) = &issued.like {
                expected.insert((user, post), *liked);
            }
        }
        expected.retain(|_, liked| *liked);
        let state = bench.rows("SELECT user_id, post_id FROM post_like");
        let state: BTreeMap<(&str, &str), bool> = state.iter().map(|row| ((&*row[0], &*row[1]), true)).collect();
        assert_eq!(state, expected, "likes are what was issued");
        check_like_tables(bench);
    }
}

/// `post_like` = the fold of `post_like_log` = the counts of `post_stat` = the net likes of rollups.
#[track_caller]
pub(crate) fn check_like_tables(bench: &Bench) {
    // Puts and deletions of posts take versions, too.
    let is_gapless = bench.number("SELECT (SELECT count(*) FROM post) + (SELECT count(*) FROM tombstone)") == 0;
    let mut likes: BTreeSet<(String, String)> = BTreeSet::new();
    let mut posts: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    let log = "SELECT post_id, user_id, action, like_count, version FROM post_like_log ORDER BY post_id, version";
    for row in bench.rows(log) {
        let [post, user, action, count, version] = row.try_into().expect("five columns");
        let (is_like, version) = (action == "LIKE", version.parse::<i64>().expect("a number"));
        let pair = (user.clone(), post.clone());
        let is_change = if is_like { likes.insert(pair) } else { likes.remove(&pair) };
        assert!(is_change, "a row that changed nothing: {user} {action} {post}");
        let (likes, before) = posts.entry(post.clone()).or_default();
        *likes += if is_like { 1 } else { -1 };
        assert_eq!(count, likes.to_string(), "the count of {post} at version {version}");
        assert!(if is_gapless { version == *before + 1 } else { version > *before }, "{post}: {before}, {version}");
        *before = version;
    }
    let state = bench.rows("SELECT user_id, post_id FROM post_like").into_iter();
    let state: BTreeSet<(String, String)> = state.map(|row| (row[0].clone(), row[1].clone())).collect();
    assert_eq!(state, likes, "post_like is the fold of its log");
    let net = bench.rows("SELECT key, sum(count) FROM rollup_hour WHERE dimension = 6 GROUP BY key").into_iter();
    let mut net: BTreeMap<String, String> = net.map(|row| (row[0].clone(), row[1].clone())).collect();
    for row in bench.rows("SELECT post_id, like_count, version FROM post_stat") {
        let (count, version) = posts.remove(&row[0]).unwrap_or_default();
        let stored: i64 = row[2].parse().expect("a number");
        assert_eq!(row[1], count.to_string(), "post_stat of {}", row[0]);
        let is_right = if is_gapless { stored == version } else { stored >= version };
        assert!(is_right, "post_stat of {}: {stored}, {version}", row[0]);
        assert_eq!(net.remove(&row[0]).unwrap_or("0".to_owned()), row[1], "net likes of {}", row[0]);
    }
    assert!(posts.is_empty(), "posts with a log and no count: {posts:?}");
}
