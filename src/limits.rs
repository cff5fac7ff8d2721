//! Every bound of the program, under one roof: a name with its unit last and a sentence why.
//!
//! Settings replace some of them at start; what is here is their default. Const assertions tie a bound to its
//! neighbours (`ties.rs`), so that changing one of them alone does not compile.

mod files;
mod memory;
mod ties;

pub use files::*;
pub use memory::of_memory;

// ---- values of the contract (api.md) ----

/// `userId` and `postId`: long enough for any hash or e-mail address, short enough for an index entry.
pub const ID_BYTES_MAX: usize = 128;
/// `sessionId`.
pub const SESSION_BYTES_MAX: usize = 64;
/// `metadata.elementId`.
pub const ELEMENT_BYTES_MAX: usize = 200;
/// `keyword`, after trimming and NFC.
pub const KEYWORD_BYTES_MAX: usize = 200;
/// `metadata.url` and `metadata.referrer`; longer ones are cut.
pub const URL_BYTES_MAX: usize = 2_048;
/// A page as a rollup key; a longer one is cut at a character.
pub const PAGE_KEY_BYTES_MAX: usize = 512;
/// `properties`, as sent.
pub const PROPERTIES_BYTES_MAX: usize = 8 * 1024;
/// A post's content: some 2,500 words, far more than a feed shows and far less than a record may have.
pub const POST_CONTENT_BYTES_MAX: usize = 16 * 1024;
/// Hashtags of a post, each once: as many as the large networks allow.
pub const POST_HASHTAGS_MAX: usize = 30;
/// Items of a list of a post as sent, repeated and empty ones included: each is folded and compared.
pub const POST_LIST_ITEMS_MAX: usize = 1_000;
/// A hashtag, folded.
pub const HASHTAG_BYTES_MAX: usize = 100;
/// Images of a post; each url is bounded as every url is.
pub const POST_IMAGES_MAX: usize = 20;
/// A post as sent: every field at its bound and every byte of it escaped.
pub const POST_BYTES_MAX: usize = 512 * 1024;
/// `sentAt` of an envelope, as JSON: longer than any time, blanks around it included.
pub const SENT_AT_BYTES_MAX: usize = 256;
/// Why a JSON parser refused a row: 1,000 rows have one each in an answer.
pub const JSON_REASON_BYTES_MAX: usize = 200;
/// Nesting of any body: recursion in a coroutine's stack is bounded by it.
pub const JSON_DEPTH_MAX: usize = 32;
/// Events in one request.
pub const REQUEST_EVENTS_MAX: usize = 1_000;
/// One event, as sent.
pub const EVENT_BYTES_MAX: usize = 64 * 1024;
/// A body as sent.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;
/// A body after decompression.
pub const BODY_DECODED_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Decoded bytes that any compressed body may have, however small it is.
pub const BODY_DECODED_BYTES_MIN: usize = 1024 * 1024;
/// More decoded bytes per byte on the wire: event JSON compresses 5 to 30 times, a decompression bomb 1,000 times.
pub const BODY_DECODED_RATIO_MAX: usize = 100;
/// Compressed bytes that a decoder gets at once. A decoder may make 1,000 times as many of them.
pub const DECODER_INPUT_BYTES: usize = 512;
/// Decoded bytes between two looks at the clock.
pub const DECODER_OUTPUT_BYTES: usize = 64 * 1024;
/// Bytes that the search for rows looks at between two looks at the clock.
pub const ROW_SEARCH_BYTES: usize = 16 * 1024;
/// Bytes of a body that are looked at twice, to find the rows after rows that do not end.
pub const ROW_RETRY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How far ahead of us a client's clock may be before the time of receipt is taken instead.
pub const EVENT_FUTURE_MS_MAX: i64 = 60_000;
/// Recent searches kept for a user.
pub const RECENT_SEARCHES_MAX: usize = 10;
/// A user's recent searches are forgotten this long after the newest of them.
pub const RECENT_SEARCHES_MS: i64 = 3_600_000;
/// What one user has forgotten in an hour, one keyword each; past it the user counts as having forgotten everything so far.
pub const FORGOTTEN_OF_USER_MAX: usize = 100;
/// The same of all users of a shared live store; past it the oldest are dropped.
pub const FORGOTTEN_MAX: usize = 100_000;
/// Recent searches in memory, and forgotten ones; less with little memory ([`of_memory`]).
pub const LIVE_RECENT_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Rows of one list answer.
pub const LIST_ROWS_MAX: usize = 100;
/// Posts with one pair of characters that SQLite counts to find the rarest pair of a keyword: more of them is "many".
pub const SEARCH_GRAM_ROWS_COUNTED: i64 = 10_000;
/// Most liked posts that a search reads before it asks an index: they hold 20 of any keyword that one
/// post in 75 has, and another keyword has few matches to rank.
pub const SEARCH_WALK_POSTS: i64 = 1_500;
/// Posts of one search, where it does not say how many; at most [`LIST_ROWS_MAX`].
pub const SEARCH_POSTS: usize = 20;
/// A list of posts in one answer; `next` continues it.
pub const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// What an answer holds beside its posts: the keyword with every byte escaped, times, and a cursor.
pub const ANSWER_FRAME_BYTES_MAX: usize = 4 * 1024;
/// An answer that is smaller is not worth packing.
pub const GZIP_ANSWER_BYTES_MIN: usize = 1_024;
/// A count over several filters may have to read raw rows: its range is bounded.
pub const COUNT_RANGE_MS_MAX: i64 = 31 * 86_400_000;
/// Points of one time series: a day of minutes, two months of hours, four years of days.
pub const SERIES_POINTS_MAX: usize = 1_500;
/// An exact range that ends now reads minute rollups of this much of the past: less than is kept.
pub const EXACT_MINUTES: i64 = 120;
/// Events older than this many days are refused (`RETENTION_DAYS`).
pub const RETENTION_DAYS: u32 = 400;
/// The live store's days and the one that is going on: a rebuild reads them from the ledger.
pub const RETENTION_DAYS_MIN: u32 = LIVE_DAYS_KEPT as u32 + 1;
/// 54 years: no day before 1970 has a partition.
pub const RETENTION_DAYS_MAX: u32 = 20_000;
/// An answer repeats the name of an unknown parameter up to here.
pub const PARAMETER_SHOWN_BYTES_MAX: usize = 64;
/// Events older than this many days need an admin key (`EVENT_AGE_MAX`): each day of the past costs a partition.
pub const EVENT_AGE_DAYS: u32 = 7;
/// `?wait=true` and likes: how long an answer waits for the ledger.
pub const LEDGER_WAIT_MS: u64 = 2_000;
/// A health check asks a store again after this.
pub const HEALTH_ASK_MS: u64 = 1_000;
/// Health checks that wait for one question to a store.
pub const HEALTH_WAITERS_MAX: usize = 1_000;
/// A read waits this long for a lane and its store.
pub const READ_WAIT_MS: u64 = 1_500;

