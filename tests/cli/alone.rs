//! The binary without a daemon: usage, configuration, tickets, and what it says when nothing is there.

use crate::{Ended, Host, ended};
use p2plus::daemon::config::TEMPLATE;
use std::io::Write;
use std::process::Stdio;

/// The failure that `--json` prints.
fn error_json(ended: &Ended) -> (String, serde_json::Value) {
    let value: serde_json::Value = serde_json::from_str(&ended.stderr).unwrap_or_else(|_| panic!("{ended:?}"));
    assert_eq!(value["api"], 1);
    assert_eq!(ended.stdout, "");
    (value["error"]["code"].as_str().unwrap().to_owned(), value["error"].clone())
}

#[test]
fn bad_usage_is_exit_2_in_text_and_json() {
    let host = Host::with_networks(&["lab"]);
    let cases: [&[&str]; 20] = [
        &[],
        &["frobnicate"],
        &["status", "--colour"],
        &["init"],
        &["init", "Not-A-Name"],
        &["init", "lab", "--ipv4", "10.99.0.1/24"],
        &["init", "lab", "--name", "a.b"],
        &["-n", "../etc", "status"],
        &["wait", "--for", "nothing"],
        &["wait", "--for", "online", "--timeout", "-1"],
        &["daemon", "--device", "a", "--no-device"],
        &["daemon", "--listen", "4647"],
        &["authorize", "b"],
        &["invite", "--name", "b", "--uses", "2"],
        &["invite", "--needs-approval", "--name", "b"],
        &["relay"],
        &["relay", "on", "--endpoint", "203.0.113.7"],
        &["relay", "on", "--tls-port", "0"],
        &["relay", "on", "--class", "4"],
        &["ledger", "endpoints", "relay.example:4647"],
    ];
    for args in cases {
        let text = host.run(args);
        assert_eq!(text.code, 2, "{args:?}: {text:?}");
        assert_eq!(text.stdout, "", "{args:?}");
        let json = host.run(&[args, &["--json"]].concat());
        assert_eq!(json.code, 2, "{args:?}: {json:?}");
        assert_eq!(error_json(&json).0, "usage", "{args:?}");
    }
}

#[test]
fn help_and_version_go_to_standard_output() {
    let host = Host::new();
    for args in [["--help"].as_slice(), &["ledger", "--help"], &["invite", "--help"], &["--version"], &["version"]] {
        let ended = host.run(args);
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{args:?}");
    }
    assert_eq!(host.run(&["version"]).stdout, concat!("p2plus ", env!("CARGO_PKG_VERSION"), "\n"));
    assert_eq!(host.run(&["--version"]).stdout, concat!("p2plus ", env!("CARGO_PKG_VERSION"), "\n"));
    let json: serde_json::Value = serde_json::from_str(&host.run(&["version", "--json"]).stdout).unwrap();
    assert_eq!(json, serde_json::json!({"api": 1, "data": {"version": env!("CARGO_PKG_VERSION")}, "warnings": []}));
}

#[test]
fn each_shell_has_its_completion() {
    let host = Host::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ended = host.run(&["completion", shell]);
        assert_eq!(ended.code, 0, "{shell}");
        assert!(ended.stdout.contains("authorize"), "{shell}");
    }
    assert_eq!(host.run(&["completion", "command.com"]).code, 2);
}

#[test]
fn values_that_are_words_are_completed() {
    let host = Host::new();
    let script = host.run(&["completion", "bash"]).stdout;
    assert!(script.contains("error warn info debug trace"), "the levels of the log");
    assert_eq!(host.run(&["--log-level", "loud", "networks"]).code, 2);
    assert_eq!(host.run(&["--log-level", "trace", "networks"]).code, 0);
}

#[test]
fn cleanup_passes_by_what_runs_unless_it_is_named() {
    let host = Host::with_networks(&["home", "lab"]);
    let _daemon = crate::scripted::Scripted::start(&host, |request| Ok(crate::samples::reply(request).into()));
    // What SIGKILL leaves.
    drop(std::os::unix::net::UnixListener::bind(host.run_dir().join("home.sock")).unwrap());
    let undone = host.run(&["cleanup", "--json"]);
    assert_eq!(undone.code, 0, "{undone:?}");
    assert!(undone.stdout.contains("home.sock") && !undone.stdout.contains("lab.sock"), "{undone:?}");
    assert_eq!(host.run(&["-n", "lab", "cleanup"]).code, 8);
    assert_eq!(host.run(&["status", "-n", "lab"]).code, 0, "the daemon that runs was left alone");
}

