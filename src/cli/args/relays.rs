//! What is typed about relays and static endpoints.

use super::FinalityArgs;
use clap::{Args, Subcommand};
use std::net::SocketAddr;

#[derive(Subcommand)]
pub(in crate::cli) enum RelayCommand {
    /// Have the ledger name this node as a relay, at addresses that stay: others find it before they know anybody
    On(RelayOnArgs),
    /// Have it name this node no more
    Off(RelayOffArgs),
    /// Show whether members reach each other through this node, and what it passes on
    Status,
}

#[derive(Args)]
pub(in crate::cli) struct RelayOnArgs {
    /// Where it is reached by UDP [default: configured, global and seen addresses]; may be repeated, up to four times
    #[arg(long = "endpoint", value_name = "IP:PORT")]
    pub(in crate::cli) endpoints: Vec<SocketAddr>,
    /// The port at which the same addresses are reached by TLS [default: none]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(in crate::cli) tls_port: Option<u16>,
    /// How much it is preferred, 1 to 3, the highest first [default: 2]. Only a signer chooses it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=3))]
    pub(in crate::cli) class: Option<u8>,
    /// Another member than this node
    #[arg(long = "for", value_name = "PEER")]
    pub(in crate::cli) member: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) finality: FinalityArgs,
}

#[derive(Args)]
pub(in crate::cli) struct RelayOffArgs {
    /// Another member than this node
    #[arg(long = "for", value_name = "PEER")]
    pub(in crate::cli) member: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) finality: FinalityArgs,
}

#[derive(Args)]
pub(in crate::cli) struct EndpointsArgs {
    /// Where the validator is reached by UDP, up to four; none clears the list
    #[arg(value_name = "IP:PORT")]
    pub(in crate::cli) endpoints: Vec<SocketAddr>,
    /// Another validator than this node: a name, an overlay address or an identity
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) peer: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) finality: FinalityArgs,
}
