//! The contract is what it was: yesterday's bytes are read today, and today's bytes are yesterday's.
//!
//! Also: the parse that is checked in as `schema/compiled.bin`, which machines without the `capnp` tool
//! build from, is the parse of the schema as it stands beside it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use capnp::message::ReaderOptions;
use capnp::schema_capnp::{code_generator_request, field, node};
use capnp::serialize;
use stubborn::stubborn_capnp as wire;
use stubborn::{Error, Kind};

const SCHEMA: [&str; 3] = ["byte-stream.capnp", "stubborn.capnp", "demo.capnp"];

#[test]
fn the_checked_in_parse_generates_the_code_that_the_tool_generates() {
    let Some(fresh) = parse() else {
        println!("not compared: the `capnp` tool isn't installed here");
        return;
    };
    let (fresh, checked_in) = (generate("fresh", &fresh), generate("checked-in", &compiled()));
    assert_eq!(fresh.len(), SCHEMA.len());
    for (name, code) in &fresh {
        // The whole difference would be thousands of lines.
        assert!(checked_in.get(name) == Some(code), "{name} differs: {REGENERATE}");
    }
}

#[test]
fn the_checked_in_parse_has_every_ordinal_of_the_schema_and_no_other() {
    let bytes = compiled();
    let message = serialize::read_message(bytes.as_slice(), ReaderOptions::new()).unwrap();
    let request: code_generator_request::Reader<'_> = message.get_root().unwrap();
    let nodes = request.get_nodes().unwrap();
    let scopes: BTreeMap<u64, u64> =
        nodes.iter().map(|node| (node.get_id(), node.get_scope_id())).collect();
    let files = request.get_requested_files().unwrap();
    let files: BTreeMap<u64, String> = files
        .iter()
        .map(|file| (file.get_id(), file.get_filename().unwrap().to_string().unwrap()))
        .collect();
    assert_eq!(files.len(), SCHEMA.len());

    for name in SCHEMA {
        let mut want = declared(&std::fs::read_to_string(schema().join(name)).unwrap());
        let mut got: Vec<(String, u16)> = nodes
            .iter()
            .filter(|node| file_of(&scopes, &files, node.get_id()) == Some(name))
            .flat_map(ordinals)
            .collect();
        want.sort();
        got.sort();
        assert!(!want.is_empty(), "{name}");
        assert_eq!(got, want, "{name}: {REGENERATE}");
    }
}

#[test]
fn yesterdays_messages_are_read_and_written_alike() {
    for (name, sample) in samples() {
        let path = golden().join(&name).with_extension("bin");
        let bytes = sample.encode();
        write_if_asked(&path, &bytes);
        let yesterday = std::fs::read(&path)
            .unwrap_or_else(|error| panic!("{}: {error}; {UPDATE}", path.display()));
        assert_eq!(
            sample.decode_alike(&yesterday),
            sample,
            "{name}: yesterday's bytes are misread"
        );
        if !OUTGROWN.contains(&name.as_str()) {
            assert_eq!(bytes, yesterday, "{name}: other bytes are written");
        }
    }
}

#[test]
fn no_golden_message_is_left_untested() {
    let names: Vec<String> = samples().into_iter().map(|(name, _)| name + ".bin").collect();
    for entry in std::fs::read_dir(golden()).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        assert!(names.contains(&file), "{file} has no sample: yesterday's bytes are kept for ever");
    }
}

/// A message of the contract, as plain values.
#[derive(Debug, PartialEq)]
enum Sample {
    Request {
        method: String,
        url: String,
        headers: Headers,
        body: Option<Body>,
    },
    Response {
        status: u16,
        headers: Headers,
        body: Option<Body>,
    },
    Failure(Error),
    ObjectInfo {
        id: Vec<u8>,
        name: Option<String>,
        has_stored_data: bool,
    },
    /// The parameters of a method of `WebSocket`.
    SendText(String),
    SendBinary(Vec<u8>),
    SendPart(Vec<u8>),
    Close {
        code: u16,
        reason: String,
    },
}

type Headers = Vec<(String, Vec<u8>)>;
type SetFlag = fn(&mut Error);

#[derive(Debug, PartialEq)]
struct Body {
    prefix: Vec<u8>,
    bytes: Option<u64>,
}

