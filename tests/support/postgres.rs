//! A throw-away PostgreSQL server: made for a test run, gone with it, whatever happens. A private one can be frozen,
//! stopped and started again.

#![allow(dead_code, reason = "each suite uses a part")]

use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::Duration;

use postgres::{Client, NoTls};

use super::services;

pub(crate) struct Server {
    url: String,
    child: Option<Child>,
    bin: PathBuf,
    port: u16,
    directory: services::Directory,
}

/// What the shared server does without: no test looks at its data after a crash.
const NOT_DURABLE: [&str; 2] = ["synchronous_commit=off", "full_page_writes=off"];

static SHARED: Mutex<Option<Arc<Server>>> = Mutex::new(None);

impl Server {
    /// The server that all tests of this process share, started by the first of them.
    pub(crate) fn shared() -> Arc<Server> {
        extern "C" fn stop_shared() {
            drop(SHARED.lock().unwrap_or_else(PoisonError::into_inner).take());
        }
        static AT_EXIT: Once = Once::new();
        // SAFETY: the function neither unwinds nor uses anything that ends before it.
        AT_EXIT.call_once(|| assert_eq!(unsafe { libc::atexit(stop_shared) }, 0));
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.get_or_insert_with(|| Arc::new(start(&NOT_DURABLE))).clone()
    }

    pub(crate) fn private() -> Server {
        start(&[])
    }

    /// The URL of a database of our own server over TCP: where it is away, a connection is refused.
    pub(crate) fn tcp(&self, database_url: &str) -> String {
        let (_, name) = database_url.rsplit_once('/').expect("the URL names a database");
        format!("postgres://test@127.0.0.1:{}/{name}", self.port)
    }

    pub(crate) fn demand_passwords(&self) {
        let mut client = Client::connect(&self.url, NoTls).expect("the test server answers");
        let file: String = client.query_one("SHOW hba_file", &[]).expect("a setting").get(0);
        let rules = "ARRAY['local all all trust', 'host all all 127.0.0.1/32 scram-sha-256']";
        client.batch_execute(&format!("COPY (SELECT unnest({rules})) TO '{file}'")).expect("the server may write it");
        client.batch_execute("SELECT pg_reload_conf()").expect("reloads");
    }

    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Ends our own server at once, as a crash would, and all of its connections.
    pub(crate) fn kill(&mut self) {
        self.thaw();
        if let Some(main) = self.pid() {
            super::signal(main, libc::SIGQUIT);
            let _ = self.child.take().map(|mut child| child.wait());
        }
    }

    pub(crate) fn revive(&mut self) {
        self.launch(&[]);
        self.wait_until_it_answers();
    }

    /// Stops all processes of our own server in their tracks: connections stay open, nothing answers.
    pub(crate) fn freeze(&self) {
        self.signal_all(libc::SIGSTOP);
    }

    pub(crate) fn thaw(&self) {
        self.signal_all(libc::SIGCONT);
    }

    fn signal_all(&self, signal: i32) {
        let Some(main) = self.pid() else { return };
        // The main process first: stopped, it makes no further ones.
        super::signal(main, signal);
        let children = std::fs::read_to_string(format!("/proc/{main}/task/{main}/children")).unwrap_or_default();
        for child in children.split_whitespace() {
            // SAFETY: no memory is passed; a child that has ended is an error.
            unsafe { libc::kill(child.parse().expect("a process id"), signal) };
        }
    }

    fn launch(&mut self, settings: &[&str]) {
        let directory = self.directory.path();
        let mut server = command(&self.bin.join("postgres"), directory);
        server.arg("-D").arg(directory.join("data")).arg("-k").arg(directory).args(["-p", &self.port.to_string()]);
        let always = ["listen_addresses=127.0.0.1", "fsync=off", "max_connections=200", "max_wal_size=2GB"];
        for setting in always.iter().chain(settings) {
            server.args(["-c", setting]);
        }
        server.stdout(Stdio::null()).stderr(std::fs::File::create(directory.join("log")).expect("a log"));
        self.child = Some(services::spawn(server, libc::SIGQUIT));
    }

    fn wait_until_it_answers(&self) {
        let connect = || Client::connect(&self.url, NoTls).map(drop).map_err(|error| error.to_string());
        super::eventually(Duration::from_secs(20), connect);
    }

    pub(crate) fn database(&self, name: &str, options: &str) -> String {
        let name = format!("{name}_{}", uuid::Uuid::new_v4().simple());
        let mut client = Client::connect(&self.url, NoTls).expect("the test server answers");
        client.batch_execute(&format!("CREATE DATABASE {name} {options}")).expect("a fresh database");
        format!("{}/{name}", self.url.rsplit_once('/').expect("the URL names a database").0)
    }

    pub(crate) fn pid(&self) -> Option<i32> {
        let child = self.child.as_ref()?;
        Some(i32::try_from(child.id()).expect("a process id"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn command(program: &Path, directory: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(directory).env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
    if let Some((user, group)) = services::unprivileged() {
        command.uid(user).gid(group);
    }
    command
}

fn start(settings: &[&str]) -> Server {
    let (bin, directory) = (services::postgres_programs(), services::Directory::new(services::unprivileged()));
    let made = command(&bin.join("initdb"), directory.path())
        .args(["--no-sync", "--auth=trust", "--username=test", "--encoding=UTF8", "--locale=C.UTF-8", "-D"])
        .arg(directory.path().join("data"))
        .output()
        .expect("initdb runs");
    assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
    let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
    let url = format!("postgres://test@{}:{port}/postgres", directory.path().display().to_string().replace('/', "%2F"));
    let mut server = Server { url, child: None, bin, port, directory };
    server.launch(settings);
    server.wait_until_it_answers();
    server
}