// ---- journal ----

/// A segment file, allocated ahead.
pub const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
/// One frame: what is synced, read and checked as one.
pub const FRAME_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Records of one frame.
pub const FRAME_RECORDS_MAX: usize = 10_000;
/// Bytes that wait for the writer in the batch of one core; past it an append is refused (503).
pub const PENDING_BYTES_MAX: usize = 32 * 1024 * 1024;
/// How long a search that was answered may wait for other records, to share their sync.
pub const JOURNAL_LINGER_MS: u64 = 5;
/// … while so few bytes of a core wait: more are a frame worth writing.
pub const JOURNAL_LINGER_BYTES: usize = 256 * 1024;
/// One record, encoded: an event of the largest size with every field at its bound.
pub const RECORD_BYTES_MAX: usize = 128 * 1024;
/// All segments together (`JOURNAL_MAX_BYTES`).
pub const JOURNAL_BYTES_MAX: u64 = 8 * 1024 * 1024 * 1024;
/// Free space that the journal leaves on its disk (`JOURNAL_MIN_FREE`).
pub const JOURNAL_FREE_BYTES_MIN: u64 = 1024 * 1024 * 1024;
/// Segments that every follower is past stay this long, for replays.
pub const JOURNAL_KEEP_MS: u64 = 3_600_000;
/// How long a start waits for the directory's lock: whoever only looks at the journal holds it for a moment.
pub const JOURNAL_LOCK_WAIT_MS: u64 = 200;
/// Records that a salvage may give up as lost, at 5 bytes of memory each; a mistyped position asks for more.
pub const JOURNAL_LOST_RECORDS_MAX: u64 = 50_000_000;

// ---- sinks ----

