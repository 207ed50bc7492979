//! The real program: that all is connected. What each part promises is tested where the part is.

// So that lints know all of this for tests, helpers included.
#![cfg(test)]

mod common;
#[path = "process/stored.rs"]
mod stored;

use std::io::{Read, Write};

use common::{Folder, Server, start, stubborn, told};

#[test]
fn a_server_counts_keeps_lists_and_reflects_from_the_command_line() {
    let server = Server::start();
    assert_eq!(server.ready, format!("listening rpc={}\n", server.address));
    assert!(server.address.starts_with("127.0.0.1:") && !server.address.ends_with(":0"));
    let global = ["fetch", "COUNTER", "global", "http://do/", "-X", "POST"];
    assert_eq!((server.good(&global), server.good(&global)), ("1".into(), "2".into()));
    let kv = |rest: &[&str]| server.good(&[&["fetch", "KV", "files"], rest].concat());
    assert_eq!(kv(&["http://do/a", "-X", "PUT", "-d", "hello", "-H", "Content-Type: x/y"]), "");
    assert_eq!(
        kv(&["http://do/a", "-i"]),
        "HTTP 200\ncontent-type: x/y\ncontent-security-policy: sandbox\nx-content-type-options: nosniff\n\nhello"
    );
    assert_eq!(kv(&["http://do/"]), "a\n");
    let said = server.good(&["fetch", "ROOM", "lobby", "http://do/?from=ann", "-d", "hi"]);
    assert_eq!(said, "{\"number\":1,\"from\":\"ann\",\"text\":\"hi\"}\n");
    assert_eq!(server.good(&["fetch", "ROOM", "lobby", "http://do/"]), said);
    let echo = ["fetch", "PROBE", "p", "http://do/echo", "-X", "PUT", "-H", "a: 1", "-H", "a:2"];
    let echo = server.good(&echo);
    assert!(echo.contains(r#""headers":[["a","1"],["a","2"]]"#), "{echo}");
    let listed = server.good(&["namespaces"]);
    let names: Vec<&str> = listed.lines().filter_map(|line| line.split('\t').next()).collect();
    assert_eq!(names, ["COUNTER", "KV", "PROBE", "ROOM"]);
}

#[test]
fn a_body_of_any_size_streams_from_a_file_and_from_standard_input() {
    let server = Server::start();
    let folder = Folder::new("stream");
    let file = folder.file("body");
    let bytes = 20_000_000;
    let (stream, upload) =
        (format!("http://do/stream?bytes={bytes}"), ["fetch", "PROBE", "p", "http://do/upload"]);
    let mut command = server.command(&["fetch", "PROBE", "p", &stream]);
    let status = command.stdout(std::fs::File::create(&file).unwrap()).status().unwrap();
    assert!(status.success());
    let content = std::fs::read(&file).unwrap();
    assert_eq!(content.len(), bytes);
    assert!(content.iter().enumerate().all(|(i, byte)| usize::from(*byte) == i % 251));
    let of_file = server.good(&[&upload[..], &["-d", &format!("@{}", file.display())]].concat());
    let (status, of_stdin, _) = server.run_with(&[&upload[..], &["-d", "-"]].concat(), &content);
    assert_eq!((status, &of_stdin), (0, &of_file));
    assert!(of_file.starts_with(&format!("{{\"bytes\":{bytes},\"sha256\":\"")), "{of_file}");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let server = Server::start();
    let url = "http://do/stream?bytes=1000000000000";
    let mut fetch = start(&mut server.command(&["fetch", "PROBE", "p", url]));
    let mut first = [0; 10];
    fetch.stdout().read_exact(&mut first).unwrap();
    assert_eq!(first, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    let (status, _, errors) = fetch.end();
    assert_eq!((status, errors.as_str()), (Some(0), ""));
}

#[test]
fn the_exit_status_and_standard_error_tell_who_is_to_act() {
    let server = Server::start();
    let probe = |path: &str| server.run(&["fetch", "PROBE", "p", &format!("http://do{path}")]);
    for (path, status, errors) in [
        ("/status?code=200", 0, &[][..]),
        ("/status?code=302", 0, &[]),
        ("/status?code=404", 1, &[]),
        ("/status?code=503", 1, &[]),
        ("/throw?message=boom", 1, &["stubborn: failed: boom\n", "flags: remote delivered"]),
        ("/panic?message=boom", 1, &["the object panicked: boom", "remote reset delivered"]),
        ("/call?namespace=PROBE&name=q&url=http://do/throw?message=far", 1, &["failed: far"]),
    ] {
        let (got, _, told) = probe(path);
        assert_eq!(got, status, "{path}: {told}");
        assert!(errors.iter().all(|text| told.contains(text)), "{path}: {told}");
        assert_eq!(told.is_empty(), errors.is_empty(), "{path}: {told}");
    }
    let (status, _, told) = server.run(&["fetch", "NONE", "x", "http://do/"]);
    assert_eq!(status, 1);
    assert!(told.starts_with("stubborn: no such namespace: ") && told.contains("NONE"), "{told}");
    let (status, out, _) = server.run(&["fetch", "KV", "x", "http://do/none", "-i"]);
    assert_eq!(status, 1);
    assert!(out.starts_with("HTTP 404\n") && out.ends_with("there is no key \"none\""), "{out}");
}

#[test]
fn a_wrong_command_is_told_so_without_a_server() {
    let id = "0".repeat(64);
    let fetch = |rest: &[&'static str]| [&["fetch", "KV"][..], rest].concat();
    for (args, named) in [
        (vec![], "Usage"),
        (vec!["nonsense"], "nonsense"),
        (fetch(&["a"]), "NAME and URL"),
        (fetch(&["a", "b", "c"]), "'c'"),
        (fetch(&["a", "nowhere"]), "\"nowhere\""),
        (fetch(&["a", "ftp://do/"]), "ftp"),
        (fetch(&["a", "http://do/", "-H", "no header"]), "no header"),
        (fetch(&["a", "http://do/", "-H", "k: \u{7}"]), "--header"),
        (fetch(&["a", "http://do/", "-X", "A B"]), "A B"),
        (fetch(&["a", "http://do/", "-X", "CONNECT"]), "CONNECT"),
        (fetch(&["a", "http://do/", "-d", "@/nowhere/x"]), "/nowhere/x"),
        (fetch(&["a", "http://do/", "-d", "@/"]), "can't read /"),
        (fetch(&["a", "http://do/", "--connect", "nowhere"]), "nowhere"),
        (fetch(&["a", "http://do/", "--new"]), "no NAME"),
        (fetch(&["http://do/", "--id", "xyz"]), "xyz"),
        (vec!["fetch", "KV", "http://do/", "--new", "--id", &id], "--new"),
        (vec!["id", "KV"], "--name"),
        (vec!["id", "KV", "--name", "a", "--unique"], "--unique"),
        (vec!["id", "KV", "--hex", "xyz", "--unique-key", "k"], "xyz"),
        (vec!["objects", "KV", "--limit", "0"], "--limit"),
        (vec!["objects"], "NAMESPACE"),
        (vec!["namespaces", "--connect", "unix:"], "unix:"),
        (vec!["completions", "cobol"], "cobol"),
        (vec!["serve", "--listen", "nowhere"], "nowhere"),
        (vec!["serve", "--http", "nowhere"], "nowhere"),
        (vec!["serve", "--threads", "0"], "--threads"),
        (vec!["serve", "--config", "/nowhere/x.toml"], "/nowhere/x.toml"),
        (vec!["serve", "--log", "a=b=c"], "a=b=c"),
    ] {
        let (status, out, errors) = told(stubborn(&args).output().unwrap());
        assert_eq!((status, out.as_str()), (2, ""), "{args:?}: {errors}");
        assert!(errors.contains(named), "{args:?}: {errors}");
    }
}

#[test]
fn help_shows_examples_and_completions_name_the_commands() {
    for command in ["serve", "fetch", "id", "namespaces", "objects", "completions"] {
        let (status, out, _) = told(stubborn([command, "--help"]).output().unwrap());
        assert!(status == 0 && out.contains(&format!("  stubborn {command}")), "{out}");
    }
    let (status, out, _) = told(stubborn(["--version"]).output().unwrap());
    assert_eq!((status, out), (0, format!("stubborn {}\n", env!("CARGO_PKG_VERSION"))));
    for shell in ["bash", "zsh", "fish"] {
        let (status, out, _) = told(stubborn(["completions", shell]).output().unwrap());
        assert!(status == 0 && out.contains("namespaces"), "{shell}");
    }
}

#[test]
fn an_id_is_the_same_with_and_without_a_server_and_leads_to_the_object() {
    let server = Server::start();
    let asked = server.good(&["id", "COUNTER", "--name", "global"]);
    let computed = ["id", "COUNTER", "--name", "global", "--unique-key", "COUNTER"];
    let (status, computed, _) = told(stubborn(computed).output().unwrap());
    assert_eq!((status, &computed), (0, &asked));
    let id = asked.trim_end();
    assert_eq!((id.len(), asked.len()), (64, 65));
    assert_eq!(server.good(&["id", "COUNTER", "--hex", &id.to_uppercase()]), asked);
    server.good(&["fetch", "COUNTER", "global", "http://do/", "-X", "POST"]);
    assert_eq!(server.good(&["fetch", "COUNTER", "http://do/", "--id", id]), "1");
    let unique = ["id", "COUNTER", "--unique"];
    assert_ne!(server.good(&unique), server.good(&unique));
    let (status, _, errors) = server.run(&["id", "KV", "--hex", id]);
    assert!(status == 1 && errors.starts_with("stubborn: wrong namespace: "), "{errors}");
    let (status, _, errors) = server.run(&["id", "KV", "--hex", "xyz"]);
    assert!(status == 2 && errors.contains("xyz"), "{errors}");
    let (status, out, errors) = server.run(&["fetch", "COUNTER", "http://do/", "--new"]);
    assert_eq!((status, out.as_str()), (0, "0"));
    let id = errors.strip_prefix("id: ").unwrap().trim_end();
    assert_eq!(server.good(&["fetch", "COUNTER", "http://do/", "--id", id, "-X", "POST"]), "1");
}

#[test]
fn a_listing_comes_in_pages_that_together_are_all_objects() {
    let server = Server::start();
    for name in ["a", "b", "c", "d", "e"] {
        server.good(&["fetch", "COUNTER", name, "http://do/"]);
    }
    let all = server.good(&["objects", "COUNTER"]);
    let mut names: Vec<&str> = all.lines().filter_map(|line| line.split('\t').nth(1)).collect();
    names.sort_unstable();
    assert_eq!(names, ["a", "b", "c", "d", "e"]);
    let (mut pages, mut cursor) = (Vec::new(), String::new());
    loop {
        let mut args = vec!["objects", "COUNTER", "--json", "--limit", "2"];
        if !cursor.is_empty() {
            args.extend(["--cursor", &cursor]);
        }
        let page: serde_json::Value = serde_json::from_str(&server.good(&args)).unwrap();
        pages.push(page["objects"].as_array().unwrap().clone());
        match page["cursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 1]);
    let paged: Vec<String> = pages
        .concat()
        .iter()
        .map(|object| {
            format!("{}\t{}\n", object["id"].as_str().unwrap(), object["name"].as_str().unwrap())
        })
        .collect();
    assert_eq!(paged.concat(), all);
    let (status, out, errors) = server.run(&["objects", "COUNTER", "--limit", "3"]);
    assert_eq!((status, out.lines().count()), (0, 3));
    assert!(errors.contains("--cursor "), "{errors}");
    assert_eq!(server.good(&["objects", "KV", "--json"]), "{\"objects\":[],\"cursor\":null}\n");
}

#[test]
fn an_address_that_is_taken_is_refused_and_a_stale_socket_is_not() {
    let folder = Folder::new("listen");
    let socket = format!("unix:{}", folder.file("socket").display());
    let mut server = Server::with(&["--listen", "127.0.0.1:0", "--listen", &socket]);
    assert_eq!(server.ready, format!("listening rpc={} rpc={socket}\n", server.address));
    let tcp = server.address.clone();
    for taken in [&tcp, &socket] {
        let (status, out, errors) = told(stubborn(["serve", "--listen", taken]).output().unwrap());
        assert_eq!((status, out.as_str()), (1, ""), "{errors}");
        assert!(errors.contains(taken) && errors.contains("another server"), "{errors}");
        server.address.clone_from(taken);
        assert_eq!(server.good(&["fetch", "COUNTER", "x", "http://do/"]), "0", "it serves on");
    }
    server.process.signal("KILL");
    server.process.end();
    assert!(folder.file("socket").exists(), "a killed server leaves its socket behind");
    let server = Server::with(&["--listen", &socket]);
    assert_eq!(server.good(&["fetch", "COUNTER", "x", "http://do/", "-X", "POST"]), "1");
    server.process.signal("TERM");
    assert_eq!(server.process.end().0, Some(0));
    assert!(!folder.file("socket").exists(), "a stopped server takes its socket away");
    std::fs::write(folder.file("file"), "precious").unwrap();
    let file = format!("unix:{}", folder.file("file").display());
    let (status, _, errors) = told(stubborn(["serve", "--listen", &file]).output().unwrap());
    assert!(status == 1 && errors.contains("not a socket"), "{errors}");
    assert_eq!(std::fs::read_to_string(folder.file("file")).unwrap(), "precious");
}

/// Says one request over HTTP as curl would, and returns all of the answer.
fn curl(address: &str, request: &str, headers: &str, body: &str) -> String {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let length = body.len();
    let head = format!("{request} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}");
    write!(stream, "{head}Content-Length: {length}\r\n\r\n{body}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn the_objects_of_the_command_line_are_those_of_http() {
    let server = Server::with(&["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
    let http = server.http();
    assert_eq!(server.ready, format!("listening rpc={} http={http}\n", server.address));
    assert!(curl(http, "POST /COUNTER/global", "", "").ends_with("\r\n\r\n1"));
    assert_eq!(server.good(&["fetch", "COUNTER", "global", "http://do/", "-X", "POST"]), "2");
    assert!(
        curl(http, "PUT /KV/files/a", "Content-Type: x/y\r\n", "hello").starts_with("HTTP/1.1 204")
    );
    assert_eq!(server.good(&["fetch", "KV", "files", "http://do/a"]), "hello");
    let id = server.good(&["id", "COUNTER", "--name", "global"]);
    let by_id = format!("GET /COUNTER/id:{}/", id.trim_end());
    assert!(curl(http, &by_id, "", "").ends_with("\r\n\r\n2"));
    let echo = curl(http, "GET /PROBE/p/echo?a=b", "", "");
    assert!(echo.contains(&format!("\"url\":\"http://{http}/echo?a=b\"")), "{echo}");
    let thrown = curl(http, "GET /PROBE/p/throw?message=boom", "", "");
    assert!(
        thrown.starts_with("HTTP/1.1 500") && thrown.contains(r#""message":"boom"}}"#),
        "{thrown}"
    );
    let listed = curl(http, "GET /client/v4/accounts/a/workers/durable_objects/namespaces", "", "");
    assert!(listed.contains(r#""name":"COUNTER","script":"stubborn""#), "{listed}");
}

#[test]
fn an_address_of_http_that_is_taken_is_told_with_the_way_out() {
    let server = Server::with(&["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
    let taken = server.http();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--http", taken];
    let (status, out, errors) = told(stubborn(serve).output().unwrap());
    assert_eq!((status, out.as_str()), (1, ""), "{errors}");
    assert!(
        [taken, "another server", "--http none"].iter().all(|told| errors.contains(told)),
        "{errors}"
    );
    let none = Server::with(&["--listen", "127.0.0.1:0", "--http", "none"]);
    assert!(!none.ready.contains("http="), "{}", none.ready);
}

#[test]
fn what_is_configured_for_http_holds() {
    let folder = Folder::new("gateway");
    let (file, tokens) = (folder.file("stubborn.toml"), folder.file("tokens"));
    let socket = folder.file("http");
    std::fs::write(&tokens, "one\ntwo\n").unwrap();
    let text = format!(
        "listen = [\"127.0.0.1:0\"]\nhttp = [\"127.0.0.1:0\", \"unix:{}\"]\n\
         [namespaces.OPEN]\nclass = \"Probe\"\nexpose = true\n[namespaces.SHUT]\nclass = \"Probe\"\n\
         [gateway]\nerror_messages = false\napi_tokens_file = \"{}\"\n\
         [[gateway.routes]]\nhost = \"*.shut.example\"\nnamespace = \"SHUT\"",
        socket.display(),
        tokens.display()
    );
    std::fs::write(&file, text).unwrap();
    let server = Server::with(&["--config", file.to_str().unwrap()]);
    assert!(server.ready.contains(&format!("http=unix:{}", socket.display())), "{}", server.ready);
    let http = server.http();
    assert!(curl(http, "GET /OPEN/a/whoami", "", "").contains(r#""name":"a""#));
    assert!(curl(http, "GET /SHUT/a/whoami", "", "").starts_with("HTTP/1.1 404"));
    let thrown = curl(http, "GET /OPEN/a/throw?message=secret", "", "");
    assert!(thrown.starts_with("HTTP/1.1 500") && !thrown.contains("secret"), "{thrown}");
    let list = "GET /client/v4/accounts/a/workers/durable_objects/namespaces";
    assert!(curl(http, list, "", "").starts_with("HTTP/1.1 401"));
    assert!(curl(http, list, "Authorization: Bearer two\r\n", "").contains("SHUT"));
    let mut stream = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    stream
        .write_all(b"GET /whoami HTTP/1.1\r\nHost: ann.shut.example\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains(r#""name":"ann""#), "{answer}");
    std::fs::remove_file(&tokens).unwrap();
    let (status, _, errors) =
        told(stubborn(["serve", "--config", file.to_str().unwrap()]).output().unwrap());
    assert!(status == 2 && errors.contains("api_tokens_file"), "{errors}");
}

#[test]
fn a_file_configures_a_server_and_flags_beat_it() {
    let folder = Folder::new("config");
    let file = folder.file("stubborn.toml");
    let socket = format!("unix:{}", folder.file("socket").display());
    let text = format!(
        "listen = [\"{socket}\"]\n[namespaces.CHAT]\nclass = \"Room\"\nunique_key = \"secret\"\n\
         [limits]\nurl_bytes_max = \"64B\""
    );
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    let server = Server::with(&["--config", file]);
    assert_eq!(server.address, socket);
    assert!(server.good(&["namespaces"]).starts_with("CHAT\t"));
    let id = server.good(&["id", "CHAT", "--name", "a"]);
    assert_eq!(server.good(&["id", "CHAT", "--name", "a", "--unique-key", "secret"]), id);
    let long = format!("http://do/?{}", "x".repeat(64));
    let (status, _, errors) = server.run(&["fetch", "CHAT", "a", &long]);
    assert!(status == 2 && errors.contains("64"), "{errors}");
    drop(server);
    let server = Server::with(&["--config", file, "--listen", "127.0.0.1:0"]);
    assert!(server.address.starts_with("127.0.0.1:"));
    std::fs::write(file, "[limits]\npeer_timeout = \"5x\"").unwrap();
    let (status, _, errors) = told(stubborn(["serve", "--config", file]).output().unwrap());
    assert_eq!(status, 2);
    assert!(["stubborn.toml", "peer_timeout", "5x"].iter().all(|told| errors.contains(told)));
    assert!(folder.path().exists());
}

#[test]
fn a_server_that_is_told_to_stop_answers_what_is_under_way() {
    for signal in ["TERM", "INT"] {
        let server = Server::start();
        let fetch = server.begin_to_sleep("1000");
        server.process.signal(signal);
        let (status, out, errors) = fetch.end();
        assert_eq!((status, out.as_str()), (Some(0), "slept 1000 ms"), "{signal}: {errors}");
        assert_eq!(server.process.end().0, Some(0));
    }
}

#[test]
fn a_server_that_is_told_to_stop_waits_no_longer_than_it_may() {
    let folder = Folder::new("drain");
    let file = folder.file("stubborn.toml");
    std::fs::write(&file, "listen = [\"127.0.0.1:0\"]\n[limits]\ndrain_timeout = \"100ms\"")
        .unwrap();
    let server = Server::with(&["--config", file.to_str().unwrap()]);
    let fetch = server.begin_to_sleep("600000");
    server.process.signal("TERM");
    let (status, _, errors) = fetch.end();
    assert!(status == Some(3) && errors.starts_with("stubborn: disconnected: "), "{errors}");
    assert_eq!(server.process.end().0, Some(0));
}

#[test]
fn a_server_that_is_told_twice_to_stop_does_so_at_once() {
    let server = Server::start();
    let fetch = server.begin_to_sleep("600000");
    server.process.signal("TERM");
    server.process.signal("INT");
    assert_eq!(server.process.end().0, Some(1));
    assert_eq!(fetch.end().0, Some(3));
}

#[test]
fn a_server_that_is_killed_can_not_be_reached() {
    let Server { process, address, .. } = {
        let server = Server::start();
        let fetch = server.begin_to_sleep("600000");
        server.process.signal("KILL");
        let (status, _, errors) = fetch.end();
        assert_eq!(status, Some(3), "{errors}");
        assert!(errors.contains("flags: retryable delivered"), "{errors}");
        server
    };
    process.end();
    for args in [
        &["fetch", "COUNTER", "global", "http://do/"][..],
        &["id", "COUNTER", "--unique"],
        &["namespaces"],
        &["objects", "COUNTER"],
    ] {
        let command = [args, &["--connect", &address]].concat();
        let (status, out, errors) = told(stubborn(command).output().unwrap());
        assert_eq!((status, out.as_str()), (3, ""), "{args:?}: {errors}");
        assert!(errors.contains(&address) && errors.contains("stubborn serve"), "{errors}");
    }
    let (status, ..) =
        told(stubborn(["namespaces", "--connect", "unix:/nowhere/x"]).output().unwrap());
    assert_eq!(status, 3);
}
