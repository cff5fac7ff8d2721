//! What four programs should say: lists of what happened, looked through from the beginning at every question.
//!
//! It shares no code with the program: what a keyword or a page is counted under stands here once more, in a line.
//! Time is known as well as a client can know it: see [`When`].

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde_json::{Value, json};
use unicode_normalization::UnicodeNormalization;
use uuid::Uuid;

use super::programs::Reply;

/// A moment: exact where a client said it, and somewhere between sending and answer where a server's clock says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct When {
    pub(crate) from: i64,
    pub(crate) to: i64,
}

impl When {
    pub(crate) fn exactly(at: i64) -> When {
        When { from: at, to: at }
    }

    pub(crate) fn is_before(self, other: When) -> bool {
        self.to < other.from
    }
}

/// What a client says about when it happened.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Said {
    /// Nothing, or what comes to the same: it happens as it comes in.
    #[default]
    Nothing,
    At(i64),
    /// By its own clock, so long ago when it was sent.
    Ago(i64),
}

/// An event as it is sent, understood.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sent {
    pub(crate) kind: &'static str,
    pub(crate) id: Option<Uuid>,
    pub(crate) said: Said,
    pub(crate) user: Option<String>,
    pub(crate) session: Option<String>,
    pub(crate) component: Option<i64>,
    pub(crate) element: Option<String>,
    /// Trimmed, NFC.
    pub(crate) keyword: Option<String>,
    pub(crate) post: Option<String>,
    pub(crate) url: Option<String>,
    pub(crate) referrer: Option<String>,
    pub(crate) results: Option<i64>,
    pub(crate) properties: Option<Value>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Stored,
    Duplicate,
    Erased,
}

#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) sent: Sent,
    pub(crate) at: When,
    /// No later than it came in.
    happened: When,
    pub(crate) received: When,
    /// The path under which its page was counted, which an erasure leaves.
    pub(crate) page: Option<String>,
    /// Who it was, where that was erased.
    pub(crate) was: Option<String>,
}

/// A like that came or went.
#[derive(Clone, Debug)]
pub(crate) struct Net {
    pub(crate) at: When,
    pub(crate) post: String,
    pub(crate) by: i64,
}

#[derive(Clone, Debug)]
pub(crate) struct Post {
    user: String,
    content: String,
    hashtags: Vec<String>,
    images: Vec<String>,
    /// When it was made, and how answers say it: by a name, if each server has its own time of it.
    made: (i64, String),
}

#[derive(Default)]
pub(crate) struct Model {
    pub(crate) rows: Vec<Row>,
    pub(crate) nets: Vec<Net>,
    pub(crate) posts: BTreeMap<String, Post>,
    /// User, post.
    likes: BTreeSet<(String, String)>,
    ids: HashSet<Uuid>,
    /// User, folded keyword or all, until when.
    forgotten: Vec<(String, Option<String>, When)>,
    erased: HashMap<String, When>,
    /// Posts that were deleted and not put again: no list shows them.
    pub(crate) tombstones: HashSet<String>,
    /// Something happened at a moment of which it is not known whether it lies before or behind another one that matters.
    pub(crate) is_blurred: bool,
}

/// What a keyword is counted and found under: full case folding of the few letters that are drawn.
pub(crate) fn folded(text: &str) -> String {
    let composed: String = text.nfc().collect();
    composed.to_lowercase().replace('ς', "σ").replace('ß', "ss").nfc().collect()
}

/// The path alone, without the only escapes that are drawn.
pub(crate) fn page_of(url: &str) -> String {
    let path = match url.split_once("://").filter(|(scheme, _)| !scheme.contains(['/', '?', '#'])) {
        Some((_, rest)) => rest.find(['/', '?', '#']).map_or("", |at| &rest[at..]),
        None => url,
    };
    let path = path.split(['?', '#']).next().unwrap_or_default();
    if path.is_empty() { "/".to_owned() } else { path.replace("%EA%B8%80", "글").replace("%ea%b8%80", "글") }
}

pub(crate) fn hashtag_of(typed: &str) -> String {
    folded(typed.trim().trim_start_matches('#').trim())
}

pub(crate) fn rfc3339(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).expect("a time").to_string()
}

impl Model {
    /// Happened at `when`: of what comes so close to a minute's end that nobody can tell, nothing more can be said.
    fn sharp(&mut self, when: When) -> When {
        self.is_blurred |= when.from.div_euclid(60_000) != when.to.div_euclid(60_000);
        when
    }

    /// Whether something happened before its user was erased.
    fn is_erased(&mut self, user: &str, happened: When) -> bool {
        let Some(erased) = self.erased.get(user).copied() else { return false };
        let is_before = happened.to <= erased.from;
        self.is_blurred |= !is_before && !erased.is_before(happened);
        is_before
    }

