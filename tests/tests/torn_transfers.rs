//! Connections that are cut anywhere in an upload: every acknowledged blob reads back identical, every other is absent.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use registry_core::ports::steps;
use registry_tests::oci::{offset, sha256, sha512, with_digest};
use registry_tests::server::{ADMIN, ServerBuilder};
use registry_tests::wait::eventually;
use registry_tests::{Connection, Random, Repository, Server};
use rustix::process::Signal;

const PART: usize = 8 * 1024 * 1024;
/// Around the ends of parts.
const AROUND_PARTS: [usize; 6] = [PART - 1, PART, PART + 1, 2 * PART - 1, 2 * PART, 2 * PART + 1];

/// Sends a request with that body, but only its first `sent` bytes, cuts the connection without reading, and waits
/// until the server is done with it. Whether a request that was cut reached the server before the next one is otherwise
/// for the network to decide.
fn cut(server: &Server, method: &str, target: &str, headers: &[String], body: &[u8], sent: usize) {
    let length = format!("Content-Length: {}", body.len());
    cut_raw(server, method, target, &[headers, &[length]].concat(), &[&body[..sent]]);
}

/// The same with a body that is framed otherwise.
fn cut_raw(server: &Server, method: &str, target: &str, headers: &[String], pieces: &[&[u8]]) {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let id = format!("cut-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let mut connection = Connection::open(server.address());
    let mut lines = vec![format!("Authorization: Bearer {ADMIN}"), format!("X-Request-Id: {id}")];
    lines.extend_from_slice(headers);
    connection.send_head(method, target, &lines).unwrap();
    for piece in pieces {
        // The server may refuse before all is sent; that too is a cut.
        let _ = connection.send(piece);
    }
    connection.cut();
    let logged = format!("\"request_id\":\"{id}\",\"method\"");
    eventually("the server is done with a request that was cut", || {
        server.log().iter().any(|line| line.contains(&logged)).then_some(())
    });
}

/// Goes on where the server says, as often as it takes, and returns when all of `bytes` is there.
fn resume(repository: &Repository<'_>, location: &str, bytes: &[u8]) {
    for _ in 0..50 {
        let durable = offset(&repository.status(location).expect(204));
        assert!(durable <= bytes.len());
        if durable == bytes.len() {
            return;
        }
        // The request that was cut may still be on its way in: then the offset has moved, and we ask again.
        let answer = repository.patch_at(location, durable, &bytes[durable..]);
        match answer.status {
            202 => {
                assert_eq!(offset(&answer), bytes.len());
                return;
            }
            416 => {}
            _ => panic!("{answer:?}"),
        }
    }
    panic!("the upload cannot be resumed");
}

fn staged(server: &Server) -> Vec<String> {
    server.staged_files()
}

fn places(length: usize) -> Vec<usize> {
    vec![0, 2, 1000, length / 2, length - 1, length]
}

#[test]
fn a_cut_patch_is_resumed_where_the_status_says() {
    let server = Server::start();
    let repository = server.repository("torn/resumed");
    for (seed, sent) in places(3_000_000).into_iter().enumerate() {
        let bytes = Random::new(seed as u64).bytes(3_000_000);
        let location = repository.start_upload();
        cut(&server, "PATCH", &location, &[], &bytes, sent);
        resume(&repository, &location, &bytes);
        let digest = sha256(&bytes);
        repository.finish(&location, &digest, b"").expect(201);
        assert_eq!(repository.get_blob(&digest).expect(200).body, bytes, "cut after {sent}");
    }
}

#[test]
fn a_cut_patch_is_sent_again_from_what_was_last_acknowledged() {
    let server = Server::start();
    let repository = server.repository("torn/again");
    // Not after the last byte: then only the answer was lost, and a client has to ask for the status.
    for (seed, sent) in places(2_000_000).into_iter().filter(|sent| *sent < 2_000_000).enumerate() {
        let bytes = Random::new(100 + seed as u64).bytes(3_000_000);
        let (first, second) = bytes.split_at(1_000_000);
        let location = repository.start_upload();
        assert_eq!(offset(&repository.patch(&location, first).expect(202)), first.len());
        cut(&server, "PATCH", &location, &[], second, sent);
        // The client knows of 1,000,000 bytes; without a range its body begins there.
        assert_eq!(offset(&repository.patch(&location, second).expect(202)), bytes.len());
        let digest = sha256(&bytes);
        repository.finish(&location, &digest, b"").expect(201);
        assert_eq!(repository.get_blob(&digest).expect(200).body, bytes, "cut after {sent}");
    }
}

#[test]
fn a_cut_put_is_sent_again_from_its_beginning() {
    let server = Server::start();
    let repository = server.repository("torn/put");
    for (seed, sent) in places(3_000_000).into_iter().enumerate() {
        let bytes = Random::new(200 + seed as u64).bytes(3_000_000);
        let digest = sha256(&bytes);
        let location = repository.start_upload();
        let target = with_digest(&location, &digest);
        cut(&server, "PUT", &target, &[], &bytes, sent);
        // Also after the last byte, when only the answer was lost.
        repository.finish(&location, &digest, &bytes).expect(201);
        repository.finish(&location, &digest, &bytes).expect(201);
        repository.finish(&location, &digest, b"").expect(201);
        assert_eq!(repository.get_blob(&digest).expect(200).body, bytes, "cut after {sent}");
    }
}

/// The lengths of bodies that end a little later, and where they are cut.
fn around_parts() -> impl Iterator<Item = (usize, usize)> {
    AROUND_PARTS.into_iter().map(|sent| ((sent + 1) / PART * PART + 5_000, sent))
}

/// The same bytes with others at their beginning, so that no blob is there before it is sent.
fn stamped(bytes: &[u8], number: u64) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes
}

