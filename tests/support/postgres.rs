//! A throw-away PostgreSQL server: made for a test run, gone with it, whatever happens. A private one can be frozen,
//! stopped and started again.

#![allow(dead_code, reason = "each suite uses a part")]

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use postgres::{Client, NoTls};

/// A server that takes test databases: our own, or the one that `TEST_DATABASE_URL` names.
pub(crate) struct Server {
    url: String,
    own: Option<Own>,
}

struct Own {
    child: Option<Child>,
    bin: PathBuf,
    port: u16,
    directory: tempfile::TempDir,
}

impl Server {
    /// The server that the tests running right now share; the last of them stops it.
    pub(crate) fn shared() -> Option<Arc<Server>> {
        static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = shared.upgrade() {
            return Some(server);
        }
        let server = Arc::new(Server::start()?);
        *shared = Arc::downgrade(&server);
        Some(server)
    }

    /// Starts one; `None` where there is neither a program to start nor a URL, with a line that says so.
    pub(crate) fn start() -> Option<Server> {
        if let Ok(url) = std::env::var("TEST_DATABASE_URL") {
            return Some(Server { url, own: None });
        }
        let Some(bin) = find_programs() else {
            eprintln!("skipped: no PostgreSQL programs in PATH or /usr/lib/postgresql, and no TEST_DATABASE_URL");
            return None;
        };
        Some(start(bin))
    }

    /// One that nobody else uses; `None` where there are no programs to start it with.
    pub(crate) fn private() -> Option<Server> {
        let bin = find_programs();
        if bin.is_none() {
            eprintln!("skipped: no PostgreSQL programs in PATH or /usr/lib/postgresql");
        }
        bin.map(start)
    }

    /// The URL of a database of our own server over TCP: where it is away, a connection is refused.
    pub(crate) fn tcp(&self, database_url: &str) -> String {
        let name = &database_url[database_url.rfind('/').expect("the URL names a database") + 1..];
        format!("postgres://test@127.0.0.1:{}/{name}", self.own.as_ref().expect("a server of our own").port)
    }

    /// Asks for passwords over TCP from now on.
    pub(crate) fn demand_passwords(&self) {
        let mut client = Client::connect(&self.url, NoTls).expect("the test server answers");
        let file: String = client.query_one("SHOW hba_file", &[]).expect("a setting").get(0);
        let rules = "ARRAY['local all all trust', 'host all all 127.0.0.1/32 scram-sha-256']";
        client.batch_execute(&format!("COPY (SELECT unnest({rules})) TO '{file}'")).expect("the server may write it");
        client.batch_execute("SELECT pg_reload_conf()").expect("reloads");
    }

