//! Posts as the predecessor's load has them: a thousand, each with one to four of ten Korean
//! hashtags.

use std::borrow::Cow;

use rand::rngs::ChaCha8Rng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use crate::events::PostPut;

const HASHTAGS: [&str; 10] = ["고양이", "강아지", "여행", "맛집", "일상", "운동", "독서", "음악", "코딩", "스터디"];
const OPENINGS: [&str; 5] = ["오늘의", "주말에 함께한", "오랜만에", "처음으로 써 보는", "비 오는 날의"];
const ENDINGS: [&str; 5] = ["기록", "이야기, 사진은 다음에", "하루. So good!", "생각 몇 가지", "추천 좀 해 주세요"];
/// Users of the predecessor's load.
const AUTHORS: u64 = 100;

/// The post of a number, 1 or more: its id. The same at every call, so that making it again changes
/// nothing.
pub fn post(number: u64, now_ms: i64) -> PostPut<'static> {
    let mut random = ChaCha8Rng::seed_from_u64(number);
    let count = random.random_range(1..=4);
    let hashtags: Vec<Cow<'static, str>> = HASHTAGS.sample(&mut random, count).map(|tag| Cow::Borrowed(*tag)).collect();
    let opening = OPENINGS[random.random_range(0..OPENINGS.len())];
    let ending = ENDINGS[random.random_range(0..ENDINGS.len())];
    PostPut {
        post_id: number.to_string().into(),
        user_id: random.random_range(1..=AUTHORS).to_string().into(),
        content: format!("{opening} {} {ending} {number}", hashtags[0]).into(),
        hashtags,
        image_urls: Vec::new(),
        created_at_ms: None,
        at_ms: now_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    #[test]
    fn a_thousand_posts_share_ten_hashtags_and_are_the_same_every_time() {
        let posts: Vec<PostPut<'_>> = (1..=1_000).map(|number| post(number, 0)).collect();
        assert_eq!(posts, (1..=1_000).map(|number| post(number, 0)).collect::<Vec<_>>());
        let mut uses: BTreeMap<&str, usize> = BTreeMap::new();
        for post in &posts {
            let own: BTreeSet<&str> = post.hashtags.iter().map(|tag| &**tag).collect();
            assert!(own.len() == post.hashtags.len() && (1..=4).contains(&own.len()), "{post:?}");
            own.into_iter().for_each(|tag| *uses.entry(tag).or_default() += 1);
        }
        assert!(uses.len() == 10 && uses.values().all(|uses| (180..330).contains(uses)), "{uses:?}");
        assert_eq!(posts.iter().map(|post| &post.content).collect::<BTreeSet<_>>().len(), 1_000);
    }
}
