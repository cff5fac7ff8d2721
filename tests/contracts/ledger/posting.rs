//! Posts, and the likes that go with them.

use event_tracker::events::{EventType, PostDelete, PostPut, Record};
use event_tracker::ports::{Likes, PostOutcome, Verdict};

use crate::support::ledgers::{self, NOW, each_ledger, like};

fn put(content: &'static str, at_ms: i64, created_at_ms: Option<i64>) -> Record<'static> {
    let (hashtags, image_urls) = (vec!["고양이".into(), "cat".into()], vec!["https://example.org/1.png".into()]);
    Record::PostPut(PostPut { hashtags, image_urls, created_at_ms, ..ledgers::put("author", "p", content, at_ms) })
}

// claims: L20
#[test]
fn a_post_and_its_likes_are_what_the_journal_made_of_them() {
    each_ledger(|fixture| {
        let mut feed = fixture.feed();
        let delete = Record::PostDelete(PostDelete { post_id: "p".into(), at_ms: NOW });
        let liked_by = |user: &str| like(EventType::Like, user, "p", NOW);
        assert_eq!(fixture.ledger.post("p").expect("answers"), None);
        let verdicts =
            feed.apply(vec![liked_by("early"), put("one", NOW, None), liked_by("a"), put("two", NOW + 5, None)]);
        let put_as = |replaced, like_count, version| {
            Verdict::Post(PostOutcome::Put { replaced, created_at_ms: NOW, like_count, version })
        };
        assert_eq!([verdicts[1], verdicts[3]], [(2, put_as(false, 1, 2)), (4, put_as(true, 2, 4))]);
        let post = fixture.ledger.post("p").expect("answers").expect("is there");
        assert_eq!((post.content.as_str(), post.created_at_ms, post.like_count), ("two", NOW, 2));
        assert_eq!((post.hashtags, post.user_id.as_str()), (vec!["고양이".to_owned(), "cat".to_owned()], "author"));
        let likes = |user| fixture.ledger.likes("p", user).expect("answers");
        assert_eq!(likes(Some("a")), Likes { like_count: 2, liked: true });
        assert_eq!(likes(Some("b")), Likes { like_count: 2, liked: false });

        let verdicts = feed.apply(vec![delete.clone(), delete, liked_by("late")]);
        let deleted =
            |existed, likes_removed, version| Verdict::Post(PostOutcome::Deleted { existed, likes_removed, version });
        assert_eq!(verdicts[..2], [(5, deleted(true, 2, 7)), (6, deleted(false, 0, 8))]);
        assert_eq!(fixture.ledger.post("p").expect("answers"), None);
        assert_eq!(likes(Some("late")), Likes { like_count: 1, liked: true });
        assert_eq!(likes(Some("a")), Likes { like_count: 1, liked: false });
        let net = "SELECT sum(CASE action WHEN 'LIKE' THEN 1 ELSE -1 END) FROM post_like_log WHERE post_id = 'p'";
        assert_eq!(fixture.number(net), 1, "the log adds up to the state");
        assert_eq!(fixture.ledger.verdicts(feed.stream, 4, 6).expect("answers").expect("not pruned"), verdicts[..2]);

        feed.apply(vec![put("three", NOW + 9, Some(NOW - 1))]);
        let post = fixture.ledger.post("p").expect("answers").expect("is there");
        assert_eq!((post.created_at_ms, post.like_count), (NOW - 1, 1), "its own time, and the likes it has by now");
    });
}
