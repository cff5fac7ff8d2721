//! What a post is found by: numbers of the characters of its folded content, and of each two that stand side by side.
//!
//! Korean words have two syllables: an index of three characters in a row finds nothing of them. A store looks up the
//! pairs of a keyword and then looks into the text: numbers say where it is worth looking, never that it matches.

use crate::events::fold_keyword;
use crate::limits::ANSWER_BYTES_MAX;
use crate::ports::Post;

/// A post's content as keywords are compared with it; `None` where that is the content itself.
pub fn folded_content(content: &str) -> Option<String> {
    let folded = fold_keyword(content);
    (*folded != *content).then(|| folded.into_owned())
}

/// The numbers of a folded content: its characters and pairs, sorted, each once.
pub fn content_grams(folded: &str) -> Vec<i32> {
    let mut grams: Vec<i32> = folded.chars().map(of_character).chain(pairs(folded)).collect();
    grams.sort_unstable();
    grams.dedup();
    grams
}

/// Those that every content with this folded keyword has: its pairs, or its only character. Sorted, each once.
pub fn keyword_grams(keyword: &str) -> Vec<i32> {
    let mut grams: Vec<i32> = pairs(keyword).collect();
    if grams.is_empty() {
        grams.extend(keyword.chars().map(of_character));
    }
    grams.sort_unstable();
    grams.dedup();
    grams
}

/// The first rows of a search, up to `limit` of them and until they fill an answer; and whether that is enough, so that
/// no further ones are looked for.
pub fn first_posts<E>(rows: impl Iterator<Item = Result<Post, E>>, limit: usize) -> Result<(Vec<Post>, bool), E> {
    let (mut posts, mut bytes) = (Vec::new(), 0);
    for row in rows {
        let post = row?;
        let lists = post.hashtags.iter().chain(&post.image_urls);
        bytes += post.content.len() + lists.map(String::len).sum::<usize>();
        posts.push(post);
        if posts.len() >= limit || bytes >= ANSWER_BYTES_MAX {
            return Ok((posts, true));
        }
    }
    Ok((posts, false))
}

fn pairs(text: &str) -> impl Iterator<Item = i32> {
    text.chars().zip(text.chars().skip(1)).map(|(first, second)| of_pair(first as u32, second as u32))
}

fn of_character(character: char) -> i32 {
    of_pair(character as u32, 0)
}

/// Exact for the characters of the basic plane, all of Korean among them; others may share a number.
fn of_pair(first: u32, second: u32) -> i32 {
    ((first << 16) ^ second).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_content_has_its_grams_only() {
        let content = "고양이 Oak \u{1F333}\u{1F333}x";
        let folded = folded_content(content).unwrap();
        assert_eq!(folded, "고양이 oak \u{1F333}\u{1F333}x");
        let grams = content_grams(&folded);
        assert!(grams.is_sorted());
        let starts: Vec<usize> = folded.char_indices().map(|(at, _)| at).chain([folded.len()]).collect();
        for (index, from) in starts.iter().enumerate() {
            for to in &starts[index + 1..] {
                let wanted = keyword_grams(&folded[*from..*to]);
                assert!(!wanted.is_empty() && wanted.iter().all(|gram| grams.binary_search(gram).is_ok()));
            }
        }
        for other in ["양고", "강", "oa k", "xx"] {
            assert!(keyword_grams(other).iter().any(|gram| grams.binary_search(gram).is_err()), "{other}");
        }
    }

    #[test]
    fn a_content_that_is_folded_already_is_kept_once() {
        assert_eq!(folded_content("고양이 oak"), None);
        assert_eq!(folded_content("E\u{301}COLE").as_deref(), Some("école"));
    }
}
