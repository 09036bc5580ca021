//! The service unit: its exposure as systemd sees it.

use crate::skip;
use std::path::Path;
use std::process::Command;

/// The promise; the unit has 2.0.
const MAX_EXPOSURE: f64 = 2.5;

#[test]
fn the_unit_exposes_little() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/p2plus@.service");
    let Ok(ended) =
        Command::new("systemd-analyze").args(["security", "--offline=true", "--no-pager"]).arg(&unit).output()
    else {
        return skip("systemd-analyze is not installed (apt-get install systemd)");
    };
    let report = String::from_utf8_lossy(&ended.stdout);
    let Some(line) = report.lines().find(|line| line.contains("Overall exposure level")) else {
        return skip(&format!("systemd-analyze knows no --offline: {}", String::from_utf8_lossy(&ended.stderr)));
    };
    let exposure: f64 = line.split_whitespace().find_map(|word| word.parse().ok()).unwrap();
    assert!(exposure <= MAX_EXPOSURE, "{line}");
    assert!(exposure > 0.0, "{line}");
}

#[test]
fn the_unit_has_no_line_that_systemd_does_not_understand() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/p2plus@.service");
    let Ok(ended) = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&unit).output() else {
        return skip("systemd-analyze is not installed (apt-get install systemd)");
    };
    let complaints: Vec<String> = String::from_utf8_lossy(&ended.stderr)
        .lines()
        .filter(|line| line.contains("p2plus@") && !line.contains("is not executable"))
        .map(str::to_owned)
        .collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}
