//! Where the HTTP endpoints listen.

use std::net::SocketAddr;

/// HTTP settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpSettings {
    /// Address to listen on; loopback by default, since everything it serves can be read by all.
    pub listen: SocketAddr,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9464)),
        }
    }
}