    /// The address of our own server.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.own.as_ref().expect("a server of our own").port))
    }

    /// Ends our own server at once, as a crash would, and all of its connections.
    pub(crate) fn kill(&mut self) {
        self.thaw();
        if let Some(mut child) = self.own.as_mut().and_then(|own| own.child.take()) {
            // SAFETY: signals a child of ours that was not waited for, so its id is still its own.
            unsafe { libc::kill(i32::try_from(child.id()).expect("a process id"), libc::SIGQUIT) };
            let _ = child.wait();
        }
    }

    /// Starts our own server again, on its data.
    pub(crate) fn revive(&mut self) {
        let own = self.own.as_mut().expect("a server of our own");
        own.child = Some(launch(own));
        self.wait_until_it_answers();
    }

    /// Stops all processes of our own server in their tracks: connections stay open, nothing answers.
    pub(crate) fn freeze(&self) {
        self.signal_all(libc::SIGSTOP);
    }

    /// Lets a frozen server go on.
    pub(crate) fn thaw(&self) {
        self.signal_all(libc::SIGCONT);
    }

    fn signal_all(&self, signal: i32) {
        let Some(main) = self.pid() else { return };
        // The main process first: stopped, it makes no further ones.
        let children = |_| std::fs::read_to_string(format!("/proc/{main}/task/{main}/children")).unwrap_or_default();
        // SAFETY: signals a child of ours that was not waited for, and its children.
        let send = |pid| unsafe { libc::kill(pid, signal) };
        let sent = send(main);
        for child in children(sent).split_whitespace() {
            send(child.parse().expect("a process id"));
        }
    }

    fn wait_until_it_answers(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while Client::connect(&self.url, NoTls).is_err() {
            assert!(Instant::now() < deadline, "PostgreSQL does not come up");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// A fresh database; returns its URL.
    pub(crate) fn database(&self, name: &str, options: &str) -> String {
        let name = format!("{name}_{}", uuid::Uuid::new_v4().simple());
        let mut client = Client::connect(&self.url, NoTls).expect("the test server answers");
        client.batch_execute(&format!("CREATE DATABASE {name} {options}")).expect("a fresh database");
        // The last `/` of the URL comes before the database's name; a query keeps its place.
        let (base, query) = self.url.split_once('?').map_or((self.url.as_str(), ""), |(base, query)| (base, query));
        let base = &base[..base.rfind('/').expect("the URL names a database")];
        if query.is_empty() { format!("{base}/{name}") } else { format!("{base}/{name}?{query}") }
    }

    /// The server's main process, where it is our own.
    pub(crate) fn pid(&self) -> Option<i32> {
        let child = self.own.as_ref()?.child.as_ref()?;
        Some(i32::try_from(child.id()).expect("a process id"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn find_programs() -> Option<PathBuf> {
    let in_path =
        std::env::var_os("PATH").into_iter().flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    let packaged = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut packaged: Vec<PathBuf> = packaged.map(|version| version.path().join("bin")).collect();
    packaged.sort();
    packaged.into_iter().rev().chain(in_path).find(|bin| bin.join("initdb").exists() && bin.join("postgres").exists())
}

/// PostgreSQL refuses to run as root: then it runs as the user that its package made, or as nobody.
fn unprivileged() -> Option<(u32, u32)> {
    // SAFETY: reads the process's own user id.
    if unsafe { libc::geteuid() } != 0 {
        return None;
    }
    let passwd = std::fs::read_to_string("/etc/passwd").expect("/etc/passwd");
    let id_of = |name: &str| {
        let mut fields = passwd.lines().find(|line| line.starts_with(&format!("{name}:")))?.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    id_of("postgres").or_else(|| id_of("nobody"))
}

fn command(program: &Path, user: Option<(u32, u32)>, directory: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(directory).env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
    if let Some((user, group)) = user {
        command.uid(user).gid(group);
    }
    command
}

fn start(bin: PathBuf) -> Server {
    let directory = tempfile::Builder::new().prefix("pg").tempdir_in("/tmp").expect("a directory");
    let user = unprivileged();
    if let Some((user, group)) = user {
        chown(directory.path(), Some(user), Some(group)).expect("root may give a directory away");
    }
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o700)).expect("our own directory");
    let data = directory.path().join("data");
    let made = command(&bin.join("initdb"), user, directory.path())
        .args(["--no-sync", "--auth=trust", "--username=test", "--encoding=UTF8", "--locale=C.UTF-8", "-D"])
        .arg(&data)
        .output()
        .expect("initdb runs");
    assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
    let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
    let url = format!("postgres://test@{}:{port}/postgres", directory.path().display().to_string().replace('/', "%2F"));
    let mut own = Own { child: None, bin, port, directory };
    own.child = Some(launch(&own));
    let server = Server { url, own: Some(own) };
    server.wait_until_it_answers();
    server
}

fn launch(own: &Own) -> Child {
    let directory = own.directory.path();
    let mut server = command(&own.bin.join("postgres"), unprivileged(), directory);
    server.arg("-D").arg(directory.join("data")).arg("-k").arg(directory).args(["-p", &own.port.to_string()]);
    for setting in ["listen_addresses=127.0.0.1", "fsync=off", "shared_buffers=128MB", "max_wal_size=2GB"] {
        server.args(["-c", setting]);
    }
    server.stdout(Stdio::null()).stderr(std::fs::File::create(directory.join("log")).expect("a log"));
    // SAFETY: prctl is async-signal-safe; the server is told to stop when the thread that started it is gone.
    unsafe {
        server.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGQUIT);
            Ok(())
        })
    };
    spawn_from_a_thread_that_stays(server)
}

/// The signal comes when the *thread* that started the server ends: that of a test ends too early.
fn spawn_from_a_thread_that_stays(mut server: Command) -> Child {
    let (sender, receiver) = sync_channel(1);
    thread::spawn(move || {
        sender.send(server.spawn().expect("postgres runs")).expect("the test waits");
        loop {
            thread::park();
        }
    });
    receiver.recv().expect("postgres runs")
}
