//! Settings of the read path: one for each class of keys.

use clap::Args;

use crate::app::Classes;
use crate::cache::Policy;

/// As given: `off`, or a list of what shall differ from the default, milliseconds.
#[derive(Clone, Debug, Args)]
pub(super) struct RawCache {
    /// Search results: off, or what shall differ from fresh=5000,stale=5000,cap=600000,null=5000,beta=1,deadline=1500.
    /// Fresh for so long, less up to a tenth; then shown while one refreshes (stale; as fresh where it is not given), then
    /// where nothing better comes within 100 ms, up to the cap; null: how long "there is none" is believed; beta: how early
    /// a busy value is refreshed, 0: not; deadline: of a request. For measuring alone: lock=0 (each instance for itself),
    /// flight=0 (each request for itself, who wrote may read what was)
    #[arg(long, env = "CACHE_SEARCH", default_value = "", hide_default_value = true, value_name = "off|NAME=MS,…")]
    cache_search: String,
    /// Popular lists and live users, in the same way; fresh=1000
    #[arg(long, env = "CACHE_POPULAR", default_value = "", hide_default_value = true, value_name = "off|NAME=MS,…")]
    cache_popular: String,
    /// Rankings, time series and exact users; fresh=5000
    #[arg(long, env = "CACHE_RANKINGS", default_value = "", hide_default_value = true, value_name = "off|NAME=MS,…")]
    cache_rankings: String,
    /// Exact counts; fresh=1000
    #[arg(long, env = "CACHE_COUNTS", default_value = "", hide_default_value = true, value_name = "off|NAME=MS,…")]
    cache_counts: String,
    /// Likes of a post; fresh=2000
    #[arg(long, env = "CACHE_LIKES", default_value = "", hide_default_value = true, value_name = "off|NAME=MS,…")]
    cache_likes: String,
}

impl RawCache {
    /// The classes, or one line that says what is wrong.
    pub(super) fn check(&self) -> Result<Classes, String> {
        let with = |default: Policy, name: &str, text: &str| default.with(text).map_err(|why| format!("{name}: {why}"));
        let classes = Classes::default();
        Ok(Classes {
            search: with(classes.search, "CACHE_SEARCH", &self.cache_search)?,
            popular: with(classes.popular, "CACHE_POPULAR", &self.cache_popular)?,
            rankings: with(classes.rankings, "CACHE_RANKINGS", &self.cache_rankings)?,
            counts: with(classes.counts, "CACHE_COUNTS", &self.cache_counts)?,
            likes: with(classes.likes, "CACHE_LIKES", &self.cache_likes)?,
        })
    }
}
