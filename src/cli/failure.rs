//! What a failed command says, and its exit status.

use std::io;

use crate::error::{Error, Kind};

/// The object failed, or its server said no.
pub const REFUSED: i32 = 1;
/// The command is wrong.
pub const USAGE: i32 = 2;
/// Nobody answered.
pub const UNREACHABLE: i32 = 3;

/// Prints what is wrong and what to do about it on standard error; returns the exit status.
pub fn report(error: &anyhow::Error) -> i32 {
    let broken_pipe = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    if error.downcast_ref().is_some_and(broken_pipe) {
        // Whoever read the output has seen enough.
        return 0;
    }
    match error.downcast_ref::<Error>() {
        Some(error) => {
            output(&describe(error));
            status(error)
        }
        None => {
            output(&format!("stubborn: {error:#}\n"));
            REFUSED
        }
    }
}

/// Prints on standard error; there is nobody to tell where that fails.
pub fn output(text: &str) {
    use std::io::Write;
    let _ = io::stderr().write_all(text.as_bytes());
}

fn status(error: &Error) -> i32 {
    match error.kind {
        _ if error.remote => REFUSED,
        Kind::Disconnected => UNREACHABLE,
        Kind::InvalidRequest | Kind::InvalidId => USAGE,
        _ => REFUSED,
    }
}

fn describe(error: &Error) -> String {
    let mut text = format!("stubborn: {}: {}\n", error.kind, error.message);
    let flags = [
        (error.remote, "remote"),
        (error.retryable, "retryable"),
        (error.overloaded, "overloaded"),
        (error.reset, "reset"),
        (error.delivered, "delivered"),
    ];
    let flags: Vec<&str> = flags.iter().filter(|(set, _)| *set).map(|(_, flag)| *flag).collect();
    if !flags.is_empty() {
        text += &format!("  flags: {}\n", flags.join(" "));
    }
    if let Some(advice) = advice(error) {
        text += &format!("  {advice}\n");
    }
    text
}

fn advice(error: &Error) -> Option<&'static str> {
    Some(match error.kind {
        _ if error.reset => "the object was reset: the next call starts it anew",
        _ if error.remote && error.retryable => "try again",
        _ if error.remote => "the object's own code says so",
        Kind::Disconnected if error.delivered => {
            "the connection was lost; the object may have done it, or not"
        }
        Kind::Disconnected => {
            "start a server with `stubborn serve`, or say where one is with --connect ADDR"
        }
        Kind::Overloaded => "wait a little before you try again",
        Kind::Unimplemented => "is the server older than this program?",
        Kind::InvalidId => "`stubborn id NAMESPACE --name NAME` prints an id",
        Kind::WrongNamespace => "`stubborn id NAMESPACE --name NAME` prints one of that namespace",
        Kind::NoSuchNamespace => "`stubborn namespaces` lists those that exist",
        Kind::InvalidRequest => "`stubborn --help` tells how it is written",
        Kind::Truncated => "what was printed is not all of it",
        Kind::Timeout => "it may have been done, or not",
        Kind::Failed | Kind::NoSuchObject => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_status_tells_who_is_to_act() {
        for (error, expected) in [
            (Error::disconnected("x"), UNREACHABLE),
            (Error::disconnected("x").with_remote(true), REFUSED),
            (Error::failed("x").with_remote(true), REFUSED),
            (Error::failed("x"), REFUSED),
            (Error::overloaded("x"), REFUSED),
            (Error::invalid_request("x"), USAGE),
            (Error::invalid_request("x").with_remote(true), REFUSED),
            (Error::new(Kind::InvalidId, "x"), USAGE),
            (Error::new(Kind::WrongNamespace, "x"), REFUSED),
            (Error::truncated("x"), REFUSED),
        ] {
            assert_eq!(status(&error), expected, "{error:?}");
        }
        let broken_pipe = io::Error::from(io::ErrorKind::BrokenPipe);
        assert_eq!(report(&broken_pipe.into()), 0);
    }

    #[test]
    fn an_error_is_told_with_its_flags_and_what_to_do() {
        let told = describe(&Error::failed("boom").with_remote(true).with_delivered(true));
        assert_eq!(
            told,
            "stubborn: failed: boom\n  flags: remote delivered\n  the object's own code says so\n"
        );
        assert_eq!(describe(&Error::failed("x")), "stubborn: failed: x\n");
        for kind in Kind::ALL {
            assert!(
                describe(&Error::new(kind, "x")).starts_with(&format!("stubborn: {kind}: x\n"))
            );
        }
    }
}
