//! `seed posts`: the posts of the predecessor's load, made or made again, over a few connections.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::Args;
use serde_json::json;

use super::{REQUEST_WAIT, until_taken};
use crate::clock::Clock;
use crate::commands::output::counted;
use crate::import::agent;
use crate::limits::SEED_CONNECTIONS;
use crate::seed::post;

/// How many, and where.
#[derive(Clone, Debug, Args)]
pub(super) struct Options {
    /// How many posts: ids 1 to this; those that are there already are replaced by the same
    #[arg(long, default_value_t = 1_000, value_name = "NUMBER")]
    count: u64,
    /// The server; its key is in the environment variable API_KEY
    #[arg(long, default_value = "http://127.0.0.1:8080", value_name = "URL")]
    url: String,
}

/// Each answer waits for the ledger: several connections let it take several posts in one transaction.
pub(super) fn run(options: &Options) -> Result<(), String> {
    let (next, begun) = (AtomicU64::new(1), Instant::now());
    let target = format!("{}/api/posts", options.url.trim_end_matches('/'));
    std::thread::scope(|scope| {
        let senders: Vec<_> =
            (0..SEED_CONNECTIONS).map(|_| scope.spawn(|| send(&target, &next, options.count))).collect();
        senders.into_iter().try_for_each(|sender| sender.join().unwrap_or_else(|_| Err("a sender panicked".into())))
    })?;
    eprintln!("made {} in {:.1} s", counted(options.count, "post"), begun.elapsed().as_secs_f64());
    Ok(())
}

fn send(target: &str, next: &AtomicU64, last: u64) -> Result<(), String> {
    let agent = agent(target, REQUEST_WAIT);
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number > last {
            return Ok(());
        }
        let put = post(number, Clock::System.now_ms());
        let body = json!({"postId":put.post_id,"userId":put.user_id,"content":put.content,"hashtags":put.hashtags})
            .to_string();
        // 202: it is in the journal, and made once the ledger is there.
        until_taken(&agent, target, "application/json", body.as_bytes(), |_, _| true)?;
    }
}
