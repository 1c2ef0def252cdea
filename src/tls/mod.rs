//! TLS: the certificate in use, and how it changes without a restart.
//!
//! ```text
//! keeper (root) ── reads cert and key, when asked ──► pair of PEM texts ──► checked ──► in use for new connections
//! ```
//! A certificate that cannot be used never replaces one that can. rustls with aws-lc-rs does the work; no other provider is
//! in the binary.

mod keeper;
mod reload;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use runlet_core::{clock, metric};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

pub(crate) use keeper::{Keeper, ROLE, main};
pub(crate) use reload::{Reloader, reload};

/// Where certificate and key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Files {
    /// The certificate and those that lead to a root, PEM.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

/// What was in the files. Nothing shows the key.
pub(crate) struct Pair {
    cert: Vec<u8>,
    key: Vec<u8>,
    /// Whether the key's file can be read by everybody.
    pub exposed: bool,
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pair(..)")
    }
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// The process that reads the files could not be started.
    #[error("could not start the reader of the TLS files: {0}")]
    Start(std::io::Error),
    /// It did not answer.
    #[error("the reader of the TLS files does not answer ({0}); restart the server")]
    Keeper(std::io::Error),
    /// A file cannot be read.
    #[error("{0}")]
    Unreadable(String),
    /// The file of the certificate is not one.
    #[error("tls.cert: {} holds no certificate in PEM; write the certificate first, then those that lead to its root", .0.display())]
    NoCertificate(PathBuf),
    /// The file of the key is not one.
    #[error("tls.key: {} holds no private key in PEM (PKCS#8, PKCS#1 or SEC1, without a passphrase)", .0.display())]
    NoKey(PathBuf),
    /// They do not fit together, or are of a kind that cannot be used.
    #[error("certificate {} and key {} cannot be used: {cause}", files.cert.display(), files.key.display())]
    Unusable {
        /// The files.
        files: Files,
        /// What is wrong with them.
        cause: rustls::Error,
    },
}

/// The certificate in use. Clones share it.
#[derive(Clone)]
pub(crate) struct Certificate {
    files: Files,
    current: Arc<RwLock<Arc<ServerConfig>>>,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Certificate {
    /// Begins with this pair.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn new(files: Files, pair: &Pair) -> Result<Self, TlsError> {
        let config = config(&files, pair)?;
        loaded();
        Ok(Self { files, current: Arc::new(RwLock::new(config)) })
    }

    /// Takes another pair for the connections that come from now on.
    ///
    /// # Errors
    /// What is wrong with it; the one before stays in use.
    pub(crate) fn replace(&self, pair: &Pair) -> Result<(), TlsError> {
        let config = config(&self.files, pair)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = config;
        loaded();
        Ok(())
    }

    /// For one handshake.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

fn loaded() {
    let now = u32::try_from(clock::now().timestamp()).unwrap_or(u32::MAX);
    metric::level("runlet_tls_loaded_timestamp_seconds", f64::from(now));
}

/// Checks a pair: it parses, and the key is that of the certificate.
fn config(files: &Files, pair: &Pair) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = certificates(&pair.cert).filter(|chain| !chain.is_empty());
    let chain = chain.ok_or_else(|| TlsError::NoCertificate(files.cert.clone()))?;
    let key = PrivateKeyDer::from_pem_slice(&pair.key).map_err(|_| TlsError::NoKey(files.key.clone()))?;
    let unusable = |cause| TlsError::Unusable { files: files.clone(), cause };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(unusable)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// All certificates in a PEM text; `None` if one of them is broken.
pub(crate) fn certificates(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().ok()
}

/// For messages.
fn cannot_read(what: &str, path: &Path, why: impl fmt::Display) -> String {
    format!("{what}: cannot read {}: {why}", path.display())
}
