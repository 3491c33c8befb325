//! What the server answers: each reply is matched with the command it answers, and passed on,
//! rewritten, or taken by the session itself.

use bytes::BytesMut;

use super::RespConfig;
use super::answers::reduce;
use super::listening::Change;
use super::pending::Expect;
use super::reshape::{Owed, Step, With};
use super::talk::{Answers, Core, Parting, UnderWay};
use super::unheard::Outcome;
use super::words;
use crate::analysis::redis::Subscribed;
use crate::event::StoreError;
use crate::session::journal::Call;
use crate::wire::resp::Protocol;
use crate::wire::resp::reply::{End, Malformed, Part};

/// Why a server's bytes cannot be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// They are no replies.
    Malformed(Malformed),
    /// A reply to nothing.
    Unasked,
    /// A reply that is held whole is too long.
    TooLong,
}

impl From<Malformed> for Lost {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

/// Whether more can be done with what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Go {
    On,
    Wait,
}

/// What the beginning of a reply is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Too little is there to tell.
    Unclear,
    /// It answers the command at the head.
    Answer,
    /// A message of a channel, or another push: it answers nothing.
    Message,
    /// It confirms what is subscribed to.
    Confirmation,
}

impl Core {
    pub(super) fn feed_server(
        &mut self,
        call: &mut Call<'_>,
        config: &RespConfig,
        input: &mut BytesMut,
    ) -> Result<(), Lost> {
        self.follow(call, config);
        loop {
            self.tell_local(call);
            // As soon as nothing is owed, whatever else has come by then.
            self.part_if_done(call);
            if input.is_empty()
                || self.parting == Parting::Closing
                || self.step(call, config, input)? == Go::Wait
            {
                return Ok(());
            }
        }
    }

    /// Sends what is due of our own words.
    fn tell_local(&mut self, call: &mut Call<'_>) {
        while self.is_between() {
            match self.pending.head() {
                Some(Expect::Local(bytes)) => call.out.to_client.extend(bytes),
                _ => return,
            }
            self.pending.pop();
        }
    }

    fn step(
        &mut self,
        call: &mut Call<'_>,
        config: &RespConfig,
        input: &mut BytesMut,
    ) -> Result<Go, Lost> {
        match std::mem::take(&mut self.under_way) {
            UnderWay::Nothing => self.begin(call, config, input),
            UnderWay::Answer => self.pass_answer(call, input),
            UnderWay::Unheard(known) => self.drop_answer(call, known, input),
            UnderWay::Unasked => self.pass_unasked(call, input),
            UnderWay::Rewritten(owed, answers) => {
                self.rewrite(call, config, (owed, answers), input)
            }
        }
    }

    /// The first bytes of a reply.
    fn begin(
        &mut self,
        call: &mut Call<'_>,
        config: &RespConfig,
        input: &mut BytesMut,
    ) -> Result<Go, Lost> {
        match self.kind(input) {
            Kind::Unclear => return Ok(Go::Wait),
            Kind::Message if self.prefix.is_some() => {
                let owed = self.message_owes(first_word(input).unwrap_or_default());
                return self.rewrite(call, config, (Box::new(owed), Answers::Nothing), input);
            }
            Kind::Message => return self.pass_unasked(call, input),
            Kind::Confirmation => return self.confirmation(call, config, input),
            Kind::Answer => {}
        }
        if input.first() == Some(&b'-') {
            let Some(line) = line(input) else { return Ok(Go::Wait) };
            if let Some(text) = words::redirection(line) {
                let rest = input.split_off(line.len());
                input.clear();
                input.extend_from_slice(text.as_bytes());
                input.unsplit(rest);
            }
        }
        match self.pending.head() {
            None if self.monitoring => self.pass_unasked(call, input),
            None if input.first() == Some(&b'-') => {
                // The server takes leave.
                let Some(whole) = self.whole(input)? else { return Ok(Go::Wait) };
                call.out.to_client.take_from(input, whole);
                self.part(call, "server");
                Ok(Go::On)
            }
            None => Err(Lost::Unasked),
            Some(Expect::Plain(left)) => {
                let (count, len) = self.replies.simple(input, *left);
                if count > 0 {
                    call.out.to_client.take_from(input, len);
                    self.runs.sent(len);
                    self.pending.pop_plain(count);
                    self.runs.answered(call, count);
                    return Ok(Go::On);
                }
                if input.first() == Some(&b'+') {
                    let Some(line) = line(input) else { return Ok(Go::Wait) };
                    if line == QUEUED {
                        self.queued.push(None);
                    }
                }
                self.note_error(input);
                self.pass_answer(call, input)
            }
            Some(Expect::Shaped(_)) => self.shaped(call, config, input),
            Some(Expect::Exec) => self.exec(call, config, input),
            Some(Expect::Unheard(_)) => self.unheard(call, input),
            Some(Expect::Quit) if self.monitoring => self.goodbye(call, input),
            Some(
                Expect::Local(_)
                | Expect::Subscribes { .. }
                | Expect::Unsubscribes { .. }
                | Expect::Multi
                | Expect::Discard
                | Expect::Abort(_)
                | Expect::Select(_)
                | Expect::Hello(_)
                | Expect::Reduced(_)
                | Expect::Reset
                | Expect::Quit
                | Expect::Monitor
                | Expect::Login,
            ) => self.held(call, input),
        }
    }

