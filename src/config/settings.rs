//! What a server does: the file and the flags, put together.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::file::{File, FileAddress};
use super::gateway::{HttpAddress, add_tokens};
use crate::demo::{self, DemoClass};
use crate::error::{Error, Result};
use crate::gateway::GatewaySettings;
use crate::limits::Limits;
use crate::server::{Server, ServerBuilder};
use crate::stub::Address;

/// What the command line says of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// The file to read.
    pub config: Option<PathBuf>,
    /// Where to listen; empty: as the file says.
    pub listen: Vec<Address>,
    /// Where to serve HTTP; empty: as the file says.
    pub http: Vec<HttpAddress>,
    /// How many threads run objects.
    pub threads: Option<NonZeroUsize>,
    /// Where objects are stored.
    pub data: Option<PathBuf>,
    /// Whether nothing is stored on disk.
    pub in_memory: bool,
}

/// What a server does.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it listens.
    pub listen: Vec<Address>,
    /// Where it serves HTTP.
    pub http: Vec<Address>,
    /// How it serves HTTP.
    pub gateway: GatewaySettings,
    /// Which file has tokens for that, beside those that are told.
    pub api_tokens_file: Option<PathBuf>,
    /// How many threads run objects; none: one for each core.
    pub threads: Option<NonZeroUsize>,
    /// Its namespaces; none: those of the demonstration.
    pub namespaces: Option<Vec<NamespaceSettings>>,
    /// Where its objects are stored; none: in memory.
    pub data: Option<PathBuf>,
    /// How far objects can go back; none: not at all.
    pub history: Option<Duration>,
    /// Its bounds.
    pub limits: Limits,
}

/// A namespace that is configured.
#[derive(Clone, Debug)]
pub struct NamespaceSettings {
    /// Its name.
    pub name: String,
    /// The class of its objects.
    pub class: DemoClass,
    /// What its ids are derived from.
    pub unique_key: String,
    /// Whether it is served over HTTP.
    pub expose: bool,
}

impl Settings {
    /// Reads the file that the flags name, if any, and lets the flags have their way.
    ///
    /// # Errors
    /// *invalid request*, naming the file and what is wrong in it.
    pub fn load(flags: Flags) -> Result<Self> {
        let path = flags.config.clone();
        let wrong = |error: Error| match &path {
            Some(path) => {
                let told = format!("{}: {}", path.display(), error.message);
                Error::invalid_request(told)
            }
            None => error,
        };
        let mut file = match &path {
            Some(path) => read(path).map_err(wrong)?,
            None => File::default(),
        };
        if !flags.listen.is_empty() {
            file.listen = Some(flags.listen.into_iter().map(FileAddress).collect());
        }
        if !flags.http.is_empty() {
            let addresses = flags.http.into_iter().filter_map(|address| address.0);
            file.http = Some(addresses.map(FileAddress).collect());
        }
        if flags.data.is_some() || flags.in_memory {
            file.storage.data = flags.data;
            file.storage.in_memory = Some(flags.in_memory);
        }
        file.threads = flags.threads.or(file.threads);
        Self::of(file).map_err(wrong)
    }

    fn of(file: File) -> Result<Self> {
        let http = match (file.http, &file.listen) {
            (Some(http), _) => http.into_iter().map(|address| address.0).collect(),
            (None, None) => vec![Address::Tcp(HTTP.to_owned())],
            // Who says where to listen means just that.
            (None, Some(_)) => Vec::new(),
        };
        let listen = match file.listen {
            Some(listen) => listen.into_iter().map(|address| address.0).collect(),
            None => vec![Address::Tcp(LISTEN.to_owned())],
        };
        if listen.is_empty() {
            return Err(Error::invalid_request("listen = []: a server needs an address"));
        }
        let limits = file.limits.over(Limits::default());
        limits.check()?;
        let namespaces = file.namespaces.map(|namespaces| {
            let named = namespaces.into_iter().map(|(name, namespace)| NamespaceSettings {
                unique_key: namespace.unique_key.unwrap_or_else(|| name.clone()),
                class: namespace.class.0,
                expose: namespace.expose,
                name,
            });
            named.collect()
        });
        let (data, history) = file.storage.settings()?;
        let (gateway, api_tokens_file) = file.gateway.settings()?;
        let threads = file.threads;
        Ok(Self {
            listen,
            http,
            gateway,
            api_tokens_file,
            threads,
            namespaces,
            data,
            history,
            limits,
        })
    }

    /// Returns whether anybody needs a token to list over HTTP.
    pub fn asks_for_tokens(&self) -> bool {
        self.gateway.asks_for_tokens() || self.api_tokens_file.is_some()
    }

