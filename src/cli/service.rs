//! The system service: up, down, service install and uninstall, by systemd where it runs.

use super::client::{Answer, Client, PATIENCE};
use super::output::Output;
use super::scope::{Scope, command_line, missing};
use super::{CommandResult, Done};
use crate::daemon::api::request::Request;
use crate::daemon::api::types::Status;
use crate::daemon::failure::{ErrorCode, Failure};
use crate::daemon::paths::Paths;
use crate::wire::name::NetworkName;
use serde::Serialize;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The unit of one network; `%i` is its name.
const UNIT: &str = include_str!("../../config/p2plus@.service");
/// Where an administrator's units live (systemd.unit(5)).
const UNIT_FILE: &str = "/etc/systemd/system/p2plus@.service";
/// The binary's path in [`UNIT`], which `service install` replaces by the real one.
const UNIT_BINARY: &str = "/usr/local/bin/p2plus";
/// Folders that the unit's sandbox hides: a binary there would not start.
const HIDDEN_FOLDERS: [&str; 4] = ["/home", "/root", "/run/user", "/tmp"];

/// Says whether systemd runs this machine (sd_booted(3)).
pub(super) fn systemd_runs() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// What `up` and `down` did.
#[derive(Serialize)]
struct ServiceChange {
    network: String,
    unit: String,
}

pub(super) fn up(scope: &Scope, output: &Output) -> CommandResult {
    let paths = scope.paths()?;
    scope.config(&paths)?;
    if is_running(&paths) {
        output.answer(&change(&paths.network), &[], |change| format!("{} is up already", change.network));
        return Ok(Done::Well);
    }
    if !paths.state_folder().is_dir() {
        return Err(missing(&paths).into());
    }
    if let Some(reason) = not_by_service(&paths) {
        let hint = format!("start it yourself: sudo {}", command_line(&paths, "daemon"));
        return Err(Failure::new(ErrorCode::Failed, reason).hint(hint).into());
    }
    start(&paths.network)?;
    output.answer(&change(&paths.network), &[], |change| format!("{} is up, also after a reboot", change.network));
    Ok(Done::Well)
}

pub(super) fn down(scope: &Scope, output: &Output) -> CommandResult {
    let paths = scope.paths()?;
    let is_running = is_running(&paths);
    if !is_running && !paths.state_folder().is_dir() {
        return Err(missing(&paths).into());
    }
    if let Some(reason) = not_by_service(&paths) {
        if !is_running {
            output.answer(&change(&paths.network), &[], |change| format!("{} is down already", change.network));
            return Ok(Done::Well);
        }
        let pid = fs::read_to_string(paths.lock()).unwrap_or_default();
        let hint = match pid.trim().parse::<u32>() {
            Ok(pid) => format!("stop it yourself: sudo kill {pid}"),
            Err(_) => "stop it where it runs, with Ctrl-C".to_owned(),
        };
        return Err(Failure::new(ErrorCode::Failed, reason).hint(hint).into());
    }
    stop(&paths.network)?;
    output.answer(&change(&paths.network), &[], |change| format!("{} is down", change.network));
    Ok(Done::Well)
}

/// Why the service cannot be used for this network, if so.
fn not_by_service(paths: &Paths) -> Option<String> {
    if !paths.roots.are_default() {
        return Some("the service uses the default folders alone, and others were named".to_owned());
    }
    (!systemd_runs()).then(|| "systemd does not run on this machine: there are no services".to_owned())
}

fn is_running(paths: &Paths) -> bool {
    let status: Result<Answer<Status>, Failure> = Client::new(paths.clone()).ask(&Request::Status, PATIENCE);
    // A daemon that is busy, or speaks another version, runs all the same.
    let is_absent = |code| matches!(code, ErrorCode::NotRunning | ErrorCode::NotFound | ErrorCode::Permission);
    !matches!(status, Err(failure) if is_absent(failure.code))
}

fn change(network: &NetworkName) -> ServiceChange {
    ServiceChange { network: network.to_string(), unit: unit_of(network) }
}

/// Starts a network's service, at every boot as well; installs the unit where it is missing.
pub(super) fn start(network: &NetworkName) -> Result<(), Failure> {
    if !Path::new(UNIT_FILE).exists() {
        install_unit()?;
    }
    systemctl(&["enable", "--now", &unit_of(network)])
}

/// Stops a network's service, at every boot as well.
pub(super) fn stop(network: &NetworkName) -> Result<(), Failure> {
    systemctl(&["disable", "--now", &unit_of(network)])
}

