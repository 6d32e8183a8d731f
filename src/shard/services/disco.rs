//! What the server and the accounts offer (XEP-0030).

use crate::xmpp::stanza::Ns;
use crate::xmpp::write;

/// Appends the answer to `disco#info`.
pub(super) fn info(is_server: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(b"<query");
    write::attr("xmlns", Ns::DiscoInfo.name(), out);
    out.push(b'>');
    out.extend_from_slice(if is_server {
        b"<identity category='server' type='im' name='Tandem'/>".as_slice()
    } else {
        b"<identity category='account' type='registered'/>".as_slice()
    });
    let server = [Ns::DiscoInfo, Ns::DiscoItems, Ns::Ping, Ns::Version];
    let account = [Ns::DiscoInfo, Ns::DiscoItems, Ns::Ping];
    for feature in if is_server { server.as_slice() } else { account.as_slice() } {
        out.extend_from_slice(b"<feature");
        write::attr("var", feature.name(), out);
        out.extend_from_slice(b"/>");
    }
    out.extend_from_slice(b"</query>");
}