    /// Tells messages from answers: in RESP3 by their type, in RESP2 by their first word, which only
    /// counts while something is subscribed to.
    fn kind(&mut self, input: &[u8]) -> Kind {
        let push = input.first() == Some(&b'>');
        let subscribing = matches!(
            self.pending.head().map(Expect::answered),
            Some(Expect::Subscribes { .. } | Expect::Unsubscribes { .. })
        );
        let in_two = self.version == Protocol::Resp2 && (self.subscriptions.any() || subscribing);
        if !(push || in_two && input.first() == Some(&b'*')) {
            return Kind::Answer;
        }
        let Some(word) = first_word(input) else { return Kind::Unclear };
        match word {
            b"subscribe" | b"psubscribe" | b"ssubscribe" | b"unsubscribe" | b"punsubscribe"
            | b"sunsubscribe" => Kind::Confirmation,
            b"message" | b"pmessage" | b"smessage" => Kind::Message,
            _ if push => Kind::Message,
            _ => Kind::Answer,
        }
    }

    fn pass_answer(&mut self, call: &mut Call<'_>, input: &mut BytesMut) -> Result<Go, Lost> {
        let Part { len, end } = self.replies.next(input)?;
        call.out.to_client.take_from(input, len);
        self.runs.sent(len);
        match end {
            End::Open => {
                if len > 0 || !self.replies.is_between() {
                    self.under_way = UnderWay::Answer;
                }
                Ok(Go::Wait)
            }
            End::Reply | End::Push => {
                match self.pending.head() {
                    Some(Expect::Plain(_)) => self.pending.pop_plain(1),
                    _ => drop(self.pending.pop()),
                }
                self.runs.answered(call, 1);
                Ok(Go::On)
            }
        }
    }

    /// The answer to QUIT, or one more line of what is monitored.
    fn goodbye(&mut self, call: &mut Call<'_>, input: &mut BytesMut) -> Result<Go, Lost> {
        let Some(line) = line(input) else { return Ok(Go::Wait) };
        if line == b"+OK" || line.first() == Some(&b'-') {
            return self.held(call, input);
        }
        self.pass_unasked(call, input)
    }

    fn pass_unasked(&mut self, call: &mut Call<'_>, input: &mut BytesMut) -> Result<Go, Lost> {
        let Part { len, end } = self.replies.next(input)?;
        call.out.to_client.take_from(input, len);
        match end {
            End::Open => {
                self.under_way = UnderWay::Unasked;
                Ok(Go::Wait)
            }
            End::Reply | End::Push => Ok(Go::On),
        }
    }

    /// Counts an error of the server.
    fn note_error(&mut self, input: &[u8]) {
        if input.first() == Some(&b'-') && self.replies.is_between() {
            let line = input.split(|byte| *byte == b'\r').next().unwrap_or_default();
            self.runs.failed(StoreError::of(line));
        }
    }

