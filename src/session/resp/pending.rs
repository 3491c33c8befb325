//! Replies still to come.

use bytes::Bytes;
use std::collections::VecDeque;

use super::answers::Reduce;
use super::reshape::Job;
use crate::analysis::redis::Subscribed;
use crate::wire::resp::Protocol;

/// What is to happen to the next reply.
#[derive(Debug)]
pub(super) enum Expect {
    /// So many replies go to the client as they are.
    Plain(u64),
    /// One reply is rewritten on its way.
    Shaped(Box<Job>),
    /// The server owes nothing: these bytes are for the client.
    Local(Bytes),
    /// So many confirmations of channels that are asked for.
    Subscribes {
        /// Of which kind.
        kind: Subscribed,
        /// How many are still to come.
        left: usize,
    },
    /// As many confirmations as channels are named; `None`: as are subscribed to.
    Unsubscribes {
        /// Of which kind.
        kind: Subscribed,
        /// How many are still to come, once that is known.
        left: Option<usize>,
    },
    /// MULTI.
    Multi,
    /// EXEC: the replies to all commands of the transaction in one.
    Exec,
    /// DISCARD of the client's.
    Discard,
    /// An EXEC of ours that gives up the transaction; the client gets these bytes.
    Abort(Bytes),
    /// SELECT of this database.
    Select(u32),
    /// HELLO without a login: this version of the protocol, if it goes well.
    Hello(Option<Protocol>),
    /// One reply of which the client sees a part.
    Reduced(Reduce),
    /// RESET.
    Reset,
    /// QUIT.
    Quit,
    /// MONITOR.
    Monitor,
    /// The server is asked to let a client in.
    Login,
    /// What the client wants no reply to (CLIENT REPLY): the server answers all the same, so that a
    /// reply is never taken for another one's, and its answer is dropped here.
    Unheard(Box<Expect>),
}

impl Expect {
    /// What is to be answered, heard or not.
    pub(super) fn answered(&mut self) -> &mut Self {
        if let Self::Unheard(expect) = self { expect } else { self }
    }

    /// Whether it answers a command of a run: not what is about the client itself, nor what is ours.
    pub(super) fn is_recorded(&self) -> bool {
        match self {
            Self::Unheard(expect) => expect.is_recorded(),
            Self::Login | Self::Reset | Self::Quit | Self::Hello(_) | Self::Abort(_) => false,
            Self::Plain(_)
            | Self::Shaped(_)
            | Self::Local(_)
            | Self::Subscribes { .. }
            | Self::Unsubscribes { .. }
            | Self::Multi
            | Self::Exec
            | Self::Discard
            | Self::Select(_)
            | Self::Reduced(_)
            | Self::Monitor => true,
        }
    }

    /// How much is kept for it, in names and places of keys.
    fn places(&self) -> usize {
        match self {
            Self::Shaped(job) => job.places(),
            Self::Unheard(expect) => expect.places(),
            Self::Plain(_)
            | Self::Local(_)
            | Self::Subscribes { .. }
            | Self::Unsubscribes { .. }
            | Self::Multi
            | Self::Exec
            | Self::Discard
            | Self::Abort(_)
            | Self::Select(_)
            | Self::Hello(_)
            | Self::Reduced(_)
            | Self::Reset
            | Self::Quit
            | Self::Monitor
            | Self::Login => 0,
        }
    }

    /// Whether the client is not read before this is answered: what it asks next depends on it.
    fn holds_client(&self) -> bool {
        match self {
            Self::Unheard(expect) => expect.holds_client(),
            Self::Select(_) | Self::Hello(_) | Self::Reset | Self::Quit | Self::Login => true,
            Self::Plain(_)
            | Self::Shaped(_)
            | Self::Local(_)
            | Self::Subscribes { .. }
            | Self::Unsubscribes { .. }
            | Self::Multi
            | Self::Exec
            | Self::Discard
            | Self::Abort(_)
            | Self::Reduced(_)
            | Self::Monitor => false,
        }
    }
}

/// Replies in order.
#[derive(Debug, Default)]
pub(super) struct Pending {
    queue: VecDeque<Expect>,
    holding: usize,
    /// Names and places of keys that are kept for replies.
    places: usize,
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Entries, of which each holds a bounded number of bytes.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Names and places of keys that are kept for replies.
    pub(super) fn places(&self) -> usize {
        self.places
    }

    /// Whether the client must not be read on.
    pub(super) fn holds_client(&self) -> bool {
        self.holding > 0
    }

    pub(super) fn head(&mut self) -> Option<&mut Expect> {
        self.queue.front_mut()
    }

    /// So many replies more go to the client as they are: what most commands get.
    pub(super) fn push_plain(&mut self, more: u64) {
        match self.queue.back_mut() {
            Some(Expect::Plain(count)) => *count += more,
            Some(_) | None => self.queue.push_back(Expect::Plain(more)),
        }
    }

    pub(super) fn push(&mut self, expect: Expect) {
        self.holding += usize::from(expect.holds_client());
        self.places = self.places.saturating_add(expect.places());
        let last = self.queue.back_mut();
        if let (Some(Expect::Unheard(last)), Expect::Unheard(next)) = (last, &expect)
            && let (Expect::Plain(count), Expect::Plain(more)) = (&mut **last, &**next)
        {
            *count += more;
            return;
        }
        if let Expect::Plain(more) = expect {
            self.push_plain(more);
        } else {
            self.queue.push_back(expect);
        }
    }

    pub(super) fn pop(&mut self) -> Option<Expect> {
        let expect = self.queue.pop_front()?;
        self.no_more(&expect);
        Some(expect)
    }

    /// The one reply at the head that nobody hears has come.
    pub(super) fn pop_unheard(&mut self) -> Option<Expect> {
        if let Some(Expect::Unheard(expect)) = self.queue.front_mut()
            && let Expect::Plain(count) = &mut **expect
            && *count > 1
        {
            *count -= 1;
            return Some(Expect::Unheard(Box::new(Expect::Plain(1))));
        }
        self.pop()
    }

    /// So many of the plain replies at the head have come.
    pub(super) fn pop_plain(&mut self, came: u64) {
        if let Some(Expect::Plain(count)) = self.queue.front_mut() {
            *count = count.saturating_sub(came);
            if *count == 0 {
                self.queue.pop_front();
            }
        }
    }

    /// The last command will not be answered.
    pub(super) fn forget_last(&mut self) {
        if let Some(Expect::Plain(count)) = self.queue.back_mut().map(Expect::answered)
            && *count > 1
        {
            *count -= 1;
            return;
        }
        if let Some(expect) = self.queue.pop_back() {
            self.no_more(&expect);
        }
    }

    /// It was taken out.
    fn no_more(&mut self, expect: &Expect) {
        self.holding -= usize::from(expect.holds_client());
        self.places = self.places.saturating_sub(expect.places());
    }

    /// Nothing will be answered any more.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