/// Asks for the status of a PUT that was cut after `sent` bytes, and PUTs the rest from there: how much was there.
fn finish_from_status(repository: &Repository<'_>, location: &str, bytes: &[u8], sent: usize) -> usize {
    let target = with_digest(location, &sha256(bytes));
    for _ in 0..50 {
        let status = repository.status(location);
        if status.status == 404 && sent == bytes.len() {
            // Only the answer was lost.
            repository.finish(location, &sha256(bytes), b"").expect(201);
            return sent;
        }
        let durable = offset(&status.expect(204));
        let range = |first: usize| format!("Content-Range: {first}-{}", bytes.len() - 1);
        let put = |first: usize| repository.server.request("PUT", &target, &[&range(first)], &bytes[first..]);
        if durable < bytes.len() - 1 {
            assert_eq!(put(bytes.len() - 1).expect(416).oci_code(), "BLOB_UPLOAD_INVALID");
        }
        // Nothing is left to send: then there is no range, either.
        let answer =
            if durable == bytes.len() { repository.finish(location, &sha256(bytes), b"") } else { put(durable) };
        match answer.status {
            201 => return durable,
            // The request that was cut may still have been on its way in.
            416 => {}
            _ => panic!("{answer:?}"),
        }
    }
    panic!("the upload cannot be finished");
}

/// A PUT is cut at the start, in the middle, after the last byte and around the ends of parts; then the client sends the
/// same again, or asks for the status and sends the rest, or gives it up; around the end of a second part, only the second.
#[test]
fn a_cut_put_is_sent_again_or_resumed_or_cancelled() {
    let server = Server::start();
    let repository = server.repository("torn/put/parts");
    let (small, large) = (300_000, PART + 5_000);
    let cuts = places(small).into_iter().map(|sent| (small, sent));
    let cuts: Vec<_> = cuts.chain(around_parts()).chain([(large, large)]).collect();
    let random = Random::new(210).bytes(2 * PART + 5_000);
    for (number, (length, sent)) in cuts.into_iter().enumerate() {
        let is_longest = length > large;
        for (turn, then) in ["resume", "again", "cancel"].into_iter().enumerate().take(if is_longest { 1 } else { 3 }) {
            let bytes = stamped(&random[..length], 3 * number as u64 + turn as u64);
            let digest = sha256(&bytes);
            let location = repository.start_upload();
            let target = with_digest(&location, &digest);
            cut(&server, "PUT", &target, &[], &bytes, sent);
            assert!(sent == length || repository.head_blob(&digest).status == 404, "{sent} of {length}: it is there");
            match then {
                "again" => drop(repository.finish(&location, &digest, &bytes).expect(201)),
                "resume" => {
                    let durable = finish_from_status(&repository, &location, &bytes, sent);
                    assert!(durable <= sent, "{sent} of {length}: {durable} are said to be there");
                }
                _ => {
                    let cancelled = server.request("DELETE", &location, &[], b"");
                    if cancelled.status == 204 {
                        repository.status(&location).expect(404);
                        repository.finish(&location, &digest, b"").expect(404);
                        repository.head_blob(&digest).expect(404);
                        continue;
                    }
                    // Only the answer was lost: what is done cannot be given up.
                    assert_eq!((cancelled.status, sent), (404, length), "cancelled");
                }
            }
            let got = repository.get_blob(&digest).expect(200).body;
            assert!(got == bytes, "{then} after {sent} of {length}: other bytes");
        }
    }
    assert_eq!(staged(&server), Vec::<String>::new());
}

