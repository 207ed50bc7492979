//! Which messages of the peer reach capnp-rpc.
//!
//! A call that is too much is answered here, and with it every call that was pipelined on its answer:
//! capnp-rpc never hears of either.
//!
//! A *finish* that comes before its return would have capnp-rpc drop the call and keep its id for ever.
//! So it is held: whoever answers the call is told ([`Call`]), and only after the return was sent does the
//! finish go on to capnp-rpc, before anything else from the peer. Both tables are clean then. Only a call
//! that somebody serves with what can't be told is dropped at once, as capnp-rpc does it.
//!
//! **Invariant:** what was reserved for a call is released when its return is sent, when capnp-rpc drops
//! it, or with the connection.
//! **Invariant:** the question ids remembered are bounded by `connection_calls_max`.
//! **Invariant:** a held finish reaches capnp-rpc after the return and before a call with the same id.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use capnp::{Error, ErrorKind};
use capnp_rpc::rpc_capnp::{
    call, cap_descriptor, finish, message, message_target, payload, promised_answer, return_,
};

use super::account::Account;
use super::call::Call;
use super::frame::{self, Message};
use super::traffic::Traffic;
use crate::limits::Limits;

/// For each call that may be in flight, how many refused or cancelled ones are remembered.
const REMEMBERED_PER_CALL: usize = 8;

/// How many unanswered calls may wait for each other in a row: capnp-rpc polls them one inside the other,
/// some 2 KiB of stack each.
const CHAIN_CALLS_MAX: usize = 64;

/// The interface of byte streams that Cap'n Proto comes with.
const BYTE_STREAM: u64 = 0xd2e7_d8a0_dc0a_9766;

/// What an unanswered call costs in memory beside its message, about.
const CALL_OVERHEAD_BYTES: usize = 4 << 10;

/// The calls of one peer.
pub(super) struct Gate {
    limits: Rc<Limits>,
    traffic: Rc<Traffic>,
    account: Option<Arc<Account>>,
    /// Each call that is unanswered, by its question id.
    calls: BTreeMap<u32, Entry>,
    /// How many of them have a finish that is held.
    held: usize,
    /// What was held and whose return has been sent.
    due: VecDeque<Finish>,
    /// The question ids answered here and not known to be forgotten by the peer.
    refused: BTreeSet<u32>,
    /// The question ids of cancelled calls that can't be told so. capnp-rpc drops the handler of such a
    /// call but never sends its return, and so keeps the id, as the peer must.
    cancelled: BTreeSet<u32>,
    /// The ids of our own calls that wait for their return.
    questions: BTreeSet<u32>,
    /// Our byte streams of which a piece was refused: the rest is refused too, so that what lacks a piece
    /// is never taken for whole.
    spoiled: BTreeSet<u32>,
}

/// A call that is unanswered.
struct Entry {
    bytes: usize,
    call: Rc<Call>,
    /// The finish that is held.
    finish: Option<Finish>,
}

/// The peer's word that it is through with a question.
#[derive(Clone, Copy)]
pub(super) struct Finish {
    question_id: u32,
    release_result_caps: bool,
}

/// What to do with a message.
pub(super) enum Verdict {
    Pass,
    /// It is a call, and let in.
    Admit(Rc<Call>),
    /// It concerns a refused call only, or it is held.
    Swallow,
    /// Answer the call with an exception.
    Refuse(Refusal),
    /// Our own call of this id ends with the answer of a call that was refused.
    Fail {
        answer_id: u32,
        error: Error,
    },
}

/// A call that is not let in.
pub(super) struct Refusal {
    pub(super) question_id: u32,
    pub(super) error: Error,
    /// The capabilities that its parameters brought, which are to be given back.
    pub(super) releases: Vec<u32>,
}

