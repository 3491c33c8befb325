//! What the audit trail is told of commands that are decided alike.
//!
//! A run begins with its first command: the decision is recorded before a byte of it is forwarded.
//! Commands that are decided alike within a second belong to it, whatever comes between them; when it
//! is over and everything in it is answered, its outcome is recorded, with how many they were. So a
//! busy connection costs the trail a few events a second and no command goes unrecorded. Commands
//! that are refused are told of at once.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::event::{CommandRun, EventKind, RunResult, StoreError};
use crate::name::RuleId;
use crate::session::gate::StorePlan;
use crate::session::journal::Call;

/// Runs of one session.
#[derive(Debug, Default)]
pub(super) struct Runs {
    open: Vec<Run>,
    /// Which run the replies still to come belong to, and how many in a row.
    due: VecDeque<(u64, u64)>,
    /// Commands the server is done with.
    done: u64,
}

#[derive(Debug)]
struct Run {
    plan: Arc<StorePlan>,
    run: CommandRun,
    /// Number of the decision's event.
    decision: u64,
    /// Commands not answered yet.
    left: u64,
    began_us: u64,
    /// Since when replies are outstanding, if any are.
    asked_us: u64,
    result: RunResult,
    stage: Stage,
}

/// Whether a run takes more commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Growing,
    /// It is over; its last replies are to come.
    Closing,
}

/// What becomes of commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// They go to the server, which answers them.
    Answered,
    /// They do not go to the server.
    Kept,
}

/// Commands in a row that were decided alike.
#[derive(Debug)]
pub(super) struct Growing {
    pub(super) plan: Arc<StorePlan>,
    pub(super) limited_by: Option<RuleId>,
    pub(super) fate: Fate,
    /// How many, in the piece of the client's input that is being read.
    pub(super) count: u64,
}

impl Runs {
    pub(super) fn done(&self) -> u64 {
        self.done
    }

    /// Whether as many are open as may be: each holds a place in the audit trail for its outcome,
    /// and one client must not hold all of them.
    pub(super) fn are_full(&self) -> bool {
        self.open.len() >= OPEN_MAX
    }

    /// Names of the commands that are not answered yet.
    pub(super) fn outstanding(&self) -> impl Iterator<Item = &str> {
        self.open.iter().filter(|run| run.left > 0).map(|run| &*run.run.record.command)
    }

    /// When [`Self::settle`] has something to do; monotonic microseconds.
    pub(super) fn settles_at(&self) -> Option<u64> {
        let growing = self.open.iter().filter(|run| run.stage == Stage::Growing);
        growing.map(|run| run.began_us.saturating_add(RUN_US)).min()
    }

    /// Records commands, of which none was sent yet.
    pub(super) fn add(&mut self, call: &mut Call<'_>, growing: &Growing, database: u32) {
        let Growing { plan, limited_by, fate, count } = growing;
        let count = *count;
        let left = match fate {
            Fate::Kept => {
                let run = run_of(call, plan, database, count);
                let kind = EventKind::CommandsDecided { run, limited_by: limited_by.clone() };
                call.journal.push(call.turn.now, kind, call.out);
                return;
            }
            Fate::Answered => count,
        };
        self.settle(call);
        let generation = call.turn.rules.generation;
        let same = |run: &&mut Run| {
            run.stage == Stage::Growing
                && Arc::ptr_eq(&run.plan, plan)
                && run.run.database == database
                && run.run.generation == generation
        };
        let decision = if let Some(run) = self.open.iter_mut().find(same) {
            if run.left == 0 {
                run.asked_us = call.turn.now.mono_us;
            }
            run.run.count = run.run.count.saturating_add(count);
            run.left = run.left.saturating_add(left);
            run.result.later = run.result.later.saturating_add(count);
            run.decision
        } else {
            self.make_place(call);
            self.begin(call, (Arc::clone(plan), database), (count, left))
        };
        match self.due.back_mut() {
            Some((of, more)) if *of == decision => *more = more.saturating_add(left),
            _ if left > 0 => self.due.push_back((decision, left)),
            _ => {}
        }
    }

    fn begin(
        &mut self,
        call: &mut Call<'_>,
        (plan, database): (Arc<StorePlan>, u32),
        (count, left): (u64, u64),
    ) -> u64 {
        let run = run_of(call, &plan, database, count);
        let kind = EventKind::CommandsDecided { run: run.clone(), limited_by: None };
        let decision = call.journal.push(call.turn.now, kind, call.out);
        call.journal.owed += 1;
        let now_us = call.turn.now.mono_us;
        self.open.push(Run {
            plan,
            run,
            decision,
            left,
            began_us: now_us,
            asked_us: now_us,
            result: RunResult::default(),
            stage: Stage::Growing,
        });
        decision
    }

