//! To be written.

/// Which side of a handshake showed the certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// It accepted the connection.
    Server,
    /// It connected.
    Client,
}

/// What a chain shows.
#[derive(Clone, Debug)]
pub struct Verdict {}

/// Both roles' configurations.
#[derive(Debug)]
pub struct Configs {}
