//! The real program on a data directory: what is stored survives, can be looked at, copied and checked.

use crate::common::{Folder, Server, stubborn, told};

/// Starts a server on the data directory `data`.
fn serve(data: &str) -> Server {
    Server::with(&["--listen", "127.0.0.1:0", "--data", data])
}

/// Runs a command without a server; returns its exit status, output and errors.
fn run(args: &[&str]) -> (i32, String, String) {
    told(stubborn(args).output().unwrap())
}

/// Asserts that a command without a server succeeds; returns its output.
fn good(args: &[&str]) -> String {
    let (status, out, errors) = run(args);
    assert_eq!((status, errors.as_str()), (0, ""), "{args:?}");
    out
}

fn path(folder: &Folder, name: &str) -> String {
    folder.file(name).to_str().unwrap().to_owned()
}

fn kill(server: Server) {
    server.process.signal("KILL");
    server.process.end();
}

fn stop(server: Server) {
    server.process.signal("TERM");
    assert_eq!(server.process.end().0, Some(0));
}

const COUNT: [&str; 6] = ["fetch", "COUNTER", "global", "http://do/", "-X", "POST"];

#[test]
fn what_was_answered_is_there_after_a_kill_and_after_a_stop() {
    let folder = Folder::new("survives");
    let data = path(&folder, "data");
    let put = ["fetch", "KV", "cart", "http://do/apples", "-X", "PUT", "-d", "3"];
    for round in 1..=3 {
        let server = serve(&data);
        assert_eq!(server.good(&COUNT), (2 * round - 1).to_string());
        assert_eq!(server.good(&COUNT), (2 * round).to_string());
        server.good(&put);
        if round % 2 == 0 { stop(server) } else { kill(server) }
    }
    let server = serve(&data);
    assert_eq!(server.good(&["fetch", "KV", "cart", "http://do/apples"]), "3");
    let listed = server.good(&["objects", "COUNTER", "--json"]);
    assert!(listed.contains(r#""name":"global","hasStoredData":true"#), "{listed}");
}

#[test]
fn a_clean_stop_leaves_no_log_behind() {
    let folder = Folder::new("clean");
    let data = path(&folder, "data");
    let server = serve(&data);
    server.good(&COUNT);
    stop(server);
    let names = std::fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().file_name());
    let names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    assert!(names.iter().all(|name| !name.ends_with("-wal")), "{names:?}");
}

#[test]
fn a_second_server_on_the_same_directory_is_refused_by_naming_the_first() {
    let folder = Folder::new("second");
    let data = path(&folder, "data");
    let first = serve(&data);
    let (status, out, errors) = run(&["serve", "--listen", "127.0.0.1:0", "--data", &data]);
    assert_eq!((status, out.as_str()), (1, ""), "{errors}");
    assert!(errors.contains(&data) && errors.contains("process "), "{errors}");
    assert_eq!(first.good(&COUNT), "1");
}

#[test]
fn what_is_stored_can_be_looked_at_while_the_server_runs_and_when_it_does_not() {
    let folder = Folder::new("look");
    let data = path(&folder, "data");
    let server = serve(&data);
    server.good(&["fetch", "PROBE", "x", "http://do/put?key=greeting&value=hello"]);
    let sql = r#"{"sql": "CREATE TABLE t (name, n); INSERT INTO t VALUES ('a', 1), ('b', 2)"}"#;
    server.good(&["fetch", "PROBE", "x", "http://do/sql", "-d", sql]);
    let look = |args: &[&str]| good(&[&["storage", "PROBE", "x", "--data", &data], args].concat());
    let check = || {
        assert_eq!(look(&["--get", "greeting"]), "\"hello\"\n");
        assert!(look(&["--list"]).contains("greeting\t\"hello\"\n"));
        assert_eq!(look(&["--sql", "SELECT name, n FROM t ORDER BY n"]), "name\tn\na\t1\nb\t2\n");
        look(&["--sql", "DELETE FROM t"]);
        assert_eq!(look(&["--sql", "SELECT count(*) AS left FROM t"]), "left\n2\n");
        assert!(look(&[]).contains("name\t\"x\"\n"));
    };
    check();
    kill(server);
    check();
    for (args, told) in [
        (&["storage", "NONE", "x", "--data", &data][..], "COUNTER, KV, PROBE, ROOM"),
        (&["storage", "PROBE", "y", "--data", &data], "nothing is stored"),
        (&["storage", "PROBE", "x", "--data", &data, "--get", "none"], "\"none\""),
        (&["storage", "PROBE", "x", "--data", &data, "--sql", "SELEC 1"], "SELEC"),
        (&["storage", "PROBE", "x", "--data", "/nowhere"], "/nowhere"),
        (&["storage", "PROBE", "x", "--data", &data, "--unique-key", "k"], "--unique-key"),
    ] {
        let (status, out, errors) = run(args);
        assert!(status != 0 && out.is_empty() && errors.contains(told), "{args:?}: {errors}");
    }
}

#[test]
fn a_backup_of_a_running_server_is_restored_as_it_was_then() {
    let folder = Folder::new("backup");
    let [data, copy, again] = ["data", "copy", "again"].map(|name| path(&folder, name));
    let server = serve(&data);
    assert_eq!(server.good(&COUNT), "1");
    good(&["backup", &copy, "--data", &data]);
    assert_eq!(server.good(&COUNT), "2");
    good(&["restore", &copy, "--data", &again]);
    let restored = serve(&again);
    assert_eq!(restored.good(&COUNT), "2");
    stop(restored);
    assert!(good(&["verify", "--data", &again]).contains("is whole"));
    for args in [
        &["backup", &copy, "--data", &data][..],
        &["restore", &copy, "--data", &again],
        &["restore", "/nowhere", "--data", &path(&folder, "new")],
        &["backup", &path(&folder, "new"), "--data", "/nowhere"],
    ] {
        let (status, _, errors) = run(args);
        assert!(status == 1 && !errors.is_empty(), "{args:?}: {errors}");
    }
    assert_eq!(server.good(&COUNT), "3");
}

#[test]
fn damage_is_told_by_naming_the_file() {
    let folder = Folder::new("damage");
    let data = path(&folder, "data");
    let server = serve(&data);
    server.good(&COUNT);
    stop(server);
    for entry in std::fs::read_dir(&data).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_some_and(|extension| extension == "db") {
            let bytes = std::fs::read(&file).unwrap();
            std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
        }
    }
    for args in
        [&["serve", "--listen", "127.0.0.1:0", "--data", &data][..], &["verify", "--data", &data]]
    {
        let (status, out, errors) = run(args);
        assert!(status == 1 && (out + &errors).contains("store-0"), "{args:?}: {errors}");
    }
}

#[test]
fn an_alarm_rings_after_a_restart() {
    let folder = Folder::new("alarm");
    let data = path(&folder, "data");
    let server = serve(&data);
    server.good(&["fetch", "PROBE", "x", "http://do/alarm?in_ms=500"]);
    kill(server);
    let server = serve(&data);
    let fired = server.good(&["fetch", "PROBE", "x", "http://do/alarms?wait=1"]);
    let fired: serde_json::Value = serde_json::from_str(&fired).unwrap();
    let first = &fired[0];
    assert!(first["fired_ms"].as_u64() >= first["scheduled_ms"].as_u64(), "{fired}");
}
