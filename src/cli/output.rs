//! What reaches the terminal.

use std::fmt::Display;
use std::io::{IsTerminal as _, Write as _};

/// A line of the result.
pub(super) fn say(line: impl Display) {
    // A reader that went away (`| head`) is no reason to fail.
    writeln!(std::io::stdout().lock(), "{line}").ok();
}

/// Text with its own line ends.
pub(super) fn say_text(text: &str) {
    write!(std::io::stdout().lock(), "{text}").ok();
}

/// A line beside the result.
pub(super) fn note(line: impl Display) {
    writeln!(std::io::stderr().lock(), "{line}").ok();
}

/// Text as it is, with its own line ends, beside the result.
pub(super) fn note_text(text: &str) {
    write!(std::io::stderr().lock(), "{text}").ok();
}

/// Whether stdout takes colour.
pub(super) fn colour_out() -> bool {
    std::io::stdout().is_terminal() && wanted()
}

/// Whether stderr takes colour.
pub(super) fn colour_note() -> bool {
    std::io::stderr().is_terminal() && wanted()
}

/// <https://no-color.org>: set and not empty means none.
fn wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|it| it.is_empty())
        && std::env::var_os("TERM").is_none_or(|it| it != "dumb")
}
