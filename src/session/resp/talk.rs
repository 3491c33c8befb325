//! What both directions of a session share.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::RespConfig;
use super::entering::Entering;
use super::listening::Listening;
use super::pending::{Expect, Pending};
use super::repeated::Repeated;
use super::reshape::{Job, Owed, Reshaper};
use super::runs::{Growing, Runs};
use super::server::Lost;
use super::unheard::Outcome;
use crate::analysis::redis::{Amended, Role, Uses};
use crate::policy::{IdentityClass, Login};
use crate::session::auth::ServerLeg;
use crate::session::gate::Plans;
use crate::session::journal::Call;
use crate::session::{Effect, PeerCredentials, Phase, Progress, TlsPeer, Turn};
use crate::wire::resp::Protocol;
use crate::wire::resp::reply::Replies;
use crate::wire::resp::request::Refused;

/// Everything of a session but the scanner of its client's bytes.
#[derive(Debug, Default)]
pub(super) struct Core {
    /// What TLS established about the client.
    pub(super) tls: Option<TlsPeer>,
    /// Who holds the other end of a Unix socket.
    pub(super) local: Option<PeerCredentials>,
    /// Who the client is; `None` as long as it is nobody.
    pub(super) who: Option<Who>,
    /// Whether it was tried to let the client in without a word.
    pub(super) tried_unasked: bool,
    /// A login under way.
    pub(super) entering: Option<Entering>,
    /// The server, once it is connected.
    pub(super) server: Option<ServerLeg>,
    /// The account of ours that is logged in there.
    pub(super) account: Option<String>,
    pub(super) version: Protocol,
    /// What stands before the names of keys and channels of a tenant at the server.
    pub(super) prefix: Option<Arc<[u8]>>,
    /// Number of the database commands go to.
    pub(super) database: u32,
    pub(super) pending: Pending,
    pub(super) runs: Runs,
    pub(super) replies: Replies,
    pub(super) reshaper: Reshaper,
    /// The reply under way, if a part of it went on.
    pub(super) under_way: UnderWay,
    /// Bytes of a reply that is held whole: how many were looked at.
    pub(super) held: usize,
    pub(super) multi: Multi,
    /// Commands the server was done with when the client began it.
    pub(super) done_before_multi: u64,
    /// What each command owes that the server has queued.
    pub(super) queued: Queued,
    /// Whether the server is inside a transaction, as far as it has answered.
    pub(super) queuing: bool,
    pub(super) mute: Mute,
    pub(super) subscriptions: Subscriptions,
    pub(super) listening: Listening,
    /// Everything the server says is for the client.
    pub(super) monitoring: bool,
    /// Length of the last argument, where it is streamed.
    pub(super) announced: Option<usize>,
    /// What becomes of an argument that is streamed.
    pub(super) streamed: Streamed,
    /// Arguments of the command at hand that go to the server with other bytes than the client's.
    pub(super) amended: Option<Amended>,
    /// Arguments of ours that go to the server when the one that is streamed is over.
    pub(super) behind: BytesMut,
    pub(super) growing: Option<Growing>,
    /// The last command, as long as another one like it needs no second look.
    pub(super) repeated: Repeated,
    /// The role of the command that was judged last.
    pub(super) last_role: Option<Role>,
    pub(super) plans: Plans,
    /// Used again for each command.
    pub(super) uses: Uses,
    pub(super) parting: Parting,
}

/// Who a client is, and which rules concern it.
#[derive(Debug)]
pub(super) struct Who {
    login: Login,
    class: IdentityClass,
    /// Generation `class` was computed under.
    generation: u64,
}

/// A reply of which a part went on to the client.
#[derive(Debug, Default)]
pub(super) enum UnderWay {
    /// There is none.
    #[default]
    Nothing,
    /// It goes on as it is; it answers the command at the head.
    Answer,
    /// It is dropped; it answers the command at the head.
    Unheard((Outcome, Option<usize>)),
    /// It goes on as it is, and answers nothing.
    Unasked,
    /// It is rewritten.
    Rewritten(Box<Owed>, Answers),
}

/// What something the server says is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answers {
    /// The answer to the command that is recorded next.
    Command,
    /// A message, or part of an answer of several: nothing is answered with it.
    Nothing,
}

/// Where a transaction stands, as far as the client knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Multi {
    /// There is none.
    #[default]
    None,
    /// Commands are being queued.
    Open,
    /// A command was refused: it will not be executed.
    Tainted,
}

/// Which replies the client wants (CLIENT REPLY).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mute {
    /// All.
    #[default]
    No,
    /// Not the next one.
    Once,
    /// None.
    Yes,
}

