//! The design card taken literally: may_minihttp as published, requests routed by hand, synchronous pooled clients
//! called in the handler, a lock-free flight map in the process, a lock in Redis. A baseline to measure against and to
//! show what it lacks; nobody should run it for events that matter, and it listens on loopback only.
//!
//! `DATABASE_URL=postgres://… REDIS_URL=redis://… baseline-card 127.0.0.1:8081`. The database must be one of its own: the
//! tables are those of the tracker's schema.sql, the keys of Redis begin with `card:`.

mod search;

use std::io::{self, Read};
use std::net::ToSocketAddrs;
use std::sync::Arc;

use crossbeam_skiplist::SkipMap;
use may_minihttp::{HttpServer, HttpService, Request, Response};
use postgres::NoTls;
use r2d2::Pool;
use r2d2_postgres::PostgresConnectionManager;
use r2d2_redis::{RedisConnectionManager, redis};
use serde_json::{Value, json};

const SCHEMA: &str = include_str!("../../../../schema.sql");
/// A blocking client and its TLS-free protocol on a coroutine's stack: the default of 32 KiB overflows.
const STACK_WORDS: usize = 0x4000;
const INSERT_EVENT: &str = "INSERT INTO events (event_id, event_type, user_id, session_id, component_id, element_id, keyword, \
     post_id, url, referrer, event_time, received_at, stream, position) \
     VALUES (gen_random_uuid(), $1, $2, $3, $4, $5, $6, $7, $8, $9, now(), now(), 0, 0)";
const KEYWORDS: &str = "card:popular:keywords";
const POSTS: &str = "card:popular:posts";
const RECENT_SECONDS: usize = 3_600;

/// What all connections share.
struct Shared {
    postgres: Pool<PostgresConnectionManager<NoTls>>,
    redis: Pool<RedisConnectionManager>,
    flights: SkipMap<String, Arc<search::Flight>>,
}

#[derive(Clone)]
struct Card(Arc<Shared>);

impl HttpService for Card {
    fn call(&mut self, request: Request, response: &mut Response) -> io::Result<()> {
        let method = request.method().to_owned();
        let target = request.path().to_owned();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let mut body = Vec::new();
        request.body().read_to_end(&mut body)?;
        match (method.as_str(), path) {
            ("GET", "/healthz/live") => response.header("Content-Type: application/json").body(r#"{"status":"ok"}"#),
            ("POST", "/api/events" | "/api/users/events") => self.0.event(&body, response)?,
            ("POST", "/api/posts/like") => self.0.like(&body, response)?,
            ("GET", "/api/search") => answer(response, &self.0.search(query)?),
            ("GET", "/api/statistics/popular/keywords") => answer(response, &self.0.popular()?),
            ("GET", path) if path.starts_with("/api/search/recent/") => {
                answer(response, &self.0.recent(&path["/api/search/recent/".len()..])?);
            }
            _ => {
                response.status_code(404, "Not Found");
            }
        }
        Ok(())
    }
}

fn answer(response: &mut Response, body: &Value) {
    response.header("Content-Type: application/json").body_vec(body.to_string().into_bytes());
}

impl Shared {
    fn event(&self, body: &[u8], response: &mut Response) -> io::Result<()> {
        let Ok(event) = serde_json::from_slice::<Value>(body) else {
            response.status_code(400, "Bad Request");
            return Ok(());
        };
        let (about, kind) = (&event["metadata"], event["eventType"].as_str().unwrap_or(""));
        let (user, session) = (text(&event["userId"]), text(&event["sessionId"]));
        let (keyword, post) = (text(&about["keyword"]), text(&about["postId"]));
        let component = about["componentId"].as_i64();
        let (element, url, referrer) = (text(&about["elementId"]), text(&about["url"]), text(&about["referrer"]));
        let mut postgres = self.postgres.get().map_err(io::Error::other)?;
        let row =
            [&kind as &(dyn postgres::types::ToSql + Sync), &user, &session, &component, &element, &keyword, &post];
        postgres.execute(INSERT_EVENT, &[&row[..], &[&url, &referrer]].concat()).map_err(io::Error::other)?;
        drop(postgres);
        if let (Some(keyword), "SEARCH") = (&keyword, kind) {
            self.searched(user.as_deref(), keyword)?;
        } else if let Some(post) = &post {
            self.redis(redis::cmd("ZINCRBY").arg(POSTS).arg(1).arg(post))?;
        }
        response.status_code(201, "Created");
        Ok(())
    }

    /// Counts a search and puts it on its user's list.
    fn searched(&self, user: Option<&str>, keyword: &str) -> io::Result<()> {
        self.redis(redis::cmd("ZINCRBY").arg(KEYWORDS).arg(1).arg(keyword.to_lowercase()))?;
        let Some(user) = user else { return Ok(()) };
        let key = format!("card:recent:{user}");
        let mut redis = self.redis.get().map_err(io::Error::other)?;
        redis::pipe()
            .cmd("LREM")
            .arg(&key)
            .arg(0)
            .arg(keyword)
            .ignore()
            .cmd("LPUSH")
            .arg(&key)
            .arg(keyword)
            .ignore()
            .cmd("LTRIM")
            .arg(&key)
            .arg(0)
            .arg(9)
            .ignore()
            .cmd("EXPIRE")
            .arg(&key)
            .arg(RECENT_SECONDS)
            .ignore()
            .query(&mut *redis)
            .map_err(io::Error::other)
    }

