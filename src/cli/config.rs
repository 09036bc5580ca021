//! The verbs about the configuration: check, show.

use super::output::Output;
use super::scope::Scope;
use super::{CommandResult, Done};
use crate::daemon::config::Config;
use crate::daemon::failure::ErrorCode;
use serde::Serialize;
use std::path::PathBuf;

/// `config check`.
#[derive(Serialize)]
struct Checked {
    /// The file that would be read.
    file: PathBuf,
    /// Whether it is there.
    exists: bool,
}

/// Reads the configuration as the daemon would. A problem is the error itself, with its line.
pub(super) fn check(scope: &Scope, output: &Output) -> CommandResult {
    let file = file(scope)?;
    let Some(file) = file else {
        let none = Checked { file: PathBuf::new(), exists: false };
        output.answer(&none, &[], |_| "no network is here yet: the defaults apply".to_owned());
        return Ok(Done::Well);
    };
    Config::load(&file, scope.roots.config_file.is_some())?;
    let exists = file.exists();
    output.answer(&Checked { file, exists }, &[], |checked| {
        let file = checked.file.display();
        if checked.exists {
            format!("{file}: no problems")
        } else {
            format!("{file} does not exist: the defaults apply")
        }
    });
    Ok(Done::Well)
}

/// Prints every key with its value, as a file that can be edited.
pub(super) fn show(scope: &Scope, output: &Output) -> CommandResult {
    let mut config = match file(scope)? {
        Some(file) => Config::load(&file, scope.roots.config_file.is_some())?,
        None => Config::default(),
    };
    if let Some(level) = scope.log_level {
        config.node.log_level = level;
    }
    output.answer(&config, &[], Config::to_commented_toml);
    Ok(Done::Well)
}

/// The file that was named, else the one of the network; none when there is no network yet.
fn file(scope: &Scope) -> Result<Option<PathBuf>, super::CommandError> {
    if let Some(file) = &scope.roots.config_file {
        return Ok(Some(file.clone()));
    }
    match scope.paths() {
        Ok(paths) => Ok(Some(paths.config_file())),
        Err(failure) if failure.code == ErrorCode::NotFound => Ok(None),
        Err(failure) => Err(failure.into()),
    }
}
