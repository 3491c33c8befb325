//! Commands whose options say where keys are, or what happens to them.
//!
//! Options are read as the servers read them, word by word: a word that is the value of another
//! option is no option. A word that no server knows in its place is a syntax error, at the servers
//! as here; so is one that only a later release knows, because it may move or show anything.

use crate::analysis::redis::keys::{SYNTAX, TOO_FEW};
use crate::analysis::redis::{Args, ChannelAt, KeyAt, NotUnderstood, Uses};
use crate::facts::{ChannelMode, Exposure, KeyMode, Unnamed};

/// Which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Special {
    /// SET: GET shows the old value, IFEQ compares it.
    Set,
    /// BITFIELD: its operations read or write.
    Bitfield,
    /// SORT, SORT_RO: BY and GET put names of keys together, STORE copies.
    Sort,
    /// GEORADIUS with the place of its first option: STORE and STOREDIST copy.
    GeoRadius(usize),
    /// XREAD, XREADGROUP: keys are the first half of what follows STREAMS.
    XRead,
    /// MIGRATE: one key, or many after KEYS.
    Migrate,
    /// SCAN.
    Scan,
    /// KEYS.
    Keys,
    /// HSCAN: MATCH is about names of fields.
    HScan,
    /// SSCAN, ZSCAN: MATCH compares members.
    MemberScan,
    /// ZRANGE: by rank it shows, by score or in lexical order it compares.
    ZRange,
    /// CLIENT TRACKING: which keys are watched.
    Tracking,
    /// PUBSUB CHANNELS and SHARDCHANNELS.
    PubsubChannels,
}

impl Special {
    /// By the name in `reviewed.tsv`.
    pub(super) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "set" => Self::Set,
            "bitfield" => Self::Bitfield,
            "sort" => Self::Sort,
            "georadius" => Self::GeoRadius(6),
            "georadiusbymember" => Self::GeoRadius(5),
            "xread" => Self::XRead,
            "migrate" => Self::Migrate,
            "scan" => Self::Scan,
            "keys" => Self::Keys,
            "hscan" => Self::HScan,
            "member-scan" => Self::MemberScan,
            "zrange" => Self::ZRange,
            "tracking" => Self::Tracking,
            "pubsub-channels" => Self::PubsubChannels,
            _ => return None,
        })
    }

    pub(super) fn read(
        self,
        args: &(impl Args + ?Sized),
        uses: &mut Uses,
    ) -> Result<(), NotUnderstood> {
        match self {
            Self::Set => set(args, uses),
            Self::Bitfield => bitfield(args, uses),
            Self::Sort => sort(args, uses),
            Self::GeoRadius(options) => geo_radius(options, args, uses),
            Self::XRead => xread(args, uses),
            Self::Migrate => migrate(args, uses),
            Self::Scan => scan(args, uses),
            Self::Keys => keys(args, uses),
            Self::HScan => collection_scan(args, uses).map(|_pattern| ()),
            Self::MemberScan => member_scan(args, uses),
            Self::ZRange => zrange(args, uses),
            Self::Tracking => tracking(args, uses),
            Self::PubsubChannels => pubsub_channels(args, uses),
        }
    }
}

fn set(args: &(impl Args + ?Sized), uses: &mut Uses) -> Result<(), NotUnderstood> {
    let (mut mode, mut exposure) = (KeyMode::Write, Exposure::Hidden);
    let mut words = Words::new(args, 3);
    while let Some(word) = words.next()? {
        if word.is("EX") || word.is("PX") || word.is("EXAT") || word.is("PXAT") {
            words.skip(1)?;
        } else if word.is("GET") {
            mode = KeyMode::ReadWrite;
            exposure = exposure.max(Exposure::Shown);
        } else if word.is("IFEQ") {
            mode = KeyMode::ReadWrite;
            exposure = Exposure::Derived;
            words.skip(1)?;
        } else if !(word.is("NX") || word.is("XX") || word.is("KEEPTTL")) {
            return Err(SYNTAX);
        }
    }
    key(args, uses, KeyAt { at: 1, mode, exposure })
}

fn bitfield(args: &(impl Args + ?Sized), uses: &mut Uses) -> Result<(), NotUnderstood> {
    let mut mode = KeyMode::Read;
    let mut words = Words::new(args, 2);
    while let Some(word) = words.next()? {
        if word.is("GET") {
            words.skip(2)?;
        } else if word.is("SET") || word.is("INCRBY") {
            mode = KeyMode::ReadWrite;
            words.skip(3)?;
        } else if word.is("OVERFLOW") {
            words.skip(1)?;
        } else {
            return Err(SYNTAX);
        }
    }
    key(args, uses, KeyAt { at: 1, mode, exposure: Exposure::Derived })
}

