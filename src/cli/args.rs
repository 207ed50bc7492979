//! What can be said on the command line.

use std::ffi::OsString;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use http::{HeaderName, HeaderValue, Method};

use super::input::Data;
use crate::config::HttpAddress;
use crate::id::ObjectId;
use crate::stub::Address;

/// Self-hosted durable objects as capabilities.
#[derive(Debug, Parser)]
#[command(name = "stubborn", version, after_help = EXAMPLES, arg_required_else_help = true)]
#[command(disable_help_subcommand = true)]
pub struct CommandLine {
    #[command(subcommand)]
    pub command: Command,
}

/// The commands. What is added gets a file of its own and a line in `program.rs`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs a server
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(Serve),
    /// Sends a request to an object and prints the answer
    #[command(after_help = FETCH_EXAMPLES, override_usage = FETCH_USAGE)]
    Fetch(Fetch),
    /// Prints the id of an object
    #[command(after_help = ID_EXAMPLES)]
    Id(Id),
    /// Lists the namespaces of a server: name and class
    #[command(after_help = NAMESPACES_EXAMPLES)]
    Namespaces(Connect),
    /// Lists the objects of a namespace: id, and name where it has one
    #[command(after_help = OBJECTS_EXAMPLES)]
    Objects(Objects),
    /// Shows what is stored of an object, while a server runs or not
    #[command(after_help = STORAGE_EXAMPLES)]
    Storage(Storage),
    /// Copies a data directory, while a server runs on it or not
    #[command(after_help = BACKUP_EXAMPLES)]
    Backup(Backup),
    /// Makes a data directory of a backup
    #[command(after_help = RESTORE_EXAMPLES)]
    Restore(Restore),
    /// Looks for damage in a data directory
    #[command(after_help = VERIFY_EXAMPLES)]
    Verify(Verify),
    /// Measures fetches per second beside floors: a bare capnp-rpc echo, a plain TCP echo
    #[command(after_help = BENCH_EXAMPLES)]
    Bench(crate::bench::Args),
    /// Prints a script that completes commands in a shell
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// Which server to ask.
#[derive(Args, Clone, Debug)]
pub struct Connect {
    /// The server: HOST:PORT or unix:PATH
    #[arg(long, value_name = "ADDR", env = "STUBBORN_CONNECT", default_value = "127.0.0.1:7400")]
    pub connect: Address,
}

#[derive(Args, Debug)]
pub struct Serve {
    /// Where to listen: HOST:PORT (port 0 takes a free one) or unix:PATH; may be repeated [default:
    /// 127.0.0.1:7400]
    #[arg(long, value_name = "ADDR")]
    pub listen: Vec<Address>,
    /// Where objects are stored [default: ./stubborn-data]
    #[arg(long, value_name = "DIR", conflicts_with = "in_memory")]
    pub data: Option<PathBuf>,
    /// Stores nothing on disk: what objects store is gone with the server
    #[arg(long)]
    pub in_memory: bool,
    /// Where to serve HTTP: HOST:PORT, unix:PATH, or `none`; may be repeated [default: 127.0.0.1:7480, where
    /// nothing says where to listen]
    #[arg(long, value_name = "ADDR")]
    pub http: Vec<HttpAddress>,
    /// How many threads run objects [default: one for each core]
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// The configuration; docs/configuration.md describes it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What to log on standard error, as `info` or `stubborn=debug`
    #[arg(long, value_name = "FILTER", env = "STUBBORN_LOG", default_value = "info")]
    pub log: String,
}

/// Which data directory to look into.
const DATA: &str = "./stubborn-data";

