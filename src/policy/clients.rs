//! Which kind of client a local user has, as far as what it shows goes by it.
//!
//! By patterns over what a client says of itself: the node of its entity capabilities (XEP-0115,
//! 4) and the name of its resource. What a client *can* do is **not** asked.

use crate::policy::Profile;

/// The patterns; `*` stands for anything, and case does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clients {
    jabber: Vec<String>,
}

impl Default for Clients {
    /// Cisco Jabber, by its node or by the resource it asks for.
    fn default() -> Self {
        Self::new(["*cisco*jabber*", "jabber_*"].map(str::to_owned).to_vec())
    }
}

impl Clients {
    /// Clients that are Cisco Jabber, or show what it shows.
    pub fn new(jabber: Vec<String>) -> Self {
        Self { jabber: jabber.into_iter().map(|it| it.to_lowercase()).collect() }
    }

    /// The patterns of Cisco Jabber.
    pub fn jabber(&self) -> &[String] {
        &self.jabber
    }

    /// The kind of a client: Jabber, or any other.
    pub fn kind(&self, node: Option<&str>, resource: &str) -> Profile {
        let is_jabber = [node, Some(resource)].into_iter().flatten().any(|it| {
            let it = it.to_lowercase();
            self.jabber.iter().any(|pattern| matches(pattern, &it))
        });
        if is_jabber { Profile::Jabber } else { Profile::Xmpp }
    }
}

/// Greedy from the left: each part between stars where it first occurs, the last one at the end.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(head) else { return false };
    let (middle, tail) = rest.rsplit_once('*').unwrap_or(("", rest));
    for part in middle.split('*') {
        match text.split_once(part) {
            Some((_, behind)) => text = behind,
            None => return false,
        }
    }
    text.ends_with(tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_with_stars() {
        for (pattern, text, is) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "", true),
            ("a*", "ab", true),
            ("a*a", "a", false),
            ("a*a", "aba", true),
            ("*b*", "abc", true),
            ("*a*b*c", "xaybzc", true),
            ("*a*b*c", "xbyazc", false),
            ("*ab*ab*", "xab", false),
            ("**", "x", true),
        ] {
            assert_eq!(matches(pattern, text), is, "{pattern} {text}");
        }
    }

    #[test]
    fn jabber_is_known_by_node_or_resource() {
        let clients = Clients::default();
        for (node, resource, kind) in [
            (None, "desk", Profile::Xmpp),
            (None, "jabber_1234", Profile::Jabber),
            (Some("http://www.Cisco.com/Jabber/12"), "x", Profile::Jabber),
            (Some("http://jabber.org/other"), "my-jabber", Profile::Xmpp),
        ] {
            assert_eq!(clients.kind(node, resource), kind, "{node:?} {resource}");
        }
        let own = Clients::new(vec!["*WORK*".into()]);
        assert_eq!(own.kind(None, "at-work-1"), Profile::Jabber);
        assert_eq!(own.kind(None, "jabber_1"), Profile::Xmpp);
        assert_eq!(Clients::new(Vec::new()).kind(Some("cisco jabber"), "jabber_1"), Profile::Xmpp);
    }
}
