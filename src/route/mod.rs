//! Who owns what: pure arithmetic from addresses to places.

mod slots;

pub use slots::{ShardIndex, shard_of, shard_of_domain};