#[test]
fn a_single_post_that_is_cut_around_the_size_of_a_part_leaves_nothing() {
    let server = Server::start();
    let repository = server.repository("torn/post/parts");
    let random = Random::new(310).bytes(2 * PART + 5_000);
    for (number, (length, sent)) in around_parts().enumerate() {
        let bytes = stamped(&random[..length], number as u64);
        let digest = sha256(&bytes);
        let target = with_digest(&repository.path("blobs/uploads/"), &digest);
        cut(&server, "POST", &target, &[], &bytes, sent);
        repository.head_blob(&digest).expect(404);
        assert_eq!(staged(&server), Vec::<String>::new(), "after {sent}");
        server.request("POST", &target, &[], &bytes).expect(201);
        assert!(repository.get_blob(&digest).expect(200).body == bytes, "after {sent}: other bytes");
    }
}

#[test]
fn a_cut_single_post_leaves_nothing() {
    let server = Server::start();
    let repository = server.repository("torn/post");
    for (seed, sent) in places(500_000).into_iter().filter(|sent| *sent < 500_000).enumerate() {
        let bytes = Random::new(300 + seed as u64).bytes(500_000);
        let digest = sha256(&bytes);
        let target = with_digest(&repository.path("blobs/uploads/"), &digest);
        cut(&server, "POST", &target, &[], &bytes, sent);
        repository.head_blob(&digest).expect(404);
        server.request("POST", &target, &[], &bytes).expect(201);
        assert_eq!(repository.get_blob(&digest).expect(200).body, bytes);
    }
    // A request that was cut ends by itself; what it staged goes with it.
    assert_eq!(staged(&server), Vec::<String>::new());
}

#[test]
fn a_single_post_whose_answer_was_lost_is_acknowledged_again() {
    let server = Server::start();
    let repository = server.repository("torn/lost");
    let bytes = Random::new(400).bytes(500_000);
    let digest = sha256(&bytes);
    let target = with_digest(&repository.path("blobs/uploads/"), &digest);
    cut(&server, "POST", &target, &[], &bytes, bytes.len());
    server.request("POST", &target, &[], &bytes).expect(201);
    assert_eq!(repository.get_blob(&digest).expect(200).body, bytes);
}

#[test]
fn a_cut_chunked_body_is_not_taken_for_a_whole_one() {
    let server = Server::start();
    let repository = server.repository("torn/chunked");
    let bytes = Random::new(500).bytes(100_000);
    let digest = sha256(&bytes);
    let location = repository.start_upload();
    for end in ["", "\r\n", "\r\n0\r\n"] {
        let size = format!("{:x}\r\n", bytes.len());
        let headers = ["Transfer-Encoding: chunked".to_owned()];
        let target = with_digest(&location, &digest);
        cut_raw(&server, "PUT", &target, &headers, &[size.as_bytes(), &bytes, end.as_bytes()]);
    }
    repository.head_blob(&digest).expect(404);
    repository.finish(&location, &digest, &bytes).expect(201);
    assert_eq!(repository.get_blob(&digest).expect(200).body, bytes);
}