    /// Ends the oldest run if as many are growing as may.
    fn make_place(&mut self, call: &mut Call<'_>) {
        let growing = self.open.iter().filter(|run| run.stage == Stage::Growing).count();
        if growing >= GROWING_MAX
            && let Some(at) = self.open.iter().position(|run| run.stage == Stage::Growing)
        {
            self.close(call, at);
        }
    }

    /// Ends the runs that are old enough.
    pub(super) fn settle(&mut self, call: &mut Call<'_>) {
        let now_us = call.turn.now.mono_us;
        let old = |run: &Run| {
            run.stage == Stage::Growing && run.began_us.saturating_add(RUN_US) <= now_us
        };
        while let Some(at) = self.open.iter().position(old) {
            self.close(call, at);
        }
    }

    /// Ends all runs: the identity or the database is another one from now on.
    pub(super) fn close_all(&mut self, call: &mut Call<'_>) {
        while let Some(at) = self.open.iter().position(|run| run.stage == Stage::Growing) {
            self.close(call, at);
        }
    }

    /// Ends one run; its outcome is recorded now, if there is nothing to wait for.
    fn close(&mut self, call: &mut Call<'_>, at: usize) {
        if let Some(run) = self.open.get_mut(at) {
            run.stage = Stage::Closing;
            if run.left == 0 {
                self.open.remove(at).complete(call);
            }
        }
    }

    fn head(&mut self) -> Option<&mut Run> {
        let (decision, _) = *self.due.front()?;
        self.open.iter_mut().find(|run| run.decision == decision)
    }

    /// Bytes went to the client for the command at the head.
    pub(super) fn sent(&mut self, bytes: usize) {
        if let Some(run) = self.head() {
            let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
            run.result.bytes = run.result.bytes.saturating_add(bytes);
        }
    }

    /// The command at the head was answered with this error.
    pub(super) fn failed(&mut self, error: StoreError) {
        if let Some(run) = self.head() {
            run.result.failed += 1;
            run.result.error.get_or_insert(error);
        }
    }

    /// So many commands from the head on were answered.
    pub(super) fn answered(&mut self, call: &mut Call<'_>, count: u64) {
        self.done = self.done.saturating_add(count);
        let now_us = call.turn.now.mono_us;
        let mut count = count;
        while count > 0
            && let Some((decision, left)) = self.due.front_mut()
        {
            let answered = count.min(*left);
            let decision = *decision;
            count -= answered;
            *left -= answered;
            if *left == 0 {
                self.due.pop_front();
            }
            let Some(at) = self.open.iter().position(|run| run.decision == decision) else {
                return;
            };
            let Some(run) = self.open.get_mut(at) else { return };
            run.left = run.left.saturating_sub(answered);
            if run.left == 0 {
                let took_us = now_us.saturating_sub(run.asked_us);
                run.result.duration_us = run.result.duration_us.saturating_add(took_us);
            }
            if run.left == 0 && run.stage == Stage::Closing {
                self.open.remove(at).complete(call);
            }
        }
    }

    /// Nothing will be answered any more: what is known is recorded.
    pub(super) fn abandon(&mut self, call: &mut Call<'_>) {
        self.due.clear();
        for mut run in std::mem::take(&mut self.open) {
            run.run.count = run.run.count.saturating_sub(run.left);
            run.result.later = run.result.later.min(run.run.count);
            if run.run.count > 0 {
                run.complete(call);
            } else {
                call.journal.owed = call.journal.owed.saturating_sub(1);
            }
        }
    }
}

impl Run {
    fn complete(self, call: &mut Call<'_>) {
        let Self { run, decision, result, .. } = self;
        call.journal.owed = call.journal.owed.saturating_sub(1);
        let kind = EventKind::CommandsCompleted { run, decision, result };
        call.journal.push(call.turn.now, kind, call.out);
    }
}

fn run_of(call: &Call<'_>, plan: &StorePlan, database: u32, count: u64) -> CommandRun {
    CommandRun {
        record: Arc::clone(&plan.record),
        generation: call.turn.rules.generation,
        database,
        count,
    }
}

/// How long a run takes more commands, microseconds.
const RUN_US: u64 = 1_000_000;
/// Most runs that wait for replies or for more commands; above it the client is not read.
const OPEN_MAX: usize = 256;
/// Most runs that take more commands at once.
const GROWING_MAX: usize = 8;
