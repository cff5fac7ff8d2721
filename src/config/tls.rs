//! Settings of TLS: a certificate and its key, both or neither.

use std::path::PathBuf;

use clap::Args;

use crate::http::Tls;

/// As they are given.
#[derive(Clone, Debug, Args)]
pub(super) struct RawTls {
    /// Certificate and those between it and its root, PEM; with TLS_KEY the port speaks https and nothing else. SIGHUP
    /// reads both files again without closing a connection
    #[arg(long, env = "TLS_CERT", value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// Its private key, PEM, readable for nobody else
    #[arg(long, env = "TLS_KEY", value_name = "FILE")]
    tls_key: Option<PathBuf>,
}

impl RawTls {
    /// As [`super::Raw::check`]; reads both files.
    pub(super) fn check(self) -> Result<Option<Tls>, String> {
        let set = |path: Option<PathBuf>| path.filter(|path| !path.as_os_str().is_empty());
        match (set(self.tls_cert), set(self.tls_key)) {
            (None, None) => Ok(None),
            (Some(certificate), Some(key)) => Tls::load(certificate, key).map(Some),
            (Some(_), None) => Err("TLS_CERT needs TLS_KEY, the file of its private key".into()),
            (None, Some(_)) => Err("TLS_KEY needs TLS_CERT, the file of its certificate".into()),
        }
    }
}
