//! What SQLite runs and how: the statements of every connection that this process opens, and the plans of them.

use std::collections::{BTreeSet, HashMap};
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::path::Path;
use std::sync::{Mutex, Once, PoisonError};

use rusqlite::{Connection, auto_extension, ffi};

/// In the order in which they were first begun.
static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Notes the statements of connections that are opened from now on.
pub(crate) fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: `trace` opens no database and touches no list of extensions.
        unsafe { auto_extension::register_auto_extension(trace) }.expect("takes it");
    });
}

pub(crate) fn taken() -> Vec<String> {
    std::mem::take(&mut SEEN.lock().unwrap_or_else(PoisonError::into_inner))
}

/// How the file's own SQLite would run each of them, as far as it reads tables; a parameter's value is not looked at.
pub(crate) fn plans(file: &Path, statements: &[String]) -> String {
    let connection = Connection::open(file).expect("opens");
    let mut told = String::new();
    let mut before = BTreeSet::new();
    let reads = ["SELECT", "WITH"];
    for sql in statements.iter().filter(|sql| reads.iter().any(|word| sql.starts_with(word)) && before.insert(*sql)) {
        let mut explain = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).expect("it has run before");
        told.push_str(&format!("    {sql}\n"));
        let mut depths = HashMap::from([(0, 2)]);
        // Parameters stay without values.
        let mut rows = explain.raw_query();
        while let Some(row) = rows.next().expect("answers") {
            let (id, parent, what): (i64, i64, String) =
                (row.get(0).expect("a number"), row.get(1).expect("a number"), row.get(3).expect("a text"));
            let depth = depths.get(&parent).copied().unwrap_or(2);
            depths.insert(id, depth + 1);
            told.push_str(&format!("    {}{what}\n", "  ".repeat(depth)));
        }
    }
    told
}

unsafe extern "C" fn trace(
    db: *mut ffi::sqlite3,
    _error: *mut *mut c_char,
    _routines: *const ffi::sqlite3_api_routines,
) -> c_int {
    // SAFETY: SQLite hands over a connection that is being opened; the callback is there for ever and has no context.
    unsafe { ffi::sqlite3_trace_v2(db, ffi::SQLITE_TRACE_STMT as c_uint, Some(note), std::ptr::null_mut()) }
}

unsafe extern "C" fn note(_event: c_uint, _context: *mut c_void, _statement: *mut c_void, text: *mut c_void) -> c_int {
    // SAFETY: of this event the last argument is the statement's text, with a zero at its end.
    let sql = unsafe { CStr::from_ptr(text.cast::<c_char>()) };
    SEEN.lock().unwrap_or_else(PoisonError::into_inner).push(sql.to_string_lossy().into_owned());
    0
}