#[derive(Args, Debug)]
pub struct Storage {
    /// The namespace
    pub namespace: String,
    /// The object's name
    #[arg(required_unless_present = "id")]
    pub name: Option<String>,
    /// The object with this id
    #[arg(long, value_name = "HEX", conflicts_with = "name")]
    pub id: Option<ObjectId>,
    /// Prints the value of this key
    #[arg(long, value_name = "KEY", group = "what")]
    pub get: Option<String>,
    /// Prints all keys and values
    #[arg(long, group = "what")]
    pub list: bool,
    /// Runs statements on the object's SQL database and prints the last one's rows; what they change is
    /// forgotten
    #[arg(long, value_name = "STATEMENT", group = "what")]
    pub sql: Option<String>,
    /// The data directory
    #[arg(long, value_name = "DIR", default_value = DATA)]
    pub data: PathBuf,
    /// What the namespace's ids are derived from [default: its name]
    #[arg(long, value_name = "KEY")]
    pub unique_key: Option<String>,
}

#[derive(Args, Debug)]
pub struct Backup {
    /// Where the copy goes: a folder that is not there, or empty
    pub to: PathBuf,
    /// The data directory
    #[arg(long, value_name = "DIR", default_value = DATA)]
    pub data: PathBuf,
}

#[derive(Args, Debug)]
pub struct Restore {
    /// A folder that `stubborn backup` made
    pub backup: PathBuf,
    /// The data directory: a folder that is not there, or empty
    #[arg(long, value_name = "DIR", default_value = DATA)]
    pub data: PathBuf,
}

#[derive(Args, Debug)]
pub struct Verify {
    /// The data directory; no server runs on it
    #[arg(long, value_name = "DIR", default_value = DATA)]
    pub data: PathBuf,
}

#[derive(Args, Debug)]
pub struct Fetch {
    /// The namespace
    pub namespace: String,
    /// The object's name (neither with --id nor with --new), and the url: http://ANY/PATH
    #[arg(value_names = ["NAME", "URL"], num_args = 1..=2, required = true)]
    pub target: Vec<String>,
    /// The request's method [default: GET, with -d POST]
    #[arg(short = 'X', long, value_name = "METHOD")]
    pub method: Option<Method>,
    /// A header; may be repeated
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header)]
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body: text, @FILE, or - for standard input
    #[arg(short = 'd', long, value_name = "BODY|@FILE|-", allow_hyphen_values = true)]
    pub data: Option<OsString>,
    /// Prints the status and the headers before the body
    #[arg(short = 'i', long)]
    pub include: bool,
    /// The object with this id
    #[arg(long, value_name = "HEX", conflicts_with = "new")]
    pub id: Option<ObjectId>,
    /// A new object, whose id goes to standard error
    #[arg(long)]
    pub new: bool,
    #[command(flatten)]
    pub server: Connect,
}

impl Fetch {
    /// Returns where the body comes from.
    pub fn data(&self) -> Option<Data> {
        self.data.clone().map(Data::from)
    }
}

#[derive(Args, Debug)]
pub struct Id {
    /// The namespace
    pub namespace: String,
    #[command(flatten)]
    pub which: Which,
    /// Computes the id from the namespace's key, without a server
    #[arg(long, value_name = "KEY")]
    pub unique_key: Option<String>,
    #[command(flatten)]
    pub server: Connect,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub struct Which {
    /// The id that belongs to this name
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub name: Option<String>,
    /// This id, once it is proved to be of the namespace
    #[arg(long, value_name = "H")]
    pub hex: Option<String>,
    /// A new random id
    #[arg(long)]
    pub unique: bool,
}

#[derive(Args, Debug)]
pub struct Objects {
    /// The namespace
    pub namespace: String,
    /// Lists at most N objects [default: all of them]
    #[arg(long, value_name = "N")]
    pub limit: Option<NonZeroU32>,
    /// Goes on where an earlier listing ended
    #[arg(long, value_name = "C")]
    pub cursor: Option<String>,
    /// Prints JSON: {"objects": [{"id", "name", "hasStoredData"}], "cursor"}
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub server: Connect,
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("write it as `name: value`")?;
    let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|error| error.to_string())?;
    let value = HeaderValue::from_str(value.trim()).map_err(|error| error.to_string())?;
    Ok((name, value))
}

const FETCH_USAGE: &str = "stubborn fetch [OPTIONS] <NAMESPACE> <NAME> <URL>
       stubborn fetch [OPTIONS] <NAMESPACE> <URL> <--id <HEX>|--new>";

