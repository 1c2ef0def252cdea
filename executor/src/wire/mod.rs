//! What server, zygote, shim and init say to each other: typed messages over seqpacket sockets.
//!
//! A message is one datagram, `J` and its JSON; one that is larger than [`INLINE`] travels in a memfd: `M`, and the memfd is
//! the first descriptor. Descriptors go along by `SCM_RIGHTS`. Both ends are the same binary, yet each side treats what it
//! reads as data that may be wrong.

pub(crate) mod message;
pub(crate) mod socket;

pub(crate) use socket::{Received, Seqpacket};