/// Waits for a follower among which those that were given up are looked for, at least.
pub const WAITS_SWEEP_MIN: usize = 1_024;
/// Pairs remembered; at 9 bytes each and half-full tables about 10 MB.
pub const USER_HOURS_REMEMBERED_MAX: usize = 400_000;
/// How long sinks may take for the batch at hand once the server has stopped; the rest waits in the journal.
pub const SINK_STOP_MS: u64 = 5_000;
/// Records that make a batch worth applying without waiting for more.
pub const BATCH_RECORDS_ENOUGH: u64 = 5_000;
/// Records that make a batch worth applying without waiting for more.
pub const LIVE_BATCH_RECORDS_ENOUGH: u64 = 4_000;
/// Records of one ledger transaction.
pub const BATCH_RECORDS_MAX: usize = 20_000;
/// Least records of one ledger transaction: each failure halves it, down to this.
pub const BATCH_RECORDS_MIN: usize = 100;
/// Journal bytes of one ledger transaction.
pub const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// While it keeps up, the ledger sink waits this long for a larger batch (not while a ticket waits: see [`LINGER_WAITED_MS`]).
pub const LINGER_MS: u64 = 20;
/// If as many records came in that time, the ledger sink waits up to [`LINGER_BUSY_MS`].
pub const LINGER_BUSY_RECORDS: u64 = 200;
/// A large batch appends far fewer rows of counts than several small ones.
pub const LINGER_BUSY_MS: u64 = 120;
/// How often pending counts are added to the ledger's rollups.
pub const ADD_UP_EVERY_MS: u64 = 5_000;
/// Pending counts are also added once this many records are pending: an exact read sums them.
pub const ADD_UP_RECORDS: u64 = 100_000;
/// While a request waits for it, the ledger sink begins no two batches within this time …
pub const LINGER_WAITED_MS: u64 = 8;
/// … if at least as many records come in that time: a lone client is not kept waiting …
pub const LINGER_WAITED_RECORDS_MIN: f64 = 3.0;
/// … and fewer than this: a busy ledger is not slowed down.
pub const LINGER_WAITED_RECORDS_MAX: f64 = 20.0;
/// The live sink waits this long for a larger batch, which counts the same names in fewer commands.
pub const LIVE_LINGER_MS: u64 = 100;
/// Decided batches handed from the ledger sink to followers in memory; older ones are read back from the ledger.
pub const HANDOVER_BATCHES_MAX: usize = 64;
/// First pause between two tries at a store that is unreachable.
pub const RETRY_MS_MIN: u64 = 50;
/// The longest one.
pub const RETRY_MS_MAX: u64 = 2_000;
/// How often the log repeats that a store is unreachable.
pub const UNREACHABLE_LOG_EVERY_MS: u64 = 60_000;
/// A store call that takes longer than this has hung: its connection is given up.
pub const STORE_CALL_MS_MAX: u64 = 30_000;
/// The live sink applies at most this many records in one script call.
pub const LIVE_BATCH_RECORDS_MAX: usize = 20_000;
/// A client's event id is remembered for two day tables: at least this long.
pub const ID_MEMORY_MS: i64 = 86_400_000;

// ---- live store ----

