//! The control thread, scripted: accounts, name servers and reports.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tandem::address::Address;
use tandem::dns::{self, SipFound, SipService};
use tandem::shard::kernel::{Answer, Question, Unavailable};
use tandem::shard::{Notice, Report};
use tandem::time::Moment;
use tandem::xmpp::sasl::scram::{self, Credentials, Hash};

use crate::store::Store;

/// Rounds of every account: the derivation is not what is tested.
pub(crate) const ITERATIONS: u32 = 4;
const SALT: &[u8] = b"a salt of 16 oct";

/// What a domain's name servers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dns {
    At(SocketAddr),
    Absent,
    Failed,
}

#[derive(Default)]
pub(crate) struct Control {
    /// Password by bare address.
    pub(crate) accounts: BTreeMap<String, String>,
    pub(crate) dns: BTreeMap<String, Dns>,
    pub(crate) store: Store,
    /// The newest report of each shard.
    pub(crate) reports: BTreeMap<usize, Report>,
    pub(crate) notices: Vec<Notice>,
}

impl Control {
    /// Of a node with so many shards.
    pub(crate) fn of(shards: usize) -> Self {
        let mut control = Self::default();
        control.store.shards = u16::try_from(shards).expect("few shards");
        control
    }

    /// The answer and when it comes.
    #[expect(clippy::too_many_lines, reason = "one arm per question")]
    pub(crate) fn ask(
        &mut self,
        now: Moment,
        shard: usize,
        question: Question,
    ) -> Option<(Duration, Answer)> {
        let answer = match question {
            Question::Credentials { ticket, user, hash } => Answer::Credentials {
                ticket,
                credentials: self.stored(|it| it.credentials(&user, hash)),
            },
            Question::Password { ticket, user, password } => Answer::Password {
                ticket,
                good: self.stored(|it| it.accounts.get(user.bare()) == Some(&password)),
            },
            Question::Resolve { ticket, domain } => {
                let starttls = match self.dns.get(&domain) {
                    Some(Dns::At(at)) => dns::Answer::Records(vec![dns::Srv {
                        priority: 0,
                        weight: 0,
                        port: at.port(),
                        target: format!("host.{domain}"),
                    }]),
                    Some(Dns::Absent) => dns::Answer::Records(vec![dns::Srv {
                        priority: 0,
                        weight: 0,
                        port: 0,
                        target: ".".to_owned(),
                    }]),
                    Some(Dns::Failed) => dns::Answer::Failed,
                    None => dns::Answer::Absent,
                };
                let direct = match starttls {
                    dns::Answer::Failed => dns::Answer::Failed,
                    _ => dns::Answer::Absent,
                };
                Answer::Resolved { ticket, direct, starttls }
            }
            Question::ResolveSip { ticket, domain, .. } => {
                let found = match self.dns.get(&domain) {
                    Some(Dns::At(at)) => SipFound::Records {
                        service: SipService::Federation,
                        records: vec![dns::Srv {
                            priority: 0,
                            weight: 0,
                            port: at.port(),
                            target: format!("host.{domain}"),
                        }],
                        seconds: 300,
                    },
                    Some(Dns::Absent) => SipFound::NotOffered,
                    Some(Dns::Failed) => SipFound::Failed,
                    None => SipFound::Absent,
                };
                Answer::ResolvedSip { ticket, found }
            }
            Question::Addresses { ticket, host } => {
                let domain = host.strip_prefix("host.").unwrap_or(&host);
                let addresses = match self.dns.get(domain) {
                    Some(Dns::At(at)) => Some(vec![at.ip()]),
                    Some(Dns::Failed) => None,
                    Some(Dns::Absent) | None => Some(Vec::<IpAddr>::new()),
                };
                Answer::Addresses { ticket, host, addresses }
            }
            question @ (Question::Load { .. }
            | Question::Commit { .. }
            | Question::Fetch { .. }
            | Question::Keep { .. }
            | Question::Dialogs { .. }) => return self.store.ask(now, shard, question),
            Question::Done { .. } => return None,
            // Without TLS nobody shows a chain.
            Question::Judge { .. } => return None,
            Question::Report { report, .. } => {
                self.reports.insert(shard, *report);
                return None;
            }
            Question::Tell(notice) => {
                self.notices.push(notice);
                return None;
            }
        };
        Some((self.store.delay, answer))
    }

    fn stored<T>(&self, read: impl FnOnce(&Self) -> T) -> Result<T, Unavailable> {
        self.store.read(|_| read(self))
    }

    fn credentials(&self, user: &Address, hash: Hash) -> Option<Credentials> {
        let password = self.accounts.get(user.bare())?;
        thread_local! {
            static KNOWN: RefCell<BTreeMap<(String, usize), Credentials>> =
                const { RefCell::new(BTreeMap::new()) };
        }
        KNOWN.with_borrow_mut(|known| {
            let key = (password.clone(), hash.bytes());
            let made = known.entry(key).or_insert_with(|| Credentials {
                salt: SALT.to_vec(),
                iterations: ITERATIONS,
                keys: scram::derive(hash, password, SALT, ITERATIONS).expect("a good password"),
            });
            Some(made.clone())
        })
    }
}
