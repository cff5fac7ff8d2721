//! Connections that can be given up.
//!
//! The blocking client waits for ever for a server that is stopped: the kernel still acknowledges what is sent. So
//! each connection lives on a thread of its own and is handed jobs; a caller whose deadline passes walks away and
//! the thread ends once its server answers or its socket dies. The number of threads is bounded: past it nothing is
//! dialled. A late commit of an abandoned job is harmless, the watermark fences what comes after it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use postgres::config::{Host, SslMode};
use postgres::error::DbError;
use postgres::{Client, Config, Error, Statement};
use r2d2_postgres::PostgresConnectionManager;
use r2d2_postgres::r2d2::{self, ManageConnection};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::limits::{
    POSTGRES_CHECK_OUT_MS_MAX, POSTGRES_CONNECT_MS_MAX, POSTGRES_LOCK_MS_MAX, POSTGRES_READ_STATEMENT_MS_MAX,
    POSTGRES_SPARE_THREADS, POSTGRES_TRUSTED_MS, POSTGRES_WRITE_STATEMENT_MS_MAX, READ_WAIT_MS, STORE_CALL_MS_MAX,
};
use crate::ports::StoreError;

use super::statements::PREPARE_MOVE;

/// A call that reads: its connection is given up after this, a bit before the caller stops waiting.
pub(super) const READ_MS_MAX: u64 = READ_WAIT_MS - 100;
/// A call that writes, and the snapshot of a rebuild: longer than the server's own time-out for a statement.
pub(super) const WRITE_MS_MAX: u64 = STORE_CALL_MS_MAX - 5_000;
const _: () = assert!(POSTGRES_READ_STATEMENT_MS_MAX < READ_MS_MAX && POSTGRES_WRITE_STATEMENT_MS_MAX < WRITE_MS_MAX);

/// A pool of connections for reads.
pub(super) type Pool = r2d2::Pool<Dialer>;
type Job = Box<dyn FnOnce(&mut Session) + Send>;

/// What a connection's thread works with.
pub(super) struct Session {
    pub(super) client: Client,
    statements: HashMap<&'static str, Statement>,
    is_for_batches: bool,
}

impl Session {
    /// From now on each statement is planned once, and through keys. A batch reads no table as a whole, but the server would
    /// where a table is small, and keep that plan while the table grows. And left alone it plans every batch anew, which took a
    /// fifth of its time: knowing how long the arrays of this one are, it takes that plan for a cheaper one.
    pub(super) fn plan_for_batches(&mut self) -> Result<(), Error> {
        if !self.is_for_batches {
            let settings = "SET enable_seqscan = off; SET plan_cache_mode = force_generic_plan";
            self.client.batch_execute(&format!("{settings}; {}", *PREPARE_MOVE))?;
            self.is_for_batches = true;
        }
        Ok(())
    }

    /// Prepares a statement once a connection.
    pub(super) fn prepared(&mut self, sql: &'static str) -> Result<Statement, Error> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql)?;
        self.statements.insert(sql, statement.clone());
        Ok(statement)
    }
}

/// A failure as the port names it, and what only this adapter can act on.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: StoreError,
    pub(super) cause: Cause,
}

/// Causes that this adapter handles itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    Other,
    /// A row's day has no partition: make it and try again, once.
    NoPartition,
    /// The server does not have this connection's statements, or not with these columns: try once on a fresh connection.
    StaleStatement,
    /// The server refuses the URL's user, password or kind of encryption.
    Credentials,
    /// The server ended the statement, because its time was over.
    Cancelled,
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        Failure { error, cause: Cause::Other }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let Some(db) = error.as_db_error() else { return of_client(&error) };
        let code = db.code().code();
        let detail = db.detail().map(|detail| format!(" ({detail})")).unwrap_or_default();
        let text = format!("PostgreSQL {code}: {}{detail}", db.message());
        let error = match code.get(..2).unwrap_or_default() {
            "08" | "25" | "28" | "3D" | "40" | "53" | "55" | "57" | "58" => StoreError::Retry(text),
            "22" | "23" | "54" => StoreError::Poison(text),
            _ => StoreError::Fatal(text),
        };
        Failure { error, cause: cause_of(db) }
    }
}