/// Every golden message, and the name of its file.
fn samples() -> Vec<(String, Sample)> {
    let header = |name: &str, value: &[u8]| (name.to_owned(), value.to_vec());
    let whole = |text: &str| Body { prefix: text.into(), bytes: Some(text.len() as u64) };
    let request = |method: &str, headers, body| Sample::Request {
        method: method.to_owned(),
        url: "https://example.com/a/b?c=d&e".to_owned(),
        headers,
        body,
    };
    let id: Vec<u8> = (0..32).collect();
    let info = |name: Option<&str>, has_stored_data| Sample::ObjectInfo {
        id: id.clone(),
        name: name.map(str::to_owned),
        has_stored_data,
    };
    let repeated = vec![
        header("accept", b"text/plain"),
        header("x-bytes", &[0x80, 0xff]),
        header("accept", b""),
    ];
    let unknown_length = Body { prefix: vec![0, 1, 2, 255], bytes: None };
    let plain = vec![header("content-type", b"text/plain")];

    let mut samples = vec![
        ("request-get".to_owned(), request("GET", vec![], None)),
        ("request-post".to_owned(), request("POST", repeated, Some(whole("hello, wörld")))),
        ("request-stream".to_owned(), request("PUT", vec![], Some(unknown_length))),
        (
            "response-prefix-body".to_owned(),
            Sample::Response { status: 200, headers: plain, body: Some(whole("3")) },
        ),
        (
            "response-empty".to_owned(),
            Sample::Response { status: 204, headers: vec![], body: None },
        ),
        ("object-info".to_owned(), info(None, false)),
        ("object-info-named".to_owned(), info(Some("lobby/日本"), true)),
        ("object-info-empty-name".to_owned(), info(Some(""), true)),
        ("web-socket-text".to_owned(), Sample::SendText("hello, wörld".to_owned())),
        ("web-socket-binary".to_owned(), Sample::SendBinary(vec![0, 1, 2, 255])),
        ("web-socket-part".to_owned(), Sample::SendPart(vec![0x80, 0, 7])),
        ("web-socket-close".to_owned(), Sample::Close { code: 4001, reason: "grüße".to_owned() }),
    ];
    for kind in Kind::ALL {
        let name = format!("error-{}", kind.as_str().replace(' ', "-"));
        samples.push((name, Sample::Failure(Error::new(kind, format!("{kind} 'x'")))));
    }
    // Each flag alone, so that no two of them can change places unseen.
    let flags: [(&str, SetFlag); 5] = [
        ("remote", |error| error.remote = true),
        ("retryable", |error| error.retryable = true),
        ("overloaded", |error| error.overloaded = true),
        ("reset", |error| error.reset = true),
        ("delivered", |error| error.delivered = true),
    ];
    for (name, set) in flags {
        let mut error = Error::failed("a flag");
        set(&mut error);
        samples.push((format!("error-flag-{name}"), Sample::Failure(error)));
    }
    samples
}

impl Sample {
    fn encode(&self) -> Vec<u8> {
        let mut message = capnp::message::Builder::new_default();
        match self {
            Self::Request { method, url, headers, body } => {
                let mut request = message.init_root::<wire::request::Builder<'_>>();
                request.set_method(method);
                request.set_url(url);
                write_headers(request.reborrow().init_headers(headers.len() as u32), headers);
                if let Some(body) = body {
                    write_body(request.init_body(), body);
                }
            }
            Self::Response { status, headers, body } => {
                let mut response = message.init_root::<wire::response::Builder<'_>>();
                response.set_status(*status);
                write_headers(response.reborrow().init_headers(headers.len() as u32), headers);
                if let Some(body) = body {
                    write_body(response.init_body(), body);
                }
            }
            Self::Failure(error) => write_error(message.init_root(), error),
            Self::ObjectInfo { id, name, has_stored_data } => {
                let mut info = message.init_root::<wire::object_info::Builder<'_>>();
                info.set_id(id);
                if let Some(name) = name {
                    info.set_name(name);
                }
                info.set_has_stored_data(*has_stored_data);
            }
            Self::SendText(text) => {
                message
                    .init_root::<wire::web_socket::send_text_params::Builder<'_>>()
                    .set_text(text);
            }
            Self::SendBinary(bytes) => {
                let mut params: wire::web_socket::send_binary_params::Builder<'_> =
                    message.init_root();
                params.set_bytes(bytes);
            }
            Self::SendPart(bytes) => {
                message
                    .init_root::<wire::web_socket::send_part_params::Builder<'_>>()
                    .set_bytes(bytes);
            }
            Self::Close { code, reason } => {
                let mut params = message.init_root::<wire::web_socket::close_params::Builder<'_>>();
                params.set_code(*code);
                params.set_reason(reason);
            }
        }
        serialize::write_message_to_words(&message)
    }

