//! The normalised form of keywords and hashtags: Unicode full case folding, then NFC.

use std::borrow::Cow;

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

/// The normalised keyword: what counts, filters, recent lists and searches compare.
pub fn fold_keyword(keyword: &str) -> Cow<'_, str> {
    if keyword.is_ascii() {
        let has_upper = keyword.bytes().any(|byte| byte.is_ascii_uppercase());
        return if has_upper { keyword.to_ascii_lowercase().into() } else { keyword.into() };
    }
    // Folding takes each character for itself, so it begins with composed ones.
    let mut folded = String::with_capacity(keyword.len() + 8);
    composed(keyword).chars().for_each(|character| push_folded(character, &mut folded));
    match composed(&folded) {
        Cow::Owned(text) => Cow::Owned(text),
        Cow::Borrowed(_) => Cow::Owned(folded),
    }
}

/// A hashtag as posts keep it and searches find it: trimmed, without its `#`, normalised as keywords are. May be
/// empty.
pub fn fold_hashtag(typed: &str) -> String {
    fold_keyword(typed.trim().trim_start_matches('#').trim()).into_owned()
}

fn composed(text: &str) -> Cow<'_, str> {
    match is_nfc_quick(text.chars()) {
        IsNormalized::Yes => Cow::Borrowed(text),
        _ => Cow::Owned(text.nfc().collect()),
    }
}

/// Full case folding (CaseFolding.txt, C and F) by the standard library's tables: lower case, upper case, lower
/// case. The capital sharp s needs the first step. The dotless i and Cherokee are the only exceptions.
fn push_folded(character: char, out: &mut String) {
    match character {
        'ı' | '\u{13A0}'..='\u{13F5}' => out.push(character),
        '\u{13F8}'..='\u{13FD}' | '\u{AB70}'..='\u{ABBF}' => out.extend(character.to_uppercase()),
        _ => out.extend(character.to_lowercase().flat_map(char::to_uppercase).flat_map(char::to_lowercase)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_that_fold_to_the_same_are_one() {
        for (folded, spellings) in [
            ("salon chair", &["Salon Chair", "salon chair"][..]),
            ("école", &["ÉCOLE", "e\u{301}cole", "E\u{301}COLE"]),
            ("고양이", &["고양이", "\u{1100}\u{1169}양이"]),
            ("οδοσ", &["οδος", "ΟΔΟΣ", "Οδοσ"]),
            ("strasse", &["Straße", "STRASSE", "STRAẞE"]),
            ("fin", &["ﬁn", "FIN"]),
            ("i\u{307}", &["İ", "I\u{307}"]),
            ("ısı", &["ısı"]),
            ("Ꭰ", &["Ꭰ", "ꭰ"]),
            ("kåω", &["\u{212A}\u{212B}\u{2126}"]),
        ] {
            for spelling in spellings {
                assert_eq!(fold_keyword(spelling), folded, "{spelling}");
            }
        }
        // An iota below is folded to a letter of its own, in any order of the marks.
        assert_eq!(fold_keyword("\u{1FB4}"), fold_keyword("α\u{345}\u{301}"));
        assert!(matches!(fold_keyword("plain"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_normalised_keyword_is_its_own_normalised_form() {
        for character in (0..=0x10FFFF).filter_map(char::from_u32) {
            let once = fold_keyword(character.encode_utf8(&mut [0; 4])).into_owned();
            assert_eq!(fold_keyword(&once), once, "{character:?}");
        }
    }

    #[test]
    fn hashtags_are_keywords_without_their_sign() {
        for (typed, kept) in
            [(" #Oak ", "oak"), ("##É", "é"), ("# a b", "a b"), ("#", ""), ("cafe\u{301}", "café"), ("#Maß", "mass")]
        {
            assert_eq!(fold_hashtag(typed), kept, "{typed}");
        }
    }
}