/// An open bucket that passes this many members is trimmed to [`LIVE_BUCKET_MEMBERS_MAX`] at once.
pub const LIVE_OPEN_BUCKET_MEMBERS_MAX: usize = 40_000;
/// Minutes folded in one step (one script call, one hold of a lock): readers get their turn between two steps.
pub const LIVE_FOLD_STEP_MINUTES_MAX: usize = 5;
/// A union of buckets is computed once in this time and shared by all readers.
pub const LIVE_UNION_KEPT_MS: i64 = 1_000;
/// A live store that is this far behind makes answers `stale`.
pub const LIVE_STALE_AFTER_MS: i64 = 5_000;
/// Minute buckets of the live store are kept this long.
pub const LIVE_MINUTES_KEPT: i64 = 60;
/// Hour buckets of the live store.
pub const LIVE_HOURS_KEPT: i64 = 48;
/// Day buckets of the live store.
pub const LIVE_DAYS_KEPT: i64 = 8;
/// A live store keeps a tombstone of a post for this long: no bucket is kept longer.
pub const LIVE_TOMBSTONE_KEPT_MS: i64 = (LIVE_DAYS_KEPT + 1) * 86_400_000;
/// Tombstones of a live store; above this the oldest are forgotten.
pub const LIVE_TOMBSTONES_MAX: usize = 200_000;
/// Members that a closed bucket keeps.
pub const LIVE_BUCKET_MEMBERS_MAX: usize = 10_000;
/// A minute is folded this long after it closed.
pub const FOLD_GRACE_MS: i64 = 5_000;
/// Minute rollups of the ledger are kept this long; a later record counts in its hour only.
pub const ROLLUP_MINUTES_KEPT: i64 = 180;
/// UTC days of a span, by which long rankings are read: ten to twelve of them, and up to 47 days at the ends, are a year.
pub const SPAN_DAYS: i64 = 32;
/// An hour is closed this long after it ended. Later events cost more.
pub const FOLD_HOUR_GRACE_MS: i64 = 10 * 60_000;
/// A call that closes and counts ends after this, so that a stop is not kept waiting: the next call does the rest.
pub const FOLD_MS_MAX: u64 = 2_000;
/// Rows of pending counts that one step of compaction reads.
pub const COMPACT_ROWS_MAX: usize = 4_000;
/// … and their bytes, about: a batch on SQLite waits for a step.
pub const COMPACT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Hours, or days, with no more events together than this are closed in one step.
pub const CLOSE_EVENTS_MAX: i64 = 2_000;
/// … of so many hours at most: 400 days.
pub const CLOSE_HOURS_MAX: i64 = 9_600;
/// Dirty hours of a day with no more events together than this are counted in one step.
pub const COUNT_EVENTS_FEW: i64 = 2_000;
/// A minute of an open hour is counted this long after it ended: a later event has it counted again.
pub const COUNT_MINUTE_GRACE_MS: i64 = 10_000;
/// Minutes of open hours that are counted at once.
pub const COUNT_MINUTES_MAX: i64 = 5;
/// Minutes that ended longer ago wait until their hour is closed.
pub const COUNT_MINUTES_SINCE: i64 = 120;
/// Users that one step gives an ordinal.
pub const COUNT_USERS_STEP: i64 = 2_000;
/// A dirty hour is recounted once nothing has changed in it for so long …
pub const RECOUNT_QUIET_MS: u64 = 60_000;
/// … or after this, if something changes in it all the time.
pub const RECOUNT_WAIT_MS_MAX: u64 = 600_000;
/// Recounts of one instance take at most one part in this number of a core, on average.
pub const RECOUNT_SHARE: u32 = 10;
/// After a rest, recounts may take this long at once.
pub const RECOUNT_BURST_MS: u64 = 6_000;
/// Dirty hours that are remembered, at 40 bytes each: more than `RETENTION_DAYS` have.
pub const RECOUNT_HOURS_MAX: usize = 20_000;
/// A step of housekeeping on SQLite is broken off after this.
pub const SQLITE_STEP_MS_MAX: u64 = 10_000;
/// A failed count of an hour or day is retried after a minute, then twice as long, up to this.
pub const POSTPONED_MS_MAX: u64 = 3_600_000;
/// As many of them are remembered.
pub const POSTPONED_MAX: usize = 1_000;
/// Building the index of a day's events by what they name is given up after this.
pub const TERM_INDEX_MS_MAX: u64 = 60_000;
/// A read of several statements says how much time is left when so much more is spent.
pub const READ_TIME_STEP_MS: u64 = 20;
/// Names of each bucket that a ranking reads beyond a quarter more than it wants, before it looks further.
pub const LEADERS_DEPTH_MORE: usize = 10;
/// It looks so many times deeper then: what a few more would not decide is even, or a part of days.
pub const LEADERS_DEEPER: usize = 10;
/// A ranking that is not decided by so many names of each bucket reads all of them.
pub const LEADERS_DEPTH_MAX: usize = 1_000;
/// … nor one of which so many names had to be looked up: more would cost more than reading all.
pub const LEADERS_NAMES_MAX: usize = 2_000;
/// A name that is in the heads of all lists but so many is looked up in these alone, others by ranges of buckets.
pub const LEADERS_MISSING_MAX: usize = 12;
/// Names that are looked up together at first, at least; then twice as many each time.
pub const LEADERS_STEP: usize = 16;
/// A ranking of a range with at most this many events per wanted row reads all its names.
pub const RANK_ALL_EVENTS_A_ROW: i64 = 2_000;
/// … and in all.
pub const RANK_ALL_EVENTS_MAX: i64 = 100_000;
/// Hours that are not closed and are still read by name; more of them are summed up by the ledger.
pub const OPEN_HOURS_MAX: i64 = 48;
/// Rows stay this many days longer than `RETENTION_DAYS`: for accepted events that wait in a journal.
pub const RETENTION_SLACK_DAYS: i64 = 2;
/// Days in a row that must have events before a day counts as past: a clock that jumped makes fewer.
pub const RETENTION_TRUSTED_DAYS: i64 = 3;
/// Days whose rows go at once, at most: the rest waits a minute.
pub const RETIRE_DAYS_MAX: i64 = 4;
/// Wall and monotonic clock may differ by this per minute; else the clock was set, and nothing is removed …
pub const CLOCK_JUMP_MS: i64 = 60_000;
/// … until it has gone steadily for this long.
pub const CLOCK_STEADY_MS: u64 = 10 * 60_000;
/// Partitions of `events` are attached this many days ahead.
pub const PARTITIONS_AHEAD_DAYS: i64 = 7;