impl Gate {
    pub(super) fn new(
        limits: Rc<Limits>,
        traffic: Rc<Traffic>,
        account: Option<Arc<Account>>,
    ) -> Self {
        Self {
            limits,
            traffic,
            account,
            calls: BTreeMap::new(),
            held: 0,
            due: VecDeque::new(),
            refused: BTreeSet::new(),
            cancelled: BTreeSet::new(),
            questions: BTreeSet::new(),
            spoiled: BTreeSet::new(),
        }
    }

    /// Decides about a message of `bytes`. What can't be understood passes: capnp-rpc answers it.
    pub(super) fn judge(
        &mut self,
        message: message::Reader<'_>,
        bytes: usize,
    ) -> Result<Verdict, Error> {
        let Ok(kind) = message.which() else { return Ok(Verdict::Pass) };
        match kind {
            message::Call(call) => self.judge_call(call?, bytes),
            message::Bootstrap(bootstrap) => {
                self.refused.remove(&bootstrap?.get_question_id());
                Ok(Verdict::Pass)
            }
            message::Finish(finish) => self.judge_finish(finish?),
            message::Return(answer) => self.judge_return(answer?),
            message::Release(release) => {
                self.spoiled.remove(&release?.get_id());
                Ok(Verdict::Pass)
            }
            _ => Ok(Verdict::Pass),
        }
    }

    /// Takes note of a message to the peer.
    pub(super) fn note_sent(&mut self, message: message::Reader<'_>) {
        match message.which() {
            Ok(message::Return(Ok(answer))) => {
                let question_id = answer.get_answer_id();
                let finish = self.count_off(question_id).and_then(|entry| entry.finish);
                self.due.extend(finish);
                self.cancelled.remove(&question_id);
            }
            Ok(message::Call(Ok(call))) => {
                self.questions.insert(call.get_question_id());
            }
            Ok(message::Bootstrap(Ok(bootstrap))) => {
                self.questions.insert(bootstrap.get_question_id());
            }
            Ok(message::Finish(Ok(finish))) => {
                self.questions.remove(&finish.get_question_id());
            }
            _ => return,
        }
        self.traffic.own_calls.set(self.questions.len());
    }

    /// Returns what to send in place of a return whose caller has left.
    pub(super) fn substitute(&self, message: message::Reader<'_>) -> Option<Rc<Message>> {
        if self.held == 0 {
            return None;
        }
        let Ok(message::Return(Ok(answer))) = message.which() else { return None };
        let question_id = answer.get_answer_id();
        let finish = self.calls.get(&question_id)?.finish?;
        // Otherwise the peer releases what came with the results, and must see it.
        finish.release_result_caps.then(|| {
            let mut message = frame::small_message();
            let mut answer = message.init_root::<message::Builder<'_>>().init_return();
            answer.set_answer_id(question_id);
            answer.set_release_param_caps(false);
            answer.set_canceled(());
            Rc::new(message)
        })
    }

    /// Returns whether a finish waits for capnp-rpc.
    pub(super) fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// Takes the next finish that is for capnp-rpc now.
    pub(super) fn take_due(&mut self) -> Option<Message> {
        let due = self.due.pop_front()?;
        let mut message = frame::small_message();
        let mut finish = message.init_root::<message::Builder<'_>>().init_finish();
        finish.set_question_id(due.question_id);
        finish.set_release_result_caps(due.release_result_caps);
        Some(message)
    }

    /// Counts off everything: the connection is over.
    pub(super) fn clear(&mut self) {
        let bytes = self.traffic.queued_bytes.get();
        for entry in std::mem::take(&mut self.calls).into_values() {
            entry.call.settle();
        }
        self.held = 0;
        self.due.clear();
        self.refused.clear();
        self.cancelled.clear();
        self.spoiled.clear();
        self.release(bytes);
    }