#[test]
fn pieces_around_the_size_of_a_part_make_the_same_blob() {
    let server = Server::start();
    let repository = server.repository("torn/parts");
    let bytes = Random::new(600).bytes(4 * PART);
    let digest = sha256(&bytes);
    for first in AROUND_PARTS {
        let location = repository.start_upload();
        cut(&server, "PATCH", &location, &[], &bytes[..3 * PART], first);
        resume(&repository, &location, &bytes[..3 * PART]);
        repository.finish(&location, &digest, &bytes[3 * PART..]).expect(201);
        assert_eq!(sha256(&repository.get_blob(&digest).expect(200).body), digest);
    }
}

#[test]
fn an_upload_is_cancelled_after_a_cut() {
    let server = Server::start();
    let repository = server.repository("torn/cancelled");
    let bytes = Random::new(700).bytes(1_000_000);
    let digest = sha256(&bytes);
    let location = repository.start_upload();
    cut(&server, "PATCH", &location, &[], &bytes, 500_000);
    server.request("DELETE", &location, &[], b"").expect(204);
    assert_eq!(repository.status(&location).expect(404).oci_code(), "BLOB_UPLOAD_UNKNOWN");
    repository.patch(&location, &bytes).expect(404);
    repository.finish(&location, &digest, &bytes).expect(404);
    server.request("DELETE", &location, &[], b"").expect(404);
    repository.head_blob(&digest).expect(404);
    assert_eq!(staged(&server), Vec::<String>::new());
}

#[test]
fn of_two_writers_the_newer_wins_and_their_bytes_never_mix() {
    let server = Server::builder().tell_steps().start();
    let repository = server.repository("torn/two");
    for seed in 0..5 {
        let older = Random::new(800 + seed).bytes(2_000_000);
        let newer = Random::new(900 + seed).bytes(1_500_000);
        let location = repository.start_upload();
        let mut first = Connection::open(server.address());
        let lines = [format!("Authorization: Bearer {ADMIN}"), format!("Content-Length: {}", older.len())];
        first.send_head("PATCH", &location, &lines).unwrap();
        first.send(&older[..1_000_000]).unwrap();
        let writers = 2 * usize::try_from(seed).unwrap() + 1;
        eventually("the older writes", || (server.has_reached(steps::UPLOAD_EPOCH_RAISED) == writers).then_some(()));
        repository.patch(&location, &newer).expect(202);
        let _ = first.send(&older[1_000_000..]);
        if let Ok(answer) = first.answer() {
            assert_eq!(answer.expect(416).oci_code(), "BLOB_UPLOAD_INVALID");
        }
        assert_eq!(offset(&repository.status(&location).expect(204)), newer.len());
        repository.finish(&location, &sha256(&older), b"").expect(400);
        repository.finish(&location, &sha256(&newer), b"").expect(201);
        assert_eq!(repository.get_blob(&sha256(&newer)).expect(200).body, newer);
        repository.head_blob(&sha256(&older)).expect(404);
    }
}

/// Whoever is the newest wins, and the blob has its bytes; the others are told so, or that the upload is over.
#[test]
fn of_several_writers_at_once_one_wins_and_its_bytes_are_the_blob() {
    let server = Server::start();
    let mut random = Random::seeded("several writers at once", 2);
    for round in 0..40 {
        let repository = server.repository("torn/several");
        let location = repository.start_upload();
        let bodies: Vec<_> = (0..3).map(|_| random.bytes(1000)).collect();
        let together = Barrier::new(bodies.len());
        let statuses: Vec<u16> = thread::scope(|scope| {
            let puts = bodies.iter().map(|bytes| {
                scope.spawn(|| {
                    together.wait();
                    server.repository("torn/several").finish(&location, &sha256(bytes), bytes).status
                })
            });
            let puts: Vec<_> = puts.collect();
            puts.into_iter().map(|put| put.join().unwrap()).collect()
        });
        assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 1, "{round}: {statuses:?}");
        for (bytes, status) in bodies.iter().zip(&statuses) {
            match status {
                201 => assert!(repository.get_blob(&sha256(bytes)).expect(200).body == *bytes, "{round}: other bytes"),
                404 | 416 => drop(repository.head_blob(&sha256(bytes)).expect(404)),
                _ => panic!("{round}: {statuses:?}"),
            }
        }
    }
}