    /// An event that came in at `received`.
    pub(crate) fn take(&mut self, sent: &Sent, received: When) -> Fate {
        let at = match sent.said {
            Said::Nothing => received,
            Said::At(at) => When::exactly(at),
            Said::Ago(ms) => When { from: received.from - ms, to: received.to - ms },
        };
        let happened = if at.from > received.from { received } else { at };
        if sent.user.as_deref().is_some_and(|user| self.is_erased(user, happened)) {
            return Fate::Erased;
        }
        if sent.id.is_some_and(|id| !self.ids.insert(id)) {
            return Fate::Duplicate;
        }
        let at = self.sharp(at);
        let mut sent = sent.clone();
        if let (true, Some(user), Some(post)) = (sent.kind.ends_with("LIKE"), &sent.user, &sent.post) {
            let (user, post) = (user.clone(), post.clone());
            self.switch(&user, &post, sent.kind == "LIKE", at);
        }
        let page = sent.url.as_deref().map(page_of);
        sent.said = Said::Nothing;
        self.rows.push(Row { sent, at, happened, received, page, was: None });
        Fate::Stored
    }

    fn switch(&mut self, user: &str, post: &str, liked: bool, at: When) -> bool {
        let pair = (user.to_owned(), post.to_owned());
        let changed = if liked { self.likes.insert(pair) } else { self.likes.remove(&pair) };
        if changed {
            self.nets.push(Net { at, post: post.to_owned(), by: if liked { 1 } else { -1 } });
        }
        changed
    }

    pub(crate) fn like_count(&self, post: &str) -> usize {
        self.likes.iter().filter(|(_, liked)| liked == post).count()
    }

    pub(crate) fn is_liked(&self, user: &str, post: &str) -> bool {
        self.likes.contains(&(user.to_owned(), post.to_owned()))
    }

    /// A like, unlike or toggle that is answered with the state behind it.
    pub(crate) fn like(&mut self, user: &str, post: &str, action: &str, id: Option<Uuid>, span: When) -> Reply {
        let wanted = match action {
            "like" => true,
            "unlike" => false,
            _ => !self.is_liked(user, post),
        };
        let would_change = wanted != self.is_liked(user, post);
        let (user_id, post_id) = (Some(user.to_owned()), Some(post.to_owned()));
        let kind = if wanted { "LIKE" } else { "UNLIKE" };
        let sent = Sent { kind, user: user_id, post: post_id, id, ..Sent::default() };
        // One that was taken before changes nothing, and is told what holds now.
        let changed = self.take(&sent, span) == Fate::Stored && would_change;
        let (liked, likes) = (self.is_liked(user, post), self.like_count(post));
        Reply::new(200, json!({"postId":post,"userId":user,"liked":liked,"likeCount":likes,"changed":changed}))
    }

    pub(crate) fn likes(&self, post: &str, user: Option<&str>) -> Reply {
        let mut body = json!({"postId":post,"likeCount":self.like_count(post)});
        if let Some(user) = user {
            body["liked"] = json!(self.is_liked(user, post));
        }
        Reply::new(200, body)
    }

    /// A post as it is sent: `made_as` names its time where a server gives it one.
    pub(crate) fn put(&mut self, id: &str, sent: &Value, span: When, made_as: &str) -> Reply {
        let user = text_of(&sent["userId"]);
        let given = sent["createdAt"].as_i64();
        let happened = given.map_or(span, |at| When::exactly(at.min(span.from)));
        if self.is_erased(&user, happened) {
            return Reply::problem(410, "user_erased", None);
        }
        let before = self.posts.get(id).map(|post| post.made.clone());
        let status = if before.is_some() { 200 } else { 201 };
        let made = match (given, before) {
            (Some(at), _) => (at, rfc3339(at)),
            (None, Some(before)) => before,
            (None, None) => (span.from, made_as.to_owned()),
        };
        let texts = |field: &str| -> Vec<String> {
            let all = sent[field].as_array().cloned().unwrap_or_default();
            all.iter().filter_map(Value::as_str).map(str::to_owned).filter(|text| !text.is_empty()).collect()
        };
        let mut hashtags: Vec<String> = Vec::new();
        for hashtag in texts("hashtags").iter().map(|typed| hashtag_of(typed)) {
            if !hashtag.is_empty() && !hashtags.contains(&hashtag) {
                hashtags.push(hashtag);
            }
        }
        let content = text_of(&sent["content"]);
        self.tombstones.remove(id);
        self.posts.insert(id.to_owned(), Post { user, content, hashtags, images: texts("imageUrls"), made });
        Reply::new(status, self.post_body(id).expect("just put"))
    }

