//! The closed sets label values come from. No user, address, table, text or fingerprint is ever a
//! label: whoever can send statements could otherwise grow the registry.

use crate::event::{Judgement, RecordedVerdict, StatementRecord};
use crate::facts::Verb;

macro_rules! labels {
    ($(#[$doc:meta])* $visibility:vis $name:ident {
        $($(#[$variant_doc:meta])* $variant:ident => $label:literal,)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $visibility enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// Every value, in declaration order.
            pub(super) const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The value of the label.
            pub(crate) fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }

            /// The position in [`Self::ALL`].
            pub(super) fn index(self) -> usize {
                Self::ALL.iter().position(|value| *value == self).unwrap_or_default()
            }
        }
    };
}

labels! {
    /// What a statement does, coarser than its verb so that the number of series stays small.
    pub(super) Command {
        Select => "select",
        Insert => "insert",
        Update => "update",
        Delete => "delete",
        Merge => "merge",
        Copy => "copy",
        Truncate => "truncate",
        Ddl => "ddl",
        Role => "role",
        Transaction => "transaction",
        Setting => "setting",
        Cursor => "cursor",
        Prepared => "prepared",
        Explain => "explain",
        Routine => "routine",
        Read => "read",
        Write => "write",
        PubSub => "pubsub",
        Connection => "connection",
        Admin => "admin",
        Other => "other",
    }
}

labels! {
    /// What was decided about a statement.
    pub(super) Decided {
        Allow => "allow",
        Mask => "mask",
        Filter => "filter",
        Rewrite => "rewrite",
        Deny => "deny",
        RateLimit => "rate_limit",
        Monitor => "monitor",
    }
}

labels! {
    /// Why a new client connection was turned away.
    pub RejectReason {
        /// As many clients as the configuration allows.
        ClientsMax => "clients_max",
        /// Accepting failed, for instance for want of file descriptors.
        AcceptFailed => "accept_failed",
        /// The listener admits no client from that address.
        Address => "address",
        /// Too many clients of that address are logging in.
        LoginsPerAddress => "logins_per_address",
        /// A trusted proxy sent no valid PROXY protocol header.
        ProxyHeader => "proxy_header",
    }
}

labels! {
    /// A time limit that was reached, by its key in the configuration.
    pub Limit {
        /// The login took too long.
        Login => "login_timeout",
        /// Silence.
        ClientIdle => "client_idle_timeout",
        /// Silence inside a transaction.
        IdleInTransaction => "idle_in_transaction_timeout",
        /// A statement.
        Statement => "statement_timeout",
        /// A statement that did not stop when it was cancelled.
        CancelGrace => "cancel_grace",
        /// A transaction.
        Transaction => "transaction_timeout",
        /// A session.
        Lifetime => "session_lifetime",
    }
}

labels! {
    /// Which way bytes go.
    pub Direction {
        /// From the application to the server.
        FromClient => "from_client",
        /// From the server to the application.
        ToClient => "to_client",
    }
}

labels! {
    /// How a client proved who it is.
    pub(super) Method {
        Trust => "trust",
        Cleartext => "cleartext",
        Md5 => "md5",
        Scram => "scram-sha-256",
        ScramPlus => "scram-sha-256-plus",
        Certificate => "certificate",
        Peer => "peer",
        ApiKey => "api-key",
        Jwt => "jwt",
        Reject => "reject",
        None => "none",
        Other => "other",
    }
}

labels! {
    /// How a login ended.
    pub(super) LoginResult {
        Success => "success",
        Failure => "failure",
    }
}

labels! {
    /// Who a session was ended by.
    pub(super) EndKind {
        Client => "client",
        Server => "server",
        Protocol => "protocol",
        Policy => "policy",
        Audit => "audit",
        Shutdown => "shutdown",
        Timeout => "timeout",
        Operator => "operator",
        Other => "other",
    }
}

labels! {
    /// Who an error is to be put down to.
    pub(super) Source {
        Client => "client",
        Proxy => "proxy",
        Server => "server",
    }
}

labels! {
    /// The class of a SQLSTATE: its first two characters.
    pub(super) ErrorClass {
        Connection => "08",
        NotSupported => "0A",
        Data => "22",
        Constraint => "23",
        TransactionState => "25",
        StatementName => "26",
        Authorization => "28",
        CatalogName => "3D",
        Rollback => "40",
        AccessOrSyntax => "42",
        Resources => "53",
        Limits => "54",
        ObjectState => "55",
        Intervention => "57",
        System => "58",
        Internal => "XX",
        Other => "other",
    }
}

labels! {
    /// Why a text was not understood.
    pub(super) ParseFailure {
        Syntax => "syntax",
        Encoding => "encoding",
        TooComplex => "too_complex",
        Unsupported => "unsupported",
    }
}

labels! {
    /// What became of a reload.
    pub(super) ReloadResult {
        Accepted => "accepted",
        Rejected => "rejected",
    }
}

labels! {
    /// What became of an audit event.
    pub(super) AuditResult {
        Written => "written",
        Dropped => "dropped",
    }
}

impl Command {
    /// The command of a statement: its first verb that says more than `EXPLAIN` does.
    pub(super) fn of(statement: &StatementRecord) -> Self {
        let verbs = &statement.verbs;
        let told = verbs.iter().find(|verb| !matches!(verb, Verb::Explain | Verb::Declare));
        told.or(verbs.first()).map_or(Self::Other, |verb| Self::of_verb(*verb))
    }

    fn of_verb(verb: Verb) -> Self {
        match verb {
            Verb::Select => Self::Select,
            Verb::Insert => Self::Insert,
            Verb::Update => Self::Update,
            Verb::Delete => Self::Delete,
            Verb::Merge => Self::Merge,
            Verb::CopyTo | Verb::CopyFrom | Verb::CopyServerFile => Self::Copy,
            Verb::Truncate => Self::Truncate,
            Verb::CreateTable
            | Verb::CreateTableAs
            | Verb::CreateView
            | Verb::CreateIndex
            | Verb::CreateFunction
            | Verb::Create
            | Verb::AlterTable
            | Verb::Alter
            | Verb::Drop
            | Verb::Refresh => Self::Ddl,
            Verb::Grant | Verb::Role | Verb::SetRole => Self::Role,
            Verb::Begin
            | Verb::Commit
            | Verb::Rollback
            | Verb::Savepoint
            | Verb::PrepareTransaction => Self::Transaction,
            Verb::Show | Verb::Set | Verb::Discard => Self::Setting,
            Verb::Declare | Verb::Fetch | Verb::Close => Self::Cursor,
            Verb::Prepare | Verb::Execute | Verb::Deallocate => Self::Prepared,
            Verb::Explain => Self::Explain,
            Verb::Do | Verb::Call | Verb::FunctionCall => Self::Routine,
            Verb::Lock
            | Verb::Listen
            | Verb::Unlisten
            | Verb::Notify
            | Verb::Load
            | Verb::Vacuum
            | Verb::Admin
            | Verb::Replication
            | Verb::Empty => Self::Other,
        }
    }
}

impl Decided {
    pub(super) fn of(judgement: Judgement) -> Self {
        match judgement {
            Judgement::Limited => Self::RateLimit,
            Judgement::Denied => Self::Deny,
            Judgement::Filtered => Self::Filter,
            Judgement::Rewritten => Self::Rewrite,
            Judgement::Masked => Self::Mask,
            Judgement::Allowed => Self::Allow,
            Judgement::Observed => Self::Monitor,
        }
    }
}

impl Method {
    /// From the protocol's word for it, in any spelling.
    pub(super) fn of(word: &str) -> Self {
        let word = word.to_ascii_lowercase();
        match word.as_str() {
            "trust" => Self::Trust,
            "cleartext" | "password" => Self::Cleartext,
            "md5" => Self::Md5,
            "scram-sha-256" | "scram" => Self::Scram,
            "scram-sha-256-plus" => Self::ScramPlus,
            "certificate" => Self::Certificate,
            "peer" => Self::Peer,
            "api-key" => Self::ApiKey,
            "jwt" => Self::Jwt,
            "reject" => Self::Reject,
            "" | "none" => Self::None,
            _ => Self::Other,
        }
    }
}

impl EndKind {
    pub(super) fn of(word: &str) -> Self {
        Self::ALL.iter().copied().find(|end| end.label() == word).unwrap_or(Self::Other)
    }
}

impl ErrorClass {
    pub(super) fn of(code: &str) -> Self {
        let class = code.get(..2).unwrap_or_default();
        Self::ALL.iter().copied().find(|known| known.label() == class).unwrap_or(Self::Other)
    }
}

impl Source {
    /// Whether an error the server reported is the server's own or the statement's.
    pub(super) fn of_server_error(code: &str) -> Self {
        match ErrorClass::of(code) {
            // A cancelled statement: its user asked for it.
            ErrorClass::Intervention if code == "57014" => Self::Client,
            ErrorClass::Connection
            | ErrorClass::Resources
            | ErrorClass::Limits
            | ErrorClass::Intervention
            | ErrorClass::System
            | ErrorClass::Internal => Self::Server,
            ErrorClass::NotSupported
            | ErrorClass::Data
            | ErrorClass::Constraint
            | ErrorClass::TransactionState
            | ErrorClass::StatementName
            | ErrorClass::Authorization
            | ErrorClass::CatalogName
            | ErrorClass::Rollback
            | ErrorClass::AccessOrSyntax
            | ErrorClass::ObjectState
            | ErrorClass::Other => Self::Client,
        }
    }
}

impl ParseFailure {
    /// A refused text that could not be normalised was not understood; the code says how.
    pub(super) fn of(statement: &StatementRecord) -> Option<Self> {
        let RecordedVerdict::Denied { code, .. } = &statement.verdict else { return None };
        if code == "42601" {
            return Some(Self::Syntax);
        }
        if statement.normalized.is_some() {
            return None;
        }
        Some(match code.as_str() {
            "22021" => Self::Encoding,
            "54000" | "54001" => Self::TooComplex,
            _ => Self::Unsupported,
        })
    }
}
