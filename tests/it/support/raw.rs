//! A peer that says exactly what a test wants: single messages of the protocol, or mere bytes.
//!
//! It keeps no state: whoever uses it chooses the question ids, and knows what they stand for.

use capnp::any_pointer;
use capnp::capability::FromClientHook;
use capnp::message::{Builder, HeapAllocator, Reader, ReaderOptions};
use capnp::serialize::OwnedSegments;
use capnp::traits::{HasTypeId, ImbueMut};
use capnp_rpc::rpc_capnp::{call, cap_descriptor, exception, message, payload, return_};
use stubborn::byte_stream_capnp::byte_stream;
use stubborn::stubborn_capnp::{body_source, namespace, outcome, request, server, stub};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The question ids by which a peer that has said [`hello`] knows its capabilities.
const BOOTSTRAP: u32 = 1_000_000;
const NAMESPACE: u32 = 1_000_001;
pub(crate) const STUB: u32 = 1_000_002;

/// The methods of the contract that are called raw.
pub(crate) const NAMESPACE_OF: Method = Method(<server::Client as HasTypeId>::TYPE_ID, 0);
pub(crate) const ABOUT: Method = Method(<server::Client as HasTypeId>::TYPE_ID, 2);
pub(crate) const GET: Method = Method(<namespace::Client as HasTypeId>::TYPE_ID, 0);
pub(crate) const GET_BY_NAME: Method = Method(<namespace::Client as HasTypeId>::TYPE_ID, 1);
pub(crate) const LIST: Method = Method(<namespace::Client as HasTypeId>::TYPE_ID, 6);
pub(crate) const FETCH: Method = Method(<stub::Client as HasTypeId>::TYPE_ID, 0);
pub(crate) const BROKEN: Method = Method(<stub::Client as HasTypeId>::TYPE_ID, 2);
pub(crate) const WRITE: Method = Method(<byte_stream::Client as HasTypeId>::TYPE_ID, 0);
pub(crate) const END: Method = Method(<byte_stream::Client as HasTypeId>::TYPE_ID, 1);
pub(crate) const PUMP_TO: Method = Method(<body_source::Client as HasTypeId>::TYPE_ID, 0);

/// An interface's id and a method's ordinal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Method(pub(crate) u64, pub(crate) u16);

/// What a call is made on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum On {
    /// A capability that the server exported by this id.
    Import(u32),
    /// What a question's results are, or will be.
    Answer(u32),
    /// The first pointer of a question's results.
    Field(u32),
}

/// The stub that [`hello`] asked for.
pub(crate) const THE_STUB: On = On::Field(STUB);
/// The namespace that [`hello`] asked for.
pub(crate) const THE_NAMESPACE: On = On::Field(NAMESPACE);
/// The bootstrap capability.
pub(crate) const THE_SERVER: On = On::Answer(BOOTSTRAP);

