//! A certificate of our own for `localhost`, and TLS sessions of clients that trust it alone.

use std::path::PathBuf;
use std::sync::Arc;

use event_tracker::http::{Config, Tls};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};

/// A certificate and its key, as files of a directory that goes away.
pub(crate) struct Files {
    pub(crate) directory: tempfile::TempDir,
}

impl Files {
    pub(crate) fn ecdsa() -> Files {
        Files::new(&rcgen::PKCS_ECDSA_P256_SHA256)
    }

    pub(crate) fn new(algorithm: &'static rcgen::SignatureAlgorithm) -> Files {
        let files = Files::empty();
        files.renew(algorithm);
        files
    }

    pub(crate) fn empty() -> Files {
        Files { directory: tempfile::tempdir().expect("a directory") }
    }

    pub(crate) fn renew(&self, algorithm: &'static rcgen::SignatureAlgorithm) {
        let key = rcgen::KeyPair::generate_for(algorithm).expect("a key");
        let parameters = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("parameters");
        let certificate = parameters.self_signed(&key).expect("a certificate");
        std::fs::write(self.certificate(), certificate.pem()).expect("write");
        std::fs::write(self.key(), key.serialize_pem()).expect("write");
    }

    pub(crate) fn certificate(&self) -> PathBuf {
        self.directory.path().join("certificate.pem")
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.directory.path().join("key.pem")
    }

    pub(crate) fn tls(&self) -> Arc<Tls> {
        Arc::new(Tls::load(self.certificate(), self.key()).expect("TLS"))
    }

    pub(crate) fn config(&self) -> Config {
        Config { tls: Some(self.tls()), ..Config::default() }
    }

    /// A client's session that trusts this certificate alone, and offers `http/1.1`.
    pub(crate) fn session(&self, versions: &[&'static SupportedProtocolVersion]) -> ClientConnection {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(self.certificate()).expect("PEM") {
            roots.add(certificate.expect("a certificate")).expect("a root");
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).expect("versions");
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").expect("a name")).expect("a session")
    }
}
