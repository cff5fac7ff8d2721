//! A redis-server of a test's own: can be stopped, frozen, emptied and started again.

#![allow(dead_code, reason = "each suite uses a part")]

use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::services;

pub(crate) struct Server {
    child: Option<Child>,
    port: u16,
    directory: services::Directory,
}

impl Server {
    pub(crate) fn start() -> Server {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = Server { child: None, port, directory: services::Directory::new(None) };
        server.spawn();
        server
    }

    pub(crate) fn spawn(&mut self) {
        let mut server = Command::new(services::redis_program());
        // The program looks at its own name.
        server.arg0("redis-server").arg("--dir").arg(self.directory.path()).stdout(Stdio::null());
        server.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        self.child = Some(services::spawn(server, libc::SIGKILL));
        let ping = || self.admin("PING").map(drop).map_err(|error| error.to_string());
        super::eventually(Duration::from_secs(10), ping);
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn admin(&self, command: &str) -> redis::RedisResult<redis::Value> {
        admin(&self.url(), command)
    }

    /// The answer to a command, which must come.
    #[track_caller]
    pub(crate) fn ask<T: redis::FromRedisValue>(&self, command: &str) -> T {
        redis::from_redis_value(self.admin(command).expect("Redis answers")).expect("an answer of this type")
    }

    #[track_caller]
    pub(crate) fn keys(&self, pattern: &str) -> Vec<String> {
        self.ask(&format!("KEYS {pattern}"))
    }

    pub(crate) fn signal(&self, signal: i32) {
        let id = self.child.as_ref().unwrap().id() as i32;
        super::signal(id, signal);
    }

    /// Writes what it holds to its disk: what it starts with next time.
    pub(crate) fn save(&self) {
        self.admin("SAVE").unwrap();
    }

    pub(crate) fn forget_saved(&self) {
        let _ = std::fs::remove_file(self.directory.path().join("dump.rdb"));
    }

    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

pub(crate) fn admin(url: &str, command: &str) -> redis::RedisResult<redis::Value> {
    let mut words = command.split(' ');
    let mut link = redis::Client::open(url)?.get_connection_with_timeout(Duration::from_secs(1))?;
    redis::cmd(words.next().unwrap()).arg(words.collect::<Vec<_>>()).query(&mut link)
}
