//! Settings of who may ask: keys, origins, rates, proxies, and whether anybody may without a key.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use clap::Args;

use crate::api::{AccessRules, Hosts, KeyList, Keys, Origins, Proxies, events_alias};
use crate::process;

/// As they are given.
#[derive(Clone, Debug, Args)]
pub struct RawAccess {
    /// A file of keys that may only send events, one per line or separated by commas; the environment variable INGEST_KEYS
    /// holds them too. The only keys that may be in a page or an app
    #[arg(long, env = "INGEST_KEYS_FILE", value_name = "FILE")]
    ingest_keys_file: Option<PathBuf>,
    /// The same for keys that may also write posts and likes and delete recent searches (WRITE_KEYS)
    #[arg(long, env = "WRITE_KEYS_FILE", value_name = "FILE")]
    write_keys_file: Option<PathBuf>,
    /// The same for lists, counts and metrics (READ_KEYS)
    #[arg(long, env = "READ_KEYS_FILE", value_name = "FILE")]
    read_keys_file: Option<PathBuf>,
    /// The same for everything, exports and erasures included (ADMIN_KEYS)
    #[arg(long, env = "ADMIN_KEYS_FILE", value_name = "FILE")]
    admin_keys_file: Option<PathBuf>,
    /// Hosts that are served beside localhost and 127.0.0.1, separated by commas: example.org, *.example.org, * for any.
    /// If set, every other Host gets 421; if not, the same on loopback while a right has no keys
    #[arg(long, env = "ALLOWED_HOSTS", default_value = "", hide_default_value = true, value_name = "HOSTS")]
    allowed_hosts: String,
    /// One more path that takes events as /api/events does, such as /collect
    #[arg(long, env = "EVENTS_ALIAS", default_value = "", hide_default_value = true, value_name = "PATH")]
    events_alias: String,
    /// Origins whose pages may do more than send events, separated by commas: https://example.org, https://*.example.org,
    /// null, * for any
    #[arg(long, env = "ALLOWED_ORIGINS", default_value = "", hide_default_value = true, value_name = "ORIGINS")]
    allowed_origins: String,
    /// Requests per second of a client, an IPv6 client being its /64 (429 past it); 0: no limit
    #[arg(long, env = "RATE_LIMIT", default_value_t = 0, value_name = "NUMBER")]
    rate_limit: u32,
    /// Addresses and networks of proxies whose X-Forwarded-For is believed, between commas
    #[arg(long, env = "TRUSTED_PROXIES", default_value = "", hide_default_value = true, value_name = "NETWORKS")]
    trusted_proxies: String,
    /// Allow an address that others reach without keys for everything
    #[arg(long, env = "INSECURE_OPEN", value_name = "BOOL", num_args = 0..=1, default_value_t = false, default_missing_value = "true")]
    insecure_open: bool,
}

#[derive(Clone, Debug)]
pub struct AccessSettings {
    pub rules: AccessRules,
    /// Anybody may reach what has no keys.
    pub insecure_open: bool,
    /// What is unsafe about files of keys, a sentence each for the log; never a key.
    pub warnings: Vec<String>,
}

impl RawAccess {
    /// As [`super::Raw::check`].
    pub(super) fn check(self) -> Result<AccessSettings, String> {
        let mut warnings = Vec::new();
        let mut keys = |name: &str, file: Option<PathBuf>| keys(name, file.as_deref(), &mut warnings);
        let keys = Keys {
            ingest: keys("INGEST_KEYS", self.ingest_keys_file)?,
            write: keys("WRITE_KEYS", self.write_keys_file)?,
            read: keys("READ_KEYS", self.read_keys_file)?,
            admin: keys("ADMIN_KEYS", self.admin_keys_file)?,
        };
        warnings.extend(shared_keys(&keys));
        Ok(AccessSettings {
            warnings,
            rules: AccessRules {
                keys,
                origins: Origins::parse(&self.allowed_origins)?,
                hosts: Hosts::parse(&self.allowed_hosts)?,
                proxies: Proxies::parse(&self.trusted_proxies)?,
                events_alias: events_alias(&self.events_alias)?,
                rate_limit: u64::from(self.rate_limit),
            },
            insecure_open: self.insecure_open,
        })
    }
}

/// The address to listen on: loopback, unless every right has keys or the user says that it may be open.
pub(super) fn listen(text: &str, access: &AccessSettings) -> Result<SocketAddr, String> {
    let mut addresses = text.to_socket_addrs().map_err(|e| format!("LISTEN `{text}` is not address:port: {e}"))?;
    let address = addresses.next().ok_or_else(|| format!("LISTEN `{text}` names no address"))?;
    if !address.ip().is_loopback() && !access.insecure_open && !access.rules.keys.cover_everything() {
        return Err(format!(
            "LISTEN {address} can be reached from outside, and what has no keys is open to everybody there: set \
             WRITE_KEYS, READ_KEYS and ADMIN_KEYS, or listen on 127.0.0.1, or set INSECURE_OPEN=true"
        ));
    }
    Ok(address)
}

/// Pages show their keys to everybody: such a key must give no other right.
fn shared_keys(keys: &Keys) -> Option<String> {
    let lists = [("WRITE_KEYS", &keys.write), ("READ_KEYS", &keys.read), ("ADMIN_KEYS", &keys.admin)];
    let (other, _) = lists.into_iter().find(|(_, list)| keys.ingest.shares_one_with(list))?;
    Some(format!("a key of INGEST_KEYS is in {other}, too: anyone who reads it in a page has both rights"))
}

/// Keys of a right: those of the environment variable, which no flag shows to others on the machine,
/// and those of the file. Warns about a file that others can read.
fn keys(name: &str, file: Option<&Path>, warnings: &mut Vec<String>) -> Result<KeyList, String> {
    let from_environment = match std::env::var(name) {
        Ok(text) => KeyList::parse(name, &text)?,
        Err(std::env::VarError::NotPresent) => KeyList::default(),
        Err(std::env::VarError::NotUnicode(_)) => return Err(format!("{name} is not UTF-8")),
    };
    let Some(path) = file.filter(|path| !path.as_os_str().is_empty()) else { return Ok(from_environment) };
    let setting = format!("{name}_FILE {}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| format!("{setting}: {error}"))?;
    let from_file = KeyList::parse(&setting, &text)?;
    if from_file.is_open() {
        return Err(format!("{setting} holds no key"));
    }
    if process::others_read(path) {
        warnings.push(format!("{setting} can be read by every user of this machine: chmod 600"));
    }
    Ok(from_environment.with(from_file))
}
