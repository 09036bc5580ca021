//! What is typed about who may reach whom.

use super::FinalityArgs;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// What SRC and DST are, for help.
const ENDS: &str = "SRC and DST are a member's name, tag:NAME, an address, a prefix or * (quoted, for the shell). Replies to what may begin pass. \
    What no rule allows is denied; a rule that denies wins over every one that allows. A network begins with: allow * *";

#[derive(Args)]
#[command(after_help = ENDS)]
pub(in crate::cli) struct RuleArgs {
    /// Who begins
    #[arg(value_name = "SRC")]
    pub(in crate::cli) source: String,
    /// With whom: DST, DST:22/tcp, DST:80,8000-8100, DST/icmp
    #[arg(value_name = "DST[:PORTS][/PROTOCOL]")]
    pub(in crate::cli) destination: String,
    #[command(flatten)]
    pub(in crate::cli) finality: FinalityArgs,
}

#[derive(Args)]
pub(in crate::cli) struct ExplainArgs {
    /// A member or an address
    #[arg(value_name = "SRC")]
    pub(in crate::cli) source: String,
    /// A member or an address: DST:22, DST:53/udp, DST/icmp
    #[arg(value_name = "DST:PORT[/PROTOCOL]")]
    pub(in crate::cli) destination: String,
}

#[derive(Args)]
pub(in crate::cli) struct TagArgs {
    /// A name, an overlay address or an identity
    pub(in crate::cli) peer: String,
    /// Tags to give, as +TAG, and to take, as -TAG; a tag of one letter is taken as +-TAG
    #[arg(value_name = "+TAG|-TAG", required = true)]
    pub(in crate::cli) changes: Vec<String>,
    #[command(flatten)]
    pub(in crate::cli) finality: FinalityArgs,
}

#[derive(Subcommand)]
pub(in crate::cli) enum PolicyVerb {
    /// List the rules, and who made them
    Show,
    /// End rules
    Rm(RuleDelArgs),
    /// Check what a file expects: lines such as `test deny guest db:5432`
    Test(TestArgs),
    /// Make the network's rules those of a file
    Apply(ApplyArgs),
    /// List how rules and tags came to be
    History,
}

#[derive(Args)]
pub(in crate::cli) struct RuleDelArgs {
    /// The numbers of the rules
    #[arg(value_name = "RULE", required = true)]
    pub(in crate::cli) rules: Vec<u64>,
    #[command(flatten)]
    pub(in crate::cli) finality: FinalityArgs,
}

#[derive(Args)]
pub(in crate::cli) struct TestArgs {
    /// A file with tests; with rules too, they are tested as if they were in force. `-` is standard input
    pub(in crate::cli) file: PathBuf,
}

#[derive(Args)]
pub(in crate::cli) struct ApplyArgs {
    /// One rule per line, as `allow` and `deny` take them; its tests must hold. `-` is standard input
    pub(in crate::cli) file: PathBuf,
    /// Say what would change, and change nothing
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
    /// Also when the file has no rule at all
    #[arg(long)]
    pub(in crate::cli) force: bool,
    #[command(flatten)]
    pub(in crate::cli) finality: FinalityArgs,
}
