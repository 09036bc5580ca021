//! The process: what it is configured with, where it keeps things, what it answers, and how it runs the node on this machine.

pub mod api;
pub mod config;
pub mod data_plane;
pub mod duration;
mod event_loop;
pub mod failure;
pub mod fair_queue;
mod files;
mod founding;
mod history;
mod host_addresses;
pub mod inbox;
pub mod logging;
mod orders;
pub mod paths;
mod pending;
mod run;
mod self_test;
pub mod setup;
mod status;
mod views;
pub mod workers;