/// It sleeps between raising the epoch and taking the lock of the staged bytes, while another process on the folder writes,
/// lets go of the lock and finishes: then the lock is free, and the bytes are checked.
#[test]
fn a_writer_that_was_overtaken_before_it_had_the_lock_changes_nothing() {
    let mut random = Random::seeded("overtaken before the lock", 1);
    for is_finished in [false, true] {
        let server = ServerBuilder::on_files().start();
        let sleeper = ServerBuilder::on_files().data(server.data()).stop_point(steps::UPLOAD_EPOCH_RAISED, 1).start();
        let repository = server.repository("team/app");
        let location = repository.start_upload();
        let bytes = random.bytes(1000);
        let others = random.bytes(1000);
        let answer = thread::scope(|scope| {
            let patch = scope.spawn(|| sleeper.repository("team/app").patch(&location, &others));
            eventually("the writer sleeps", || sleeper.is_stopped().then_some(()));
            repository.patch(&location, &bytes).expect(202);
            if is_finished {
                repository.finish(&location, &sha256(&bytes), b"").expect(201);
            }
            sleeper.signal(Signal::CONT);
            patch.join().unwrap()
        });
        answer.expect(416);
        if !is_finished {
            repository.finish(&location, &sha256(&bytes), b"").expect(201);
        }
        assert!(repository.get_blob(&sha256(&bytes)).expect(200).body == bytes, "other bytes than were checked");
    }
}

#[test]
fn a_blob_is_committed_while_an_overtaken_writer_still_sends() {
    let server = Server::builder().tell_steps().start();
    let repository = server.repository("torn/overtaken");
    let bytes = Random::new(1000).bytes(1_000_000);
    let digest = sha256(&bytes);
    let location = repository.start_upload();
    repository.patch(&location, &bytes).expect(202);
    let mut late = Connection::open(server.address());
    let lines = [format!("Authorization: Bearer {ADMIN}"), "Content-Length: 2000000".to_owned()];
    late.send_head("PATCH", &location, &lines).unwrap();
    late.send(&[7; 1_000_000]).unwrap();
    eventually("the late one writes", || (server.has_reached(steps::UPLOAD_EPOCH_RAISED) == 2).then_some(()));
    // The late writer may hold the bytes now. Whatever the outcome, the blob is these bytes or is not there.
    let mut answer = repository.finish(&location, &digest, b"");
    let _ = late.send(&[7; 500_000]);
    late.cut();
    for _ in 0..20 {
        if answer.status == 201 {
            break;
        }
        assert!(matches!(answer.status, 400 | 416), "{answer:?}");
        repository.head_blob(&digest).expect(404);
        answer = repository.finish(&location, &digest, &bytes);
        if answer.status != 201 {
            // The told offset has moved on with the late writer's bytes: begin anew, as a client does.
            let location = repository.start_upload();
            answer = repository.finish(&location, &digest, &bytes);
        }
    }
    answer.expect(201);
    assert_eq!(repository.get_blob(&digest).expect(200).body, bytes);
}

#[test]
fn the_same_put_twice_at_once_makes_one_blob() {
    let server = Server::start();
    let repository = server.repository("torn/twice");
    for seed in 0..10 {
        let bytes = Random::new(1100 + seed).bytes(300_000);
        let digest = sha256(&bytes);
        let location = repository.start_upload();
        repository.patch(&location, &bytes).expect(202);
        let statuses: Vec<u16> = thread::scope(|scope| {
            let puts: Vec<_> =
                (0..4).map(|_| scope.spawn(|| repository.finish(&location, &digest, b"").status)).collect();
            puts.into_iter().map(|put| put.join().unwrap()).collect()
        });
        assert!(statuses.contains(&201), "{statuses:?}");
        assert!(statuses.iter().all(|status| matches!(status, 201 | 416)), "{statuses:?}");
        repository.finish(&location, &digest, b"").expect(201);
        assert_eq!(repository.get_blob(&digest).expect(200).body, bytes);
    }
}

