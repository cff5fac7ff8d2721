//! What holds between bounds: a change of one of them alone that breaks it does not compile.

use super::*;

const _: () = {
    assert!(JOURNAL_LINGER_BYTES <= FRAME_BYTES_MAX && JOURNAL_LINGER_BYTES < PENDING_BYTES_MAX);
    assert!(HEAD_BYTES_MAX <= READ_BUFFER_BYTES, "a head fits into one lent buffer");
    assert!(REQUEST_LINE_BYTES_MAX <= HEAD_BYTES_MAX);
    assert!(RECORD_BYTES_MAX <= FRAME_BYTES_MAX);
    assert!(FRAME_BYTES_MAX <= BATCH_BYTES_MAX && FRAME_RECORDS_MAX <= BATCH_RECORDS_MAX);
    assert!(REQUEST_EVENTS_MAX <= FRAME_RECORDS_MAX, "a request's events fit into one frame");
    assert!(FRAME_BYTES_MAX < PENDING_BYTES_MAX);
    assert!(BODY_DECODED_BYTES_MAX < PENDING_BYTES_MAX);
    assert!(EVENT_BYTES_MAX + 4 * 1024 <= RECORD_BYTES_MAX);
    assert!(
        POST_CONTENT_BYTES_MAX
            + POST_HASHTAGS_MAX * (HASHTAG_BYTES_MAX + 4)
            + POST_IMAGES_MAX * (URL_BYTES_MAX + 4)
            + 2 * ID_BYTES_MAX
            + 256
            <= RECORD_BYTES_MAX,
        "the largest post is a record"
    );
    assert!(POST_BYTES_MAX <= BODY_BYTES_MAX);
    assert!(
        POSTGRES_CLEARED_LIKES_USUAL as u64 * POSTGRES_CLEARED_LIKE_US_MAX / 1_000 <= POSTGRES_WRITE_STATEMENT_MS_MAX
    );
    assert!(READ_WAIT_MS <= LEDGER_WAIT_MS);
    assert!(EXACT_MINUTES + 60 <= ROLLUP_MINUTES_KEPT);
    assert!(SEARCH_POSTS <= LIST_ROWS_MAX);
    assert!(LIST_ROWS_MAX <= u8::MAX as usize, "a kept search counts its posts in a byte");
    assert!(EXPORT_SLICE_MS < EXPORT_PAGE_MS && EXPORT_PAGE_ROWS_MIN <= EXPORT_PAGE_ROWS_MAX);
    assert!(EXPORT_PAGE_MS + POSTGRES_READ_STATEMENT_MS_MAX + READ_TIME_STEP_MS < READ_WAIT_MS - 100);
    assert!(KEY_BYTES_MIN <= KEY_BYTES_MAX && KEY_BYTES_MAX < HEAD_BYTES_MAX);
    assert!(STACK_WORDS * 8 >= 64 * 1024);
    assert!(STACK_GIVEN_BACK_BYTES + 48 * 1024 <= STACK_WORDS * 8, "a waiting connection uses at most 40 KiB");
    assert!(LIVE_BUCKET_MEMBERS_MAX < LIVE_OPEN_BUCKET_MEMBERS_MAX);
    assert!(LIVE_MINUTES_KEPT < ROLLUP_MINUTES_KEPT, "a rebuild finds every live minute in the ledger");
    assert!(IMPORT_REQUEST_MS_MAX > BODY_MS && IMPORT_REQUEST_MS_MAX > LEDGER_WAIT_MS);
    assert!(IMPORT_GIVE_UP_SECS_MAX * 1_000 < ID_MEMORY_MS as u64);
    assert!(IMPORT_SHOWN_BYTES_MAX < EVENT_BYTES_MAX && EVENT_BYTES_MAX < BODY_BYTES_MAX);
    assert!(CACHE_POLL_MS_MAX < CACHE_LOCK_WAIT_MS && CACHE_LOCK_WAIT_MS < CACHE_DEADLINE_MS as u64);
    assert!(CACHE_RENEW_MS * 2 < CACHE_LEASE_MS as u64, "a renewal may fail once");
    assert!(CACHE_DEADLINE_MS as u64 <= READ_WAIT_MS);
    assert!(CACHE_FENCE_KEPT_MS > CACHE_HOLD_MS_MAX + CACHE_LEASE_MS as u64);
    assert!(ANSWER_BYTES_MAX <= CACHE_ENTRY_BYTES_MAX, "a whole answer can be cached");
    assert!(POST_BYTES_MAX + ANSWER_FRAME_BYTES_MAX <= ANSWER_BYTES_MAX, "an answer holds any one post");
    assert!(3 * CACHE_ENTRY_BYTES_MAX <= CACHE_LOCAL_BYTES_MAX / CACHE_LOCAL_SHARDS);
    assert!(CACHE_LOCK_WAIT_MS + POSTGRES_READ_STATEMENT_MS_MAX + READ_TIME_STEP_MS < CACHE_DEADLINE_MS as u64);
    // A look, and then a try at the lock for which no connection is free, before the ledger is asked without them.
    assert!(3 * CACHE_CALL_MS_MAX <= CACHE_DEADLINE_MS as u64 - POSTGRES_READ_STATEMENT_MS_MAX - READ_TIME_STEP_MS);
};
