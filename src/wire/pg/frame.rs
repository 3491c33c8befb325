//! Frames after the start-up: one type byte, a 32-bit length that counts itself, the body.

use crate::wire::error::WireError;

/// The first five bytes of a frame, peeked: nothing is consumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Type byte.
    pub tag: u8,
    /// Length of the whole frame, type byte included.
    pub len: usize,
}

/// Bytes of a frame before its body.
pub const HEAD_BYTES: usize = 5;

/// Longest frame PostgreSQL itself accepts (`PQ_LARGE_MESSAGE_LIMIT`, 1 GiB - 1).
pub const LARGE_BYTES_MAX: usize = 0x3fff_ffff;

/// Longest frame of a kind without variable content (`PQ_SMALL_MESSAGE_LIMIT`).
pub const SMALL_BYTES_MAX: usize = 10_000;

/// Looks at the first frame of `buf` without consuming anything; `None` if its head is incomplete.
///
/// # Errors
/// A length below four (it counts itself) or negative.
pub fn peek(buf: &[u8]) -> Result<Option<Head>, WireError> {
    let Some(&[tag, a, b, c, d]) = buf.first_chunk() else { return Ok(None) };
    let declared = i32::from_be_bytes([a, b, c, d]);
    // Checked while signed: a negative length must not widen into a huge one.
    let len = usize::try_from(declared).ok().filter(|len| *len >= 4);
    let len = len.ok_or(WireError::BadLength(declared))?;
    Ok(Some(Head { tag, len: len + 1 }))
}

/// What a client sends. The same letter means something else from a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frontend {
    /// `B`
    Bind,
    /// `C`
    Close,
    /// `d`
    CopyData,
    /// `c`
    CopyDone,
    /// `f`
    CopyFail,
    /// `D`
    Describe,
    /// `E`
    Execute,
    /// `H`
    Flush,
    /// `F`
    FunctionCall,
    /// `P`
    Parse,
    /// `p`: password, SASL initial response, SASL response.
    Password,
    /// `Q`
    Query,
    /// `S`
    Sync,
    /// `X`
    Terminate,
}

impl Frontend {
    /// The kind of a frame from a client.
    ///
    /// # Errors
    /// [`WireError::UnexpectedMessage`] for a letter the protocol does not know.
    pub fn from_tag(tag: u8) -> Result<Self, WireError> {
        Ok(match tag {
            b'B' => Self::Bind,
            b'C' => Self::Close,
            b'd' => Self::CopyData,
            b'c' => Self::CopyDone,
            b'f' => Self::CopyFail,
            b'D' => Self::Describe,
            b'E' => Self::Execute,
            b'H' => Self::Flush,
            b'F' => Self::FunctionCall,
            b'P' => Self::Parse,
            b'p' => Self::Password,
            b'Q' => Self::Query,
            b'S' => Self::Sync,
            b'X' => Self::Terminate,
            other => return Err(WireError::UnexpectedMessage(other)),
        })
    }

    /// Longest frame of this kind PostgreSQL accepts (`SocketBackend` in `postgres.c`).
    pub fn bytes_max(self) -> usize {
        match self {
            Self::Close
            | Self::CopyDone
            | Self::Describe
            | Self::Execute
            | Self::Flush
            | Self::Sync
            | Self::Terminate => SMALL_BYTES_MAX,
            // PG_MAX_AUTH_TOKEN_LENGTH
            Self::Password => 65_535,
            Self::Bind
            | Self::CopyData
            | Self::CopyFail
            | Self::FunctionCall
            | Self::Parse
            | Self::Query => LARGE_BYTES_MAX,
        }
    }
}

/// What a server sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// `R`
    Authentication,
    /// `K`
    BackendKeyData,
    /// `2`
    BindComplete,
    /// `3`
    CloseComplete,
    /// `C`
    CommandComplete,
    /// `W`
    CopyBothResponse,
    /// `d`
    CopyData,
    /// `c`
    CopyDone,
    /// `G`
    CopyInResponse,
    /// `H`
    CopyOutResponse,
    /// `D`
    DataRow,
    /// `I`
    EmptyQueryResponse,
    /// `E`
    ErrorResponse,
    /// `V`
    FunctionCallResponse,
    /// `v`
    NegotiateProtocolVersion,
    /// `n`
    NoData,
    /// `N`
    NoticeResponse,
    /// `A`
    NotificationResponse,
    /// `t`
    ParameterDescription,
    /// `S`
    ParameterStatus,
    /// `1`
    ParseComplete,
    /// `s`
    PortalSuspended,
    /// `Z`
    ReadyForQuery,
    /// `T`
    RowDescription,
}

impl Backend {
    /// The kind of a frame from a server.
    ///
    /// # Errors
    /// [`WireError::UnexpectedMessage`] for a letter the protocol does not know.
    pub fn from_tag(tag: u8) -> Result<Self, WireError> {
        Ok(match tag {
            b'R' => Self::Authentication,
            b'K' => Self::BackendKeyData,
            b'2' => Self::BindComplete,
            b'3' => Self::CloseComplete,
            b'C' => Self::CommandComplete,
            b'W' => Self::CopyBothResponse,
            b'd' => Self::CopyData,
            b'c' => Self::CopyDone,
            b'G' => Self::CopyInResponse,
            b'H' => Self::CopyOutResponse,
            b'D' => Self::DataRow,
            b'I' => Self::EmptyQueryResponse,
            b'E' => Self::ErrorResponse,
            b'V' => Self::FunctionCallResponse,
            b'v' => Self::NegotiateProtocolVersion,
            b'n' => Self::NoData,
            b'N' => Self::NoticeResponse,
            b'A' => Self::NotificationResponse,
            b't' => Self::ParameterDescription,
            b'S' => Self::ParameterStatus,
            b'1' => Self::ParseComplete,
            b's' => Self::PortalSuspended,
            b'Z' => Self::ReadyForQuery,
            b'T' => Self::RowDescription,
            other => return Err(WireError::UnexpectedMessage(other)),
        })
    }
}