    fn redis(&self, command: &redis::Cmd) -> io::Result<()> {
        let mut redis = self.redis.get().map_err(io::Error::other)?;
        command.query(&mut *redis).map_err(io::Error::other)
    }

    fn like(&self, body: &[u8], response: &mut Response) -> io::Result<()> {
        let like = serde_json::from_slice::<Value>(body).unwrap_or_default();
        let (Some(user), Some(post)) = (text(&like["userId"]), text(&like["postId"])) else {
            response.status_code(400, "Bad Request");
            return Ok(());
        };
        let mut postgres = self.postgres.get().map_err(io::Error::other)?;
        let mut transaction = postgres.transaction().map_err(io::Error::other)?;
        let add = "INSERT INTO post_like (user_id, post_id, liked_at) VALUES ($1, $2, now()) ON CONFLICT DO NOTHING";
        let remove = "DELETE FROM post_like WHERE user_id = $1 AND post_id = $2";
        let liked = transaction.execute(add, &[&user, &post]).map_err(io::Error::other)? == 1;
        if !liked {
            transaction.execute(remove, &[&user, &post]).map_err(io::Error::other)?;
        }
        let count = "INSERT INTO post_stat (post_id, like_count) VALUES ($1, greatest($2::bigint, 0)) \
             ON CONFLICT (post_id) DO UPDATE SET like_count = greatest(post_stat.like_count + $2, 0) RETURNING like_count";
        let step = if liked { 1i64 } else { -1 };
        let count: i64 = transaction.query_one(count, &[&post, &step]).map_err(io::Error::other)?.get(0);
        transaction.commit().map_err(io::Error::other)?;
        answer(response, &json!({"postId": post, "userId": user, "liked": liked, "likeCount": count}));
        Ok(())
    }

    fn popular(&self) -> io::Result<Value> {
        let mut redis = self.redis.get().map_err(io::Error::other)?;
        let top: Vec<(String, i64)> = redis::cmd("ZREVRANGE")
            .arg(KEYWORDS)
            .arg(0)
            .arg(9)
            .arg("WITHSCORES")
            .query(&mut *redis)
            .map_err(io::Error::other)?;
        Ok(top.into_iter().map(|(keyword, count)| json!({"keyword": keyword, "count": count})).collect())
    }

    fn recent(&self, user: &str) -> io::Result<Value> {
        let mut redis = self.redis.get().map_err(io::Error::other)?;
        let keywords: Vec<String> = redis::cmd("LRANGE")
            .arg(format!("card:recent:{user}"))
            .arg(0)
            .arg(9)
            .query(&mut *redis)
            .map_err(io::Error::other)?;
        Ok(json!({"userId": user, "keywords": keywords}))
    }
}

/// A post as search answers it.
fn answer_row(row: &postgres::Row) -> Value {
    let (post, user, content): (String, String, String) = (row.get(0), row.get(1), row.get(2));
    let (hashtags, likes): (Vec<String>, i64) = (row.get(3), row.get(4));
    json!({"postId": post, "userId": user, "content": content, "hashtags": hashtags, "likeCount": likes})
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Tables as the tracker has them, with partitions for yesterday to the day after tomorrow.
fn prepare(postgres: &Pool<PostgresConnectionManager<NoTls>>) {
    let mut postgres = postgres.get().expect("PostgreSQL answers");
    postgres.batch_execute(SCHEMA).expect("the database takes the schema");
    let days = "DO $$ DECLARE d date; BEGIN FOR d IN SELECT generate_series(current_date - 1, current_date + 2, '1 day')::date LOOP \
         EXECUTE format('CREATE TABLE IF NOT EXISTS %I PARTITION OF events FOR VALUES FROM (%L) TO (%L)', \
         'events_' || to_char(d, 'YYYYMMDD'), d || ' 00:00+00', (d + 1) || ' 00:00+00'); END LOOP; END $$";
    postgres.batch_execute(days).expect("the database takes partitions");
}

fn main() {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8081".into());
    let loopback = address.to_socket_addrs().expect("ADDRESS:PORT").all(|address| address.ip().is_loopback());
    assert!(loopback, "a baseline listens on loopback only");
    let setting = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let config = setting("DATABASE_URL").parse().expect("a URL of PostgreSQL");
    let size = (cores * 4) as u32;
    let postgres = Pool::builder().max_size(size).build(PostgresConnectionManager::new(config, NoTls));
    let redis = RedisConnectionManager::new(setting("REDIS_URL")).expect("a URL of Redis");
    let redis = Pool::builder().max_size(size).build(redis).expect("Redis answers");
    let postgres = postgres.expect("PostgreSQL answers");
    prepare(&postgres);
    may::config().set_workers(cores).set_stack_size(STACK_WORDS);
    eprintln!("BASELINE, not the tracker: the design card taken literally, on http://{address}");
    let shared = Shared { postgres, redis, flights: SkipMap::new() };
    HttpServer(Card(Arc::new(shared))).start(address).expect("the address is free").join().expect("serves");
}
