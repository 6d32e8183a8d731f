//! Checked-in tables of state and input: a change of a rule shows in review as changed rows.

/// Compares what the code does with the table beside it; prints the new table where they differ.
pub(crate) fn check(path: &str, actual: &str, checked_in: &str) {
    if actual == checked_in {
        return;
    }
    let first = actual
        .lines()
        .zip(checked_in.lines().chain(std::iter::repeat("(no row)")))
        .find(|(a, b)| a != b)
        .map_or_else(String::new, |(a, b)| format!("now:    {a}\nbefore: {b}\n"));
    panic!(
        "{path} differs from the code. First difference:\n{first}--- begin {path}\n{actual}--- end {path}"
    );
}
