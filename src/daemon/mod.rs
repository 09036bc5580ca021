//! The process: what it is configured with, where it keeps things, what it answers, and how it runs the node on this machine.

use crate::crypto::aead::IS_NULL;

pub mod api;
mod behind;
pub mod config;
mod config_value;
pub mod data_plane;
mod dht;
pub mod duration;
mod event_loop;
pub mod failure;
pub mod fair_queue;
mod file_failure;
mod files;
mod founding;
mod history;
mod host;
mod host_names;
pub mod inbox;
mod lan_discovery;
pub mod logging;
mod names;
mod orders;
pub mod paths;
mod pending;
mod policy_orders;
mod port_mapping;
mod reach;
mod relay_orders;
mod route_orders;
mod rule_text;
mod run;
mod segment_orders;
pub mod segment_plane;
mod segments;
mod self_test;
pub mod setup;
mod status;
mod store;
pub mod taps;
mod views;
pub mod workers;

/// The program's version. A build without a cipher says so in it, wherever it is shown.
pub const VERSION: &str =
    if IS_NULL { concat!(env!("CARGO_PKG_VERSION"), "+null-cipher") } else { env!("CARGO_PKG_VERSION") };

/// The version as `--version` prints it.
pub const LONG_VERSION: &str = if IS_NULL {
    concat!(
        env!("CARGO_PKG_VERSION"),
        "+null-cipher\nBUILT WITHOUT A CIPHER, for measurements: it neither encrypts nor authenticates packets"
    )
} else {
    VERSION
};
