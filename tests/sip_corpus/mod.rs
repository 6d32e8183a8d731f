//! SIP messages to test with: all of RFC 4475 and RFC 5118, and what Microsoft's servers send.
//!
//! `tests/data/sip/MANIFEST.tsv` says what becomes of each of the former; the latter must all pass.

use std::path::PathBuf;

/// One message in a file.
pub(crate) struct Sample {
    /// `rfc4475/wsinv.dat`.
    pub name: String,
    /// All of the file.
    pub text: Vec<u8>,
}

/// The messages of the RFCs, in the manifest's order, each with its row.
pub(crate) fn torture() -> Vec<(Sample, Vec<String>)> {
    let manifest = std::fs::read_to_string(folder().join("MANIFEST.tsv")).expect("a manifest");
    let rows = manifest.lines().filter(|it| !it.starts_with('#'));
    rows.map(|row| {
        let row: Vec<String> = row.split('\t').map(str::to_owned).collect();
        (read(&row[2]), row)
    })
    .collect()
}

/// The messages of Microsoft's servers and their neighbours.
pub(crate) fn microsoft() -> Vec<Sample> {
    let files = std::fs::read_dir(folder().join("microsoft")).expect("a folder").flatten();
    let mut names: Vec<String> = files
        .map(|it| format!("microsoft/{}", it.file_name().to_string_lossy()))
        .filter(|it| it.ends_with(".sip"))
        .collect();
    names.sort();
    names.iter().map(|it| read(it)).collect()
}

fn read(name: &str) -> Sample {
    let text = std::fs::read(folder().join(name)).expect(name);
    Sample { name: name.to_owned(), text }
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/sip")
}
