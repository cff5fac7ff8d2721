//! Persons who go, and posts that lose their places.

use event_tracker::events::{Dimension, Erase, Event, EventType, Forget, PostDelete, PostPut, Record};
use event_tracker::ports::{CountFilter, Erasure, Likes, RankingQuery, TopQuery, Verdict, Window};

use crate::support::ledgers::{self, Feed, Fixture, HOUR, MINUTE, NOW, each_ledger, event, like, ranking_of, received};
use crate::support::model::WINDOWS;

fn erase(user: &str, at_ms: i64) -> Record<'static> {
    Record::Erase(Erase { user_id: user.to_owned().into(), at_ms })
}

/// A page view of a post that names everything an event can, received at its time.
fn view(user: &str, at_ms: i64) -> Record<'static> {
    Record::Event(Event {
        user_id: Some(user.to_owned().into()),
        session_id: Some(format!("session of {user}").into()),
        url: Some(format!("/home?user={user}").into()),
        referrer: Some(format!("/from/{user}").into()),
        properties: Some(format!("{{\"name\":\"{user}\"}}").into()),
        post_id: Some("seen".into()),
        received_at_ms: at_ms,
        ..event(EventType::PageView, at_ms)
    })
}

fn search(user: &str, at_ms: i64) -> Record<'static> {
    received(ledgers::search(user, "oak", at_ms), at_ms)
}

fn put(user: &str, post: &str, at_ms: i64) -> Record<'static> {
    let content = format!("by {user}");
    Record::PostPut(PostPut { hashtags: vec!["tag".into()], ..ledgers::put(user, post, &content, at_ms) })
}

fn delete(post: &str) -> Record<'static> {
    Record::PostDelete(PostDelete { post_id: post.to_owned().into(), at_ms: NOW })
}

/// Rows that say a name somewhere, the list of who was erased left out.
fn rows_with(fixture: &Fixture, name: &str) -> Vec<String> {
    let tables = [
        "events",
        "post",
        "post_like",
        "post_like_log",
        "recent_forgotten",
        "user_hour",
        "verdict",
        "tombstone",
        "rollup_total",
        "dead_letter",
    ];
    let rows = tables.iter().flat_map(|table| {
        let rows = fixture.rows(&format!("SELECT * FROM {table}"));
        rows.into_iter().map(move |row| format!("{table}: {row:?}"))
    });
    let hex: String = name.bytes().map(|byte| format!("{byte:02x}")).collect();
    let bytes = format!("{:?}", name.as_bytes());
    let bytes = bytes.trim_matches(['[', ']']).to_owned();
    rows.filter(|row| row.contains(name) || row.contains(&hex) || row.contains(&bytes)).collect()
}

fn everything(feed: &mut Feed) {
    let letter = search("zoe", NOW);
    let about_zoe = vec![
        view("zoe", NOW - 3 * HOUR),
        view("zoe", NOW - 5),
        search("zoe", NOW - 4),
        like(EventType::Like, "zoe", "liked", NOW - 3),
        like(EventType::Like, "zoe", "own", NOW - 3),
        like(EventType::Like, "ann", "liked", NOW - 3),
        like(EventType::Like, "ann", "own", NOW - 3),
        put("zoe", "own", NOW - 2),
        put("ann", "liked", NOW - 2),
        view("ann", NOW - 2),
        Record::Forget(Forget { user_id: "zoe".into(), keyword: Some("oak".into()), at_ms: NOW - 1 }),
        letter,
    ];
    feed.try_apply(about_zoe, &[(12, "refused")]).expect("applies");
}

