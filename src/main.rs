//! The binary: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    p2plus::cli::run()
}
