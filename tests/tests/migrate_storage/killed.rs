//! Runs that are killed whenever it may be.

use std::time::{Duration, Instant};

use registry_tests::Random;
use registry_tests::wait::pause;
use rustix::process::Signal;

use crate::{Target, assert_clean, assert_same_view, fill, old_node, report, stop, view};

/// How many runs are killed, and how many there are at most: some may end before their moment has come.
const KILLS: usize = 5;
const RUNS: usize = 15;

#[test]
fn a_run_that_is_killed_at_whatever_moment_is_begun_again() {
    let (Some(rehearsal), Some(target)) = (Target::new("a rehearsal of migrate-storage"), Target::new("killed runs"))
    else {
        return;
    };
    let old = old_node();
    fill(&old, 1);
    fill(&old, 2);
    let before = view(&old);
    let (config, _again) = stop(old);
    let began = Instant::now();
    let rehearsed = report(&rehearsal.migrate(&config, &["-finish"]));
    let whole = u64::try_from(began.elapsed().as_micros()).unwrap();

    let mut random = Random::seeded("killed runs of migrate-storage", 0x6d69_6772);
    let (mut killed, mut runs) = (0, 0);
    while killed < KILLS && runs < RUNS {
        runs += 1;
        let mut run = target.start(&config, &["-finish"], &[]);
        let moment = Instant::now() + Duration::from_micros(random.below(whole));
        while Instant::now() < moment && !run.has_ended() {
            pause();
        }
        if !run.has_ended() {
            run.signal(Signal::KILL);
        }
        let ended = run.wait();
        killed += usize::from(ended.code.is_none());
        assert!(matches!(ended.code, None | Some(0)), "{ended:?}");
    }
    assert!(killed > 0, "none of {runs} runs was killed");

    let last = report(&target.migrate(&config, &["-finish", "-verify"]));
    for what in ["blobs", "rows"] {
        assert_eq!(last[what], rehearsed[what], "{last}");
    }
    assert_eq!(last["verified"]["objects"], last["blobs"], "{last}");
    let new = target.builder().environment("FOUNDRY_GC__UPLOAD_IDLE", "1ms").start();
    assert_same_view(&before, &new);
    // What they left behind is removed, and nothing else.
    new.gc("24h");
    assert_same_view(&before, &new);
    assert_clean(&new);
    assert_eq!(target.database.run("SELECT count(*) FROM uploads"), "0");
}
