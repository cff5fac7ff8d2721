//! Servers that tests start: where their programs are, directories that go away, and processes that end with the tests,
//! even after `kill -9`.

use std::fs::File;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Once;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

/// How the names of the directories of servers begin.
const PREFIX: &str = "event-tracker-test-";
/// A younger directory may have an owner that has not locked it yet.
const SWEEP_AGE: Duration = Duration::from_secs(60);

/// The directory of a server. It is locked as long as its owner lives, and removed with it.
pub(crate) struct Directory {
    directory: TempDir,
    _lock: File,
}

/// PostgreSQL refuses to run as root: then it runs as the user that its package made, or as nobody.
pub(crate) fn unprivileged() -> Option<(u32, u32)> {
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

impl Directory {
    /// Only `user` may enter it. A Unix socket's path has at most 107 bytes, so the directory is not below `TMPDIR`.
    pub(crate) fn new(user: Option<(u32, u32)>) -> Directory {
        static SWEPT: Once = Once::new();
        SWEPT.call_once(sweep);
        let directory = tempfile::Builder::new().prefix(PREFIX).tempdir_in("/tmp").expect("a directory");
        let lock = File::open(directory.path()).expect("our own directory");
        lock.lock().expect("no one else has it");
        if let Some((user, group)) = user {
            chown(directory.path(), Some(user), Some(group)).expect("root may give a directory away");
        }
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o700)).expect("our own directory");
        Directory { directory, _lock: lock }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// Removes the directories of test processes that were killed; their servers ended with them.
fn sweep() {
    let is_old = |file: &File| {
        let made = file.metadata().and_then(|about| about.modified()).ok();
        made.and_then(|made| made.elapsed().ok()).is_some_and(|age| age > SWEEP_AGE)
    };
    for entry in std::fs::read_dir("/tmp").into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        // A directory of another user, and one that another process sweeps at the same time, cannot be removed.
        if File::open(entry.path()).is_ok_and(|file| is_old(&file) && file.try_lock().is_ok()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// The directory of the newest PostgreSQL's programs; `POSTGRES_BIN` names one by hand.
pub(crate) fn postgres_programs() -> PathBuf {
    let number = |path: &Path| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
    let packaged = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut packaged: Vec<PathBuf> = packaged.map(|version| version.path()).collect();
    packaged.sort_by_key(|path| std::cmp::Reverse(number(path)));
    let packaged = packaged.into_iter().map(|version| version.join("bin"));
    let by_hand = std::env::var_os("POSTGRES_BIN").map(PathBuf::from);
    let mut places = by_hand.into_iter().chain(packaged).chain(search_path());
    let found = places.find(|bin| bin.join("initdb").exists() && bin.join("postgres").exists());
    found.expect("PostgreSQL is not installed: run .ci/install postgres, or set POSTGRES_BIN")
}

/// A program that serves when it is called `redis-server`: Debian's redis-tools has it as `redis-check-rdb`.
pub(crate) fn redis_program() -> PathBuf {
    let names = ["redis-server", "valkey-server", "redis-check-rdb", "valkey-check-rdb"];
    let found = names.iter().find_map(|name| search_path().map(|bin| bin.join(name)).find(|path| path.exists()));
    found.expect("Redis is not installed: run .ci/install redis")
}

fn search_path() -> impl Iterator<Item = PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).collect::<Vec<_>>().into_iter()
}

/// Starts a server that the kernel ends by `signal` when this process ends.
///
/// The kernel sends it at the end of the *thread* that started the server, and a test's thread ends too early. So one
/// thread starts all servers and stays.
pub(crate) fn spawn(mut server: Command, signal: libc::c_int) -> Child {
    type Job = Box<dyn FnOnce() + Send>;
    static STARTER: Mutex<Option<Sender<Job>>> = Mutex::new(None);
    // SAFETY: prctl is async-signal-safe.
    unsafe {
        server.pre_exec(move || {
            libc::prctl(libc::PR_SET_PDEATHSIG, signal);
            Ok(())
        })
    };
    let (sender, child) = channel();
    let job: Job = Box::new(move || sender.send(server.spawn().expect("the server starts")).expect("the test waits"));
    let mut starter = STARTER.lock().unwrap_or_else(PoisonError::into_inner);
    let jobs = starter.get_or_insert_with(|| {
        let (jobs, todo) = channel::<Job>();
        thread::spawn(move || todo.into_iter().for_each(|job| job()));
        jobs
    });
    jobs.send(job).expect("the starter runs");
    drop(starter);
    child.recv().expect("the server starts")
}
