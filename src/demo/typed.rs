//! `PROBE`: its typed interface, `schema/demo.capnp`.

use std::rc::Rc;

use super::Probe;
use crate::demo_capnp::{listener, probe};
use crate::error::Error;
use crate::stubborn_capnp::stub;

/// The runtime answers these: they never reach the object.
impl stub::Server for Probe {}

impl probe::Server for Probe {
    async fn log(
        self: Rc<Self>,
        params: probe::LogParams,
        mut results: probe::LogResults,
    ) -> Result<(), capnp::Error> {
        let position = self.append(&params.get()?.get_n().to_string())?;
        results.get().set_position(position as u64);
        Ok(())
    }

    async fn echo(
        self: Rc<Self>,
        params: probe::EchoParams,
        mut results: probe::EchoResults,
    ) -> Result<(), capnp::Error> {
        results.get().set_listener(params.get()?.get_listener()?);
        Ok(())
    }

    async fn notify(
        self: Rc<Self>,
        params: probe::NotifyParams,
        _results: probe::NotifyResults,
    ) -> Result<(), capnp::Error> {
        let (listener, count) = {
            let params = params.get()?;
            (params.get_listener()?, params.get_count())
        };
        let mut from = 0;
        while from < count {
            let to = count.min(from + NOTIFIED_AT_ONCE);
            notify(&listener, from..to).await?;
            from = to;
        }
        Ok(())
    }

    async fn note(self: Rc<Self>, params: probe::NoteParams) -> Result<(), capnp::Error> {
        self.append(&params.get()?.get_n().to_string())?;
        Ok(())
    }

    async fn fail(
        self: Rc<Self>,
        params: probe::FailParams,
        _results: probe::FailResults,
    ) -> Result<(), capnp::Error> {
        Err(Error::failed(params.get()?.get_message()?.to_string()?).into())
    }
}

/// Calls the listener with each number, in order; returns when all were answered.
async fn notify(
    listener: &listener::Client,
    numbers: std::ops::Range<u32>,
) -> Result<(), capnp::Error> {
    let answers = numbers.map(|n| {
        let mut call = listener.heard_request();
        call.get().set_n(n.into());
        call.send().promise
    });
    let answers: Vec<_> = answers.collect();
    futures::future::try_join_all(answers).await?;
    Ok(())
}

/// Calls that may be unanswered at a time.
const NOTIFIED_AT_ONCE: u32 = 1_024;