/// Whether the connection is about to end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Parting {
    /// It is not.
    #[default]
    No,
    /// It ends when what is in flight is answered.
    Leaving,
    /// It ends now.
    Closing,
}

/// What becomes of a last argument that is streamed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Streamed {
    /// It goes to the server.
    #[default]
    Forwarded,
    /// Its command was refused.
    Dropped,
}

/// What the commands of a transaction owe, in order: so many commands that owe nothing, then one
/// that does.
#[derive(Debug, Default)]
pub(super) struct Queued {
    jobs: Vec<(usize, Job)>,
    /// Commands behind the last that owes something.
    free: usize,
    /// Database chosen on the way.
    pub(super) database: Option<u32>,
}

/// How much is subscribed to, as the server told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Subscriptions {
    pub(super) channels: usize,
    pub(super) patterns: usize,
    pub(super) shards: usize,
}

impl Queued {
    /// How many commands they are.
    fn len(&self) -> usize {
        self.jobs.iter().fold(self.free, |sum, (free, _)| sum.saturating_add(free + 1))
    }

    /// Whether more is queued than is kept for one client.
    pub(super) fn is_full(&self) -> bool {
        self.jobs.len() >= QUEUED_JOBS_MAX
    }

    pub(super) fn push(&mut self, job: Option<Job>) {
        match job {
            Some(job) => self.jobs.push((std::mem::take(&mut self.free), job)),
            None => self.free += 1,
        }
    }

    /// What the reply to EXEC owes, if anything in it does; `count` is how many elements it has,
    /// unless it is no array: then it is nothing, an error, or what no server sends and all is masked.
    ///
    /// # Errors
    /// As many commands were not queued: which element answers which cannot be told.
    pub(super) fn owed(self, count: Option<usize>) -> Result<Option<Owed>, Lost> {
        if self.jobs.is_empty() {
            return Ok(None);
        }
        if count.is_some_and(|count| count != self.len()) {
            return Err(Lost::Unasked);
        }
        let mut all = Vec::new();
        for (free, job) in self.jobs {
            all.extend(std::iter::repeat_with(|| None).take(free));
            all.push(Some(job));
        }
        all.extend(std::iter::repeat_with(|| None).take(self.free));
        Ok(Some(Owed::Exec(all)))
    }
}

impl Subscriptions {
    pub(super) fn any(self) -> bool {
        self.channels + self.patterns + self.shards > 0
    }
}

impl Who {
    pub(super) fn new(turn: Turn<'_>, login: Login) -> Self {
        let class = turn.rules.set.classify(turn.rules.set.identify(login.clone()));
        Self { login, class, generation: turn.rules.generation }
    }

    /// The same client in another database.
    pub(super) fn in_database(&self, turn: Turn<'_>, database: u32) -> Self {
        Self::new(turn, Login { database: database.to_string(), ..self.login.clone() })
    }

    pub(super) fn login(&self) -> &Login {
        &self.login
    }

    pub(super) fn class(&self) -> &IdentityClass {
        &self.class
    }
}

impl Core {
    /// The client is somebody, or somebody else.
    pub(super) fn become_(&mut self, who: Who) {
        self.who = Some(who);
        self.class_changed();
    }

    /// The class of the client may be another one.
    fn class_changed(&mut self) {
        self.plans.clear();
        self.repeated.forget();
        let tenancy = self.who.as_ref().and_then(|who| who.class().tenancy());
        self.prefix = tenancy.map(|tenancy| tenancy.prefix.as_bytes().into());
    }

    /// Brings the class up to date with the rules in force.
    /// Whether they have changed.
    pub(super) fn follow_rules(&mut self, turn: Turn<'_>) -> bool {
        if let Some(who) = &mut self.who
            && who.generation != turn.rules.generation
        {
            *who = Who::new(turn, who.login.clone());
            self.class_changed();
            // What is queued was let through under rules that hold no more.
            if self.multi == Multi::Open {
                self.multi = Multi::Tainted;
            }
            return true;
        }
        false
    }

    /// Another database is chosen: rules may be about one.
    pub(super) fn choose_database(&mut self, turn: Turn<'_>, database: u32) {
        self.database = database;
        if let Some(who) = &mut self.who {
            *who = who.in_database(turn, database);
            self.class_changed();
        }
    }

    /// Tells the client something in its turn.
    pub(super) fn say(&mut self, call: &mut Call<'_>, bytes: Bytes) {
        if self.is_quiet() {
            call.out.to_client.extend(&bytes);
        } else {
            self.pending.push(Expect::Local(bytes));
        }
    }