/// Encodes one message of the protocol.
pub(crate) fn encoded(fill: impl FnOnce(message::Builder<'_>)) -> Vec<u8> {
    let mut message = Builder::new(HeapAllocator::new());
    fill(message.init_root());
    capnp::serialize::write_message_to_words(&message)
}

/// Encodes a call.
pub(crate) fn call(
    id: u32,
    on: On,
    method: Method,
    fill: impl FnOnce(payload::Builder<'_>),
) -> Vec<u8> {
    call_with(id, on, method, |mut call| fill(call.reborrow().init_params()))
}

/// Encodes a call of which everything is to be chosen.
pub(crate) fn call_with(
    id: u32,
    on: On,
    method: Method,
    fill: impl FnOnce(call::Builder<'_>),
) -> Vec<u8> {
    encoded(|message| {
        let mut call = message.init_call();
        call.set_question_id(id);
        call.set_interface_id(method.0);
        call.set_method_id(method.1);
        let mut target = call.reborrow().init_target();
        match on {
            On::Import(id) => target.set_imported_cap(id),
            On::Answer(id) => target.init_promised_answer().set_question_id(id),
            On::Field(id) => {
                let mut answer = target.init_promised_answer();
                answer.set_question_id(id);
                answer.init_transform(1).get(0).set_get_pointer_field(0);
            }
        }
        fill(call);
    })
}

/// Encodes a finish, which gives back what came with the results.
pub(crate) fn finish(id: u32) -> Vec<u8> {
    encoded(|message| {
        let mut finish = message.init_finish();
        finish.set_question_id(id);
        finish.set_release_result_caps(true);
    })
}

/// Encodes the first words of a client: bootstrap, a namespace, and the stub of an object.
pub(crate) fn hello(namespace: &str, name: &str) -> Vec<u8> {
    let bootstrap = encoded(|message| message.init_bootstrap().set_question_id(BOOTSTRAP));
    [bootstrap, namespace_of(NAMESPACE, namespace), by_name(STUB, name)].concat()
}

pub(crate) fn namespace_of(id: u32, name: &str) -> Vec<u8> {
    call(id, THE_SERVER, NAMESPACE_OF, |params| {
        params.get_content().init_as::<server::namespace_params::Builder<'_>>().set_name(name);
    })
}

pub(crate) fn by_name(id: u32, name: &str) -> Vec<u8> {
    call(id, THE_NAMESPACE, GET_BY_NAME, |params| {
        params.get_content().init_as::<namespace::get_by_name_params::Builder<'_>>().set_name(name);
    })
}

/// Encodes a fetch of `url`, with `body` inline.
pub(crate) fn fetch(id: u32, on: On, url: &str, body: &[u8]) -> Vec<u8> {
    request(id, on, |mut request| {
        request.set_url(url);
        if !body.is_empty() {
            request.init_body().set_prefix(body);
        }
    })
}

/// Encodes a fetch that `fill` fills.
pub(crate) fn request(id: u32, on: On, fill: impl FnOnce(request::Builder<'_>)) -> Vec<u8> {
    call(id, on, FETCH, |params| fill(params.get_content().init_as()))
}

/// Encodes a fetch whose body is to be pulled from export `source` of the peer.
pub(crate) fn upload(id: u32, on: On, url: &str, source: u32, length: Option<u64>) -> Vec<u8> {
    call(id, on, FETCH, |mut params| {
        params.reborrow().init_cap_table(1).get(0).set_sender_hosted(source);
        // Written as capability 0 of the table, whatever stands for it here.
        let mut table = Vec::new();
        let mut content: any_pointer::Builder<'_> = params.reborrow().get_content();
        content.imbue_mut(&mut table);
        let mut request: request::Builder<'_> = content.init_as();
        request.set_method("POST");
        request.set_url(url);
        let mut body = request.init_body();
        let placeholder = capnp_rpc::new_broken_cap(capnp::Error::failed("a placeholder".into()));
        body.set_rest(FromClientHook::new(placeholder.hook));
        if let Some(bytes) = length {
            body.init_length().set_bytes(bytes);
        }
    })
}

/// Encodes a write to a sink that the server hosts.
pub(crate) fn write(id: u32, sink: u32, bytes: &[u8]) -> Vec<u8> {
    call(id, On::Import(sink), WRITE, |params| {
        params.get_content().init_as::<byte_stream::write_params::Builder<'_>>().set_bytes(bytes);
    })
}

pub(crate) fn end(id: u32, sink: u32) -> Vec<u8> {
    call(id, On::Import(sink), END, |params| {
        params.get_content().init_as::<byte_stream::end_params::Builder<'_>>();
    })
}

/// Encodes the peer's answer to a call of the server's: empty results.
pub(crate) fn returns(answer: u32) -> Vec<u8> {
    encoded(|message| {
        let mut answering = message.init_return();
        answering.set_answer_id(answer);
        answering.init_results();
    })
}

/// Encodes the peer's answer to a call of the server's: an exception.
pub(crate) fn throws(answer: u32, reason: &str) -> Vec<u8> {
    encoded(|message| {
        let mut answering = message.init_return();
        answering.set_answer_id(answer);
        answering.init_exception().set_reason(reason);
    })
}

/// A connection on which anything can be said.
pub(crate) struct Raw {
    stream: TcpStream,
}

/// A message from the server.
pub(crate) type Received = Reader<OwnedSegments>;

/// How a call of ours ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// With a fetch's response: its status and the part of its body that came along.
    Response(u16, Vec<u8>),
    /// With a fetch's error: its kind and its flags.
    Error(stubborn::Kind, Flags),
    /// With results of another method.
    Results,
    /// With an exception.
    Exception(exception::Type),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flags {
    pub(crate) overloaded: bool,
    pub(crate) delivered: bool,
}

/// What the server asks of us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) id: u32,
    /// The export of ours that it asks.
    pub(crate) of: u32,
    /// The capability that came along.
    pub(crate) brought: Option<u32>,
}

impl Raw {
    pub(crate) async fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream }
    }

    /// Connects and says hello.
    pub(crate) async fn greeted(address: &str, namespace: &str, name: &str) -> Self {
        let mut raw = Self::connect(address).await;
        raw.say(&hello(namespace, name)).await;
        for _ in 0..3 {
            raw.receive().await.unwrap();
        }
        raw
    }

    /// Writes all of `bytes`.
    pub(crate) async fn say(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Writes `bytes` as far as the server takes them; returns whether it took all.
    pub(crate) async fn try_say(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok()
    }

    /// Returns what it is connected by, to read and write at once.
    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Returns the next message; none when the server has closed the connection.
    pub(crate) async fn receive(&mut self) -> Option<Received> {
        receive(&mut self.stream).await
    }

    /// Reads until the server has closed the connection.
    pub(crate) async fn closed(&mut self) {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(1..) = self.stream.read(&mut buffer).await {}
    }

    /// Passes over messages until one is the answer to question `id`; none if none ever is.
    pub(crate) async fn answer_to(&mut self, id: u32) -> Option<Answer> {
        loop {
            let received = self.receive().await?;
            if let Some((answered, answer)) = answer(&received)
                && answered == id
            {
                return Some(answer);
            }
        }
    }

    /// Passes over messages until the server asks something.
    pub(crate) async fn asked(&mut self) -> Option<Asked> {
        loop {
            let received = self.receive().await?;
            if let Some(asked) = asked(&received) {
                return Some(asked);
            }
        }
    }
}

/// Returns the next message; none when the server has closed the connection.
pub(crate) async fn receive(stream: &mut (impl AsyncReadExt + Unpin)) -> Option<Received> {
    let mut table = vec![0; 8];
    stream.read_exact(&mut table).await.ok()?;
    let number =
        |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let count = number(&table, 0) as usize + 1;
    table.resize((4 + 4 * count).next_multiple_of(8), 0);
    stream.read_exact(&mut table[8..]).await.ok()?;
    let words: u32 = (0..count).map(|index| number(&table, 4 + 4 * index)).sum();
    let header = table.len();
    table.resize(header + words as usize * 8, 0);
    stream.read_exact(&mut table[header..]).await.ok()?;
    let mut options = ReaderOptions::new();
    options.traversal_limit_in_words(None);
    Some(capnp::serialize::read_message(&table[..], options).unwrap())
}

pub(crate) fn root(received: &Received) -> message::Reader<'_> {
    received.get_root().unwrap()
}

/// Reads a return: which question it answers, and how.
pub(crate) fn answer(received: &Received) -> Option<(u32, Answer)> {
    let Ok(message::Return(Ok(returned))) = root(received).which() else { return None };
    let answer = match returned.which().unwrap() {
        return_::Exception(exception) => {
            let exception = exception.unwrap();
            Answer::Exception(exception.get_type().unwrap())
        }
        return_::Results(results) => {
            let results = results.unwrap();
            match results.get_content().get_as::<outcome::Reader<'_>>().map(read_outcome) {
                Ok(Some(answer)) => answer,
                _ => Answer::Results,
            }
        }
        _ => Answer::Results,
    };
    Some((returned.get_answer_id(), answer))
}

