//! HTTP as such: accept loop, limits on slow and large clients, bodies, replies.
//!
//! Knows nothing of functions, tokens or routes: those are in [`crate::api`].

pub(crate) mod body;
mod connection;
pub(crate) mod front;
mod house;
pub(crate) mod listener;
mod pulse;
pub(crate) mod reply;

pub(crate) use connection::Crowding;

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// Somebody on the network.
    Tcp(std::net::SocketAddr),
    /// A process of this machine that runs as this user.
    Unix {
        /// Its user id, as the kernel tells it.
        uid: u32,
    },
}