// claims: L23
#[test]
fn an_erasure_leaves_nothing_that_names_the_person_and_every_count_as_it_was() {
    each_ledger(|fixture| {
        let (mut feed, mut other) = (fixture.feed(), fixture.feed());
        everything(&mut feed);
        assert!(rows_with(fixture, "zoe").len() > 10);
        let counts = || {
            let rollups = "SELECT dimension, bucket, key, count FROM rollup_hour WHERE dimension <> 6 \
                           ORDER BY dimension, bucket, key";
            (fixture.number("SELECT count(*) FROM events"), fixture.rows(rollups))
        };
        let before = counts();
        // In one batch with what comes before and behind it.
        let verdicts = feed.apply(vec![
            view("zoe", NOW),
            like(EventType::Like, "zoe", "late", NOW),
            erase("zoe", NOW),
            view("zoe", NOW),
            like(EventType::Toggle, "zoe", "liked", NOW),
            put("zoe", "own", NOW),
            view("zoë", NOW),
        ]);
        let erased: Vec<u64> =
            verdicts.iter().filter(|(_, verdict)| *verdict == Verdict::Erased).map(|(at, _)| *at).collect();
        assert_eq!(erased, [16, 17, 18], "{verdicts:?}");
        assert_eq!(rows_with(fixture, "zoe"), Vec::<String>::new());
        assert_eq!(counts().0, before.0 + 3, "what came before it in the journal is stored");
        let nameless = "SELECT count(*) FROM events WHERE user_id IS NULL AND session_id IS NULL AND url IS NULL \
                        AND referrer IS NULL AND properties IS NULL";
        assert_eq!(fixture.number(nameless), 7);
        let likes = |post: &str| fixture.ledger.likes(post, Some("zoe")).expect("answers");
        assert_eq!(likes("liked"), Likes { like_count: 1, liked: false });
        assert_eq!((likes("own"), likes("late")), (Likes::default(), Likes::default()));
        assert_eq!(fixture.ledger.post("own").expect("answers"), None);
        assert!(fixture.ledger.post("liked").expect("answers").is_some(), "the post of somebody else");
        let of = |post: &str, likes| (post.to_owned(), likes);
        let Erasure { unliked, deleted } = fixture.ledger.erasure(feed.stream, 15).expect("answers");
        assert_eq!(unliked, [of("late", 1), of("liked", 1), of("own", 2)]);
        // Two likes and a put; then without the likes, and deleted.
        assert_eq!(deleted, [of("own", 6)]);
        let net =
            "SELECT coalesce(sum(CASE action WHEN 'LIKE' THEN 1 ELSE -1 END), 0) FROM post_like_log WHERE post_id";
        assert_eq!(fixture.number(&format!("{net} = 'own'")), 0, "undone through the log");
        assert_eq!(fixture.number(&format!("{net} = 'liked'")), 1);

        // Older records of another journal, and later ones; again, which changes nothing.
        let after = counts();
        let late = other.apply(vec![view("zoe", NOW - 1), search("zoe", NOW), view("ann", NOW)]);
        assert_eq!(late, [(1, Verdict::Erased), (2, Verdict::Erased)]);
        let imported = Event { event_time_ms: NOW - HOUR, received_at_ms: NOW + HOUR, ..event(EventType::Click, NOW) };
        let imported = Record::Event(Event { user_id: Some("zoe".into()), component_id: Some(1), ..imported });
        assert_eq!(other.apply(vec![imported]), [(4, Verdict::Erased)], "what happened before it");
        assert_eq!(counts().0, after.0 + 1);
        assert_eq!(other.apply(vec![erase("zoe", NOW)]), [(5, Verdict::Erasure)]);
        assert_eq!(rows_with(fixture, "zoe"), Vec::<String>::new());
        let liked = received(like(EventType::Like, "zoe", "liked", NOW + MINUTE), NOW + MINUTE);
        feed.apply(vec![view("zoe", NOW + 1), liked]);
        assert_eq!(fixture.number("SELECT count(*) FROM events WHERE user_id = 'zoe'"), 2);
        assert_eq!(fixture.number("SELECT count(*) FROM user_hour WHERE user_id = 'zoe'"), 2, "who comes back is new");
        other.apply(vec![erase("zoe", NOW)]);
        assert_eq!(fixture.number("SELECT count(*) FROM events WHERE user_id = 'zoe'"), 2, "an old erasure again");
        assert_eq!(fixture.number("SELECT count(*) FROM user_hour WHERE user_id = 'zoe'"), 2);
        let snapshot = fixture.snapshot(NOW + 2 * MINUTE);
        assert!(snapshot.forgotten.contains(&("zoe".to_owned(), String::new(), NOW)), "for the live store");
        assert!(snapshot.recent.iter().all(|(user, ..)| user != "zoe"));
    });
}

/// The places of posts by views, clicks and likes, as lists of the ledger show them.
fn places(fixture: &Fixture, window: Window) -> Vec<(String, f64)> {
    let parts = vec![(Dimension::PostViews, 1.0), (Dimension::PostClicks, 3.0), (Dimension::PostLikes, 10.0)];
    fixture.top(&TopQuery { parts, window, hot: false, limit: 10 })
}

