//! The machine's own limits, and the port.

use std::io::ErrorKind;

use socket2::{Domain, Protocol, Socket, Type};

use super::findings::{Findings, Level};
use crate::config::Settings;
use crate::limits::{ACCEPT_BACKLOG, CONNECTIONS_MAX};
use crate::process;

pub(super) fn check(findings: &mut Findings, settings: &Settings, is_running: bool) {
    let (soft, hard) = process::descriptors();
    let wanted = if settings.http.connections_max == 0 { CONNECTIONS_MAX } else { settings.http.connections_max };
    let allowed = process::connections_max(settings.http.connections_max);
    let maps = number("/proc/sys/vm/max_map_count").map_or("unknown".to_owned(), |maps| maps.to_string());
    let good = format!("{allowed} connections (nofile {soft} soft, {hard} hard; vm.max_map_count {maps})");
    let bad = format!("{good} instead of {wanted}: raise LimitNOFILE (ulimit -n) or sysctl vm.max_map_count");
    findings.expect(allowed >= wanted, Level::Warn, "limits", &good, bad);
    if let Some(backlog) = number("/proc/sys/net/core/somaxconn") {
        let good = format!("somaxconn {backlog}");
        let bad = format!(
            "{good}: a burst of new connections waits in a short queue; sysctl net.core.somaxconn={ACCEPT_BACKLOG}"
        );
        findings.expect(backlog >= i64::from(ACCEPT_BACKLOG), Level::Warn, "limits", &good, bad);
    }
    about_port(findings, settings, is_running);
}

fn number(path: &str) -> Option<i64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// As the server would take it, but never listening.
fn about_port(findings: &mut Findings, settings: &Settings, is_running: bool) {
    let address = settings.http.listen;
    let bound = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP)).and_then(|socket| {
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())
    });
    match bound {
        Ok(()) => findings.ok("port", format!("{address} is free")),
        Err(error) if error.kind() == ErrorKind::AddrInUse && is_running => {
            findings.ok("port", format!("{address} is in use, as it should be by the server that runs"));
        }
        Err(error) => findings.fail("port", format!("{address}: {error}; choose another LISTEN")),
    }
}
