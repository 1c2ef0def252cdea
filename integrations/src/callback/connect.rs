//! The way to a receiver: its name resolved, its address checked, a connection to that very address.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use hyper::Uri;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use super::networks::Networks;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// The address is none.
    #[error("the address cannot be read")]
    Address,
    /// The name is not known.
    #[error("its name could not be resolved: {0}")]
    Name(io::Error),
    /// It is nobody that one may talk to. Which address it has is not told: that is the network's own matter.
    #[error("it has no public address, and the operator has not allowed its network (callbacks.allow)")]
    Forbidden,
    /// Nobody is there.
    #[error("no connection: {0}")]
    Connect(io::Error),
    /// There is nobody to trust.
    #[error("this server knows no certificate authority; the operator names a file in RUNLET_CA_FILE")]
    Trust,
    /// The handshake failed.
    #[error("no TLS: {0}")]
    Tls(io::Error),
}

/// A connection, encrypted or not.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Connects to the host of `uri`.
pub(super) async fn connect(
    uri: &Uri,
    networks: &Networks,
    tls: Option<&Arc<ClientConfig>>,
) -> Result<Box<dyn Stream>, ConnectError> {
    let host = uri.host().ok_or(ConnectError::Address)?.trim_start_matches('[').trim_end_matches(']');
    let secure = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err(ConnectError::Address),
    };
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let found: Vec<SocketAddr> = lookup_host((host, port)).await.map_err(ConnectError::Name)?.collect();
    // Only these are connected to: the name is not asked again.
    let allowed = found.into_iter().filter(|address| networks.allow(address.ip()));
    let stream = first(allowed).await?;
    if !secure {
        return Ok(Box::new(stream));
    }
    let name = ServerName::try_from(host.to_owned()).map_err(|_| ConnectError::Address)?;
    let connector = TlsConnector::from(Arc::clone(tls.ok_or(ConnectError::Trust)?));
    Ok(Box::new(connector.connect(name, stream).await.map_err(ConnectError::Tls)?))
}

/// A connection to the first of the addresses that takes one.
async fn first(addresses: impl Iterator<Item = SocketAddr>) -> Result<TcpStream, ConnectError> {
    let mut failed = ConnectError::Forbidden;
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                stream.set_nodelay(true).map_err(ConnectError::Connect)?;
                return Ok(stream);
            }
            Err(error) => failed = ConnectError::Connect(error),
        }
    }
    Err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_spelling_of_the_host_itself_is_forbidden() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let nobody = Networks::default();
        for host in ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "0", "[::ffff:127.0.0.1]"] {
            let uri: Uri = format!("http://{host}:{port}/").parse().unwrap();
            let refused = connect(&uri, &nobody, None).await.err().expect(host);
            // A spelling that the resolver does not know is as good.
            assert!(matches!(refused, ConnectError::Forbidden | ConnectError::Name(_)), "{host}: {refused}");
        }
        let uri: Uri = format!("http://127.0.0.1:{port}/").parse().unwrap();
        assert!(connect(&uri, &"127.0.0.0/8".parse().unwrap(), None).await.is_ok());
    }
}
