//! The scenarios that are shipped, as text: `list` names them, `show` prints them to be copied.

/// A shipped scenario.
#[derive(Clone, Copy, Debug)]
pub struct BuiltIn {
    /// By which it is called.
    pub name: &'static str,
    /// The file.
    pub text: &'static str,
}

impl BuiltIn {
    /// What it is for: the first line of the file.
    pub fn about(&self) -> &'static str {
        self.text.lines().next().unwrap_or_default().trim_start_matches("# ")
    }
}

macro_rules! shipped {
    ($($name:literal),* $(,)?) => {
        &[$(BuiltIn { name: $name, text: include_str!(concat!("../../scenarios/", $name, ".toml")) }),*]
    };
}

/// All of them.
pub const ALL: &[BuiltIn] = shipped![
    "im-chat",
    "im-s2s",
    "s2s-out",
    "presence-storm",
    "login",
    "reconnect-storm",
    "idle",
    "roster-churn",
    "mixed-enterprise",
    "slow-reader",
    "im-gateway",
    "sip-im",
    "sip-watchers",
    "sip-server",
    "sip-options",
    "sip-proxy",
];

/// One by its name.
pub fn find(name: &str) -> Option<&'static BuiltIn> {
    ALL.iter().find(|it| it.name == name)
}