    /// Makes the server that does this.
    ///
    /// # Errors
    /// As [`ServerBuilder::listen`]; *invalid request* where the file of tokens can't be read.
    pub fn builder(&self) -> Result<ServerBuilder> {
        let mut gateway = self.gateway.clone();
        if let Some(path) = &self.api_tokens_file {
            gateway = add_tokens(gateway, path)?;
        }
        let mut builder =
            Server::builder().limits(self.limits.clone()).gateway(gateway).history(self.history);
        if let Some(data) = &self.data {
            builder = builder.data(data);
        }
        builder = match &self.namespaces {
            None => {
                let builder = demo::namespaces(builder);
                // What anybody may play with on this machine is not for others.
                match self.http.iter().all(Address::is_private) {
                    true => demo::expose(builder),
                    false => builder,
                }
            }
            Some(namespaces) => namespaces.iter().fold(builder, |builder, namespace| {
                let NamespaceSettings { name, class, unique_key, expose } = namespace;
                let builder = builder.class(name, (class.class)(), unique_key);
                if *expose { builder.expose(name) } else { builder }
            }),
        };
        if let Some(threads) = self.threads {
            builder = builder.threads(threads);
        }
        for address in &self.listen {
            builder = builder.listen(&address.to_string())?;
        }
        for address in &self.http {
            builder = builder.http(&address.to_string())?;
        }
        Ok(builder)
    }
}

fn read(path: &Path) -> Result<File> {
    let wrong = |why: &dyn std::fmt::Display| Error::invalid_request(why.to_string());
    let text = std::fs::read_to_string(path).map_err(|error| wrong(&error))?;
    toml::from_str(&text).map_err(|error| wrong(&error.to_string().trim_end()))
}

