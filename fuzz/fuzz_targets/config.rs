//! The configuration file: refused with a place in it, or written back as the same configuration.
#![no_main]

use libfuzzer_sys::fuzz_target;
use p2plus::daemon::config::{Config, ConfigError};
use std::path::Path;

fuzz_target!(|text: &str| {
    let path = Path::new("p2plus.toml");
    match Config::parse(path, text) {
        Ok(config) => {
            let written = config.to_commented_toml();
            assert_eq!(Config::parse(path, &written).ok(), Some(config), "{written}");
        }
        Err(error) => {
            let ConfigError::Invalid { line, .. } = *error else { panic!("no file was read") };
            assert!((1..=text.split('\n').count()).contains(&line));
        }
    }
});
