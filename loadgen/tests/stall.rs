//! A server that stalls shows in the latency from the intended time as arithmetic says: nobody waits
//! for answers before he sends, so every message that is due in a stall is sent and counted.

use std::path::Path;
use std::time::Duration;

use tandem_loadgen::engine;
use tandem_loadgen::null::{self, Stall};
use tandem_loadgen::result::{Recorder, judge};
use tandem_loadgen::scenario::{self, Overrides};

const TEXT: &str = r#"
name = "stall"
[target]
address = "127.0.0.1:1"
[population]
local = "user%03d@null.example"
users = 20
sasl = "plain"
[[flow]]
kind = "message"
[[stage]]
type = "warmup"
rate = "200/s"
for = "1s"
[[stage]]
type = "hold"
rate = "200/s"
for = "4s"
"#;

#[test]
fn a_stall_of_a_fifth_of_the_time_is_in_the_percentiles() {
    let stall = Stall { long: Duration::from_millis(200), every: Duration::from_secs(1) };
    let at = null::start("127.0.0.1:0".parse().unwrap(), "null.example", Some(stall)).unwrap();
    let mut scenario = scenario::parse(Path::new("stall.toml"), TEXT).unwrap();
    let overrides = Overrides {
        target: vec![at.to_string()],
        drain: Some("5s".to_owned()),
        ..Overrides::default()
    };
    overrides.apply(&mut scenario).unwrap();
    let mut recorder = Recorder::new(&scenario);
    let raw = engine::run(&scenario, &mut |tick| {
        recorder.tick(tick);
    });
    let result = recorder.finish(&raw.unwrap(), TEXT, &[]);
    let of = |key| judge::figure(&result, key).unwrap();
    assert_eq!((of("lost"), of("delivered")), (0.0, 1_000.0));
    // Messages that are due in a stall wait between 200 and 0 ms, evenly. The worst hundredth of a
    // second's are those of its first 10 ms: p99 is 190 ms. The median sees nothing of it.
    let (p50, p99) = (of("latency_p50") / 1e6, of("latency_p99") / 1e6);
    assert!((180.0..400.0).contains(&p99), "p99 {p99} ms");
    assert!(p50 < 50.0, "p50 {p50} ms");
}
