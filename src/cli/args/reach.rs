//! What is typed about ways.

use clap::Args;

#[derive(Args)]
pub(in crate::cli) struct WhyArgs {
    /// The peer: a name, an overlay address or an identity
    pub(in crate::cli) peer: String,
}
