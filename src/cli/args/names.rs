//! What is typed about names.

use super::FinalityArgs;
use crate::daemon::api::names::RecordType;
use clap::{Args, Subcommand};

#[derive(Subcommand)]
pub(in crate::cli) enum NameVerb {
    /// Set a record: a member at and below its own name, a signer everywhere
    Add(NameAddArgs),
    /// End the records of a name, or some of them
    Rm(NameRemoveArgs),
    /// List the records beside the members' own names
    List,
}

#[derive(Args)]
pub(in crate::cli) struct NameAddArgs {
    /// The name, with or without the zone; `@` is the zone itself
    pub(in crate::cli) name: String,
    /// PEER gives it the addresses of a member; or `mx PRIORITY TARGET`, `srv PRIORITY WEIGHT PORT TARGET`, `txt TEXT…`
    #[arg(required = true, value_name = "PEER|mx …|srv …|txt …")]
    pub(in crate::cli) record: Vec<String>,
    #[command(flatten)]
    pub(in crate::cli) finality: FinalityArgs,
}

#[derive(Args)]
pub(in crate::cli) struct NameRemoveArgs {
    /// The name, with or without the zone; `@` is the zone itself
    pub(in crate::cli) name: String,
    /// Only records of this type: address, mx, srv or txt
    #[arg(value_name = "TYPE")]
    pub(in crate::cli) record_type: Option<RecordType>,
    /// Of these, only those with this target, or with these texts
    #[arg(value_name = "TARGET|TEXT")]
    pub(in crate::cli) value: Vec<String>,
    #[command(flatten)]
    pub(in crate::cli) finality: FinalityArgs,
}

#[derive(Subcommand)]
pub(in crate::cli) enum DnsVerb {
    /// Show what is answered, where, and to how many questions
    Status,
    /// Ask this node's resolver
    Query(QueryArgs),
}

#[derive(Args)]
pub(in crate::cli) struct QueryArgs {
    /// A name in the zone, with or without the zone; another one with a dot at its end; or an address
    pub(in crate::cli) name: String,
    /// A, AAAA, MX, SRV, TXT, PTR … [default: all that there is]
    #[arg(value_name = "TYPE")]
    pub(in crate::cli) query_type: Option<String>,
}
