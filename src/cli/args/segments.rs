//! What is typed about segments of the link layer.

use super::FinalityArgs;
use crate::wire::name::NodeName;
use clap::{Args, Subcommand};

#[derive(Subcommand)]
pub(in crate::cli) enum SegmentVerb {
    /// Make a segment, or change one: whoever has its tag is in it, by an interface p2t-NAME
    Add(AddSegmentArgs),
    /// End a segment
    Rm(RemoveSegmentArgs),
    /// List the segments
    List,
}

#[derive(Args)]
pub(in crate::cli) struct AddSegmentArgs {
    /// The segment's name: lower-case letters, digits and hyphens
    pub(in crate::cli) name: NodeName,
    /// The tag of its members
    #[arg(long, value_name = "TAG")]
    pub(in crate::cli) tag: Option<NodeName>,
    /// A member behind which its router or DHCP server is; may be repeated. Others may not speak as one
    #[arg(long = "gateway", value_name = "NODE")]
    pub(in crate::cli) gateways: Vec<String>,
    /// No member may speak as a router or DHCP server
    #[arg(long, conflicts_with = "gateways")]
    pub(in crate::cli) no_gateway: bool,
    /// Frames a second that one member may send to everybody [default: 1000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(in crate::cli) storm_limit: Option<u32>,
    #[command(flatten)]
    pub(in crate::cli) finality: FinalityArgs,
}

#[derive(Args)]
pub(in crate::cli) struct RemoveSegmentArgs {
    /// The segment's name
    pub(in crate::cli) name: NodeName,
    #[command(flatten)]
    pub(in crate::cli) finality: FinalityArgs,
}

#[derive(Subcommand)]
pub(in crate::cli) enum BridgeVerb {
    /// Bridge an interface of this host into a segment
    Add(AddBridgeArgs),
    /// Take an interface of this host out of its segment
    Rm(RemoveBridgeArgs),
    /// List the bridges
    List,
    /// Permit a member to bridge into a segment: it vouches for 256 stations
    Approve(JudgeBridgeArgs),
    /// Take that back
    Revoke(JudgeBridgeArgs),
}

#[derive(Args)]
pub(in crate::cli) struct AddBridgeArgs {
    /// A network card without addresses, or a bridge of this host
    #[arg(value_name = "IFACE")]
    pub(in crate::cli) interface: String,
    /// The segment's name
    pub(in crate::cli) segment: NodeName,
    #[command(flatten)]
    pub(in crate::cli) finality: FinalityArgs,
}

#[derive(Args)]
pub(in crate::cli) struct RemoveBridgeArgs {
    /// The interface
    #[arg(value_name = "IFACE")]
    pub(in crate::cli) interface: String,
    /// Only out of this segment
    pub(in crate::cli) segment: Option<NodeName>,
}

#[derive(Args)]
pub(in crate::cli) struct JudgeBridgeArgs {
    /// The segment's name
    pub(in crate::cli) segment: NodeName,
    /// A name, an overlay address or an identity
    #[arg(value_name = "NODE")]
    pub(in crate::cli) peer: String,
    #[command(flatten)]
    pub(in crate::cli) finality: FinalityArgs,
}
