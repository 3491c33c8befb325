//! How a connection ended, as the log and the metrics word it.

/// The kind of an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The client closed, or its connection broke.
    Client,
    /// The server closed, was not reached, or its connection broke.
    Server,
    /// The session closed by itself: a goodbye, a refused login, a cancel that was handed on.
    Session,
    /// A peer broke the protocol.
    Protocol,
    /// The audit trail could take no more.
    Audit,
    /// The process stops.
    Shutdown,
    /// A deadline passed.
    Timeout,
    /// An operator ended it.
    Operator,
    /// The client was not let in.
    Refused,
}

impl End {
    /// The word in logs and metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Session => "session",
            Self::Protocol => "protocol",
            Self::Audit => "audit",
            Self::Shutdown => "shutdown",
            Self::Timeout => "timeout",
            Self::Operator => "operator",
            Self::Refused => "refused",
        }
    }

    /// Whether a client is still there to read last words.
    pub(crate) fn client_listens(self) -> bool {
        match self {
            Self::Client => false,
            Self::Server
            | Self::Session
            | Self::Protocol
            | Self::Audit
            | Self::Shutdown
            | Self::Timeout
            | Self::Operator
            | Self::Refused => true,
        }
    }
}