#[test]
fn a_range_that_does_not_fit_its_body_stores_nothing() {
    let server = Server::start();
    let repository = server.repository("torn/range");
    let bytes = Random::new(1200).bytes(10_000);
    let location = repository.start_upload();
    for range in ["Content-Range: 0-9998", "Content-Range: 0-10000"] {
        let answer = server.request("PATCH", &location, &[range], &bytes);
        assert_eq!(answer.expect(400).oci_code(), "SIZE_INVALID");
        let chunked = format!("{:x}\r\n{}\r\n0\r\n\r\n", bytes.len(), "x".repeat(bytes.len()));
        let headers = [range, "Transfer-Encoding: chunked"];
        assert_eq!(
            server.request("PATCH", &location, &headers, chunked.as_bytes()).expect(400).oci_code(),
            "SIZE_INVALID"
        );
        assert_eq!(offset(&repository.status(&location).expect(204)), 0);
    }
    repository.patch_at(&location, 5_000, &bytes).expect(416);
    repository.patch_at(&location, 0, &bytes).expect(202);
    repository.patch_at(&location, 0, &bytes).expect(416);
    repository.finish(&location, &sha256(&bytes), b"").expect(201);
}

#[test]
fn a_wrong_digest_stores_nothing_and_a_right_one_can_follow() {
    let server = Server::start();
    let repository = server.repository("torn/digest");
    let bytes = Random::new(1300).bytes(100_000);
    let wrong = Random::new(1301).bytes(100_000);
    for digest in [sha256(&bytes), sha512(&bytes)] {
        let location = repository.start_upload();
        assert_eq!(repository.finish(&location, &digest, &wrong).expect(400).oci_code(), "DIGEST_INVALID");
        repository.head_blob(&digest).expect(404);
        repository.head_blob(&sha256(&wrong)).expect(404);
        repository.finish(&location, &digest, &bytes).expect(201);
        assert_eq!(repository.get_blob(&digest).expect(200).body, bytes);
    }
}

/// What a client knows, and does at random: pieces, cuts, statuses, repetitions, restarts.
#[test]
fn random_walks_through_uploads_end_in_the_right_bytes() {
    let mut random = Random::seeded("random_walks", 0x746f_726e);
    let server = Server::start();
    let repository = server.repository("torn/walk");
    for walk in 0..25 {
        let length = 2 + random.below(400_000) as usize;
        let bytes = random.bytes(length);
        let digest = sha256(&bytes);
        let location = repository.start_upload();
        let mut known = 0;
        let mut steps = 0;
        while known < bytes.len() && steps < 40 {
            steps += 1;
            let end = known + 1 + random.below((bytes.len() - known) as u64) as usize;
            // Exactly one byte reads as none in `Range: 0-0`.
            let end = if end == 1 { 2 } else { end };
            match random.below(6) {
                0 => {
                    // Never whole: then only the answer would be lost, and the client has to ask for the status.
                    let sent = random.below((end - known) as u64) as usize;
                    cut(&server, "PATCH", &location, &[], &bytes[known..end], sent);
                    if random.chance(50) {
                        known = offset(&repository.status(&location).expect(204));
                    }
                }
                1 => {
                    let range = format!("Content-Range: {known}-{}", end - 1);
                    let sent = random.below((end - known) as u64 + 1) as usize;
                    cut(&server, "PATCH", &location, &[range], &bytes[known..end], sent);
                    known = offset(&repository.status(&location).expect(204));
                }
                2 => known = offset(&repository.status(&location).expect(204)),
                3 => {
                    known = offset(&repository.status(&location).expect(204));
                    repository.patch_at(&location, known + 1, &bytes[known..bytes.len().min(known + 10)]).expect(416);
                    known = offset(&repository.status(&location).expect(204));
                }
                4 => {
                    assert_eq!(
                        repository.finish(&location, &sha256(b"other"), b"").expect(400).oci_code(),
                        "DIGEST_INVALID"
                    );
                }
                _ => {
                    let answer = repository.patch(&location, &bytes[known..end]);
                    known = offset(&answer.expect(202));
                    assert_eq!(known, end);
                }
            }
        }
        if random.chance(20) {
            repository.head_blob(&digest).expect(404);
            continue;
        }
        repository.finish(&location, &digest, &bytes[known..]).expect(201);
        assert_eq!(repository.get_blob(&digest).expect(200).body, bytes, "walk {walk}");
    }
}