// claims: L24
#[test]
fn a_deleted_post_is_in_no_list_until_it_is_put_again() {
    each_ledger(|fixture| {
        let mut feed = fixture.feed();
        let seen = |at_ms| view("ann", at_ms);
        let other =
            |post: &str| Record::Event(Event { post_id: Some(post.to_owned().into()), ..event(EventType::Click, NOW) });
        let liked = |user: &str| like(EventType::Like, user, "seen", NOW);
        let place = |name: &str, score| (name.to_owned(), score);
        feed.apply(vec![seen(NOW), seen(NOW - 3 * HOUR), seen(NOW - 20 * HOUR), liked("a"), other("b"), other("a")]);
        assert!(WINDOWS.iter().all(|window| places(fixture, *window)[0].0 == "seen"));
        // Views and likes before the deletion and after it, in one batch.
        feed.apply(vec![seen(NOW), delete("seen"), seen(NOW), liked("b"), delete("never was")]);
        for folded in [false, true] {
            for window in WINDOWS {
                let expected = [place("a", 3.0), place("b", 3.0)];
                assert_eq!(places(fixture, window), expected, "{window:?}, folded: {folded}");
            }
            feed.writer.fold(NOW, &jiff::tz::TimeZone::UTC).expect("folds");
        }
        // The page is full, and the next one begins where it ends.
        let page = |after: Option<(i64, String)>, limit| {
            let parts = [(Dimension::PostViews, 5), (Dimension::PostClicks, 3)];
            fixture.ranking(&RankingQuery { after, ..ranking_of(&parts, NOW - 24 * HOUR..NOW + HOUR, limit) })
        };
        assert_eq!(page(None, 1), [("a".to_owned(), 3)]);
        assert_eq!(page(Some((3, "a".to_owned())), 5), [("b".to_owned(), 3)]);
        let mut tombstones = fixture.snapshot(NOW).tombstones;
        tombstones.sort();
        // The like, its removal and the deletion; then another like.
        assert_eq!(tombstones, [("never was".to_owned(), 1), ("seen".to_owned(), 3)]);
        let views =
            CountFilter { post_id: Some("seen".into()), event_type: Some(EventType::PageView), ..Default::default() };
        assert_eq!(fixture.ledger.count(&views).expect("counts"), 5, "what was counted stays");
        feed.apply(vec![put("ann", "seen", NOW)]);
        assert_eq!(places(fixture, Window::Day)[0], place("seen", 15.0), "five views and a like");
        let later = NOW + 9 * 24 * HOUR + 1;
        assert_eq!(fixture.snapshot(later).tombstones, []);
    });
}

// claims: L23
#[test]
fn who_comes_back_through_another_journal_keeps_what_they_did_since_whenever_the_erasure_comes() {
    let made = |post: &str, at_ms: i64, created_at_ms: i64| match put("zoe", post, at_ms) {
        Record::PostPut(put) => Record::PostPut(PostPut { created_at_ms: Some(created_at_ms), ..put }),
        other => other,
    };
    let removed = |post: &str, at_ms: i64| Record::PostDelete(PostDelete { post_id: post.to_owned().into(), at_ms });
    let (before, erased, after) = (NOW - 1, NOW, NOW + 1);
    let of_zoe = vec![
        // By a clock that is ahead, but received before the erasure.
        received(like(EventType::Like, "zoe", "ahead", NOW + 50_000), before),
        received(like(EventType::Like, "zoe", "old", before), before),
        received(like(EventType::Like, "zoe", "back", after), after),
        received(like(EventType::Like, "zoe", "taken back", before), before),
        received(like(EventType::Unlike, "zoe", "taken back", after), after),
        // Likes that went with their posts behind the erasure.
        received(like(EventType::Like, "zoe", "removed", before), before),
        received(like(EventType::Like, "zoe", "removed later", after), after),
        removed("removed", NOW + 2),
        removed("removed later", NOW + 2),
        made("made ahead", before, NOW + 50_000),
        put("zoe", "made before", before),
        put("zoe", "written anew", before),
        put("zoe", "written anew", after),
        put("zoe", "made since", after),
        put("zoe", "ann's by now", before),
        put("ann", "ann's by now", after),
        search("zoe", before),
        search("zoe", after),
    ];
    let dead = [(17, "refused"), (18, "refused")];
    let check = |fixture: &Fixture| {
        let of = |sql: &str| fixture.rows(sql).concat();
        assert_eq!(of("SELECT post_id FROM post_like WHERE user_id = 'zoe'"), ["back"]);
        assert_eq!(of("SELECT post_id FROM post ORDER BY 1"), ["ann's by now", "made since", "written anew"]);
        let log = "SELECT post_id || ' ' || action FROM post_like_log WHERE user_id = 'zoe' ORDER BY seq";
        let named = ["back LIKE", "taken back UNLIKE", "removed later LIKE", "removed later UNLIKE"];
        assert_eq!(of(log), named, "what happened before the erasure names nobody");
        assert_eq!(of("SELECT position FROM dead_letter"), ["18"]);
        assert_eq!(fixture.number("SELECT count(*) FROM events WHERE user_id = 'zoe'"), 3);
        for post in ["ahead", "old", "taken back", "removed"] {
            assert_eq!(fixture.ledger.likes(post, None).expect("answers").like_count, 0, "{post}");
        }
    };
    each_ledger(|fixture| {
        fixture.feed().try_apply(of_zoe.clone(), &dead).expect("applies");
        fixture.feed().apply(vec![erase("zoe", erased)]);
        check(fixture);
    });
    // In one batch as well, for an instance's clock that was set back.
    each_ledger(|fixture| {
        let all = [of_zoe.clone(), vec![erase("zoe", erased)]].concat();
        fixture.feed().try_apply(all, &dead).expect("applies");
        check(fixture);
    });
}