    /// Whether everything asked is answered, to the last byte.
    pub(super) fn is_quiet(&self) -> bool {
        self.pending.is_empty() && self.is_between()
    }

    /// Whether words of ours may go to the client now.
    pub(super) fn is_between(&self) -> bool {
        matches!(self.under_way, UnderWay::Nothing)
    }

    /// Whether the client has got whole replies, so that an error would be read as one.
    pub(super) fn may_speak(&self) -> bool {
        self.is_between() && self.parting != Parting::Closing
    }

    /// Whether it also waits for one. A client that waits for nothing would take an error for the
    /// answer to what it says next, and not see that the connection is gone.
    pub(super) fn may_answer(&self) -> bool {
        self.may_speak() && !self.pending.is_empty()
    }

    /// The client broke the protocol: it is told in its turn, and the connection ends.
    pub(super) fn leave(&mut self, call: &mut Call<'_>, refused: Refused) {
        let mut text = BytesMut::new();
        refused.encode(&mut text);
        if self.mute == Mute::No && !text.is_empty() {
            self.say(call, text.freeze());
        }
        self.parting = Parting::Leaving;
        self.part_if_done(call);
    }

    /// Ends a connection that waited for its last replies.
    pub(super) fn part_if_done(&mut self, call: &mut Call<'_>) {
        if self.parting == Parting::Leaving && self.pending.is_empty() && self.is_between() {
            self.part(call, "protocol");
        }
    }

    /// Ends the connection; `end` is the trail's word for why. What is known of its commands is
    /// recorded.
    pub(super) fn part(&mut self, call: &mut Call<'_>, end: &'static str) {
        self.parting = Parting::Closing;
        self.close_run(call);
        self.pending.clear();
        self.runs.abandon(call);
        call.journal.closed(call.turn.now, end, call.out);
        call.out.effects.push(Effect::Close);
    }

    /// The server refuses most commands.
    pub(super) fn only_subscribed(&self) -> bool {
        self.version == Protocol::Resp2 && self.subscriptions.any()
    }

    pub(super) fn wants_client(&self, config: &RespConfig) -> bool {
        self.entering.is_none()
            && self.parting == Parting::No
            && !self.pending.holds_client()
            && !self.runs.are_full()
            && self.pending.places() < OWED_PLACES_MAX
            && self.pending.len() < config.pending_replies_max
    }

    pub(super) fn phase(&self) -> Phase {
        if self.parting == Parting::Closing {
            Phase::Closing
        } else if self.who.is_none() || self.entering.is_some() {
            Phase::Login
        } else if !self.is_quiet() {
            Phase::Busy
        } else if self.subscriptions.any() || self.monitoring {
            Phase::Listening
        } else if self.multi == Multi::None {
            Phase::Idle
        } else {
            Phase::InTransaction
        }
    }

    pub(super) fn progress(&self) -> Progress {
        Progress {
            statements: self.runs.done(),
            // Outside of MULTI each command is one by itself.
            transactions: match self.multi {
                Multi::None => self.runs.done(),
                Multi::Open | Multi::Tainted => self.done_before_multi,
            },
            in_flight: !self.is_quiet(),
        }
    }

    /// RESET: the connection is as it was in the beginning.
    pub(super) fn reset(&mut self, call: &mut Call<'_>) {
        self.runs.close_all(call);
        call.journal.closed(call.turn.now, "identity", call.out);
        self.who = None;
        self.class_changed();
        self.tried_unasked = false;
        self.account = None;
        self.version = Protocol::Resp2;
        self.database = 0;
        self.multi = Multi::None;
        self.queued = Queued::default();
        self.queuing = false;
        self.mute = Mute::No;
        self.subscriptions = Subscriptions::default();
        self.listening = Listening::default();
        self.monitoring = false;
    }

    /// Records the commands that were counted. More that are decided alike may follow.
    pub(super) fn close_run(&mut self, call: &mut Call<'_>) {
        if let Some(growing) = self.growing.as_mut().filter(|growing| growing.count > 0) {
            self.runs.add(call, growing, self.database);
            growing.count = 0;
        }
    }
}

/// Most commands of one transaction whose replies owe something.
const QUEUED_JOBS_MAX: usize = 65_536;
/// Most names and places of keys that are kept for replies to come; above it the client is not read.
const OWED_PLACES_MAX: usize = 1_048_576;

/// Why a password of ours is not sent.
pub(super) fn leg_error() -> &'static str {
    "its password travels in clear text, and is sent only on this machine or where the server's \
     certificate is verified (`upstream_tls: {mode: verify-full}`)"
}
