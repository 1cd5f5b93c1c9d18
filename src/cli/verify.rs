//! (next)
use super::Exit;
use super::args::Verify;
pub(super) fn run(_arguments: &Verify) -> Exit {
    Exit::Usage
}
