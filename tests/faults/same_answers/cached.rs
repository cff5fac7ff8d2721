//! The same with the caches on, as a server has them by default. What is claimed then:
//!
//! - who has written a like reads the post's count and their own like as they are, at once;
//! - who has written a post, deleted it or erased its author finds the posts of each hashtag of before and after as they
//!   are, but for counts of likes and the order that follows from them;
//! - a post itself is never older than the last write;
//! - everything else is as the model says some seconds later.

use rand::RngExt;
use serde_json::{Value, json};

use super::Run;
use super::draw::{self, encoded};
use super::model::hashtag_of;
use super::programs::{Ended, Reply, Request};
use super::reads::items;
use super::statistics::{Filter, KINDS, LISTS, window};

/// No content has any of them, so that only posts with the hashtag are found.
const TAGS: [&str; 6] = ["#oak", "#고양이", "#École", "#a b", "#100%", "#w1"];

impl Run {
    pub(crate) fn cached_steps(&mut self, operations: u64) -> Result<(), Ended> {
        (0..operations).try_for_each(|_| self.cached_step())?;
        self.reach_live()?;
        for kind in KINDS {
            let count = self.model.count(&Filter { kind: Some(kind), ..Filter::default() });
            let request = Request::get(format!("/api/statistics?eventType={kind}"));
            self.programs.expect_soon(&request, |_| count.clone());
        }
        for list in &LISTS {
            let (model, zone) = (&self.model, self.zone);
            let request = Request::get(format!("/api/statistics/popular/{}&window=1h&limit=100", list.path));
            self.programs.expect_soon(&request, |span| {
                let top = model.ranking(list, window("1h", span.from, zone));
                let items = items(&top, list.name, 0);
                Reply::new(200, json!({"window":"1h","source":"live","stale":false,"approximate":false,"items":items}))
            });
        }
        // Each is an event of its own: the last thing that is looked at.
        for typed in draw::KEYWORDS {
            let (keyword, found) = (draw::kept(typed), self.model.found(&draw::kept(typed)));
            let request = Request::get(format!("/api/search?keyword={}&limit=100", encoded(typed)));
            let body = json!({"keyword":keyword,"posts":found,"source":"ledger","stale":false});
            self.programs.expect_soon(&request, |_| Reply::new(200, body.clone()));
        }
        Ok(())
    }

    fn cached_step(&mut self) -> Result<(), Ended> {
        self.keep_off_the_minute();
        match self.random.random_range(0..100) {
            0..22 => self.write_like(),
            22..26 => self.write_like_event(),
            26..46 => self.write_post(),
            46..51 => self.delete_post(),
            51..53 => self.erase(true),
            53..60 => self.read_post(),
            60..78 => self.read_likes(),
            _ => self.search_by_hashtag(),
        }?;
        if self.model.is_blurred { Err(Ended::Blurred) } else { Ok(()) }
    }

    fn search_by_hashtag(&mut self) -> Result<(), Ended> {
        let typed = draw::one(&mut self.random, &TAGS);
        let answers = self.send_search(typed, None, Some(100));
        let wanted = without_likes(self.model.found(typed));
        for (program, answer) in self.programs.all.iter().zip(&answers.all) {
            let Reply { status, body } = program.reply(answer);
            assert_eq!(status, 200, "{}: {body}", program.bench.name);
            let found = without_likes(body["posts"].as_array().expect("posts").clone());
            assert_eq!(found, wanted, "{} (left) and the model (right) of {}", program.bench.name, hashtag_of(typed));
        }
        self.record_search(draw::kept(typed), None, wanted.len(), &answers);
        Ok(())
    }
}

/// Posts by id, without what a like changes.
fn without_likes(mut posts: Vec<Value>) -> Vec<Value> {
    posts.iter_mut().for_each(|post| drop(post.as_object_mut().expect("a post").remove("likeCount")));
    posts.sort_by_key(|post| post["postId"].to_string());
    posts
}
