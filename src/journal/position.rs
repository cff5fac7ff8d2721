//! Positions of records, and how far a reader of the journal is.

/// The sequence number of a record, without gaps, from the birth of its journal; the first is 1, 0 is "none yet".
pub type Position = u64;

/// How far a store has followed a journal: the last record applied and the CRC32C of the frame that
/// ends there (0 at position 0), which tells a copied or foreign journal from this one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watermark {
    pub position: Position,
    pub crc: u32,
}