#[test]
fn without_a_network_there_is_nothing_to_find() {
    let host = Host::new();
    for args in [["status"].as_slice(), &["peers"], &["invite"], &["ledger", "log"], &["up"], &["down"], &["leave"]] {
        let ended = host.run(args);
        assert_eq!(ended.code, 5, "{args:?}: {ended:?}");
        assert!(ended.stderr.contains("p2plus init NAME"), "{ended:?}");
    }
    assert_eq!(error_json(&host.run(&["status", "--json"])).0, "not_found");
    assert_eq!(host.run(&["networks", "--json"]).stdout, "{\"api\":1,\"data\":[],\"warnings\":[]}\n");
}

#[test]
fn without_a_daemon_every_question_is_exit_3_and_says_how_to_start_it() {
    let host = Host::with_networks(&["lab"]);
    for args in [["status"].as_slice(), &["revoke", "b"], &["-n", "lab", "peers"], &["reload"], &["ledger", "status"]] {
        let ended = host.run(args);
        assert_eq!(ended.code, 3, "{args:?}: {ended:?}");
    }
    let ended = host.run(&["status", "--json"]);
    let (code, error) = error_json(&ended);
    assert_eq!(code, "not_running");
    assert_eq!(error["message"], "the daemon of network lab is not running");
    let hint = error["hint"].as_str().unwrap();
    let state_dir = host.state_dir();
    let expected = format!("sudo p2plus --state-dir {} ", state_dir.display());
    assert!(hint.contains(&expected) && hint.ends_with("-n lab daemon"), "{hint}");
}

#[test]
fn of_several_networks_one_must_be_named() {
    let host = Host::with_networks(&["home", "lab"]);
    let ended = host.run(&["status"]);
    assert_eq!(ended.code, 2);
    assert!(ended.stderr.contains("home, lab"), "{ended:?}");
    assert_eq!(host.run(&["-n", "home", "status"]).code, 3);
}

#[test]
fn a_configuration_problem_is_exit_2_and_shows_the_line() {
    let host = Host::with_networks(&["lab"]);
    let text = "[tunnel]\nmtu = 1400\n\n[node]\ncolour = \"red\"\n";
    let file = host.file("lab.toml", text);
    let file = file.to_str().unwrap();
    for verb in [["config", "check"].as_slice(), &["config", "show"], &["daemon"], &["up"], &["reload"]] {
        let ended = host.run(&[&["--config", file], verb].concat());
        assert_eq!(ended.code, 2, "{verb:?}: {ended:?}");
        assert_eq!(ended.stdout, "");
        for part in ["unknown field `colour`", "line 5 of ", "colour = \"red\""] {
            assert!(ended.stderr.contains(part), "{verb:?}: {part} in {}", ended.stderr);
        }
    }
    let (code, error) = error_json(&host.run(&["--config", file, "config", "check", "--json"]));
    assert_eq!(code, "usage");
    assert!(error["message"].as_str().unwrap().contains("line 5 of "), "{error}");
}

#[test]
fn a_named_configuration_must_exist() {
    let host = Host::with_networks(&["lab"]);
    let ended = host.run(&["--config", "/nonexistent/lab.toml", "config", "check"]);
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(ended.stderr.contains("/nonexistent/lab.toml"), "{ended:?}");
    assert_eq!(host.run(&["config", "check"]).code, 0);
}

