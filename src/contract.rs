//! The code generated from `schema/`.
//!
//! Authors' own schemas import `stubborn.capnp`; their generated code finds it here when their build
//! script says `crate_provides("stubborn", [0xd9d54ba743abcc01])`.

macro_rules! generated {
    ($($name:ident),* $(,)?) => {$(
        #[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, clippy::restriction)]
        #[doc(hidden)]
        pub mod $name {
            include!(concat!(env!("OUT_DIR"), "/", stringify!($name), ".rs"));
        }
    )*};
}

generated!(byte_stream_capnp, stubborn_capnp, demo_capnp);

/// The revision of the contract that this crate speaks.
pub const REVISION: u32 = 1;