fn cause_of(error: &DbError) -> Cause {
    let code = error.code().code();
    match code {
        "23514" => Cause::NoPartition,
        // The message would be in the language of the server.
        "0A000" if error.routine() == Some("RevalidateCachedQuery") => Cause::StaleStatement,
        "42P05" => Cause::StaleStatement,
        "57014" => Cause::Cancelled,
        _ if code.starts_with("26") => Cause::StaleStatement,
        _ if code.starts_with("28") => Cause::Credentials,
        _ => Cause::Other,
    }
}

/// The client's own errors: it has no public names for their kinds, only texts.
fn of_client(error: &Error) -> Failure {
    let kind = error.to_string();
    let text = with_causes(error);
    let is_refused = matches!(kind.as_str(), "invalid configuration" | "authentication error")
        || text.contains("server does not support TLS")
        || text.contains("invalid peer certificate");
    let cause = if is_refused { Cause::Credentials } else { Cause::Other };
    Failure { error: StoreError::Retry(format!("PostgreSQL: {text}")), cause }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

/// How to reach the server. Also the manager of the pool: readers are dialled by r2d2.
pub(super) struct Dialer {
    manager: Arc<PostgresConnectionManager<MakeRustlsConnect>>,
    user: Option<Arc<str>>,
    threads: Arc<AtomicUsize>,
    threads_max: usize,
}

impl Dialer {
    pub(super) fn new(url: &str, pool_size: u32) -> Result<Dialer, StoreError> {
        let (config, with_tls) = parse(url)?;
        let user = config.get_user().map(Into::into);
        let manager = Arc::new(PostgresConnectionManager::new(config, tls(with_tls)?));
        let threads_max = pool_size as usize * 2 + POSTGRES_SPARE_THREADS;
        Ok(Dialer { manager, user, threads: Arc::new(AtomicUsize::new(0)), threads_max })
    }

    /// The same server and the same bound of threads.
    fn share(&self) -> Dialer {
        let (manager, user, threads) = (self.manager.clone(), self.user.clone(), self.threads.clone());
        Dialer { manager, user, threads, threads_max: self.threads_max }
    }

    /// Opens a connection whose statements the server ends after `statement_ms`.
    pub(super) fn dial(&self, statement_ms: u64) -> Result<Link, Failure> {
        if self.threads.fetch_add(1, Ordering::Relaxed) >= self.threads_max {
            self.threads.fetch_sub(1, Ordering::Relaxed);
            let why = "PostgreSQL: too many connections hang; not opening another".to_owned();
            return Err(StoreError::Retry(why).into());
        }
        let alive = Alive(self.threads.clone());
        let (jobs, inbox) = channel();
        let (greet, greeting) = sync_channel(1);
        let (manager, user) = (self.manager.clone(), self.user.clone());
        thread::Builder::new()
            .name("postgres".to_owned())
            .spawn(move || serve(&manager, user.as_deref(), statement_ms, &greet, &inbox, alive))
            .map_err(|error| StoreError::Retry(format!("a thread for PostgreSQL: {error}")))?;
        match greeting.recv_timeout(Duration::from_millis(POSTGRES_CONNECT_MS_MAX + 500)) {
            Ok(Ok(())) => Ok(Link { jobs: Mutex::new(jobs), answered_at: Instant::now(), broken: false }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(StoreError::Retry("PostgreSQL does not answer a connection".to_owned()).into()),
        }
    }

    pub(super) fn dial_writer(&self) -> Result<Link, Failure> {
        self.dial(POSTGRES_WRITE_STATEMENT_MS_MAX)
    }

    pub(super) fn dial_reader(&self) -> Result<Link, Failure> {
        self.dial(POSTGRES_READ_STATEMENT_MS_MAX)
    }
}

/// Counts a connection's thread for as long as it lives.
struct Alive(Arc<AtomicUsize>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn serve(
    manager: &PostgresConnectionManager<MakeRustlsConnect>,
    user: Option<&str>,
    statement_ms: u64,
    greet: &SyncSender<Result<(), Failure>>,
    inbox: &Receiver<Job>,
    _alive: Alive,
) {
    let opened = manager.connect().and_then(|mut client| {
        client.batch_execute(&session_settings(statement_ms))?;
        Ok(client)
    });
    let client = match opened {
        Ok(client) => client,
        Err(error) => {
            // A caller that gave up does not listen any more.
            let _ = greet.send(Err(not_let_in(error, user)));
            return;
        }
    };
    if greet.send(Ok(())).is_err() {
        return;
    }
    let mut session = Session { client, statements: HashMap::new(), is_for_batches: false };
    while let Ok(job) = inbox.recv() {
        job(&mut session);
        if session.client.is_closed() {
            return;
        }
    }
}

/// Set by statement, not as start-up options, which poolers in front of a server refuse. A role that does not wait
/// for its commits would break "durable when `apply` returns"; a stricter setting than `on` stays. To start workers for a part of
/// a read takes the server longer than most of our reads do, and it thinks them large.
fn session_settings(statement_ms: u64) -> String {
    format!(
        "SET jit = off; SET max_parallel_workers_per_gather = 0; \
         SET statement_timeout = {statement_ms}; SET lock_timeout = {POSTGRES_LOCK_MS_MAX}; \
         SET idle_in_transaction_session_timeout = 30000; SET TimeZone = 'UTC'; \
         SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
    )
}

/// A connection as its user holds it.
pub(super) struct Link {
    /// In a lock only because a pool asks for `Sync`; it is never contended.
    jobs: Mutex<Sender<Job>>,
    answered_at: Instant,
    broken: bool,
}

impl Link {
    /// Runs a job on the connection. After `Retry` and `Fatal` the connection is broken and must be dropped; other
    /// failures end the transaction and leave it usable.
    pub(super) fn call<R: Send + 'static>(
        &mut self,
        deadline: Instant,
        job: impl FnOnce(&mut Session) -> Result<R, Failure> + Send + 'static,
    ) -> Result<R, Failure> {
        let (reply, answer) = sync_channel(1);
        let run: Job = Box::new(move |session| {
            let mut result = job(session);
            if result.as_ref().is_err_and(|failure| keeps_connection(&failure.error)) {
                // The transaction of a refused batch ends here; outside of one this is a warning.
                if let Err(error) = session.client.batch_execute("ROLLBACK") {
                    result = Err(error.into());
                }
            }
            // A caller that gave up does not listen any more.
            let _ = reply.send(result);
        });
        let sent = self.jobs.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner()).send(run);
        if sent.is_err() {
            self.broken = true;
            return Err(StoreError::Retry("PostgreSQL: the connection is closed".to_owned()).into());
        }
        let result = match answer.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => {
                Err(StoreError::Retry("PostgreSQL does not answer; its connection is given up".to_owned()).into())
            }
            Err(RecvTimeoutError::Disconnected) => {
                Err(StoreError::Fatal("PostgreSQL: the client panicked".to_owned()).into())
            }
        };
        self.answered_at = Instant::now();
        self.broken |= result.as_ref().is_err_and(|failure| !keeps_connection(&failure.error));
        result
    }

    /// The connection must not be used again.
    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }
}

