//! Keywords as people type them into a shop of furniture: Korean and English in turn, each rank its
//! own.

const KOREAN: [&[&str]; 2] = [
    &["원목", "작은", "접이식", "미니", "화이트", "북유럽", "중고", "조립식", "빈티지", "좌식", "모던", "튼튼한"],
    &["책상", "의자", "침대", "소파", "옷장", "책장", "조명", "식탁", "거울", "선반", "커튼", "러그", "수납장"],
];
const ENGLISH: [&[&str]; 2] = [
    &["oak", "Small", "folding", "white", "used", "Scandinavian", "vintage", "modern", "standing", "low", "cheap"],
    &["desk", "chair", "bed", "sofa", "wardrobe", "bookcase", "lamp", "table", "mirror", "shelf", "curtain", "rug"],
];

/// The keyword of a rank, 1 or more; no two ranks share one.
pub(super) fn keyword(rank: u64) -> String {
    let words = if rank.is_multiple_of(2) { ENGLISH } else { KOREAN };
    let number = rank / 2;
    let (first, second) = (words[0].len() as u64, words[1].len() as u64);
    let name = format!(
        "{} {}",
        words[0][usize::try_from(number % first).expect("below a short length")],
        words[1][usize::try_from(number / first % second).expect("below a short length")]
    );
    match number / (first * second) {
        0 => name,
        round => format!("{name} {round}"),
    }
}

#[cfg(test)]
mod tests {
    use super::keyword;

    #[test]
    fn every_rank_has_a_keyword_of_its_own() {
        let all: std::collections::HashSet<String> = (1..=5_000).map(keyword).collect();
        assert_eq!(all.len(), 5_000);
        assert_eq!((keyword(1), keyword(2)), ("원목 책상".to_owned(), "Small desk".to_owned()));
    }
}