#[test]
fn config_show_prints_the_defaults_as_shipped_and_the_values_as_configured() {
    let host = Host::new();
    assert_eq!(host.run(&["config", "show"]).stdout, TEMPLATE);
    let file = host.file("lab.toml", "[tunnel]\nmtu = 9000\n");
    let shown = host.run(&["--config", file.to_str().unwrap(), "--log-level", "debug", "config", "show"]);
    let expected =
        TEMPLATE.replace("mtu = 1400", "mtu = 9000").replace("log_level = \"info\"", "log_level = \"debug\"");
    assert_eq!(shown.stdout, expected);
    let json: serde_json::Value = serde_json::from_str(&host.run(&["config", "show", "--json"]).stdout).unwrap();
    assert_eq!(json["data"]["tunnel"]["cipher"], "auto");
    assert_eq!(json["data"]["ledger"]["max_staleness"], "1d");
}

#[test]
fn a_bad_ticket_is_named_whether_typed_or_piped() {
    let host = Host::new();
    let garbled = format!("p2plus1{}", "q".repeat(400));
    for (ticket, part) in
        [("hello", "not a ticket"), ("p2plus1qqq", "truncated"), ("p2plus1qb!", "garbled"), (&garbled, "garbled")]
    {
        let typed = host.run(&["join", ticket]);
        assert_eq!(typed.code, 2, "{typed:?}");
        assert!(typed.stderr.contains(part), "{part}: {typed:?}");

        let mut child = host.command(&["join", "-", "--json"]);
        let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(format!("  {ticket}\n").as_bytes()).unwrap();
        let piped = ended(&child.wait_with_output().unwrap());
        assert_eq!(piped.code, 2, "{piped:?}");
        assert!(error_json(&piped).1["message"].as_str().unwrap().contains(part), "{part}: {piped:?}");
    }
    assert!(!host.state_dir().exists(), "a bad ticket left something behind");
}

#[test]
fn init_refuses_a_second_name_for_its_network() {
    let host = Host::new();
    let ended = host.run(&["-n", "home", "init", "lab", "--no-start"]);
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(ended.stderr.contains("-n says home"), "{ended:?}");
}

#[test]
fn waiting_for_what_never_comes_is_exit_7_and_lasts_as_long_as_asked() {
    let nothing = Host::new();
    let stopped = Host::with_networks(&["lab"]);
    for (host, why) in [(&nothing, "no network on this machine"), (&stopped, "is not running")] {
        let start = std::time::Instant::now();
        let ended = host.run(&["wait", "--for", "online", "--timeout", "0.5"]);
        assert_eq!(ended.code, 7, "{ended:?}");
        assert!(ended.stderr.contains("online did not hold within 0.5 s") && ended.stderr.contains(why), "{ended:?}");
        assert!((0.5..5.0).contains(&start.elapsed().as_secs_f64()));
    }
    assert_eq!(error_json(&stopped.run(&["wait", "--for", "online", "--timeout", "0", "--json"])).0, "timeout");
}

#[test]
fn where_systemd_does_not_run_the_service_verbs_say_what_to_type() {
    if std::path::Path::new("/run/systemd/system").is_dir() {
        println!("skipped: systemd runs here, and a test must not install services");
        return;
    }
    let host = Host::with_networks(&["lab"]);
    let up = host.run(&["up"]);
    assert_eq!(up.code, 1, "{up:?}");
    assert!(up.stderr.contains("-n lab daemon"), "{up:?}");
    assert_eq!(host.run(&["down"]).stdout, "lab is down already\n");
    let install = host.run(&["service", "install"]);
    assert_eq!(install.code, 1);
    assert!(install.stderr.contains("systemd does not run"), "{install:?}");
}

#[test]
fn a_usage_error_in_json_says_all_that_the_text_says() {
    let host = Host::new();
    for (args, parts) in [
        (["wait"].as_slice(), ["--for <CONDITION>", "required"]),
        (&["completion", "command.com"], ["'command.com'", "possible values: bash"]),
        (&["invite", "--expires", "0s"], ["'0s'", "at most 3650d"]),
    ] {
        let message = error_json(&host.run(&[args, &["--json"]].concat())).1["message"].as_str().unwrap().to_owned();
        for part in parts {
            assert!(message.contains(part), "{args:?}: {part} in {message}");
        }
        assert!(!message.contains('\n') && !message.contains("Usage"), "{message}");
    }
}

