//! Fuzz target of this layer.

use std::path::Path;

use super::Config;

/// The configuration.
pub(crate) fn config(data: &[u8]) -> Option<()> {
    let text = str::from_utf8(data).ok()?;
    let path = Path::new("/etc/pullgate/config.yaml");
    match Config::parse(path, text) {
        Ok(config) => {
            assert_eq!(Config::parse(path, text).ok(), Some(config), "the same text reads differently");
            Some(())
        }
        Err(error) => {
            assert!(error.to_string().contains("config.yaml"), "an error without its file: {error}");
            None
        }
    }
}
