//! Where the rows of a body are: the items of an array or of an envelope's `events`, or lines.
//!
//! Only brackets, strings and commas count here. The parser judges each row alone, so a row that is no JSON or no UTF-8
//! never spoils its batch. The search stops at the row limit. It calls `pause` as it goes, so that other connections
//! of the worker run meanwhile.

use std::ops::Range;

use memchr::{memchr, memchr3};

use super::content::{Shape, without_mark};
use super::wire::Rejection;
use crate::limits::{EVENT_BYTES_MAX, REQUEST_EVENTS_MAX, ROW_RETRY_BYTES_MAX, ROW_SEARCH_BYTES};

/// Brackets whose kind is compared with that of their end. Rows may be nested 33 levels deep.
const DEPTH_COMPARED: usize = 64;
/// A name that matters, with every character escaped, is shorter.
const NAME_BYTES_MAX: usize = 64;

#[derive(Debug, Default, PartialEq)]
pub(super) struct Rows {
    /// At most [`REQUEST_EVENTS_MAX`].
    pub(super) ranges: Vec<Range<usize>>,
    /// The value of the envelope's `sentAt`.
    pub(super) sent_at: Option<Range<usize>>,
}

impl Rows {
    fn push(&mut self, row: Range<usize>) -> Result<(), Rejection> {
        if self.ranges.len() == REQUEST_EVENTS_MAX {
            let message = format!("a request may have at most {REQUEST_EVENTS_MAX} events");
            return Err(Rejection::new("too_many_events", message));
        }
        self.ranges.push(row);
        Ok(())
    }
}

/// The rows of lines; blank lines do not count.
pub(super) fn of_lines(bytes: &[u8], pause: &mut dyn FnMut()) -> Result<Rows, Rejection> {
    let rows = Scanner::new(bytes, pause).lines()?;
    if rows.ranges.is_empty() { Err(Rejection::new("empty_body", "send one event a line")) } else { Ok(rows) }
}

/// The rows of a body that is JSON, or lines of JSON under a content type that does not say so. None: it is one value.
pub(super) fn of_json(bytes: &[u8], pause: &mut dyn FnMut()) -> Result<Option<Rows>, Rejection> {
    let mut scanner = Scanner::new(bytes, pause);
    let Some(first) = scanner.skip_blanks() else {
        return Err(Rejection::new("empty_body", "send one event, an array of events, or one event a line"));
    };
    let start = scanner.at;
    match first {
        b'[' => return scanner.whole_array().map(Some),
        b'{' => {
            if let Some(rows) = scanner.envelope()? {
                return Ok(Some(rows));
            }
            scanner.rewind(start);
            if scanner.value() && scanner.skip_blanks().is_none() {
                return Ok(None);
            }
        }
        _ => {}
    }
    scanner.rewind(start);
    let rows = scanner.lines()?;
    Ok((rows.ranges.len() > 1).then_some(rows))
}

/// Refuses the beginning of a body if it has too many rows already.
pub(super) fn check_beginning(bytes: &[u8], shape: Shape) -> Result<(), Rejection> {
    let mut pause = || ();
    let mut scanner = Scanner { is_cut: true, ..Scanner::new(without_mark(bytes), &mut pause) };
    match (shape, scanner.skip_blanks()) {
        (Shape::Lines, _) => scanner.lines().map(|_| ()),
        (Shape::Json, Some(b'[')) => scanner.array(&mut Rows::default()).map(|_| ()),
        (Shape::Json, Some(b'{')) => scanner.envelope().map(|_| ()),
        _ => Ok(()),
    }
}

struct Scanner<'b, 'p> {
    bytes: &'b [u8],
    at: usize,
    next_pause: usize,
    retry_bytes_left: usize,
    /// More bytes follow: the last row may only look broken.
    is_cut: bool,
    /// Many rows were broken: now a row ends where no JSON goes on like that, not where its brackets do.
    is_strict: bool,
    pause: &'p mut dyn FnMut(),
}

impl<'b, 'p> Scanner<'b, 'p> {
    fn new(bytes: &'b [u8], pause: &'p mut dyn FnMut()) -> Scanner<'b, 'p> {
        let (next_pause, retry_bytes_left) = (ROW_SEARCH_BYTES, ROW_RETRY_BYTES_MAX);
        Scanner { bytes, at: 0, next_pause, retry_bytes_left, is_cut: false, is_strict: false, pause }
    }

    /// Moves back. What was looked at counts towards the next pause, or many short ways back would put it off.
    fn rewind(&mut self, to: usize) {
        let left = self.next_pause.saturating_sub(self.at);
        (self.at, self.next_pause) = (to, to + left);
    }

