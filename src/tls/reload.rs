//! SIGHUP: the files are read again, and what is in them is used if it can be.

use runlet_core::metric;
use tokio::signal::unix::Signal;
use tokio_util::sync::CancellationToken;

use super::{Certificate, Keeper, TlsError};

/// What it takes to read the certificate again.
#[derive(Debug)]
pub(crate) struct Reloader {
    /// Reads the files.
    pub keeper: Keeper,
    /// The certificate in use.
    pub certificate: Certificate,
}

/// Reads the files again at each signal, until `stop`. Without TLS there is nothing to read, and a signal only says so.
pub(crate) async fn reload(mut hangup: Signal, mut reloader: Option<Reloader>, stop: CancellationToken) {
    loop {
        let rung = tokio::select! {
            rung = hangup.recv() => rung,
            () = stop.cancelled() => break,
        };
        if rung.is_none() {
            break;
        }
        reloader = match reloader {
            None => {
                tracing::info!("SIGHUP: there is no certificate to read again; for anything else restart the server");
                None
            }
            Some(reloader) => again(reloader).await,
        };
    }
    if let Some(Reloader { keeper, .. }) = reloader {
        let _ = tokio::task::spawn_blocking(|| keeper.close()).await;
    }
}

async fn again(mut reloader: Reloader) -> Option<Reloader> {
    let reading = tokio::task::spawn_blocking(move || {
        let read = reloader.keeper.read().and_then(|pair| reloader.certificate.replace(&pair).map(|()| pair.exposed));
        (reloader, read)
    });
    let Ok((reloader, read)) = reading.await else {
        tracing::error!("the certificate can no longer be read again: restart the server to change it");
        return None;
    };
    say(&read);
    Some(reloader)
}

fn say(read: &Result<bool, TlsError>) {
    match read {
        Ok(exposed) => {
            metric::reloaded("ok");
            tracing::info!("SIGHUP: new connections use the certificate that was read now");
            if *exposed {
                tracing::warn!("the file of tls.key can be read by everybody; chmod 600 it");
            }
        }
        Err(error) => {
            metric::reloaded("failed");
            tracing::error!(error = %error, "SIGHUP: the certificate before stays in use");
        }
    }
}