fn sort(args: &(impl Args + ?Sized), uses: &mut Uses) -> Result<(), NotUnderstood> {
    let source = KeyAt { at: 1, mode: KeyMode::Read, exposure: Exposure::Derived };
    key(args, uses, source)?;
    let mut words = Words::new(args, 2);
    while let Some(word) = words.next()? {
        if word.is("LIMIT") {
            words.skip(2)?;
        } else if word.is("BY") {
            if !words.value()?.is("nosort") {
                uses.unnamed = Unnamed::Reached;
            }
        } else if word.is("GET") {
            if !words.value()?.is("#") {
                uses.unnamed = Unnamed::Reached;
            }
        } else if word.is("STORE") {
            let at = words.skip(1)?;
            copied_to(at, uses);
        } else if !(word.is("ASC") || word.is("DESC") || word.is("ALPHA")) {
            return Err(SYNTAX);
        }
    }
    Ok(())
}

fn geo_radius(
    options: usize,
    args: &(impl Args + ?Sized),
    uses: &mut Uses,
) -> Result<(), NotUnderstood> {
    let source = KeyAt { at: 1, mode: KeyMode::Read, exposure: Exposure::Derived };
    key(args, uses, source)?;
    let mut words = Words::new(args, options);
    while let Some(word) = words.next()? {
        if word.is("COUNT") {
            words.skip(1)?;
        } else if word.is("STORE") || word.is("STOREDIST") {
            let at = words.skip(1)?;
            copied_to(at, uses);
        } else if !["WITHDIST", "WITHHASH", "WITHCOORD", "ASC", "DESC", "ANY"]
            .iter()
            .any(|known| word.is(known))
        {
            return Err(SYNTAX);
        }
    }
    Ok(())
}

/// The keys so far are copied to the one at this place.
fn copied_to(at: usize, uses: &mut Uses) {
    for key in &mut uses.keys {
        if key.mode.reads() {
            key.exposure = Exposure::Copied;
        }
    }
    uses.keys.push(KeyAt { at, mode: KeyMode::Write, exposure: Exposure::Hidden });
}

fn xread(args: &(impl Args + ?Sized), uses: &mut Uses) -> Result<(), NotUnderstood> {
    let mut words = Words::new(args, 1);
    while let Some(word) = words.next()? {
        if word.is("COUNT") || word.is("BLOCK") {
            words.skip(1)?;
        } else if word.is("GROUP") {
            words.skip(2)?;
        } else if word.is("STREAMS") {
            let first = words.next;
            let rest = args.len().saturating_sub(first);
            if rest == 0 || !rest.is_multiple_of(2) {
                return Err(UNBALANCED);
            }
            let keys = first..first.saturating_add(rest / 2);
            uses.keys.extend(keys.map(|at| KeyAt {
                at,
                mode: KeyMode::Read,
                exposure: Exposure::Shown,
            }));
            return Ok(());
        } else if !word.is("NOACK") {
            return Err(SYNTAX);
        }
    }
    Err(SYNTAX)
}

fn migrate(args: &(impl Args + ?Sized), uses: &mut Uses) -> Result<(), NotUnderstood> {
    let copied = |at| KeyAt { at, mode: KeyMode::ReadWrite, exposure: Exposure::Copied };
    let single = args.get(3).ok_or(TOO_FEW)?;
    let mut words = Words::new(args, 6);
    while let Some(word) = words.next()? {
        if word.is("AUTH") {
            words.skip(1)?;
        } else if word.is("AUTH2") {
            words.skip(2)?;
        } else if word.is("KEYS") {
            if !single.is_empty() {
                return Err(SYNTAX);
            }
            if words.next == args.len() {
                break;
            }
            uses.keys.extend((words.next..args.len()).map(copied));
            return Ok(());
        } else if !(word.is("COPY") || word.is("REPLACE")) {
            return Err(SYNTAX);
        }
    }
    // Without names after KEYS this is one, even if it is empty.
    uses.keys.push(copied(3));
    Ok(())
}

fn scan(args: &(impl Args + ?Sized), uses: &mut Uses) -> Result<(), NotUnderstood> {
    let mut words = Words::new(args, 2);
    while let Some(word) = words.next()? {
        if word.is("MATCH") {
            let at = words.skip(1)?;
            uses.patterns.push(at);
        } else if word.is("COUNT") || word.is("TYPE") {
            words.skip(1)?;
        } else {
            return Err(SYNTAX);
        }
    }
    Ok(())
}

fn keys(args: &(impl Args + ?Sized), uses: &mut Uses) -> Result<(), NotUnderstood> {
    if args.len() < 2 {
        return Err(TOO_FEW);
    }
    uses.patterns.push(1);
    Ok(())
}

/// Whether a pattern limits what comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filter {
    All,
    Pattern,
}