    /// A reply that owes something.
    fn shaped(
        &mut self,
        call: &mut Call<'_>,
        config: &RespConfig,
        input: &mut BytesMut,
    ) -> Result<Go, Lost> {
        if matches!(input.first(), Some(b'+' | b'-')) {
            let Some(line) = line(input) else { return Ok(Go::Wait) };
            if line == QUEUED {
                if let Some(Expect::Shaped(job)) = self.pending.pop() {
                    self.queued.push(Some(*job));
                }
                let Some(whole) = self.whole(input)? else { return Err(Lost::Unasked) };
                call.out.to_client.take_from(input, whole);
                self.runs.answered(call, 1);
                return Ok(Go::On);
            }
            self.note_error(input);
        }
        let Some(Expect::Shaped(job)) = self.pending.pop() else { return Err(Lost::Unasked) };
        self.rewrite(call, config, (Box::new(Owed::One(*job)), Answers::Command), input)
    }

    /// The replies of a transaction.
    fn exec(
        &mut self,
        call: &mut Call<'_>,
        config: &RespConfig,
        input: &mut BytesMut,
    ) -> Result<Go, Lost> {
        let Some(line) = line(input) else { return Ok(Go::Wait) };
        let count = elements(line);
        self.note_error(input);
        match self.executed(call, count).owed(count)? {
            Some(owed) => {
                self.pending.pop();
                self.rewrite(call, config, (Box::new(owed), Answers::Command), input)
            }
            None => self.pass_answer(call, input),
        }
    }

    /// Passes on what has come of something, as it owes.
    fn rewrite(
        &mut self,
        call: &mut Call<'_>,
        config: &RespConfig,
        (owed, answers): (Box<Owed>, Answers),
        input: &mut BytesMut,
    ) -> Result<Go, Lost> {
        let before = call.out.to_client.len();
        let with = With { masker: &config.masker, protocol: self.version };
        let step = self.reshaper.feed(&owed, with, input, &mut call.out.to_client)?;
        if answers == Answers::Command {
            self.runs.sent(call.out.to_client.len().saturating_sub(before));
        }
        match (step, answers) {
            (Step::Open, _) => {
                self.under_way = UnderWay::Rewritten(owed, answers);
                return Ok(Go::Wait);
            }
            (Step::Done, Answers::Command) => self.runs.answered(call, 1),
            (Step::Done, Answers::Nothing) => {}
        }
        Ok(Go::On)
    }

    /// Bytes of the reply at the beginning, once all of it is there.
    fn whole(&mut self, input: &[u8]) -> Result<Option<usize>, Lost> {
        let unseen = input.get(self.held..).unwrap_or_default();
        let Part { len, end } = self.replies.next(unseen)?;
        self.held += len;
        match end {
            End::Open if self.held > HELD_BYTES_MAX => Err(Lost::TooLong),
            End::Open => Ok(None),
            End::Reply | End::Push => Ok(Some(std::mem::take(&mut self.held))),
        }
    }

    /// A reply that the session reads.
    fn held(&mut self, call: &mut Call<'_>, input: &mut BytesMut) -> Result<Go, Lost> {
        let Some(len) = self.whole(input)? else { return Ok(Go::Wait) };
        let reply = input.split_to(len);
        let known = Outcome::of(&reply);
        let Some(expect) = self.pending.pop() else { return Err(Lost::Unasked) };
        let recorded = expect.is_recorded();
        if recorded && known == Outcome::Failed {
            self.runs.failed(StoreError::of(&reply));
        }
        match expect {
            Expect::Login => self.server_judged(call, &reply),
            // Else the transaction is not over, or was executed.
            Expect::Abort(_) if !reply.starts_with(words::ABORTED) => return Err(Lost::Unasked),
            Expect::Abort(bytes) => {
                call.out.to_client.extend(&bytes);
                self.transaction_over();
            }
            Expect::Reduced(what) => call.out.to_client.encode(|out| reduce(what, &reply, out)),
            Expect::Select(_)
            | Expect::Reset
            | Expect::Quit
            | Expect::Hello(_)
            | Expect::Multi
            | Expect::Discard
            | Expect::Monitor
            | Expect::Subscribes { .. }
            | Expect::Unsubscribes { .. }
            | Expect::Plain(_)
            | Expect::Shaped(_)
            | Expect::Local(_)
            | Expect::Unheard(_)
            | Expect::Exec => {
                self.took_effect(call, expect, (known, None));
                call.out.to_client.extend(&reply);
            }
        }
        if recorded {
            self.runs.sent(len);
            self.runs.answered(call, 1);
        }
        Ok(Go::On)
    }