    fn judge_call(&mut self, call: call::Reader<'_>, bytes: usize) -> Result<Verdict, Error> {
        let question_id = call.get_question_id();
        if self.calls.contains_key(&question_id) {
            return Err(Error::failed(format!("question id {question_id} is already in use")));
        }
        self.refused.remove(&question_id);
        let needs = self.needs(call);
        // What a call costs beside its message, while it is unanswered.
        let bytes = bytes.saturating_add(CALL_OVERHEAD_BYTES);
        let stream = byte_stream(call)?;
        let Some(error) = self.objection(call, &needs, bytes, stream)? else {
            let entry = Entry { bytes, call: Call::new(needs), finish: None };
            let admitted = Rc::clone(&entry.call);
            self.calls.insert(question_id, entry);
            self.traffic.calls.set(self.calls.len());
            self.traffic.queued_bytes.set(self.traffic.queued_bytes.get() + bytes);
            return Ok(Verdict::Admit(admitted));
        };
        let refused_max = self.remembered_max();
        if self.refused.len() >= refused_max {
            return Err(Error::failed(format!(
                "more than {refused_max} refused calls were not finished: {}",
                error.extra
            )));
        }
        self.refused.insert(question_id);
        self.spoiled.extend(stream);
        Ok(Verdict::Refuse(Refusal { question_id, error, releases: brought(call.get_params()?)? }))
    }

    fn judge_finish(&mut self, finish: finish::Reader<'_>) -> Result<Verdict, Error> {
        let question_id = finish.get_question_id();
        if self.refused.remove(&question_id) {
            return Ok(Verdict::Swallow);
        }
        let Some(entry) = self.calls.get_mut(&question_id) else { return Ok(Verdict::Pass) };
        if entry.finish.is_some() {
            return Ok(Verdict::Swallow);
        }
        if entry.call.holds_finish() {
            let release_result_caps = finish.get_release_result_caps();
            entry.finish = Some(Finish { question_id, release_result_caps });
            self.held += 1;
            entry.call.let_go();
            return Ok(Verdict::Swallow);
        }
        self.count_off(question_id);
        let cancelled_max = self.remembered_max();
        if self.cancelled.len() >= cancelled_max {
            return Err(Error::disconnected(format!(
                "more than {cancelled_max} calls were cancelled on this connection"
            )));
        }
        self.cancelled.insert(question_id);
        Ok(Verdict::Pass)
    }