fn collection_scan(args: &(impl Args + ?Sized), uses: &mut Uses) -> Result<Filter, NotUnderstood> {
    let mut filter = Filter::All;
    let mut words = Words::new(args, 3);
    while let Some(word) = words.next()? {
        if word.is("MATCH") {
            filter = Filter::Pattern;
            words.skip(1)?;
        } else if word.is("COUNT") {
            words.skip(1)?;
        } else if !(word.is("NOVALUES") || word.is("NOSCORES")) {
            return Err(SYNTAX);
        }
    }
    key(args, uses, KeyAt { at: 1, mode: KeyMode::Read, exposure: Exposure::Shown })?;
    Ok(filter)
}

fn member_scan(args: &(impl Args + ?Sized), uses: &mut Uses) -> Result<(), NotUnderstood> {
    if collection_scan(args, uses)? == Filter::Pattern {
        for key in &mut uses.keys {
            key.exposure = Exposure::Derived;
        }
    }
    Ok(())
}

fn zrange(args: &(impl Args + ?Sized), uses: &mut Uses) -> Result<(), NotUnderstood> {
    let mut exposure = Exposure::Shown;
    let mut words = Words::new(args, 4);
    while let Some(word) = words.next()? {
        if word.is("LIMIT") {
            words.skip(2)?;
        } else if word.is("BYSCORE") || word.is("BYLEX") {
            exposure = Exposure::Derived;
        } else if !(word.is("REV") || word.is("WITHSCORES")) {
            return Err(SYNTAX);
        }
    }
    key(args, uses, KeyAt { at: 1, mode: KeyMode::Read, exposure })
}

/// In broadcasting mode names of keys come that this client never asked for; redirected, they go to
/// another connection, whoever that is. Otherwise they are those of keys that were read here. Not
/// listed, as the names of SCAN are: nobody asks again for what was left out of a message.
fn tracking(args: &(impl Args + ?Sized), uses: &mut Uses) -> Result<(), NotUnderstood> {
    let mut words = Words::new(args, 3);
    while let Some(word) = words.next()? {
        if word.is("REDIRECT") || word.is("PREFIX") {
            uses.unnamed = Unnamed::Counted;
            words.skip(1)?;
        } else if word.is("BCAST") {
            uses.unnamed = Unnamed::Counted;
        } else if !(word.is("OPTIN") || word.is("OPTOUT") || word.is("NOLOOP")) {
            return Err(SYNTAX);
        }
    }
    Ok(())
}

/// Without a pattern no argument says which names come back: then something about all keys does, as
/// names of channels are chosen as names of keys are.
fn pubsub_channels(args: &(impl Args + ?Sized), uses: &mut Uses) -> Result<(), NotUnderstood> {
    if args.len() > 2 {
        uses.channels.push(ChannelAt { at: 2, mode: ChannelMode::SubscribePattern });
    } else {
        uses.unnamed = Unnamed::Counted;
    }
    Ok(())
}

fn key(args: &(impl Args + ?Sized), uses: &mut Uses, key: KeyAt) -> Result<(), NotUnderstood> {
    if key.at >= args.len() {
        return Err(TOO_FEW);
    }
    uses.keys.push(key);
    Ok(())
}

/// Arguments one after the other.
#[derive(Debug)]
struct Words<'a, A: ?Sized> {
    args: &'a A,
    next: usize,
}

/// One argument that may be a word.
#[derive(Clone, Copy, Debug)]
struct Word<'a>(&'a [u8]);

impl Word<'_> {
    fn is(&self, word: &str) -> bool {
        self.0.eq_ignore_ascii_case(word.as_bytes())
    }
}

impl<'a, A: Args + ?Sized> Words<'a, A> {
    fn new(args: &'a A, first: usize) -> Self {
        Self { args, next: first }
    }

    /// The next one, if there is one; one whose bytes are not at hand is too long to be a word.
    fn next(&mut self) -> Result<Option<Word<'a>>, NotUnderstood> {
        if self.next >= self.args.len() {
            return Ok(None);
        }
        self.value().map(Some)
    }

    /// The next one, which must be there.
    fn value(&mut self) -> Result<Word<'a>, NotUnderstood> {
        let word = self.args.get(self.next).ok_or(SYNTAX)?;
        self.next = self.next.saturating_add(1);
        Ok(Word(word))
    }

    /// Passes so many, which must be there, unread; the place of the last one.
    fn skip(&mut self, count: usize) -> Result<usize, NotUnderstood> {
        let next = self.next.saturating_add(count);
        if next > self.args.len() {
            return Err(SYNTAX);
        }
        self.next = next;
        Ok(next.saturating_sub(1))
    }
}

const UNBALANCED: NotUnderstood = NotUnderstood(
    "Unbalanced list of streams: for each stream key an ID or '$' must be specified.",
);
