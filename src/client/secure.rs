//! TLS for the client: whom it trusts, and the handshake.
//!
//! Trusted are the authorities in the file that `RUNLET_CA_FILE` names, or else those of the system.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::tls::certificates;

/// Names a file of authorities to trust instead of the system's.
const CA_FILE: &str = "RUNLET_CA_FILE";

/// Where distributions keep the authorities that they trust.
const SYSTEM: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Why the client trusts nobody.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrustError {
    /// The file cannot be read.
    #[error("cannot read the certificates to trust in {}: {cause}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the kernel said.
        cause: io::Error,
    },
    /// It holds none.
    #[error("{} holds no certificate in PEM", .0.display())]
    Empty(PathBuf),
    /// There is no such file on this system.
    #[error("this system has no file of trusted certificates; name one in RUNLET_CA_FILE")]
    NoSystem,
    /// The server's name is none.
    #[error("`{0}` is no name that a certificate could have")]
    Name(String),
    /// The library refuses to work.
    #[error("TLS cannot be used: {0}")]
    Library(rustls::Error),
}

/// A client's side of TLS, ready for the server of this name.
pub(super) struct Secure {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Secure {
    /// Reads whom to trust.
    pub(super) fn new(name: &str) -> Result<Self, TrustError> {
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        let server = ServerName::try_from(bare.to_owned()).map_err(|_| TrustError::Name(bare.to_owned()))?;
        Ok(Self { connector: TlsConnector::from(trusted()?), name: server })
    }

    /// Shakes hands.
    pub(super) async fn over(self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.connector.connect(self.name, stream).await
    }
}

/// A client's side of TLS that trusts whom it is told to.
pub(crate) fn trusted() -> Result<Arc<ClientConfig>, TrustError> {
    let path = match std::env::var_os(CA_FILE).filter(|path| !path.is_empty()) {
        Some(path) => PathBuf::from(path),
        None => SYSTEM.iter().map(PathBuf::from).find(|path| path.exists()).ok_or(TrustError::NoSystem)?,
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TrustError::Library)?
        .with_root_certificates(roots(&path)?)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn roots(path: &Path) -> Result<RootCertStore, TrustError> {
    let pem = std::fs::read(path).map_err(|cause| TrustError::Read { path: path.to_owned(), cause })?;
    let mut store = RootCertStore::empty();
    // A bundle of a system may hold one that the library does not take: the others count.
    store.add_parsable_certificates(certificates(&pem).unwrap_or_default());
    if store.is_empty() { Err(TrustError::Empty(path.to_owned())) } else { Ok(store) }
}
