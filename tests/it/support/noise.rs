//! Messages that are well formed and make no sense, from a seed.

use capnp::message::{Builder, HeapAllocator};
use capnp_rpc::rpc_capnp::{cap_descriptor, message, return_};

use super::Random;
use super::raw::{self, Method, On, Raw};

/// Makes one message of the protocol at random: its ids are small, so that some of them exist.
pub(crate) fn message(random: &mut Random) -> Vec<u8> {
    let id = random.below(12) as u32;
    let other = random.below(12) as u32;
    let on = match random.below(4) {
        0 => On::Import(other),
        1 => On::Answer(other),
        2 => On::Field(other),
        _ => raw::THE_STUB,
    };
    let methods = [
        raw::NAMESPACE_OF,
        raw::ABOUT,
        raw::GET,
        raw::GET_BY_NAME,
        raw::LIST,
        raw::FETCH,
        raw::BROKEN,
        raw::WRITE,
        raw::END,
        raw::PUMP_TO,
        Method(random.below(u64::MAX), random.below(9) as u16),
    ];
    let method = methods[random.below(methods.len() as u64) as usize];
    match random.below(10) {
        0..4 => raw::call_with(id, on, method, |mut call| {
            if random.chance(10) {
                call.reborrow().init_send_results_to().set_yourself(());
            }
            let mut table = call.init_params().init_cap_table(random.below(3) as u32);
            for index in 0..table.len() {
                descriptor(table.reborrow().get(index), random);
            }
        }),
        4 => raw::finish(id),
        5 => raw::encoded(|message| message.init_bootstrap().set_question_id(id)),
        6 => raw::encoded(|message| answer(message, id, random)),
        7 => raw::encoded(|message| {
            let mut release = message.init_release();
            release.set_id(id);
            release.set_reference_count(random.below(3) as u32);
        }),
        8 => raw::encoded(|message| {
            let mut resolve = message.init_resolve();
            resolve.set_promise_id(id);
            match random.chance(50) {
                true => descriptor(resolve.init_cap(), random),
                false => resolve.init_exception().set_reason("no"),
            }
        }),
        _ => raw::encoded(|message| rare(message, id, other, random)),
    }
}

fn answer(message: message::Builder<'_>, id: u32, random: &mut Random) {
    let mut answer: return_::Builder<'_> = message.init_return();
    answer.set_answer_id(id);
    answer.set_release_param_caps(random.chance(50));
    match random.below(5) {
        0 => answer.init_exception().set_reason("no"),
        1 => answer.set_canceled(()),
        2 => answer.set_results_sent_elsewhere(()),
        3 => answer.set_take_from_other_question(random.below(12) as u32),
        _ => {
            let mut table = answer.init_results().init_cap_table(1);
            descriptor(table.reborrow().get(0), random);
        }
    }
}

fn rare(message: message::Builder<'_>, id: u32, other: u32, random: &mut Random) {
    match random.below(4) {
        0 => {
            let mut disembargo = message.init_disembargo();
            disembargo.reborrow().init_target().set_imported_cap(other);
            match random.below(3) {
                0 => disembargo.init_context().set_sender_loopback(id),
                1 => disembargo.init_context().set_receiver_loopback(id),
                _ => disembargo.init_context().set_accept(()),
            }
        }
        1 => drop(message.init_unimplemented().init_bootstrap()),
        2 => message.init_provide().set_question_id(id),
        _ => message.init_join().set_question_id(id),
    }
}

fn descriptor(mut descriptor: cap_descriptor::Builder<'_>, random: &mut Random) {
    let id = random.below(12) as u32;
    match random.below(5) {
        0 => descriptor.set_none(()),
        1 => descriptor.set_sender_hosted(id),
        2 => descriptor.set_sender_promise(id),
        3 => descriptor.set_receiver_hosted(id),
        _ => descriptor.init_receiver_answer().set_question_id(id),
    }
}

/// Encodes a call whose params are a chain of `depth` pointers.
pub(crate) fn nested(id: u32, on: On, method: Method, depth: u32) -> Vec<u8> {
    use capnp_rpc::rpc_capnp::message;
    raw::call(id, on, method, |params| {
        // A message that says it is unimplemented, holds one that does, and so on.
        let mut inner: message::Builder<'_> = params.get_content().init_as();
        for _ in 0..depth {
            inner = inner.init_unimplemented();
        }
    })
}

/// Encodes a call whose params are `count` pointers to the same 64 KiB.
pub(crate) fn bomb(id: u32, on: On, method: Method, count: u32) -> Vec<u8> {
    const BYTES: u32 = 64 << 10;
    let allocator = HeapAllocator::new().first_segment_words(count + BYTES / 8 + 4096);
    let mut builder = Builder::new(allocator);
    let mut call = builder.init_root::<message::Builder<'_>>().init_call();
    call.set_question_id(id);
    call.set_interface_id(method.0);
    call.set_method_id(method.1);
    let mut answer = call.reborrow().init_target().init_promised_answer();
    let On::Field(stub) = on else { panic!("a bomb goes to a pipelined stub") };
    answer.set_question_id(stub);
    answer.init_transform(1).get(0).set_get_pointer_field(0);
    let mut list: capnp::data_list::Builder<'_> = call.init_params().get_content().initn_as(count);
    list.set(0, &vec![7; BYTES as usize]);
    let mut bytes = capnp::serialize::write_message_to_words(&builder);
    // The pointers of the list lie side by side: each is to lead where the first does.
    let upper = 2 | (BYTES << 3);
    let words = bytes.len() / 8;
    let word =
        |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at * 8..at * 8 + 8].try_into().unwrap());
    let first = (0..words).find(|at| (word(&bytes, *at) >> 32) as u32 == upper).unwrap();
    let offset = (word(&bytes, first) as u32) >> 2;
    for index in 1..count {
        let pointer = u64::from(((offset - index) << 2) | 1) | (u64::from(upper) << 32);
        let at = (first + index as usize) * 8;
        bytes[at..at + 8].copy_from_slice(&pointer.to_le_bytes());
    }
    bytes
}

/// Waits for the answer to question `id`, and returns the capability that it brought.
pub(crate) async fn exported(peer: &mut Raw, id: u32) -> Option<u32> {
    loop {
        let received = peer.receive().await?;
        let Ok(message::Return(Ok(answer))) = raw::root(&received).which() else { continue };
        if answer.get_answer_id() != id {
            continue;
        }
        let Ok(return_::Results(Ok(results))) = answer.which() else { return None };
        let table = results.get_cap_table().unwrap();
        return table.iter().find_map(|one| match one.which() {
            Ok(cap_descriptor::SenderHosted(id) | cap_descriptor::SenderPromise(id)) => Some(id),
            _ => None,
        });
    }
}

/// Asks export `source` of the server to write to export `sink` of the peer.
pub(crate) fn pump_to(id: u32, source: u32, sink: u32) -> Vec<u8> {
    use capnp::capability::FromClientHook;
    use capnp::traits::ImbueMut;
    raw::call(id, On::Import(source), raw::PUMP_TO, |mut params| {
        params.reborrow().init_cap_table(1).get(0).set_sender_hosted(sink);
        let mut table = Vec::new();
        let mut content = params.reborrow().get_content();
        content.imbue_mut(&mut table);
        let mut params: stubborn::stubborn_capnp::body_source::pump_to_params::Builder<'_> =
            content.init_as();
        let placeholder = capnp_rpc::new_broken_cap(capnp::Error::failed("a placeholder".into()));
        params.set_sink(FromClientHook::new(placeholder.hook));
    })
}