// ---- HTTP (http.md) ----

/// Shed connections take a moment to go, and refused ones to be told: as many may be there beyond the cap.
pub const CONNECTIONS_BEYOND_MAX: usize = 64;
/// Connections that wait to be accepted.
pub const ACCEPT_BACKLOG: i32 = 4096;
/// Reads in a row, without the event loop in between, that a connection gets.
pub const READS_IN_A_ROW_MAX: usize = 16;
/// A reader of a live stream that is this far behind is dropped.
pub const STREAM_BEHIND_BYTES_MAX: usize = 64 * 1024;
/// Streams of live statistics at once; further ones are refused (503).
pub const STREAMS_MAX: usize = 100;
/// Rows of the lists that they send.
pub const STREAM_LIST_ROWS: usize = 10;
/// Seconds that their rates are taken over.
pub const STREAM_RATE_SECS: usize = 5;
/// A comment this often keeps proxies from closing them.
pub const STREAM_HEARTBEAT_MS: u64 = 15_000;
/// How often each looks whether there is something new, and whether the server stops.
pub const STREAM_LOOK_MS: u64 = 200;
/// Request line: a target of 8,000 bytes passes.
pub const REQUEST_LINE_BYTES_MAX: usize = 8_192;
/// Request head, request line included.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Header fields of one request.
pub const HEADERS_MAX: usize = 100;
/// A method; the longest one that is registered has 17.
pub const METHOD_BYTES_MAX: usize = 32;
/// Digits of a chunk's size.
pub const CHUNK_SIZE_DIGITS_MAX: usize = 8;
/// Extensions of one chunk.
pub const CHUNK_EXTENSION_BYTES_MAX: usize = 256;
/// Extensions of all chunks of a body.
pub const CHUNK_EXTENSIONS_BYTES_MAX: usize = 4 * 1024;
/// Trailers of a chunked body.
pub const TRAILERS_BYTES_MAX: usize = 4 * 1024;
/// Silence after connecting.
pub const FIRST_BYTE_MS: u64 = 10_000;
/// First byte of a head to its last.
pub const HEAD_MS: u64 = 10_000;
/// A whole body.
pub const BODY_MS: u64 = 30_000;
/// A body may be slower than [`BODY_BYTES_PER_SECOND_MIN`] for this long.
pub const BODY_RATE_AFTER_MS: u64 = 5_000;
/// Slower than this on the whole, a body is given up.
pub const BODY_BYTES_PER_SECOND_MIN: u64 = 500;
/// Between two requests of a connection.
pub const IDLE_MS: u64 = 75_000;
/// A write that makes no progress.
pub const WRITE_STALL_MS: u64 = 15_000;
/// Time that one connection may use before other connections of its worker run: a body of a few KB can cost seconds.
pub const TIME_SLICE_US: u64 = 5_000;
/// Requests answered in one turn before others get theirs.
pub const PIPELINE_REQUESTS_MAX: usize = 64;
/// Unsent answers of a connection: past it, it is not read from.
pub const UNSENT_BYTES_MAX: usize = 256 * 1024;
/// Bytes of a connection that its socket takes before they can be sent; the rest waits where it is counted.
pub const SOCKET_UNSENT_BYTES_MAX: u32 = 128 * 1024;
/// Unsent responses of all connections whose clients do not read; less with little memory ([`of_memory`]).
pub const UNSENT_ALL_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Client addresses whose rate is remembered: about 10 MB.
pub const RATE_ADDRESSES_MAX: usize = 131_072;
/// The part of an IPv6 address that names a client: providers give each customer a whole /64.
pub const CLIENT_IPV6_PREFIX_BITS: u32 = 64;
/// Locks that those are spread over.
pub const RATE_SHARDS: usize = 64;
/// Connections, where the process's own limits allow as many.
pub const CONNECTIONS_MAX: usize = 10_000;
/// Bodies in memory, all connections together; less with little memory ([`of_memory`]).
pub const BODIES_BYTES_MAX: usize = 256 * 1024 * 1024;
/// After an error, this much of the client's rest is read and thrown away before closing.
pub const LINGER_CLOSE_BYTES_MAX: usize = 256 * 1024;
/// … or for this long.
pub const LINGER_CLOSE_MS: u64 = 1_000;
/// Graceful stop: what is under way after this is cut.
pub const SHUTDOWN_MS: u64 = 25_000;
/// Descriptors looked at, times the workers, for one whose number belongs to a given worker.
pub const TIMER_TRIES_PER_WORKER_MAX: usize = 64;
/// How often each worker is asked for a sign of life.
pub const HEARTBEAT_MS: u64 = 1_000;
/// A worker that misses this number of them in a row is stuck: `/healthz/live` answers 503.
pub const HEARTBEAT_MISSES_MAX: u32 = 10;
/// Grain of a worker's clock.
pub const CLOCK_GRAIN_MS: u64 = 5;
/// A coroutine's stack in machine words: 128 KiB and a guard page.
pub const STACK_WORDS: usize = 0x4000;
/// Stacks of finished coroutines that are kept for the next ones, with the pages that they have touched.
pub const STACKS_KEPT: usize = 100;
/// Stack below a waiting connection that goes back to the kernel after deep calls; the deepest use 76 KiB.
pub const STACK_GIVEN_BACK_BYTES: usize = 80 * 1024;
/// Buffer that is lent to a connection while it has bytes.
pub const READ_BUFFER_BYTES: usize = 16 * 1024;
/// Visible ASCII of an `X-Request-Id` that is believed.
pub const REQUEST_ID_BYTES_MAX: usize = 128;
/// A path in the access log.
pub const ACCESS_LOG_PATH_BYTES_MAX: usize = 256;
/// What one read of a TLS connection takes in, and what one step of a write encrypts: a record's worth.
pub const TLS_READ_BYTES_MAX: usize = 16 * 1024;
/// Buffers that a worker keeps for lending.
pub const LENT_BUFFERS_KEPT: usize = 256;

