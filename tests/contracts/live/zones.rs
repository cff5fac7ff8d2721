//! Days of a time zone that moves its clocks: one has 23 hours, one has 25.

use event_tracker::events::Dimension::Keyword;
use event_tracker::ports::{Snapshot, Window};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

use super::bench::{MINUTE_MS, STREAM, minute, on_both, rows};

/// America/New_York and Europe/Berlin, whatever this machine knows of time zones.
const ZONES: [&str; 2] = ["EST5EDT,M3.2.0,M11.1.0", "CET-1CEST,M3.5.0,M10.5.0/3"];

fn first_minute(date: Date, zone: &TimeZone) -> i64 {
    date.to_zoned_datetime(zone.clone()).expect("a date").timestamp().as_second().div_euclid(60)
}

/// The next days, behind the coming ten, that do not have 24 hours, with their minutes.
fn odd_days(zone: &TimeZone) -> Vec<(Date, i64)> {
    let today = Timestamp::now().to_zoned_datetime(zone.clone()).date();
    let days = (10..380).map(|ahead| today.checked_add(ahead.days()).expect("a date"));
    let length = |day: Date| first_minute(day.tomorrow().expect("a date"), zone) - first_minute(day, zone);
    days.map(|day| (day, length(day))).filter(|(_, minutes)| *minutes != 1_440).collect()
}

// claims: V4, V13
#[test]
fn a_week_is_seven_local_days_also_with_one_of_23_or_25_hours() {
    for name in ZONES {
        let zone = TimeZone::posix(name).expect("a time zone");
        let odd = odd_days(&zone);
        let mut lengths: Vec<i64> = odd.iter().map(|(_, minutes)| *minutes).collect();
        lengths.sort_unstable();
        assert_eq!(lengths, [23 * 60, 25 * 60], "{name}");
        for (day, minutes) in odd {
            let first = first_minute(day, &zone);
            // It is today, in the middle, the oldest day of the list, and gone.
            for behind in [0, 3, 6, 7] {
                let today = day.checked_add(behind.days()).expect("a date");
                // The last moments of today.
                let now_ms = first_minute(today.tomorrow().expect("a date"), &zone) * MINUTE_MS - 10_000;
                let oldest = first_minute(today.checked_sub(6.days()).expect("a date"), &zone);
                let edges = [
                    (oldest, "first", 1),
                    (oldest - 1, "before", 2),
                    (first, "begins", 3),
                    (first + minutes - 1, "ends", 4),
                ];
                let counts: Vec<_> = edges.iter().map(|(at, key, count)| (Keyword, *at, *key, *count)).collect();
                let mut expected = vec![("first", 1.0)];
                if behind < 7 {
                    expected.splice(0..0, [("ends", 4.0), ("begins", 3.0)]);
                }
                on_both(|mut bench| {
                    let what = format!("{name}, {day} of {minutes} minutes, {behind} days behind");
                    bench.lose(zone.clone());
                    bench.now_ms = now_ms;
                    bench.rebuild(&Snapshot::default()).unwrap();
                    bench.writer.register(STREAM).unwrap();
                    bench.at = Default::default();
                    // Rebuilt just now: everything is folded already, and counts go straight to
                    // their days.
                    bench.apply(&counts, vec![]);
                    assert_eq!(bench.top(Keyword, Window::Week), rows(&expected), "{what}");
                    let mut snapshot = Snapshot { watermarks: vec![(STREAM, bench.at)], ..Snapshot::default() };
                    snapshot.hours =
                        counts.iter().map(|(d, at, key, n)| (*d, at.div_euclid(60), (*key).to_owned(), *n)).collect();
                    bench.rebuild(&snapshot).unwrap();
                    assert_eq!(bench.top(Keyword, Window::Week), rows(&expected), "{what}, rebuilt");
                });
            }
        }
    }
}

// claims: V4, V6
#[test]
fn minutes_are_folded_into_the_local_day_they_belong_to_when_clocks_change() {
    for name in ZONES {
        let zone = TimeZone::posix(name).expect("a time zone");
        for (day, minutes) in odd_days(&zone) {
            on_both(|mut bench| {
                bench.lose(zone.clone());
                let first = first_minute(day, &zone);
                bench.now_ms = (first - 60) * MINUTE_MS;
                bench.rebuild(&Snapshot::default()).unwrap();
                bench.writer.register(STREAM).unwrap();
                bench.at = Default::default();
                bench.apply(&[(Keyword, first - 1, "yesterday", 1), (Keyword, first, "begins", 2)], vec![]);
                bench.apply(
                    &[(Keyword, first + minutes - 1, "ends", 3), (Keyword, first + minutes, "tomorrow", 4)],
                    vec![],
                );
                for fold in [false, true] {
                    let folded_at = (first + minutes + 2) * MINUTE_MS;
                    bench.now_ms = folded_at;
                    if fold {
                        bench.writer.fold(folded_at).unwrap();
                    }
                    let all = rows(&[("tomorrow", 4.0), ("ends", 3.0), ("begins", 2.0), ("yesterday", 1.0)]);
                    assert_eq!(bench.top(Keyword, Window::Week), all, "{name} {day} {fold}");
                    // Six days later yesterday is gone, and seven days later all but tomorrow.
                    let at_noon = |ahead: i64| {
                        let date = day.checked_add(ahead.days()).expect("a date");
                        first_minute(date, &zone) * MINUTE_MS + 12 * 60 * MINUTE_MS
                    };
                    assert_eq!(bench.top_at(Keyword, Window::Week, at_noon(6)), all[..3], "{name} {day} {fold}");
                    assert_eq!(bench.top_at(Keyword, Window::Week, at_noon(7)), all[..1], "{name} {day} {fold}");
                }
                assert_eq!(minute(bench.now_ms), first + minutes + 2);
            });
        }
    }
}
