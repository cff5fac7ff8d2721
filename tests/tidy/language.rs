//! Counts that may only shrink: words that a plainer one replaces, public type names used twice,
//! lines of `src/`.
//!
//! Lower a number whenever its count has fallen.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::sources;

/// Lines of `src/` without inline tests.
const SOURCE_LINES_MAX: usize = 36_675;
const TYPE_NAMES_USED_TWICE_MAX: usize = 37;
/// In comments and documents. "What" and "where" are counted in every use: most are a noun, and "if".
const WHAT_MAX: usize = 932;
const WHERE_MAX: usize = 274;
const ODD_MAX: usize = 377;
const ODD: [&str; 24] = [
    "whoever",
    "whatever",
    "somebody",
    "nobody",
    "anybody",
    "everybody",
    "so many",
    "so much",
    "behind it",
    "who came",
    "who comes",
    "who asks",
    "who asked",
    "who waits",
    "who wrote",
    "those who",
    "is believed",
    "are believed",
    "taken off",
    "stands for",
    "stands in",
    "stands at",
    "anew",
    "is told",
];

/// Comments of sources and tests, and documents, in lower case, one space between words.
fn prose() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // This file names the words.
    let texts = sources("src").into_iter().chain(sources("tests"));
    let texts = texts.filter(|(path, _)| !path.ends_with("tidy/language.rs"));
    let is_comment = |line: &&str| line.trim_start().starts_with("//");
    let comments = texts.map(|(_, text)| text.lines().filter(is_comment).collect::<Vec<_>>().join(" "));
    let files = ["", "docs", "perf", ".github"].into_iter().flat_map(|folder| fs::read_dir(root.join(folder)).unwrap());
    let documents = files.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|e| e == "md"));
    let documents = documents.map(|path| fs::read_to_string(path).unwrap());
    let text = comments.chain(documents).collect::<Vec<_>>().join(" ").to_lowercase();
    let words = text.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty());
    format!(" {} ", words.collect::<Vec<_>>().join(" "))
}

fn count(prose: &str, phrase: &str) -> usize {
    prose.matches(&format!(" {phrase} ")).count()
}

#[test]
fn words_that_a_plainer_one_replaces_get_fewer() {
    let prose = prose();
    let odd: usize = ODD.iter().map(|phrase| count(&prose, phrase)).sum();
    let found = [count(&prose, "what"), count(&prose, "where"), odd];
    let most = [WHAT_MAX, WHERE_MAX, ODD_MAX];
    assert!(found.iter().zip(most).all(|(found, most)| *found <= most), "{found:?}, at most {most:?}");
}

#[test]
fn public_types_share_fewer_names() {
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    let texts = sources("src");
    for line in texts.values().flat_map(|text| text.lines()) {
        let mut words = line.split_whitespace();
        let is_public = words.next().is_some_and(|word| word.starts_with("pub"));
        let is_type = words.next().is_some_and(|word| ["struct", "enum", "trait", "type"].contains(&word));
        if let (true, true, Some(name)) = (is_public, is_type, words.next()) {
            let end = name.find(|letter: char| !letter.is_alphanumeric()).unwrap_or(name.len());
            *names.entry(&name[..end]).or_default() += 1;
        }
    }
    names.retain(|_, uses| *uses > 1);
    assert!(names.len() <= TYPE_NAMES_USED_TWICE_MAX, "{} type names are used twice: {names:?}", names.len());
}

#[test]
fn sources_get_no_longer() {
    let own = |text: &String| text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default().lines().count();
    let lines: usize = sources("src").values().map(own).sum();
    assert!(lines <= SOURCE_LINES_MAX, "{lines} lines of src/, at most {SOURCE_LINES_MAX}");
}