// ---- access ----

/// `EVENTS_ALIAS`, far shorter than a request line.
pub const EVENTS_ALIAS_BYTES_MAX: usize = 256;
/// A key that is shorter could be guessed.
pub const KEY_BYTES_MIN: usize = 16;
/// A key fits into a header.
pub const KEY_BYTES_MAX: usize = 256;
/// Keys of one right.
pub const KEYS_MAX: usize = 64;

// ---- stores ----

/// The lock outlives two calls that time out; it is renewed with every piece that is written.
pub const REBUILD_LOCK_MS: u64 = 30_000;
/// Members of one command, and of one pipeline: a piece that the server answers well within the time-out.
pub const REBUILD_PIECE_MEMBERS_MAX: usize = 5_000;
/// A generation of the live store that no program has used for so long is deleted: one of another format or time zone.
pub const GENERATION_KEPT_SECS: u64 = 3_600;
/// Keys looked at by one step of the clean-up.
pub const REBUILD_SCAN_KEYS: usize = 1_000;
/// How long the clean-up of old generations may take; what is left expires or waits for the next rebuild.
pub const REBUILD_CLEAN_UP_SECS_MAX: u64 = 20;
/// TCP connect to Redis.
pub const REDIS_CONNECT_MS_MAX: u64 = 2_000;
/// A reader gives up early: its request has 1.5 s.
pub const REDIS_READ_MS_MAX: u64 = 1_000;
/// A batch of thousands of counts, or a piece of a rebuild, on a busy server.
pub const REDIS_WRITE_MS_MAX: u64 = 10_000;
/// A reader that finds no connection free for this long gives up.
pub const REDIS_CHECK_OUT_MS_MAX: u64 = 500;
/// Rows that one step of housekeeping removes.
pub const MAINTAIN_ROWS_MAX: i64 = 10_000;
/// Removing rows of one table ends after this; the rest waits a minute.
pub const MAINTAIN_MS_MAX: u64 = 2_000;
/// Housekeeping waits this long for a lock that a batch may need too.
pub const MAINTAIN_LOCK_MS_MAX: u64 = 100;
/// The snapshot that a live store is built from, and what it sends.
pub const SNAPSHOT_MS_MAX: u64 = 600_000;
/// TCP connect and the server's greeting.
pub const POSTGRES_CONNECT_MS_MAX: u64 = 3_000;
/// How long a read waits for a connection of the pool.
pub const POSTGRES_CHECK_OUT_MS_MAX: u64 = 1_000;
/// A connection that answered this recently is handed out without asking it again.
pub const POSTGRES_TRUSTED_MS: u64 = 500;
/// Threads beyond twice the pool that may hang or serve writers before dialling stops.
pub const POSTGRES_SPARE_THREADS: usize = 8;
/// Rounds of the search for a pooler that shares connections: each is four round trips of a start.
pub const POSTGRES_POOLER_ROUNDS: usize = 4;
/// The server ends a read's statement after this: a fill that waited for a lock keeps its deadline.
pub const POSTGRES_READ_STATEMENT_MS_MAX: u64 = 700;
/// Any statement waits this long for a lock.
pub const POSTGRES_LOCK_MS_MAX: u64 = 5_000;
/// The server ends a writer's statement after this.
pub const POSTGRES_WRITE_STATEMENT_MS_MAX: u64 = 20_000;
/// A deleted post takes its likes with it in one transaction: past so many of them a statement gets more time than others.
pub const POSTGRES_CLEARED_LIKES_USUAL: i64 = 100_000;
/// … which is this much for each like; measured: 4 µs, its row of the log included.
pub const POSTGRES_CLEARED_LIKE_US_MAX: u64 = 100;
/// A day goes only where everything that was durable so long ago is applied, by the ledger and by who follows it.
pub const RETIRE_BEHIND_MS: u64 = 120_000;
/// Bits of a writer's filter of erased users: 8 MiB. With a million of them, one user in 90,000 is
/// looked up in vain; with ten million, one in 25. A list (100 bytes each) would grow for ever.
pub const ERASED_FILTER_BITS: usize = 1 << 26;
/// So many erased users are read at a time, to be remembered.
pub const ERASED_READ_MAX: i64 = 50_000;
/// Erasures of one batch may take this much longer than a usual batch: no index serves them, and each
/// table is read once for all of them.
pub const POSTGRES_ERASE_MS_MAX: u64 = 300_000;
/// Posts of one person whose cached answers go with an erasure; what is cached of more runs out by itself.
pub const ERASED_POSTS_CACHED_MAX: usize = 100;
/// An erasure that was waited for is answered once the live store shows it too, or after this.
pub const ERASE_LIVE_WAIT_MS: u64 = 1_000;
/// Likes that went with a post, of one record: past so many their rows are stepped over where verdicts are read back.
pub const CLEARED_LIKES_READ_MAX: i64 = 1_000;
/// COPY is handed to the client in pieces of this size: each wakes its runtime once.
pub const POSTGRES_COPY_PIECE_BYTES: usize = 1024 * 1024;
/// Up to this many rows `INSERT … SELECT FROM unnest` beats COPY.
pub const POSTGRES_UNNEST_ROWS_MAX: usize = 1_000;
/// Batches that lock likes before they read them, after a conflict. Reading first saves four of six
/// round trips, unless instances change the same posts all the time.
pub const POSTGRES_BATCHES_TO_LOCK: u32 = 32;