    fn pause_if_due(&mut self) {
        if self.at >= self.next_pause {
            self.next_pause = self.at + ROW_SEARCH_BYTES;
            (self.pause)();
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// Moves to the first byte from here on that `find` finds. False: there is none.
    fn seek(&mut self, find: impl Fn(&[u8]) -> Option<usize>) -> bool {
        while self.at < self.bytes.len() {
            let end = self.bytes.len().min(self.at + ROW_SEARCH_BYTES);
            if let Some(offset) = find(&self.bytes[self.at..end]) {
                self.at += offset;
                return true;
            }
            self.at = end;
            self.pause_if_due();
        }
        false
    }

    fn skip_blanks(&mut self) -> Option<u8> {
        self.seek(|bytes| bytes.iter().position(|byte| !is_blank(*byte)));
        self.peek()
    }

    fn lines(&mut self) -> Result<Rows, Rejection> {
        let mut rows = Rows::default();
        while self.skip_blanks().is_some() {
            let start = self.at;
            self.seek(|bytes| memchr(b'\n', bytes));
            let mut end = self.at;
            // A longer line is too large with its blanks or without.
            while end - start <= EVENT_BYTES_MAX && is_blank(self.bytes[end - 1]) {
                end -= 1;
            }
            rows.push(start..end)?;
        }
        Ok(rows)
    }

    /// An array and nothing else. Lines that begin with a bracket may look like one.
    fn whole_array(&mut self) -> Result<Rows, Rejection> {
        let start = self.at;
        let mut rows = Rows::default();
        let is_closed = self.array(&mut rows)?;
        if is_closed && self.skip_blanks().is_none() {
            return Ok(rows);
        }
        let tail = self.at..self.bytes.len();
        self.rewind(start);
        if let Ok(lines) = self.lines()
            && lines.ranges.get(1).is_some_and(|line| self.is_object(line))
        {
            return Ok(lines);
        }
        if !tail.is_empty() {
            rows.push(tail)?;
        }
        Ok(rows)
    }

    fn is_object(&self, line: &Range<usize>) -> bool {
        let line = &self.bytes[line.clone()];
        line.starts_with(b"{") && line.ends_with(b"}")
    }

    /// The items of the array that begins here. False: it has no end.
    fn array(&mut self, rows: &mut Rows) -> Result<bool, Rejection> {
        self.at += 1;
        while self.skip_blanks().is_some() {
            let start = self.at;
            // A row that lacks its end may take the end of the array for its own.
            if !self.item(b']') || self.peek().is_none() || self.is_before_row() {
                self.find_next_row(start);
            }
            let next = self.peek();
            // A comma may stand before the end.
            if self.at > start || next == Some(b',') {
                rows.push(start..self.at)?;
            }
            self.at += 1;
            if next == Some(b']') {
                return Ok(true);
            }
        }
        self.at = self.bytes.len();
        Ok(false)
    }

    /// After a row that does not end: the next row is where a comma and an opening brace follow.
    fn find_next_row(&mut self, start: usize) {
        let left = self.retry_bytes_left.checked_sub(self.at - start);
        if self.is_cut || (left.is_none() && self.is_strict) {
            self.at = self.bytes.len();
            return;
        }
        self.is_strict |= left.is_none();
        self.retry_bytes_left = left.unwrap_or(ROW_RETRY_BYTES_MAX);
        self.rewind(start);
        while self.seek(|bytes| memchr(b',', bytes)) {
            let comma = self.at;
            self.at += 1;
            if self.skip_blanks() == Some(b'{') {
                self.at = comma;
                return;
            }
            self.pause_if_due();
        }
    }

    /// Whether the closing bracket here belongs to a broken row, because another row follows.
    fn is_before_row(&mut self) -> bool {
        let bracket = self.at;
        if self.peek() != Some(b']') {
            return false;
        }
        self.at += 1;
        let has_comma = self.skip_blanks() == Some(b',');
        self.at += 1;
        let is_before_row = has_comma && self.skip_blanks() == Some(b'{');
        self.rewind(bracket);
        is_before_row
    }

    /// The rows of an object with an array `events`. None: it has none.
    fn envelope(&mut self) -> Result<Option<Rows>, Rejection> {
        let (mut rows, mut sent_at) = (None, None);
        self.at += 1;
        let mut field;
        let is_whole = loop {
            self.pause_if_due();
            let next = self.skip_blanks();
            field = self.at;
            match next {
                Some(b',') => {
                    self.at += 1;
                    continue;
                }
                Some(b'}') => {
                    self.at += 1;
                    break self.skip_blanks().is_none();
                }
                _ => {}
            }
            let Some(name) = self.name() else { break false };
            let is_list = self.skip_blanks() == Some(b'[') && name == "events";
            let start = self.at;
            if is_list && rows.is_some() {
                break false;
            } else if is_list {
                let mut found = Rows::default();
                self.array(&mut found)?;
                rows = Some(found);
            } else if !self.item(b'}') {
                break false;
            } else if name == "sentAt" {
                sent_at = Some(start..self.at);
            }
        };
        let Some(mut rows) = rows else { return Ok(None) };
        if !is_whole && !self.is_cut && field < self.bytes.len() {
            rows.push(field..self.bytes.len())?;
        }
        Ok(Some(Rows { sent_at, ..rows }))
    }

    /// The name of a field, and its colon; a name that cannot matter is empty.
    fn name(&mut self) -> Option<String> {
        let start = self.at;
        if self.peek() != Some(b'"') || !self.string() {
            return None;
        }
        let quoted = &self.bytes[start..self.at];
        let name = if quoted.len() <= NAME_BYTES_MAX { serde_json::from_slice(quoted).ok() } else { None };
        if self.skip_blanks() != Some(b':') {
            return None;
        }
        self.at += 1;
        Some(name.unwrap_or_default())
    }

    /// Moves to the comma or the closing bracket after an item, or to the end. False: the item itself does not end.
    fn item(&mut self, close: u8) -> bool {
        while let Some(byte) = self.peek() {
            match byte {
                b'{' | b'[' | b'"' if self.value() => {}
                b'{' | b'[' | b'"' => return false,
                b'}' | b']' => return byte == close,
                b',' => return true,
                _ => self.at += 1,
            }
            self.pause_if_due();
        }
        true
    }

    /// Moves behind the string, array or object that begins here. False: it does not end.
    fn value(&mut self) -> bool {
        let mut ends = [0; DEPTH_COMPARED];
        let (mut depth, mut before) = (0, b':');
        while let Some(byte) = self.peek() {
            let is_in_object = || depth > 0 && ends.get(depth - 1) == Some(&b'}');
            if self.is_strict && !may_follow(before, byte, is_in_object()) {
                return false;
            }
            if !is_blank(byte) {
                before = byte;
            }
            match byte {
                b'"' => {
                    if !self.string() {
                        return false;
                    }
                    self.at -= 1;
                }
                b'{' | b'[' => {
                    if let Some(end) = ends.get_mut(depth) {
                        *end = if byte == b'{' { b'}' } else { b']' };
                    }
                    depth += 1;
                }
                b'}' | b']' => {
                    depth -= 1;
                    if ends.get(depth).is_some_and(|end| *end != byte) {
                        return false;
                    }
                }
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                return true;
            }
            self.pause_if_due();
        }
        false
    }

    /// Moves behind the string that begins here. False: it does not end; no string holds a line end as it is.
    fn string(&mut self) -> bool {
        self.at += 1;
        while self.seek(|bytes| memchr3(b'"', b'\\', b'\n', bytes)) {
            match self.bytes[self.at] {
                b'"' => {
                    self.at += 1;
                    return true;
                }
                b'\\' => self.at += 2,
                _ => return false,
            }
            self.pause_if_due();
        }
        self.at = self.bytes.len();
        false
    }
}

/// Whether JSON may go on like this: what is enough to find most rows that were cut.
fn may_follow(before: u8, byte: u8, is_in_object: bool) -> bool {
    match (before, byte) {
        (b'"', _) => matches!(byte, b',' | b':' | b'}' | b']') || is_blank(byte),
        (b',', b'{' | b'[') => !is_in_object,
        _ => true,
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(body: &str) -> Option<Vec<&str>> {
        let found = of_json(body.as_bytes(), &mut || ()).expect("few rows");
        found.map(|rows| rows.ranges.into_iter().map(|range| &body[range]).collect())
    }

    #[test]
    fn rows_are_found_whatever_they_hold() {
        for (body, expected) in [
            ("{}", None),
            (r#" {"a":"x\"}\n{","b":[1,{}]} "#, None),
            ("{\n\"a\":1\n}", None),
            ("{} {}", None),
            ("word", None),
            ("[]", Some(vec![])),
            ("[1, 2,]", Some(vec!["1", "2"])),
            ("[1,,2]", Some(vec!["1", "", "2"])),
            (r#"[{"a":"]"},{"b":[1,2]}]"#, Some(vec![r#"{"a":"]"}"#, r#"{"b":[1,2]}"#])),
            (r#"[{"a":{"b":1},{"c":2},{"d":3}]"#, Some(vec![r#"{"a":{"b":1}"#, r#"{"c":2}"#, r#"{"d":3}"#])),
            (r#"[{"a":"b,{"c":2} , {"d":3}]"#, Some(vec![r#"{"a":"b"#, r#"{"c":2} "#, r#"{"d":3}"#])),
            ("[{}},{}]", Some(vec!["{}}", "{}"])),
            (r#"[{"a":1},{"b"#, Some(vec![r#"{"a":1}"#, r#"{"b"#])),
            ("[1] 2", Some(vec!["1", "2"])),
            (r#"[{"a":1}],{"b":2},],{"c":3}]"#, Some(vec![r#"{"a":1}]"#, r#"{"b":2}"#, "]", r#"{"c":3}"#])),
            (r#"[[,{"a":1},{"b":2}]"#, Some(vec!["[", r#"{"a":1}"#, r#"{"b":2}"#])),
            (r#"{"events":[{"a":[1,{"b":2}],"x":3}"#, Some(vec![r#"{"a":[1"#, r#"{"b":2}"#])),
            ("[1\n{}\n{}", Some(vec!["[1", "{}", "{}"])),
            ("{}\n\n \r\n{\n", Some(vec!["{}", "{"])),
            (r#"{"events":[1,2],"sentAt":3}"#, Some(vec!["1", "2"])),
            (r#"{"sentAt":3,"events":[],}"#, Some(vec![])),
            (r#"{"events":[1"#, Some(vec!["1"])),
            (r#"{"events":[1],"x"#, Some(vec!["1", r#""x"#])),
            (r#"{"a":{"events":[1]}}"#, None),
            (r#"{"events":1}"#, None),
        ] {
            assert_eq!(rows(body), expected, "{body}");
        }
    }

    #[test]
    fn many_broken_rows_spoil_no_other() {
        let row = format!(r#"{{"a" : {{"b":[1,2]}}, "c":"{}"}}"#, "x".repeat(100));
        for broken in [r#"{"a":1"#, r#"{"a":{"b":1}"#, r#"{"a":"b"#, r#"{"a":1,"#, r#"{"a":1]}"#, r#"{"a":1}]"#] {
            let body = format!("[{}]", vec![format!("{broken},{row}"); 500].join(","));
            let found = rows(&body).expect("rows");
            assert_eq!(found.iter().filter(|found| **found == row).count(), 500, "{broken}");
        }
    }

    #[test]
    fn a_beginning_is_refused_only_for_rows_that_it_has() {
        let row = r#"{"a":[{"b":1},{"b":2}]}"#;
        let rows = |count: usize| vec![row; count].join(",");
        for (body, shape, is_refused) in [
            (format!("[{}", rows(1_001)), Shape::Json, true),
            (format!("\u{feff}[{}", rows(1_001)), Shape::Json, true),
            (format!("[{}", rows(1_000)), Shape::Json, false),
            (format!("{{\"events\":[{}", rows(1_001)), Shape::Json, true),
            (format!("{{\"events\":[{}],\"sent", rows(1_000)), Shape::Json, false),
            (format!("[{{\"a\":[{}", rows(5_000)), Shape::Json, false),
            (format!("{{\"a\":[\n{}", "1,\n".repeat(5_000)), Shape::Json, false),
            (format!("{row}\n").repeat(1_001), Shape::Lines, true),
            (format!("{row}\n").repeat(1_000), Shape::Lines, false),
        ] {
            assert_eq!(check_beginning(body.as_bytes(), shape).is_err(), is_refused, "{}", &body[..60]);
        }
    }

    #[test]
    fn the_search_stops_at_the_row_limit_and_pauses() {
        let blanks = " ".repeat(8_000);
        let closed = [format!("]{blanks},{{}},").repeat(400), "{}]".to_owned()].concat().into_bytes();
        for body in [b"1,".repeat(1 << 20), b"\n".repeat(1 << 20), b"[".repeat(1 << 20), closed] {
            let body = [b"[", &body[..]].concat();
            let mut pauses = 0;
            let found = of_json(&body, &mut || pauses += 1);
            let is_cut = found.is_err_and(|rejection| rejection.tag == "too_many_events");
            assert!(is_cut || pauses >= body.len() / ROW_SEARCH_BYTES / 2, "{pauses} pauses in {}", body.len());
        }
    }
}