const EXAMPLES: &str = "\
Examples:
  stubborn serve
  stubborn fetch COUNTER global http://do/ -X POST

Exit status: 0 done; 1 the object failed or answered 4xx or 5xx; 2 bad usage; 3 could not be reached.";

const SERVE_EXAMPLES: &str = "\
Prints one line `listening rpc=ADDR http=ADDR` when it is ready. SIGTERM or ctrl-c stops it once the calls under
way are answered; a second one stops it at once.

Examples:
  stubborn serve
  stubborn serve --data /var/lib/stubborn
  stubborn serve --in-memory --listen 127.0.0.1:0 --threads 4
  stubborn serve --http 127.0.0.1:8080
  stubborn serve --http none
  stubborn serve --listen 127.0.0.1:7400 --listen unix:/run/stubborn.sock
  stubborn serve --config stubborn.toml";

const FETCH_EXAMPLES: &str = "\
Examples:
  stubborn fetch COUNTER global http://do/
  stubborn fetch COUNTER global 'http://do/?by=5' -X POST
  stubborn fetch KV files http://do/photo -X PUT -d @photo.jpg -H 'content-type: image/jpeg'
  echo hello | stubborn fetch ROOM lobby 'http://do/?from=ann' -d -
  stubborn fetch PROBE --new http://do/whoami -i

Exit status: 0 for 2xx and 3xx; 1 for an object's error, 4xx and 5xx; 2 bad usage; 3 could not be
reached.";

const ID_EXAMPLES: &str = "\
Examples:
  stubborn id COUNTER --name global
  stubborn id COUNTER --unique
  stubborn id COUNTER --hex \"$(stubborn id COUNTER --name global)\"
  stubborn id COUNTER --name global --unique-key COUNTER";

const NAMESPACES_EXAMPLES: &str = "\
Examples:
  stubborn namespaces
  stubborn namespaces --connect unix:/run/stubborn.sock";

const OBJECTS_EXAMPLES: &str = "\
Examples:
  stubborn objects COUNTER
  stubborn objects COUNTER --limit 100 --json
  stubborn objects COUNTER --limit 100 --cursor CURSOR";

const STORAGE_EXAMPLES: &str = "\
Examples:
  stubborn storage COUNTER global
  stubborn storage COUNTER global --list
  stubborn storage PROBE x --get greeting
  stubborn storage PROBE x --sql 'SELECT name, sql FROM sqlite_schema'";

const BACKUP_EXAMPLES: &str = "\
Examples:
  stubborn backup /backups/monday
  stubborn backup /backups/monday --data /var/lib/stubborn";

const RESTORE_EXAMPLES: &str = "\
Examples:
  stubborn restore /backups/monday --data /var/lib/stubborn";

const VERIFY_EXAMPLES: &str = "\
Examples:
  stubborn verify --data /var/lib/stubborn

Exit status: 0 it is whole; 1 something is damaged: each damage is a line.";

const BENCH_EXAMPLES: &str = "\
Examples:
  stubborn bench --quick
  stubborn bench --pin --json report.json
  stubborn bench --in-flight 64 --body-bytes 100 --repeats 5

The servers are this program once more, on free ports of loopback. `cargo bench` measures a gRPC echo too.";

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  stubborn completions bash > /etc/bash_completion.d/stubborn
  stubborn completions zsh > ~/.zfunc/_stubborn";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_every_command_shows_examples() {
        CommandLine::command().debug_assert();
        for command in CommandLine::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Examples:"), "{}", command.get_name());
        }
    }

    #[test]
    fn a_header_is_a_name_and_a_value() {
        let (name, value) = header("X-A:  b: c ").unwrap();
        assert_eq!((name.as_str(), value.as_bytes()), ("x-a", &b"b: c"[..]));
        for text in ["", "x", "a b: c", ": c", "x: a\nb"] {
            assert!(header(text).is_err(), "{text:?}");
        }
    }
}