fn read_outcome(outcome: outcome::Reader<'_>) -> Option<Answer> {
    match outcome.which().ok()? {
        outcome::Response(response) => {
            let response = response.ok()?;
            let body = response.get_body().ok()?.get_prefix().ok()?.to_vec();
            Some(Answer::Response(response.get_status(), body))
        }
        outcome::Error(error) => {
            let error = error.ok()?;
            let flags =
                Flags { overloaded: error.get_overloaded(), delivered: error.get_delivered() };
            Some(Answer::Error(kind(error.get_kind().ok()?), flags))
        }
    }
}

fn kind(wire: stubborn::stubborn_capnp::error::Kind) -> stubborn::Kind {
    stubborn::Kind::ALL[wire as usize]
}

/// Reads a call of the server's.
pub(crate) fn asked(received: &Received) -> Option<Asked> {
    let Ok(message::Call(Ok(call))) = root(received).which() else { return None };
    let of = match call.get_target().unwrap().which().unwrap() {
        capnp_rpc::rpc_capnp::message_target::ImportedCap(id) => id,
        _ => return None,
    };
    let brought = call.get_params().unwrap().get_cap_table().unwrap().iter().find_map(|one| {
        match one.which() {
            Ok(cap_descriptor::SenderHosted(id) | cap_descriptor::SenderPromise(id)) => Some(id),
            _ => None,
        }
    });
    Some(Asked { id: call.get_question_id(), of, brought })
}