    /// Reads `bytes` as a message of the type that this one is of.
    fn decode_alike(&self, bytes: &[u8]) -> Self {
        let message = serialize::read_message(bytes, ReaderOptions::new()).unwrap();
        match self {
            Self::Request { .. } => {
                let request: wire::request::Reader<'_> = message.get_root().unwrap();
                Self::Request {
                    method: request.get_method().unwrap().to_string().unwrap(),
                    url: request.get_url().unwrap().to_string().unwrap(),
                    headers: read_headers(request.get_headers().unwrap()),
                    body: request.has_body().then(|| read_body(request.get_body().unwrap())),
                }
            }
            Self::Response { .. } => {
                let response: wire::response::Reader<'_> = message.get_root().unwrap();
                Self::Response {
                    status: response.get_status(),
                    headers: read_headers(response.get_headers().unwrap()),
                    body: response.has_body().then(|| read_body(response.get_body().unwrap())),
                }
            }
            Self::Failure(_) => Self::Failure(read_error(message.get_root().unwrap())),
            Self::ObjectInfo { .. } => {
                let info: wire::object_info::Reader<'_> = message.get_root().unwrap();
                let name = info.has_name().then(|| info.get_name().unwrap());
                Self::ObjectInfo {
                    id: info.get_id().unwrap().to_vec(),
                    name: name.map(|name| name.to_string().unwrap()),
                    has_stored_data: info.get_has_stored_data(),
                }
            }
            Self::SendText(_) => {
                let params: wire::web_socket::send_text_params::Reader<'_> =
                    message.get_root().unwrap();
                Self::SendText(params.get_text().unwrap().to_string().unwrap())
            }
            Self::SendBinary(_) => {
                let params: wire::web_socket::send_binary_params::Reader<'_> =
                    message.get_root().unwrap();
                Self::SendBinary(params.get_bytes().unwrap().to_vec())
            }
            Self::SendPart(_) => {
                let params: wire::web_socket::send_part_params::Reader<'_> =
                    message.get_root().unwrap();
                Self::SendPart(params.get_bytes().unwrap().to_vec())
            }
            Self::Close { .. } => {
                let params: wire::web_socket::close_params::Reader<'_> =
                    message.get_root().unwrap();
                let reason = params.get_reason().unwrap().to_string().unwrap();
                Self::Close { code: params.get_code(), reason }
            }
        }
    }
}

fn write_headers(mut to: capnp::struct_list::Builder<'_, wire::header::Owned>, headers: &Headers) {
    for (i, (name, value)) in headers.iter().enumerate() {
        let mut header = to.reborrow().get(i as u32);
        header.set_name(name);
        header.set_value(value);
    }
}

fn read_headers(from: capnp::struct_list::Reader<'_, wire::header::Owned>) -> Headers {
    let name = |header: wire::header::Reader<'_>| header.get_name().unwrap().to_string().unwrap();
    from.iter().map(|header| (name(header), header.get_value().unwrap().to_vec())).collect()
}

fn write_body(mut to: wire::body::Builder<'_>, body: &Body) {
    to.set_prefix(&body.prefix);
    match body.bytes {
        Some(bytes) => to.get_length().set_bytes(bytes),
        None => to.get_length().set_unknown(()),
    }
}

fn read_body(from: wire::body::Reader<'_>) -> Body {
    assert!(!from.has_rest(), "a golden message holds no capabilities");
    let bytes = match from.get_length().which().unwrap() {
        wire::body::length::Bytes(bytes) => Some(bytes),
        wire::body::length::Unknown(()) => None,
    };
    Body { prefix: from.get_prefix().unwrap().to_vec(), bytes }
}

fn write_error(mut to: wire::error::Builder<'_>, error: &Error) {
    let (_, kind) = KINDS.into_iter().find(|(ours, _)| *ours == error.kind).unwrap();
    to.set_kind(kind);
    to.set_message(&error.message);
    to.set_remote(error.remote);
    to.set_retryable(error.retryable);
    to.set_overloaded(error.overloaded);
    to.set_reset(error.reset);
    to.set_delivered(error.delivered);
}

fn read_error(from: wire::error::Reader<'_>) -> Error {
    let wire_kind = from.get_kind().unwrap();
    let (kind, _) = KINDS.into_iter().find(|(_, theirs)| *theirs == wire_kind).unwrap();
    let mut error = Error::new(kind, from.get_message().unwrap().to_string().unwrap());
    error.remote = from.get_remote();
    error.retryable = from.get_retryable();
    error.overloaded = from.get_overloaded();
    error.reset = from.get_reset();
    error.delivered = from.get_delivered();
    error
}

