//! The service verbs with a systemd that only takes notes, in a mount namespace of their own.

use crate::scripted::Scripted;
use crate::{Ended, Host, ended, samples, skip};
use p2plus::daemon::api::request::Reply;
use p2plus::daemon::failure::{ErrorCode, Failure};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// Runs a script as root with fresh `/run`, `/etc`, `/var/lib` and `/usr/local/bin`, where `p2plus` is and systemd seems to run.
fn run_with_systemd(host: &Host, script: &str) -> Option<Ended> {
    let systemctl = host.file(
        "systemctl",
        "#!/bin/sh\necho \"$@\" >> \"$LOG\"\ncase \"$*\" in *forbidden*) echo 'Failed: Access denied' >&2; exit 1;; esac\n",
    );
    std::fs::set_permissions(&systemctl, std::fs::Permissions::from_mode(0o755)).unwrap();
    let prepare = "set -eu\nfor d in /run /etc /var/lib /usr/local/bin; do mount -t tmpfs none $d; done\n\
                   mkdir -p /run/systemd/system /etc/systemd/system /var/lib/p2plus/lab\ncp \"$BINARY\" /usr/local/bin/p2plus\n";
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", host.path().display());
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", &format!("{prepare}{script}")])
        .env("PATH", path)
        .env("LOG", host.path().join("log"))
        .env("SOCKET", host.run_dir().join("lab.sock"))
        .env("BINARY", env!("CARGO_BIN_EXE_p2plus"))
        .env_remove("P2PLUS_STATE_DIR")
        .env_remove("P2PLUS_RUN_DIR")
        .output();
    let reason = match output {
        Ok(output) => {
            let ended = ended(&output);
            if !ended.stderr.contains("unshare failed") && !ended.stderr.contains("permission denied") {
                return Some(ended);
            }
            ended.stderr
        }
        Err(error) => error.to_string(),
    };
    skip(&format!("a mount namespace needs root: {reason}"));
    None
}

/// The arguments of each call of systemctl.
fn calls(host: &Host) -> Vec<String> {
    std::fs::read_to_string(host.path().join("log")).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[test]
fn up_installs_the_unit_and_starts_it_and_down_stops_it() {
    let host = Host::new();
    let script = "p2plus up; cat /etc/systemd/system/p2plus@.service | grep ^ExecStart=; p2plus down; p2plus service uninstall\n\
                  test ! -e /etc/systemd/system/p2plus@.service\n";
    let Some(ended) = run_with_systemd(&host, script) else { return };
    assert_eq!(ended.code, 0, "{ended:?}");
    let expected = "lab is up, also after a reboot\nExecStart=/usr/local/bin/p2plus -n %i daemon\nlab is down\n\
                    removed /etc/systemd/system/p2plus@.service; keys and ledgers are untouched\n";
    assert_eq!(ended.stdout, expected);
    let expected = [
        "daemon-reload",
        "enable --now p2plus@lab.service",
        "disable --now p2plus@lab.service",
        "disable --now p2plus@lab.service",
        "daemon-reload",
    ];
    assert_eq!(calls(&host), expected);
}

#[test]
fn a_refusal_of_systemd_is_told_with_its_words() {
    let host = Host::new();
    let script = "mkdir /var/lib/p2plus/forbidden; p2plus service install; p2plus -n forbidden up\n";
    let Some(ended) = run_with_systemd(&host, script) else { return };
    assert_eq!(ended.code, 4, "{ended:?}");
    assert!(
        ended.stderr.contains("`systemctl enable --now p2plus@forbidden.service` failed: Failed: Access denied"),
        "{ended:?}"
    );
    assert!(ended.stderr.contains("hint:  use sudo"), "{ended:?}");
}

#[test]
fn other_folders_are_not_for_the_service() {
    let host = Host::new();
    let script = "mkdir -p /var/lib/other/lab; p2plus --state-dir /var/lib/other up\n";
    let Some(ended) = run_with_systemd(&host, script) else { return };
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(
        ended.stderr.contains("start it yourself: sudo p2plus --state-dir /var/lib/other -n lab daemon"),
        "{ended:?}"
    );
    assert!(calls(&host).is_empty());
}

#[test]
fn a_node_that_others_need_is_not_even_stopped_when_it_is_to_leave() {
    let leave = "mkdir /run/p2plus; ln -s \"$SOCKET\" /run/p2plus/lab.sock; p2plus leave --yes";
    // How many validators the daemon knows; none when it cannot say.
    for (validators, force, is_stopped) in
        [(Some(1), "", false), (None, "", false), (Some(1), " --force", true), (Some(2), "", true)]
    {
        let host = Host::new();
        let _daemon = Scripted::start(&host, move |_| {
            let validators = validators.ok_or_else(|| Failure::new(ErrorCode::Failed, "out of order"))?;
            let mut status = samples::status();
            status.ledger.validators = validators;
            Ok(Reply::Status(Box::new(status)).into())
        });
        let Some(ended) = run_with_systemd(&host, &format!("{leave}{force}\n")) else { return };
        if is_stopped {
            assert_eq!(calls(&host), ["disable --now p2plus@lab.service"], "{ended:?}");
        } else {
            assert_eq!((ended.code, calls(&host).len()), (8, 0), "{ended:?}");
            assert!(ended.stderr.contains("only validator of network lab"), "{ended:?}");
        }
    }
}
