//! Settings of who may ask: keys, origins, rates, proxies, and whether anybody may without a key.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use clap::Args;

use crate::api::{KeyList, Keys, Origins, Proxies};
use crate::process;

/// As they are given.
#[derive(Clone, Debug, Args)]
pub struct RawAccess {
    /// A file of keys for sending events, one a line or between commas; the environment variable WRITE_KEYS holds them too
    #[arg(long, env = "WRITE_KEYS_FILE", value_name = "FILE")]
    write_keys_file: Option<PathBuf>,
    /// The same for lists, counts and metrics (READ_KEYS)
    #[arg(long, env = "READ_KEYS_FILE", value_name = "FILE")]
    read_keys_file: Option<PathBuf>,
    /// The same for exports (ADMIN_KEYS)
    #[arg(long, env = "ADMIN_KEYS_FILE", value_name = "FILE")]
    admin_keys_file: Option<PathBuf>,
    /// Origins whose pages may send and read, between commas, or *; unset: all may send events and none may read
    #[arg(long, env = "ALLOWED_ORIGINS", value_name = "ORIGINS")]
    allowed_origins: Option<String>,
    /// Requests a second for each client address (429 past it); 0: no limit
    #[arg(long, env = "RATE_LIMIT", default_value_t = 0, value_name = "NUMBER")]
    rate_limit: u32,
    /// Addresses and networks of proxies whose X-Forwarded-For is believed, between commas
    #[arg(long, env = "TRUSTED_PROXIES", default_value = "", hide_default_value = true, value_name = "NETWORKS")]
    trusted_proxies: String,
    /// Allow an address that others reach without keys for everything
    #[arg(long, env = "INSECURE_OPEN", value_name = "BOOL", num_args = 0..=1, default_value_t = false, default_missing_value = "true")]
    insecure_open: bool,
}

/// Checked.
#[derive(Clone, Debug)]
pub struct AccessSettings {
    pub keys: Keys,
    pub origins: Origins,
    pub proxies: Proxies,
    /// Requests a second for each client address; 0: no limit.
    pub rate_limit: u64,
    /// Anybody may reach what has no keys.
    pub insecure_open: bool,
    /// What is unsafe about files of keys, a sentence each for the log; never a key.
    pub warnings: Vec<String>,
}

impl RawAccess {
    /// As [`super::Raw::check`].
    pub(super) fn check(self) -> Result<AccessSettings, String> {
        let files = [
            ("WRITE_KEYS_FILE", &self.write_keys_file),
            ("READ_KEYS_FILE", &self.read_keys_file),
            ("ADMIN_KEYS_FILE", &self.admin_keys_file),
        ];
        Ok(AccessSettings {
            warnings: files.into_iter().filter_map(|(setting, file)| warning(setting, file.as_deref()?)).collect(),
            keys: Keys {
                write: keys("WRITE_KEYS", self.write_keys_file.as_deref())?,
                read: keys("READ_KEYS", self.read_keys_file.as_deref())?,
                admin: keys("ADMIN_KEYS", self.admin_keys_file.as_deref())?,
            },
            origins: Origins::parse(self.allowed_origins.as_deref())?,
            proxies: Proxies::parse(&self.trusted_proxies)?,
            rate_limit: u64::from(self.rate_limit),
            insecure_open: self.insecure_open,
        })
    }
}

/// The address to listen on: loopback, unless every right has keys or the user says that it may be open.
pub(super) fn listen(text: &str, access: &AccessSettings) -> Result<SocketAddr, String> {
    let mut addresses = text.to_socket_addrs().map_err(|e| format!("LISTEN `{text}` is not address:port: {e}"))?;
    let address = addresses.next().ok_or_else(|| format!("LISTEN `{text}` names no address"))?;
    if !address.ip().is_loopback() && !access.insecure_open && !access.keys.cover_everything() {
        return Err(format!(
            "LISTEN {address} can be reached from outside, and what has no keys is open to everybody there: set \
             WRITE_KEYS, READ_KEYS and ADMIN_KEYS, or listen on 127.0.0.1, or set INSECURE_OPEN=true"
        ));
    }
    Ok(address)
}

fn warning(setting: &str, file: &Path) -> Option<String> {
    let is_open = process::others_read(file);
    is_open.then(|| format!("{setting} {} can be read by every user of this machine: chmod 600", file.display()))
}

/// Keys of a right: those of the environment variable, which no flag shows to others on the machine, and of the file.
fn keys(name: &str, file: Option<&Path>) -> Result<KeyList, String> {
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
    Ok(from_environment.with(from_file))
}