fn keeps_connection(error: &StoreError) -> bool {
    matches!(error, StoreError::Poison(_) | StoreError::Fenced { .. })
}

impl ManageConnection for Dialer {
    type Connection = Link;
    type Error = StoreError;

    fn connect(&self) -> Result<Link, StoreError> {
        self.dial_reader().map_err(|failure| failure.error)
    }

    fn is_valid(&self, link: &mut Link) -> Result<(), StoreError> {
        if link.answered_at.elapsed() < Duration::from_millis(POSTGRES_TRUSTED_MS) {
            return Ok(());
        }
        let deadline = Instant::now() + Duration::from_millis(POSTGRES_CHECK_OUT_MS_MAX / 2);
        link.call(deadline, |session| Ok(session.client.simple_query("").map(|_| ())?)).map_err(|f| f.error)
    }

    fn has_broken(&self, link: &mut Link) -> bool {
        link.is_broken()
    }
}

/// A pool that fills as it is used.
pub(super) fn pool(dialer: &Dialer, pool_size: u32) -> Pool {
    r2d2::Pool::builder()
        .max_size(pool_size.max(1))
        .min_idle(Some(0))
        .connection_timeout(Duration::from_millis(POSTGRES_CHECK_OUT_MS_MAX))
        .error_handler(Box::new(r2d2::NopErrorHandler))
        .build_unchecked(dialer.share())
}