    fn post_body(&self, id: &str) -> Option<Value> {
        let Post { user, content, hashtags, images, made } = self.posts.get(id)?;
        Some(json!({"postId":id,"userId":user,"content":content,"hashtags":hashtags,"imageUrls":images,
            "createdAt":made.1,"likeCount":self.like_count(id)}))
    }

    pub(crate) fn post(&self, id: &str) -> Reply {
        let body = self.post_body(id);
        body.map_or_else(|| Reply::problem(404, "not_found", None), |body| Reply::new(200, body))
    }

    pub(crate) fn delete(&mut self, post: &str, span: When) {
        let at = self.sharp(span);
        let users: Vec<String> =
            self.likes.iter().filter(|(_, liked)| liked == post).map(|(user, _)| user.clone()).collect();
        for user in users {
            self.switch(&user, post, false, at);
        }
        self.posts.remove(post);
        self.tombstones.insert(post.to_owned());
    }

    pub(crate) fn found(&self, typed: &str) -> Vec<Value> {
        let (keyword, hashtag) = (folded(typed), hashtag_of(typed));
        let is_found = |post: &Post| post.hashtags.contains(&hashtag) || folded(&post.content).contains(&keyword);
        let found = self.posts.iter().filter(|(_, post)| is_found(post));
        let mut found: Vec<(usize, i64, &String)> =
            found.map(|(id, post)| (self.like_count(id), post.made.0, id)).collect();
        found.sort_by(|a, b| b.0.cmp(&a.0).then(b.1.cmp(&a.1)).then(a.2.as_bytes().cmp(b.2.as_bytes())));
        found.into_iter().map(|(.., id)| self.post_body(id).expect("it is there")).collect()
    }

    /// A user's searches after `since`, newest first, no keyword twice: those that were forgotten, too, or not.
    fn searches(&self, user: &str, since: i64, is_with_forgotten: bool) -> Vec<&str> {
        let is_forgotten = |happened: When, keyword: &str| {
            self.forgotten.iter().any(|(who, what, until)| {
                let reaches = what.as_ref().is_none_or(|what| !is_with_forgotten && *what == keyword);
                who == user && reaches && happened.to <= until.from
            })
        };
        let searches = self.rows.iter().rev().filter(|row| row.sent.kind == "SEARCH" && row.happened.from > since);
        let mut searches: Vec<(i64, &str)> = searches
            .filter(|row| row.sent.user.as_deref() == Some(user))
            .filter_map(|row| Some((row.happened, row.sent.keyword.as_deref()?)))
            .filter(|(happened, keyword)| !is_forgotten(*happened, &folded(keyword)))
            .map(|(happened, keyword)| (happened.from, keyword))
            .collect();
        searches.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        let mut seen = HashSet::new();
        searches.retain(|(_, keyword)| seen.insert(folded(keyword)));
        searches.into_iter().map(|(_, keyword)| keyword).collect()
    }

    /// More than ten things since they last forgot all.
    pub(crate) fn has_searched_many(&self, user: &str) -> bool {
        self.searches(user, i64::MIN, true).len() > 10
    }

    pub(crate) fn recent(&self, user: &str, limit: usize, now: i64) -> Reply {
        let keywords: Vec<&str> = self.searches(user, now - 3_600_000, false).into_iter().take(limit.min(10)).collect();
        Reply::new(200, json!({"userId":user,"keywords":keywords,"source":"live","stale":false}))
    }

    pub(crate) fn forget(&mut self, user: &str, keyword: Option<&str>, span: When) {
        self.forgotten.push((user.to_owned(), keyword.map(folded), span));
    }

    pub(crate) fn erase(&mut self, user: &str, span: When) {
        let at = self.sharp(span);
        for row in self.rows.iter_mut().filter(|row| row.sent.user.as_deref() == Some(user)) {
            row.was = row.sent.user.take();
            let Sent { session, url, referrer, properties, .. } = &mut row.sent;
            (*session, *url, *referrer, *properties) = (None, None, None, None);
        }
        let own: Vec<String> =
            self.posts.iter().filter(|(_, post)| post.user == user).map(|(id, _)| id.clone()).collect();
        own.iter().for_each(|post| self.delete(post, span));
        let liked: Vec<String> =
            self.likes.iter().filter(|(who, _)| who == user).map(|(_, post)| post.clone()).collect();
        for post in liked {
            self.switch(user, &post, false, at);
        }
        self.forget(user, None, span);
        self.erased.insert(user.to_owned(), span);
    }
}

fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
