//! A ledger whose like counts take their time and are counted: a view in the place of the table, which no write of these
//! tests touches while it is there.

use std::time::Duration;

use crate::support::bench::Bench;
use crate::support::{eventually_is, wait_until};

pub(crate) const POST: &str = "hot";

pub(crate) fn like_path() -> String {
    format!("/api/posts/{POST}/like")
}

pub(crate) struct Slow {
    url: String,
}

impl Slow {
    /// From here on each query of a like count takes so long.
    pub(crate) fn set(bench: &Bench, ms: u64) -> Slow {
        bench.execute(&format!(
            "CREATE SEQUENCE IF NOT EXISTS queries MINVALUE 0 START 0; SELECT nextval('queries'); \
             CREATE UNLOGGED TABLE IF NOT EXISTS fills (at timestamptz, process text); \
             CREATE OR REPLACE FUNCTION tick() RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$ \
             BEGIN PERFORM nextval('queries'); \
             INSERT INTO fills VALUES (clock_timestamp(), current_setting('tracker.process', true)); \
             PERFORM pg_sleep({ms}::float8 / 1000); RETURN true; END $$; \
             ALTER TABLE post_stat RENAME TO post_stat_rows; \
             CREATE VIEW post_stat AS SELECT * FROM post_stat_rows WHERE (SELECT tick())"
        ));
        Slow { url: bench.database_url.clone().expect("PostgreSQL") }
    }

    fn client(&self) -> postgres::Client {
        postgres::Client::connect(&self.url, postgres::NoTls).expect("connects")
    }

    pub(crate) fn queries(&self) -> i64 {
        self.client().query_one("SELECT last_value FROM queries", &[]).expect("counts").get(0)
    }

    /// Seconds of PostgreSQL's clock.
    pub(crate) fn now(&self) -> f64 {
        self.client().query_one("SELECT extract(epoch FROM clock_timestamp())::float8", &[]).expect("a time").get(0)
    }

    /// When each query since then began, and of which program it was, as far as they have ended.
    pub(crate) fn fills(&self, from: f64) -> Vec<(f64, String)> {
        let sql = "SELECT extract(epoch FROM at)::float8, coalesce(process, '') FROM fills \
                   WHERE at > to_timestamp($1) ORDER BY at";
        self.client().query(sql, &[&from]).expect("rows").iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    /// Empties the shared cache; the live store's own keys stay.
    pub(crate) fn forget(&self, bench: &Bench) {
        let server = bench.redis.as_ref().expect("Redis");
        let names = server.keys("et:{c*}:*");
        // What a deletion through the cache would tell.
        let client = redis::Client::open(server.url()).expect("a URL");
        let mut connection = client.get_connection().expect("connects");
        redis::cmd("DEL").arg(names).arg("none").exec(&mut connection).expect("deletes");
        redis::cmd("PUBLISH").arg("et:cache").arg(format!("rlikes {POST}")).exec(&mut connection).expect("publishes");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Nothing is left: no fill under way, no lock.
pub(crate) fn await_quiet(all: &[Bench]) {
    for bench in all {
        let mut client = bench.client();
        wait_until(
            Duration::from_secs(5),
            || client.metric("cache_flights") + client.metric("cache_locks_held"),
            |left| *left == 0.0,
        );
    }
    if let Some(server) = all.first().and_then(|bench| bench.redis.as_ref()) {
        eventually_is(Duration::from_secs(5), &Vec::new(), || server.keys("et:{c*}:l:*"));
    }
}