#[test]
fn a_network_that_is_not_here_is_not_found_by_any_verb() {
    let host = Host::with_networks(&["lab"]);
    let verbs: [&[&str]; 11] = [
        &["status"],
        &["peers"],
        &["revoke", "b"],
        &["up"],
        &["down"],
        &["leave"],
        &["reload"],
        &["keys"],
        &["daemon", "--no-device"],
        &["ledger", "status"],
        &["ledger", "verify"],
    ];
    for args in verbs {
        let ended = host.run(&[&["-n", "other"], args].concat());
        assert_eq!(ended.code, 5, "{args:?}: {ended:?}");
        assert!(ended.stderr.contains("no network other in"), "{args:?}: {ended:?}");
    }
}

/// Sends the standard output of a command to a full disk.
fn to_a_full_disk(host: &Host, args: &[&str]) -> Ended {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    ended(&host.command(args).stdout(full).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap())
}

#[test]
fn what_could_not_be_written_was_not_done_well() {
    let host = Host::with_networks(&["lab"]);
    for args in [["version"].as_slice(), &["networks", "--json"], &["config", "show"], &["--help"]] {
        let ended = to_a_full_disk(&host, args);
        assert_eq!(ended.code, 1, "{args:?}: {ended:?}");
    }
    assert!(to_a_full_disk(&host, &["networks"]).stderr.contains("No space left"));
    // Who reads no further has read what it wanted.
    let mut child = host.command(&["config", "show"]).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn the_keys_of_a_node_are_printed_with_what_a_signer_types() {
    let host = Host::new();
    let made: serde_json::Value =
        serde_json::from_str(&host.run(&["init", "lab", "--name", "a", "--no-start", "--json"]).stdout).unwrap();
    let keys: serde_json::Value = serde_json::from_str(&host.run(&["keys", "--json"]).stdout).unwrap();
    let keys = &keys["data"];
    assert_eq!(keys["id"], made["data"]["node_id"]);
    assert_eq!(keys["name"], serde_json::Value::Null);
    let text = host.run(&["keys"]);
    assert_eq!(text.code, 0, "{text:?}");
    let [id, node_key, transport_key] = ["id", "node_key", "transport_key"].map(|name| keys[name].as_str().unwrap());
    let line = format!("-n lab authorize {id} --node-key {node_key} --transport-key {transport_key}\n");
    assert!(text.stdout.ends_with(&line), "{text:?}");
    assert!(id != node_key && node_key != transport_key);
}

/// Every `p2plus WORD` that the program's own words name is a command that there is.
/// Commands that consist of others.
const GROUPS: [&str; 4] = ["config", "invites", "ledger", "service"];

#[test]
fn no_hint_names_a_command_that_does_not_exist() {
    let host = Host::new();
    let sources = walkdir::WalkDir::new(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let mut seen = std::collections::BTreeSet::new();
    for entry in
        sources.into_iter().map(Result::unwrap).filter(|entry| entry.path().extension().is_some_and(|it| it == "rs"))
    {
        let text = std::fs::read_to_string(entry.path()).unwrap();
        let quotations = ['`', '('].map(|quote| text.split(&format!("{quote}p2plus ")).skip(1).collect::<Vec<_>>());
        for quoted in quotations.concat().into_iter().filter_map(|rest| rest.split(['`', ')']).next()) {
            let words: Vec<&str> = quoted.split_whitespace().collect();
            let verb =
                words.iter().take_while(|word| word.bytes().all(|c| c.is_ascii_lowercase() || c == b'-')).take(2);
            seen.insert(verb.map(|word| (*word).to_owned()).collect::<Vec<_>>());
        }
    }
    assert!(seen.len() > 10, "{seen:?}");
    for words in seen.iter().filter(|words| !words.is_empty() && !words[0].starts_with('-')) {
        let help = |count: usize| {
            let words: Vec<&str> = words.iter().take(count).map(String::as_str).collect();
            host.run(&[words.as_slice(), &["--help"]].concat()).code
        };
        // What follows a group is a command as well; what follows another one is what it is about.
        let count = if GROUPS.contains(&words[0].as_str()) { 2 } else { 1 };
        assert_eq!(help(count), 0, "`p2plus {}` does not exist", words.join(" "));
    }
}
