//! What is typed about what lies behind members.

use super::FinalityArgs;
use clap::{Args, Subcommand};

#[derive(Args)]
pub(in crate::cli) struct AdvertiseArgs {
    /// The subnet as it is there, for example 192.168.7.0/24
    #[arg(value_name = "CIDR", required_unless_present = "exit")]
    pub(in crate::cli) subnet: Option<String>,
    /// Show it to the overlay as this one of the same length, each address 1:1: where two sites have the same subnet
    #[arg(long, value_name = "CIDR", requires = "subnet")]
    pub(in crate::cli) map: Option<String>,
    /// Carry others' traffic to everywhere
    #[arg(long)]
    pub(in crate::cli) exit: bool,
    /// Behind another member than this node
    #[arg(long = "for", value_name = "PEER")]
    pub(in crate::cli) member: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) finality: FinalityArgs,
}

#[derive(Args)]
pub(in crate::cli) struct UnadvertiseArgs {
    /// The subnet as the overlay sees it
    #[arg(value_name = "CIDR", required_unless_present = "exit")]
    pub(in crate::cli) subnet: Option<String>,
    /// Be no exit any more
    #[arg(long)]
    pub(in crate::cli) exit: bool,
    /// Behind another member than this node
    #[arg(long = "for", value_name = "PEER")]
    pub(in crate::cli) member: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) finality: FinalityArgs,
}

#[derive(Args)]
pub(in crate::cli) struct AnswerArgs {
    /// The request's id, or its first digits
    pub(in crate::cli) id: String,
    #[command(flatten)]
    pub(in crate::cli) finality: FinalityArgs,
}

#[derive(Args)]
pub(in crate::cli) struct AcceptArgs {
    /// Subnets as `p2plus routes` lists them, or all: those of later too
    #[arg(value_name = "CIDR|all", required = true)]
    pub(in crate::cli) subnets: Vec<String>,
    /// Also where a subnet covers a network of this machine, which is then out of reach
    #[arg(long)]
    pub(in crate::cli) force: bool,
}

#[derive(Subcommand)]
pub(in crate::cli) enum ExitVerb {
    /// List the members that are exits
    List,
    /// Use one
    Use(ExitUseArgs),
    /// Use none
    Off,
}

#[derive(Args)]
pub(in crate::cli) struct ExitUseArgs {
    /// A name, an overlay address or an identity
    pub(in crate::cli) peer: String,
}