    /// One channel more, or one less.
    fn confirmation(
        &mut self,
        call: &mut Call<'_>,
        config: &RespConfig,
        input: &mut BytesMut,
    ) -> Result<Go, Lost> {
        let Some(len) = self.whole(input)? else { return Ok(Go::Wait) };
        let mut reply = input.split_to(len);
        let word = first_word(&reply).unwrap_or_default();
        let total = last_number(&reply).ok_or(Lost::Unasked)?;
        let before = self.subscriptions;
        let now = &mut self.subscriptions;
        let (kind, all) = match word {
            b"subscribe" | b"unsubscribe" => {
                now.channels = total.saturating_sub(now.patterns);
                (Subscribed::Channel, before.channels)
            }
            b"psubscribe" | b"punsubscribe" => {
                now.patterns = total.saturating_sub(now.channels);
                (Subscribed::Pattern, before.patterns)
            }
            _ => {
                now.shards = total;
                (Subscribed::Shard, before.shards)
            }
        };
        let more = matches!(word, b"subscribe" | b"psubscribe" | b"ssubscribe");
        self.note_listening(kind, if more { Change::More } else { Change::Less }, &reply);
        if self.prefix.is_some() {
            let owed = self.message_owes(b"subscribe");
            self.rewrite(call, config, (Box::new(owed), Answers::Nothing), &mut reply)?;
        } else {
            call.out.to_client.extend(&reply);
        }
        let over = match self.pending.head().map(Expect::answered) {
            Some(Expect::Subscribes { kind: asked, left }) if more && *asked == kind => {
                *left = left.saturating_sub(1);
                *left == 0
            }
            Some(Expect::Unsubscribes { kind: asked, left }) if !more && *asked == kind => {
                let remaining = left.unwrap_or(all.max(1)).saturating_sub(1);
                *left = Some(remaining);
                remaining == 0
            }
            // The server took a channel away by itself.
            _ => return Ok(Go::On),
        };
        self.runs.sent(len);
        if over {
            self.pending.pop();
            self.runs.answered(call, 1);
        }
        Ok(Go::On)
    }
}

/// The line at the beginning, without its end.
pub(super) fn line(input: &[u8]) -> Option<&[u8]> {
    let end = input.windows(2).position(|pair| pair == b"\r\n")?;
    input.get(..end)
}

/// The first element of an array or a push, if it is a bulk string and all of it is there.
fn first_word(input: &[u8]) -> Option<&[u8]> {
    let mut lines = input.splitn(4, |byte| *byte == b'\n');
    let (_count, length, word) = (lines.next()?, lines.next()?, lines.next()?);
    // What ends with the buffer may go on.
    lines.next()?;
    if length.first() != Some(&b'$') {
        return Some(b"");
    }
    word.strip_suffix(b"\r").or(Some(b""))
}

/// What the server says of a command in a transaction.
pub(super) const QUEUED: &[u8] = b"+QUEUED";

/// The number of elements an array begins with; `None` for what is no array.
pub(super) fn elements(line: &[u8]) -> Option<usize> {
    std::str::from_utf8(line.strip_prefix(b"*")?).ok()?.parse().ok()
}

/// The number in the last line.
fn last_number(reply: &[u8]) -> Option<usize> {
    let line = reply.strip_suffix(b"\r\n")?.rsplit(|byte| *byte == b'\n').next()?;
    std::str::from_utf8(line.strip_prefix(b":")?).ok()?.parse().ok()
}

/// Longest reply that is held whole: of those the session reads, none is near.
const HELD_BYTES_MAX: usize = 1024 * 1024;