// ---- cache (cache.md) ----

/// Search results are fresh for this long (`CACHE_SEARCH`).
pub const CACHE_SEARCH_MS: u32 = 5_000;
/// Popular lists (`CACHE_POPULAR`): the live store sums them up once a second.
pub const CACHE_POPULAR_MS: u32 = 1_000;
/// Rankings, series and exact users (`CACHE_RANKINGS`).
pub const CACHE_RANKINGS_MS: u32 = 5_000;
/// Exact counts (`CACHE_COUNTS`).
pub const CACHE_COUNTS_MS: u32 = 1_000;
/// Likes of a post (`CACHE_LIKES`); a like deletes them at once.
pub const CACHE_LIKES_MS: u32 = 2_000;
/// A write waits this long for what is cached of it to go, then it is owed.
pub const CACHE_WRITE_WAIT_MS: u64 = 100;
/// A timed step that finds its lane full is tried again after this.
pub const CACHE_LANE_RETRY_MS: u64 = 20;
/// A value is shown for so long after it expired where nothing better is to be had.
pub const CACHE_CAP_MS: u32 = 600_000;
/// "There is none" is remembered for this long to twice as long.
pub const CACHE_NULL_MS: u32 = 5_000;
/// XFetch's β: 1 is the optimum of its analysis.
pub const CACHE_BETA: f64 = 1.0;
/// Readers that should come by within the early window.
pub const CACHE_EARLY_READS: f64 = 7.0;
/// The early window is at most this share of a value's life.
pub const CACHE_EARLY_SHARE_MAX: f64 = 0.2;
/// Values live up to this share shorter, so that those written together do not expire together.
pub const CACHE_JITTER: f64 = 0.1;
/// A request through the cache.
pub const CACHE_DEADLINE_MS: u32 = 1_500;
/// An instance's own copy is shown for this long without a look at the shared one.
pub const CACHE_LOCAL_MS: u32 = 1_000;
/// A request waits this long for a fill before it takes what is stale.
pub const CACHE_REVALIDATE_WAIT_MS: u64 = 100;
/// Local entries that an instance keeps.
pub const CACHE_LOCAL_ENTRIES_MAX: usize = 16_384;
/// The bytes of all local entries, with their keys and gzip forms; less with little memory ([`of_memory`]).
pub const CACHE_LOCAL_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Locks that those are spread over. Each shard has an equal part of the bytes, in which the largest entry fits.
pub const CACHE_LOCAL_SHARDS: usize = 16;
/// A larger value is shown to the requests that wait for it, and not cached.
pub const CACHE_ENTRY_BYTES_MAX: usize = 1024 * 1024;
/// A longer key is replaced by a hash.
pub const CACHE_KEY_BYTES_MAX: usize = 128;
/// Fills under way at once; further ones are refused (503).
pub const CACHE_FLIGHTS_MAX: usize = 4_096;
/// How long an instance waits for another one's fill before it asks the ledger itself.
pub const CACHE_LOCK_WAIT_MS: u64 = 700;
/// A call of the shared cache that takes longer (a server that hangs) is given up, and the store is asked without it.
pub const CACHE_CALL_MS_MAX: u64 = 250;
/// First pause between two looks for another instance's result.
pub const CACHE_POLL_MS_MIN: u64 = 20;
/// The longest one.
pub const CACHE_POLL_MS_MAX: u64 = 150;
/// A lock that nobody renews is free after this.
pub const CACHE_LEASE_MS: u32 = 3_000;
/// … renewed this often …
pub const CACHE_RENEW_MS: u64 = 1_000;
/// … and no longer than this, whatever its fill does.
pub const CACHE_HOLD_MS_MAX: u64 = 10_000;
/// A fill that failed is not tried again, by any instance, for this long to three times as long.
pub const CACHE_THROTTLE_MS: u32 = 500;
/// Failures in a row that open a breaker.
pub const CACHE_BREAKER_FAILURES: u32 = 5;
/// An open breaker lets one probe through after this.
pub const CACHE_BREAKER_OPEN_MS: u64 = 1_000;
/// A fence lives for this long after its last lock. It outlives any fill, and a lost fence begins at the store's time.
pub const CACHE_FENCE_KEPT_MS: u64 = 120_000;
/// A listener for hints looks up this often, whether it shall stop …
pub const CACHE_HINT_READ_MS: u64 = 1_000;
/// … and asks its server for a sign of life after this much silence.
pub const CACHE_HINT_PING_MS: u64 = 5_000;
/// Keys whose throttle an instance knows, and keys that it still owes the shared cache a deletion of.
pub const CACHE_KEYS_REMEMBERED_MAX: usize = 10_000;
/// Keys of one deletion.
pub const CACHE_INVALIDATE_KEYS_MAX: usize = 1_000;

// ---- lanes ----

/// Jobs that wait in front of one lane; past it a read is refused (503).
pub const LANE_QUEUE_MAX: usize = 1_024;

// ---- log ----

/// Log lines that wait to be written; further ones are dropped and counted.
pub const LOG_LINES_MAX: usize = 8_192;
/// … and their bytes: a few seconds of a busy access log.
pub const LOG_BYTES_MAX: usize = 2 * 1024 * 1024;
/// How long an end waits for queued log lines to be written: someone may read them slowly, or not at all.
pub const LOG_FLUSH_MS: u64 = 2_000;
