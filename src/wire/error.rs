//! What can be wrong with bytes from the network.

/// A violation of a wire format. `Copy`, and without any text of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireError {
    /// The message ends before its fields do.
    Truncated,
    /// Bytes are left after the last field.
    TrailingBytes,
    /// A length field is negative or smaller than the format allows.
    BadLength(i32),
    /// A message is longer than its kind may be.
    TooLong,
    /// The type byte is not known, or not allowed at this point.
    UnexpectedMessage(u8),
    /// A text field has no terminating zero.
    MissingTerminator,
    /// A field holds a value the format does not allow.
    BadField,
    /// Bytes arrived where none may be (for instance before a TLS handshake).
    UnexpectedBytes,
    /// The peer opened more than the limits allow (pending replies, prepared statements).
    LimitExceeded,
}

impl WireError {
    /// Whether a message is whole and only what is inside it is wrong: PostgreSQL refuses the
    /// message then and goes on with the next.
    pub fn is_of_content(self) -> bool {
        match self {
            Self::Truncated | Self::TrailingBytes | Self::MissingTerminator | Self::BadField => {
                true
            }
            Self::BadLength(_)
            | Self::TooLong
            | Self::UnexpectedMessage(_)
            | Self::UnexpectedBytes
            | Self::LimitExceeded => false,
        }
    }
}

impl std::fmt::Display for WireError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Truncated => f.write_str("message ends before its fields do"),
            Self::TrailingBytes => f.write_str("bytes left after the last field of a message"),
            Self::BadLength(length) => write!(f, "invalid message length {length}"),
            Self::TooLong => f.write_str("message longer than its kind may be"),
            Self::UnexpectedMessage(tag) => write!(f, "unexpected message type 0x{tag:02X}"),
            Self::MissingTerminator => f.write_str("text field without terminator"),
            Self::BadField => f.write_str("field with an invalid value"),
            Self::UnexpectedBytes => f.write_str("bytes where none may be"),
            Self::LimitExceeded => f.write_str("limit of the connection exceeded"),
        }
    }
}

impl std::error::Error for WireError {}