/// Where a server listens that is told nothing: not to be reached from other machines.
const LISTEN: &str = "127.0.0.1:7400";
/// Where it serves HTTP then.
const HTTP: &str = "127.0.0.1:7480";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::limits::LIMITS;

    fn parse(text: &str) -> Result<Settings> {
        let file = toml::from_str(text).map_err(|error| Error::failed(error.to_string()))?;
        Settings::of(file)
    }

    #[test]
    fn flags_beat_the_file_and_the_file_beats_the_defaults() {
        let path = std::env::temp_dir().join(format!("stubborn-{}.toml", std::process::id()));
        let file =
            "listen = [\"[::1]:1\", \"unix:/x\"]\nthreads = 3\n[limits]\nevict_after = \"1m\"";
        std::fs::write(&path, file).unwrap();
        let of_file = Flags { config: Some(path.clone()), ..Flags::default() };
        let settings = Settings::load(of_file.clone()).unwrap();
        let listen: Vec<String> = settings.listen.iter().map(ToString::to_string).collect();
        assert_eq!(listen, ["[::1]:1", "unix:/x"]);
        assert_eq!(settings.threads, NonZeroUsize::new(3));
        assert_eq!(settings.limits.evict_after.as_secs(), 60);
        assert!(settings.namespaces.is_none());
        let threads = NonZeroUsize::new(9);
        let listen = vec!["localhost:7".parse::<Address>().unwrap()];
        let flags = Flags { threads, listen: listen.clone(), ..of_file };
        let settings = Settings::load(flags).unwrap();
        assert_eq!((settings.threads, settings.listen), (threads, listen));
        std::fs::remove_file(path).unwrap();
        let settings = Settings::load(Flags::default()).unwrap();
        assert_eq!(settings.listen, [Address::Tcp(LISTEN.into())]);
        assert_eq!(settings.http, [Address::Tcp(HTTP.into())]);
        assert_eq!((settings.threads, settings.limits), (None, Limits::default()));
    }

    #[test]
    fn http_is_served_by_default_only_where_nothing_says_where_to_listen() {
        let served = |text: &str, listen: &[&str], http: &[&str]| {
            let path = std::env::temp_dir().join(format!("stubborn-http-{}", std::process::id()));
            std::fs::write(&path, text).unwrap();
            let listen = listen.iter().map(|address| address.parse().unwrap()).collect();
            let http = http.iter().map(|address| address.parse().unwrap()).collect();
            let flags = Flags { config: Some(path.clone()), listen, http, ..Flags::default() };
            let settings = Settings::load(flags).unwrap();
            std::fs::remove_file(path).unwrap();
            settings.http.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        for (text, listen, http, told) in [
            ("", &[][..], &[][..], HTTP),
            ("threads = 1", &[], &[], HTTP),
            ("http = []", &[], &[], ""),
            ("http = [\"unix:/h\"]", &[], &[], "unix:/h"),
            ("listen = [\"a:1\"]", &[], &[], ""),
            ("listen = [\"a:1\"]\nhttp = [\"a:2\"]", &[], &[], "a:2"),
            ("http = [\"a:2\"]", &["a:1"], &[], "a:2"),
            ("", &["a:1"], &[], ""),
            ("", &["a:1"], &["a:2", "a:3"], "a:2 a:3"),
            ("http = [\"a:2\"]", &[], &["a:3"], "a:3"),
            ("http = [\"a:2\"]", &[], &["none"], ""),
        ] {
            assert_eq!(served(text, listen, http), told, "{text} {listen:?} {http:?}");
        }
    }

    #[test]
    fn a_mistake_names_the_key_and_the_value() {
        for (text, told) in [
            ("lisen = []", &["lisen", "listen"][..]),
            ("listen = []", &["listen"]),
            ("listen = [\"nowhere\"]", &["listen", "nowhere"]),
            ("threads = 0", &["threads", "0"]),
            ("[limits]\npeer_timeout = 5", &["peer_timeout", "5", "\"10s\""]),
            ("[limits]\npeer_timeout = \"5x\"", &["peer_timeout", "5x"]),
            ("[limits]\nidle_timeout = \"never\"", &["idle_timeout", "never", "none"]),
            ("[limits]\nheaders_max = -1", &["headers_max", "-1"]),
            ("[limits]\nheaders_max = \"many\"", &["headers_max", "many"]),
            ("[limits]\nurl_bytes_max = \"1kb\"", &["url_bytes_max", "1kb", "KiB"]),
            ("[limits]\nmessage_bytes_max = \"1KiB\"", &["message_bytes_max", "1024"]),
            ("[limits]\nspeed_max = 1", &["speed_max"]),
            ("[limits]\nstream_window_bytes = 0", &["stream_window_bytes = 0", "64"]),
            ("[limits]\nobject_queue_bytes_max = 511", &["object_queue_bytes_max", "4096"]),
            ("[limits]\ntransaction_bytes_max = \"0B\"", &["transaction_bytes_max", "65536"]),
            ("[namespaces.A]\nclass = \"Foo\"", &["Foo", "Counter, Kv, Room, Probe", "class"]),
            ("[namespaces.A]\nunique_key = \"x\"", &["class", "namespaces.A"]),
            ("[namespaces.A]\nclass = \"Kv\"\nkey = \"x\"", &["key", "unique_key"]),
            ("threads = ", &["threads"]),
            ("[storage]\nhistory = 5", &["history", "5", "\"10s\""]),
            ("[storage]\nfolder = \"x\"", &["folder", "data"]),
            ("[storage]\ndata = \"x\"\nin_memory = true", &["storage.data", "in_memory"]),
            ("http = [\"nowhere\"]", &["http", "nowhere"]),
            ("[gateway]\ntrusted_proxies = [\"10.0.0.0/33\"]", &["trusted_proxies", "10.0.0.0/33"]),
            ("[gateway]\napi_tokens = [\"\"]", &["gateway.api_tokens", "empty"]),
            ("[[gateway.routes]]\nhost = \"a:1\"\nnamespace = \"A\"", &["host", "a:1"]),
            ("[[gateway.routes]]\nhost = \"a\"", &["namespace"]),
            ("[gateway]\ntoken = \"x\"", &["token"]),
        ] {
            let error = parse(text).map(drop).expect_err(text).message;
            assert!(told.iter().all(|told| error.contains(told)), "{text}: {error}");
        }
    }

    #[test]
    fn a_mistake_names_the_file() {
        for name in ["/nowhere/x.toml", env!("CARGO_MANIFEST_DIR")] {
            let flags = Flags { config: Some(name.into()), ..Flags::default() };
            let error = Settings::load(flags).map(drop).unwrap_err();
            assert!(error.message.starts_with(&format!("{name}: ")), "{error}");
        }
    }

    /// Every key but those of the limits.
    const KEYS: &[&str] = &[
        "listen",
        "http",
        "threads",
        "storage.data",
        "storage.in_memory",
        "storage.history",
        "namespaces.NAME.class",
        "namespaces.NAME.unique_key",
        "namespaces.NAME.expose",
        "gateway.trusted_proxies",
        "gateway.error_messages",
        "gateway.inspector",
        "gateway.inspector_writes",
        "gateway.allowed_origins",
        "gateway.api_tokens",
        "gateway.api_tokens_file",
        "gateway.routes",
    ];

    /// Each row of the tables is `| key | default | meaning |`, both in backquotes.
    #[test]
    fn what_is_documented_parses_and_every_limit_is_documented_with_its_default() {
        let text = include_str!("../../docs/configuration.md");
        let mut documented = BTreeSet::new();
        let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | `"));
        for (key, rest) in rows {
            let (value, _) = rest.split_once('`').expect("a default in backquotes");
            let quoted = key.replace("NAME", "A");
            let of_namespace = key.starts_with("namespaces.") && key != "namespaces.NAME.class";
            let needed = if of_namespace { "namespaces.A.class = \"Kv\"\n" } else { "" };
            let settings = parse(&format!("{needed}{quoted} = {value}"))
                .unwrap_or_else(|error| panic!("{key}: {error}"));
            assert_eq!(settings.limits, Limits::default(), "the default of {key} is another");
            documented.insert(key);
        }
        let limits: Vec<String> = LIMITS.iter().map(|limit| format!("limits.{limit}")).collect();
        let keys = KEYS.iter().copied();
        let all: BTreeSet<&str> = keys.chain(limits.iter().map(String::as_str)).collect();
        assert_eq!(documented, all);
        let blocks = text.split("```toml\n").skip(1);
        let blocks: Vec<_> = blocks.map(|rest| rest.split_once("```").expect("an end").0).collect();
        assert!(!blocks.is_empty(), "there is an example");
        blocks.into_iter().for_each(|block| drop(parse(block).expect("an example parses")));
    }
}