const KINDS: [(Kind, wire::error::Kind); Kind::ALL.len()] = [
    (Kind::Failed, wire::error::Kind::Failed),
    (Kind::Disconnected, wire::error::Kind::Disconnected),
    (Kind::Overloaded, wire::error::Kind::Overloaded),
    (Kind::Unimplemented, wire::error::Kind::Unimplemented),
    (Kind::InvalidId, wire::error::Kind::InvalidId),
    (Kind::WrongNamespace, wire::error::Kind::WrongNamespace),
    (Kind::NoSuchNamespace, wire::error::Kind::NoSuchNamespace),
    (Kind::NoSuchObject, wire::error::Kind::NoSuchObject),
    (Kind::InvalidRequest, wire::error::Kind::InvalidRequest),
    (Kind::Truncated, wire::error::Kind::Truncated),
    (Kind::Timeout, wire::error::Kind::Timeout),
];

/// Writes a golden message where there is none, on demand. One that exists is never overwritten: bytes
/// that changed mean that the contract broke.
#[expect(clippy::disallowed_methods, reason = "the developer asks by the environment")]
fn write_if_asked(path: &Path, bytes: &[u8]) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() && !path.exists() {
        std::fs::create_dir_all(golden()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}

/// Returns the parse of the schema by the `capnp` tool; none where the tool isn't installed.
fn parse() -> Option<Vec<u8>> {
    let output = Command::new("capnp")
        .args(["compile", "-o-", "--src-prefix=schema"])
        .args(SCHEMA.map(|name| format!("schema/{name}")))
        .current_dir(root())
        .env_remove("PWD")
        .output()
        .ok()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(output.stdout)
}

/// Returns the generated code by file name.
fn generate(name: &str, request: &[u8]) -> BTreeMap<String, String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("contract").join(name);
    drop(std::fs::remove_dir_all(&folder));
    std::fs::create_dir_all(&folder).unwrap();
    capnpc::codegen::CodeGenerationCommand::new().output_directory(&folder).run(request).unwrap();
    let files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    files.map(|path| (name(&path), std::fs::read_to_string(&path).unwrap())).collect()
}

/// Returns each `name @ordinal` of a schema's text. Comments run from `#` to the end of the line.
fn declared(text: &str) -> Vec<(String, u16)> {
    let code = text.lines().map(|line| line.split('#').next().unwrap());
    let words: Vec<&str> = code.flat_map(str::split_whitespace).collect();
    let ordinal = |word: &str| word.strip_prefix('@')?.trim_end_matches(';').parse().ok();
    let pairs = words.windows(2);
    pairs.filter_map(|pair| Some((pair[0].to_owned(), ordinal(pair[1])?))).collect()
}

/// Returns the name of the file that declares the node `id`; none for those that are made up (the
/// parameters of methods) and for those of files that are merely imported.
fn file_of<'a>(
    scopes: &BTreeMap<u64, u64>,
    files: &'a BTreeMap<u64, String>,
    mut id: u64,
) -> Option<&'a str> {
    while !files.contains_key(&id) {
        id = *scopes.get(&id)?;
    }
    files.get(&id).map(String::as_str)
}

/// Returns the names and ordinals that a node declares itself.
fn ordinals(node: node::Reader<'_>) -> Vec<(String, u16)> {
    let name = |name: capnp::Result<capnp::text::Reader<'_>>| name.unwrap().to_string().unwrap();
    match node.which().unwrap() {
        node::Struct(group) => {
            let fields = group.get_fields().unwrap().into_iter();
            let explicit = |field: field::Reader<'_>| match field.get_ordinal().which().unwrap() {
                field::ordinal::Explicit(ordinal) => Some((name(field.get_name()), ordinal)),
                field::ordinal::Implicit(()) => None,
            };
            fields.filter_map(explicit).collect()
        }
        node::Enum(group) => {
            let names = group.get_enumerants().unwrap().into_iter();
            names.zip(0..).map(|(one, ordinal)| (name(one.get_name()), ordinal)).collect()
        }
        node::Interface(group) => {
            let methods = group.get_methods().unwrap().into_iter();
            methods.zip(0..).map(|(one, ordinal)| (name(one.get_name()), ordinal)).collect()
        }
        _ => Vec::new(),
    }
}

fn compiled() -> Vec<u8> {
    std::fs::read(schema().join("compiled.bin")).unwrap()
}

fn golden() -> PathBuf {
    root().join("tests/data/golden")
}

fn schema() -> PathBuf {
    root().join("schema")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Golden messages of a type that has grown since: still read, but written longer today.
const OUTGROWN: &[&str] = &[];

const REGENERATE: &str = "regenerate schema/compiled.bin, as CONTRIBUTING.md says";
const UPDATE: &str = "for a new message run the test once with UPDATE_GOLDEN=1";