/// Reads a URL and connects to nothing. The error is one line without any part of a password.
pub fn check_url(url: &str) -> Result<(), String> {
    let is_cut = url.split_once('?').is_some_and(|(_, tail)| tail.contains('@'));
    let (config, _) = parse(url).map_err(|error| match is_cut {
        true => "write /, ?, # and @ of a user or a password as %2F, %3F, %23 and %40".to_owned(),
        false => error.to_string(),
    })?;
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        return Err("names no host (postgres://user:password@host/database)".to_owned());
    }
    if config.get_ports().contains(&0) {
        return Err("no server can have port 0".to_owned());
    }
    Ok(())
}

/// Says what is wrong with a URL whose passwords and events would cross a network in clear text.
pub fn url_warning(url: &str) -> Option<String> {
    let (config, _) = parse(url).ok()?;
    let is_here = |host: &Host| match host {
        Host::Tcp(name) => name == "localhost" || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback()),
        Host::Unix(_) => true,
    };
    let far = config.get_hosts().iter().any(|host| !is_here(host))
        || config.get_hostaddrs().iter().any(|ip| !ip.is_loopback());
    (far && !url.contains("sslmode=")).then(|| {
        "the connection to PostgreSQL on another machine is not encrypted: add ?sslmode=require to DATABASE_URL \
         (sslmode=disable says that this is intended)"
            .to_owned()
    })
}

/// Reads a URL. TLS is used where `sslmode` asks for it; then certificates are verified always, so the stricter
/// modes of libpq mean `require`.
fn parse(url: &str) -> Result<(Config, bool), StoreError> {
    let url = url.replace("sslmode=verify-full", "sslmode=require").replace("sslmode=verify-ca", "sslmode=require");
    let mut config: Config = url.parse().map_err(|error| StoreError::Fatal(with_causes(&error)))?;
    let with_tls = url.contains("sslmode=") && config.get_ssl_mode() != SslMode::Disable;
    if !with_tls {
        config.ssl_mode(SslMode::Disable);
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(Duration::from_millis(POSTGRES_CONNECT_MS_MAX));
    }
    config
        .application_name("event-tracker")
        .keepalives(true)
        .keepalives_idle(Duration::from_secs(10))
        .keepalives_interval(Duration::from_secs(3))
        .keepalives_retries(3)
        .tcp_user_timeout(Duration::from_secs(5))
        // Notices say what a statement of ours skipped; they are for people at a console.
        .notice_callback(|_| ());
    Ok((config, with_tls))
}

/// A connection that failed. A server that refuses the role names it, which a health check must not.
fn not_let_in(error: Error, user: Option<&str>) -> Failure {
    let mut failure = Failure::from(error);
    let user = user.filter(|user| !user.is_empty());
    if let (Cause::Credentials, StoreError::Retry(text), Some(user)) = (failure.cause, &mut failure.error, user) {
        *text = text.replace(user, "…");
    }
    failure
}

fn tls(wanted: bool) -> Result<MakeRustlsConnect, StoreError> {
    let mut roots = rustls::RootCertStore::empty();
    if wanted {
        let found = rustls_native_certs::load_native_certs();
        let (added, _) = roots.add_parsable_certificates(found.certs);
        if added == 0 {
            return Err(StoreError::Fatal(
                "TLS to PostgreSQL needs root certificates: install ca-certificates or set SSL_CERT_FILE".to_owned(),
            ));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| StoreError::Fatal(format!("TLS: {error}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}