    /// Returns the unanswered calls whose answers a call needs, as its target or among its parameters.
    fn needs(&self, call: call::Reader<'_>) -> Vec<Rc<Call>> {
        let mut needs = Vec::new();
        let mut need = |answer: Result<promised_answer::Reader<'_>, Error>| {
            let entry = answer.ok().and_then(|answer| self.calls.get(&answer.get_question_id()));
            needs.extend(entry.map(|entry| Rc::clone(&entry.call)));
        };
        if let Ok(Ok(message_target::PromisedAnswer(answer))) =
            call.get_target().map(|target| target.which())
        {
            need(answer);
        }
        let Ok(Ok(table)) = call.get_params().map(|payload| payload.get_cap_table()) else {
            return needs;
        };
        for descriptor in table {
            if let Ok(cap_descriptor::ReceiverAnswer(answer)) = descriptor.which() {
                need(answer);
            }
        }
        needs
    }

    /// Returns why a call can't be let in. Where it returns none, the account has reserved its bytes.
    fn objection(
        &self,
        call: call::Reader<'_>,
        needs: &[Rc<Call>],
        bytes: usize,
        stream: Option<u32>,
    ) -> Result<Option<Error>, Error> {
        if stream.is_some_and(|id| self.spoiled.contains(&id)) {
            let text = "a piece of this stream was refused before";
            return Ok(Some(Error::overloaded(text.into())));
        }
        if !self.refused.is_empty()
            && let message_target::PromisedAnswer(answer) = call.get_target()?.which()?
            && self.refused.contains(&answer?.get_question_id())
        {
            return Ok(Some(Error::overloaded(
                "the call whose answer this one needs was refused".into(),
            )));
        }
        if !matches!(call.get_send_results_to().which(), Ok(call::send_results_to::Caller(()))) {
            return Ok(Some(Error::unimplemented("results can only be sent to the caller".into())));
        }
        if Call::depth_above(needs) > CHAIN_CALLS_MAX {
            return Ok(Some(Error::overloaded(format!(
                "more than {CHAIN_CALLS_MAX} calls would wait for each other's answers"
            ))));
        }
        let Limits { connection_calls_max, connection_queued_bytes_max, .. } = *self.limits;
        if self.calls.len() >= connection_calls_max {
            return Ok(Some(Error::overloaded(format!(
                "{connection_calls_max} calls of this connection are unanswered \
                 (connection_calls_max)"
            ))));
        }
        if self.traffic.queued_bytes.get().saturating_add(bytes) > connection_queued_bytes_max {
            return Ok(Some(Error::overloaded(format!(
                "the unanswered calls of this connection would have more than \
                 {connection_queued_bytes_max} bytes (connection_queued_bytes_max)"
            ))));
        }
        if let Some(account) = &self.account
            && !account.try_reserve(bytes)
        {
            return Ok(Some(Error::overloaded(format!(
                "the unanswered calls of this server would have more than {} bytes \
                 (server_queued_bytes_max)",
                account.bytes_max()
            ))));
        }
        Ok(None)
    }

    fn judge_return(&mut self, answer: return_::Reader<'_>) -> Result<Verdict, Error> {
        self.questions.remove(&answer.get_answer_id());
        self.traffic.own_calls.set(self.questions.len());
        match answer.which() {
            Ok(return_::TakeFromOtherQuestion(other)) if self.refused.contains(&other) => {
                let error = Error::unimplemented("results can only be sent to the caller".into());
                Ok(Verdict::Fail { answer_id: answer.get_answer_id(), error })
            }
            _ => Ok(Verdict::Pass),
        }
    }

    /// Counts off a call, and returns it if it was counted.
    fn count_off(&mut self, question_id: u32) -> Option<Entry> {
        let entry = self.calls.remove(&question_id)?;
        entry.call.settle();
        if entry.finish.is_some() {
            self.held -= 1;
        }
        self.release(entry.bytes);
        Some(entry)
    }

    fn remembered_max(&self) -> usize {
        self.limits.connection_calls_max.saturating_mul(REMEMBERED_PER_CALL)
    }

    fn release(&self, bytes: usize) {
        self.traffic.calls.set(self.calls.len());
        self.traffic.queued_bytes.set(self.traffic.queued_bytes.get() - bytes);
        if let Some(account) = &self.account {
            account.release(bytes);
        }
    }
}

/// Returns which byte stream of ours a call writes to, if it does.
fn byte_stream(call: call::Reader<'_>) -> Result<Option<u32>, Error> {
    if call.get_interface_id() != BYTE_STREAM {
        return Ok(None);
    }
    Ok(match call.get_target()?.which()? {
        message_target::ImportedCap(id) => Some(id),
        message_target::PromisedAnswer(_) => None,
    })
}

/// Returns the ids of the capabilities that come with a payload and are the sender's.
fn brought(payload: payload::Reader<'_>) -> Result<Vec<u32>, Error> {
    let mut ids = Vec::new();
    for descriptor in payload.get_cap_table()? {
        match descriptor.which() {
            Ok(cap_descriptor::SenderHosted(id) | cap_descriptor::SenderPromise(id)) => {
                ids.push(id)
            }
            Ok(cap_descriptor::ThirdPartyHosted(third)) => ids.push(third?.get_vine_id()),
            _ => {}
        }
    }
    Ok(ids)
}

/// Returns the type under which an error of ours travels.
pub(super) fn exception_type(error: &Error) -> capnp_rpc::rpc_capnp::exception::Type {
    use capnp_rpc::rpc_capnp::exception::Type;
    match error.kind {
        ErrorKind::Overloaded => Type::Overloaded,
        ErrorKind::Unimplemented => Type::Unimplemented,
        ErrorKind::Disconnected => Type::Disconnected,
        _ => Type::Failed,
    }
}