fn unit_of(network: &NetworkName) -> String {
    format!("p2plus@{network}.service")
}

/// `service install` and `service uninstall`.
#[derive(Serialize)]
struct UnitChange {
    unit_file: PathBuf,
}

pub(super) fn install(output: &Output) -> CommandResult {
    if !systemd_runs() {
        return Err(no_systemd("run the daemon yourself: sudo p2plus -n NET daemon").into());
    }
    install_unit()?;
    output.answer(&UnitChange { unit_file: UNIT_FILE.into() }, &[], |change| {
        format!("installed {}\nNext: sudo p2plus -n NET up\n", change.unit_file.display())
    });
    Ok(Done::Well)
}

pub(super) fn uninstall(scope: &Scope, output: &Output) -> CommandResult {
    if !systemd_runs() {
        return Err(no_systemd("there is nothing to remove").into());
    }
    if Path::new(UNIT_FILE).exists() {
        scope.roots.networks().iter().try_for_each(stop)?;
        fs::remove_file(UNIT_FILE).map_err(|error| unit_failure("remove", &error))?;
        systemctl(&["daemon-reload"])?;
    }
    output.answer(&UnitChange { unit_file: UNIT_FILE.into() }, &[], |change| {
        format!("removed {}; keys and ledgers are untouched", change.unit_file.display())
    });
    Ok(Done::Well)
}

fn no_systemd(hint: &str) -> Failure {
    Failure::new(ErrorCode::Failed, "systemd does not run on this machine: there are no services").hint(hint)
}

fn install_unit() -> Result<(), Failure> {
    let binary = std::env::current_exe().map_err(|error| unit_failure("find the binary for", &error))?;
    let text = unit_text(&binary)?;
    fs::write(UNIT_FILE, text).map_err(|error| unit_failure("write", &error))?;
    systemctl(&["daemon-reload"])
}

/// The unit for a binary at `binary`.
fn unit_text(binary: &Path) -> Result<String, Failure> {
    let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-+".contains(&byte));
    let is_hidden = HIDDEN_FOLDERS.iter().any(|folder| binary.starts_with(folder));
    match binary.to_str() {
        Some(path) if is_plain(path) && !is_hidden => Ok(UNIT.replace(UNIT_BINARY, path)),
        _ => {
            let message = format!("a service cannot run {}: its sandbox hides that folder", binary.display());
            let hint = format!("sudo install {} {UNIT_BINARY}, then {UNIT_BINARY} service install", binary.display());
            Err(Failure::new(ErrorCode::Failed, message).hint(hint))
        }
    }
}

fn unit_failure(action: &str, error: &io::Error) -> Failure {
    let message = format!("cannot {action} {UNIT_FILE}: {error}");
    match error.kind() {
        io::ErrorKind::PermissionDenied => Failure::new(ErrorCode::Permission, message).hint("use sudo"),
        _ => Failure::new(ErrorCode::Failed, message),
    }
}

fn systemctl(arguments: &[&str]) -> Result<(), Failure> {
    let line = format!("systemctl {}", arguments.join(" "));
    let failed = |cause: &str| Failure::new(ErrorCode::Failed, format!("`{line}` failed: {cause}"));
    let ended = Command::new("systemctl").args(arguments).output().map_err(|error| failed(&error.to_string()))?;
    if ended.status.success() {
        return Ok(());
    }
    let cause = String::from_utf8_lossy(&ended.stderr);
    let cause = cause.trim().replace('\n', "; ");
    let denied = ["denied", "authentication required", "authorization"];
    if denied.iter().any(|word| cause.to_lowercase().contains(word)) {
        return Err(Failure { code: ErrorCode::Permission, ..failed(&cause) }.hint("use sudo"));
    }
    Err(failed(&cause).hint("look at what it says: journalctl -u 'p2plus@*' -n 30"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_names_the_real_binary_and_refuses_one_that_its_sandbox_hides() {
        assert_eq!(UNIT.matches(UNIT_BINARY).count(), 1);
        let text = unit_text(Path::new("/opt/p2plus/bin/p2plus")).unwrap();
        assert!(text.contains("\nExecStart=/opt/p2plus/bin/p2plus -n %i daemon\n"), "{text}");
        for hidden in ["/home/ann/p2plus", "/root/target/debug/p2plus", "/opt/a b/p2plus"] {
            assert!(unit_text(Path::new(hidden)).is_err(), "{hidden}");
        }
    }
}
