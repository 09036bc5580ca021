//! Which network on this machine a command means, and with which configuration.

use super::args::Global;
use super::client::Client;
use crate::daemon::config::{Config, ConfigError, LogLevel};
use crate::daemon::failure::{ErrorCode, Failure};
use crate::daemon::paths::{Paths, Roots};
use crate::wire::name::NetworkName;

/// The global options, understood.
pub(super) struct Scope {
    /// The folders.
    pub(super) roots: Roots,
    /// The network that was named.
    pub(super) named: Option<NetworkName>,
    /// The level that was typed, by `--log-level` or `-v`.
    pub(super) log_level: Option<LogLevel>,
}

impl Scope {
    pub(super) fn new(global: &Global) -> Self {
        let verbose = match global.verbose {
            0 => None,
            1 => Some(LogLevel::Debug),
            _ => Some(LogLevel::Trace),
        };
        let roots = Roots {
            state_dir: global.state_dir.clone(),
            run_dir: global.run_dir.clone(),
            config_file: global.config.clone(),
        };
        Self { roots, named: global.network.clone(), log_level: global.log_level.or(verbose) }
    }

    /// The network that was named, else the only one here.
    pub(super) fn paths(&self) -> Result<Paths, Failure> {
        if let Some(network) = &self.named {
            return Ok(self.roots.network(network.clone()));
        }
        let networks = self.roots.networks();
        match networks.as_slice() {
            [network] => Ok(self.roots.network(network.clone())),
            [] if self.roots.is_hidden() => Err(hidden(&self.roots)),
            [] => Err(Failure::new(
                ErrorCode::NotFound,
                format!("there is no network on this machine (looked in {})", self.roots.state_dir.display()),
            )
            .hint("found one with `p2plus init NAME`, or join one with `p2plus join TICKET`")),
            several => {
                let names: Vec<&str> = several.iter().map(NetworkName::as_str).collect();
                Err(Failure::new(ErrorCode::Usage, format!("there are several networks here: {}", names.join(", ")))
                    .hint(format!("say which one you mean: p2plus -n {}", names[0])))
            }
        }
    }

    /// A connection to that network's daemon.
    pub(super) fn client(&self) -> Result<Client, Failure> {
        self.paths().map(Client::new)
    }

    /// The places of a network that a command names by itself; `-n` may repeat the name.
    pub(super) fn paths_of(&self, network: &NetworkName) -> Result<Paths, Failure> {
        match &self.named {
            Some(named) if named != network => {
                Err(Failure::new(ErrorCode::Usage, format!("-n says {named}, but this is about network {network}"))
                    .hint("leave -n out"))
            }
            _ => Ok(self.roots.network(network.clone())),
        }
    }

    /// The configuration of a network, with the level that was typed.
    pub(super) fn config(&self, paths: &Paths) -> Result<Config, Box<ConfigError>> {
        let mut config = Config::load(&paths.config_file(), self.roots.config_file.is_some())?;
        if let Some(level) = self.log_level {
            config.node.log_level = level;
        }
        Ok(config)
    }
}

/// What an ordinary user meets who asks for a network that does not run.
pub(super) fn hidden(roots: &Roots) -> Failure {
    let message = format!(
        "only root sees which networks are in {}, and none runs that you could mean",
        roots.state_dir.display()
    );
    Failure::new(ErrorCode::Permission, message).hint("use sudo")
}

/// Says that a network is not here, or that this user cannot know.
pub(super) fn missing(paths: &Paths) -> Failure {
    if paths.roots.is_hidden() {
        return hidden(&paths.roots);
    }
    let message = format!("there is no network {} in {}", paths.network, paths.roots.state_dir.display());
    Failure::new(ErrorCode::NotFound, message).hint(
        "`p2plus networks` lists those there are; found one with `p2plus init`, or join one with `p2plus join TICKET`",
    )
}

/// A command line with the same folders: what a person types to reach this network from a shell.
pub(super) fn command_line(paths: &Paths, verb: &str) -> String {
    let mut words = vec!["p2plus".to_owned()];
    let roots = &paths.roots;
    if roots.state_dir != std::path::Path::new(crate::daemon::paths::DEFAULT_STATE_DIR) {
        words.push(format!("--state-dir {}", quoted(&roots.state_dir)));
    }
    if roots.run_dir != std::path::Path::new(crate::daemon::paths::DEFAULT_RUN_DIR) {
        words.push(format!("--run-dir {}", quoted(&roots.run_dir)));
    }
    if let Some(config) = &roots.config_file {
        words.push(format!("--config {}", quoted(config)));
    }
    words.push(format!("-n {} {verb}", paths.network));
    words.join(" ")
}

/// A path as a shell reads it back.
fn quoted(path: &std::path::Path) -> String {
    let text = path.display().to_string();
    let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-+:@%,".contains(&byte));
    if is_plain { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_repeats_only_what_differs_from_the_defaults() {
        let roots = |state: &str, run: &str| Roots { state_dir: state.into(), run_dir: run.into(), config_file: None };
        let line = |roots: Roots| command_line(&roots.network("lab".parse().unwrap()), "daemon");
        assert_eq!(line(roots("/var/lib/p2plus", "/run/p2plus")), "p2plus -n lab daemon");
        assert_eq!(line(roots("/tmp/a b", "/run/p2plus")), "p2plus --state-dir '/tmp/a b' -n lab daemon");
    }
}
