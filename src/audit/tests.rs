//! The queue, the writer and the file, with sinks that fail on purpose.

use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::Value;

use super::sink::Output;
use super::start as start_audit;
use super::*;
use crate::event::tests as events;
use crate::event::{Event, EventKind};
use crate::metrics::{Build, DatasourceLabels};

/// A running queue whose sink is the test's.
struct Bench {
    queue: Queue,
    writer: Writer,
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
    status: Arc<Status>,
}

fn metrics() -> Arc<Metrics> {
    let build = Build { version: "0.1.0", commit: "abc", started_us: 0 };
    let labels = DatasourceLabels { name: "demo", protocol: "postgresql" };
    Metrics::new(build, &[labels]).expect("metrics")
}

fn instance() -> Instance {
    Instance::new("0.1.0", "host", "01KRUN", 1)
}

fn config(queue_events: usize, when_full: WhenFull) -> AuditConfig {
    let wait_deadline = Duration::from_secs(2);
    AuditConfig { target: Target::Stdout, queue_events, when_full, wait_deadline }
}

fn bench(config: &AuditConfig, sink: impl Sink + 'static) -> Bench {
    let (metrics, status) = (metrics(), Arc::new(Status::default()));
    status.set_rules_ok(1, "aa");
    let shared = Shared::new(config, Arc::clone(&metrics));
    let patience = Patience {
        backoff_min: Duration::from_millis(1),
        backoff_max: Duration::from_millis(4),
        closing: Duration::from_millis(50),
    };
    let writer = spawn(Arc::clone(&shared), Box::new(sink), Arc::clone(&status), patience)
        .expect("a writer");
    Bench { queue: Queue::new(Arc::clone(&shared)), writer, shared, metrics, status }
}

fn event(number: u64) -> Event {
    let kind = EventKind::SessionClosed { end: "client" };
    Event { number, ..events::event(Some(events::session()), kind) }
}

fn read(path: &Path) -> Vec<Value> {
    lines(&std::fs::read(path).expect("the file"))
}

fn lines(bytes: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(bytes).expect("UTF-8");
    assert!(text.is_empty() || text.ends_with('\n'), "a torn line at the end");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn sequences(lines: &[Value]) -> Vec<u64> {
    lines.iter().map(|line| line["metadata"]["sequence"].as_u64().expect("a number")).collect()
}

fn shows(metrics: &Metrics, line: &str) -> bool {
    let text = String::from_utf8(metrics.render().expect("text")).expect("UTF-8");
    text.lines().any(|found| found == line)
}

/// Waits for something another thread does, with a deadline instead of a guess.
async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..10_000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("not within twenty seconds: {what}");
}

/// Takes a few bytes at a time, and fails with `ENOSPC` while told to.
#[derive(Clone, Default)]
struct Disk(Arc<Mutex<DiskState>>);

#[derive(Default)]
struct DiskState {
    bytes: Vec<u8>,
    /// Bytes it still takes before it is full.
    room: usize,
    synced: bool,
}

impl Disk {
    fn with_room(room: usize) -> Self {
        Self(Arc::new(Mutex::new(DiskState { room, ..DiskState::default() })))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, DiskState> {
        self.0.lock().expect("no panic inside")
    }
}

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.state();
        if state.room == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let taken = bytes.len().min(state.room).min(1_000);
        state.bytes.extend_from_slice(&bytes[..taken]);
        state.room -= taken;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Output for Disk {
    fn begin(&mut self, _bytes: usize) {}

    fn sync(&mut self) -> io::Result<()> {
        self.state().synced = true;
        Ok(())
    }
}

#[tokio::test]
async fn what_is_pushed_is_written_in_order_and_synced() {
    let disk = Disk::with_room(usize::MAX);
    let bench = bench(&config(1_000, WhenFull::Wait), Lines::new(instance(), disk.clone()));
    let mut permit = bench.queue.try_reserve(300).expect("room");
    for number in 1..=300 {
        bench.queue.push(&mut permit, [event(number)]);
    }
    assert!(permit.is_empty());
    bench.writer.close().await.expect("closed");
    let lines = lines(&disk.state().bytes);
    assert_eq!(sequences(&lines), (1..=300).collect::<Vec<_>>());
    assert_eq!(lines[299]["metadata"]["uid"], "01K9S8Q6V4Z1.300");
    assert!(disk.state().synced);
    assert_eq!(bench.shared.places_used(), 0);
    assert!(shows(&bench.metrics, "portcullis_audit_events_total{result=\"written\"} 300"));
    assert!(shows(&bench.metrics, "portcullis_audit_queue_events 0"));
    assert!(shows(&bench.metrics, "portcullis_sessions_ended_total{end=\"client\"} 300"));
}

#[tokio::test]
async fn an_idle_writer_is_woken() {
    let disk = Disk::with_room(usize::MAX);
    let bench = bench(&config(300, WhenFull::Wait), Lines::new(instance(), disk.clone()));
    for number in 1..=3 {
        let mut permit = bench.queue.try_reserve(1).expect("room");
        bench.queue.push(&mut permit, [event(number)]);
        eventually("written", || lines(&disk.state().bytes).len() as u64 == number).await;
    }
}

#[tokio::test]
async fn a_full_disk_loses_tears_and_doubles_nothing() {
    let disk = Disk::with_room(1_500);
    let bench = bench(&config(300, WhenFull::Refuse), Lines::new(instance(), disk.clone()));
    let mut permit = bench.queue.try_reserve(100).expect("room");
    bench.queue.push(&mut permit, (1..=100).map(event));
    eventually("unready", || !bench.status.report(0).ready).await;
    // The disk fills up again and again, in the middle of lines.
    for _ in 0..40 {
        disk.state().room += 700;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    disk.state().room = usize::MAX;
    eventually("ready", || bench.status.report(0).ready).await;
    bench.writer.close().await.expect("closed");
    assert_eq!(sequences(&lines(&disk.state().bytes)), (1..=100).collect::<Vec<_>>());
    assert!(!shows(&bench.metrics, "portcullis_audit_sink_failures_total 0"));
}

#[tokio::test]
async fn a_full_queue_refuses_until_places_come_free() {
    let disk = Disk::with_room(0);
    let bench = bench(&config(256, WhenFull::Refuse), Lines::new(instance(), disk.clone()));
    let mut permit = bench.queue.try_reserve(256).expect("room");
    assert!(bench.queue.try_reserve(1).is_none());
    assert!(!permit.grow(1));
    permit.shrink(250);
    assert!(bench.queue.try_reserve(6).is_some(), "given back by shrinking, then by dropping");
    bench.queue.push(&mut permit, (1..=250).map(event));
    assert!(bench.queue.try_reserve(7).is_none(), "pushed events keep their places");
    // Somebody waits; the disk gets room; the wait ends.
    let waiting = bench.queue.space(7);
    disk.state().room = usize::MAX;
    tokio::time::timeout(Duration::from_secs(5), waiting).await.expect("places came free");
    bench.writer.close().await.expect("closed");
    assert_eq!(sequences(&lines(&disk.state().bytes)).len(), 250);
}

#[tokio::test]
async fn a_wait_ends_when_a_permit_is_dropped() {
    let disk = Disk::with_room(usize::MAX);
    let bench = bench(&config(256, WhenFull::Wait), Lines::new(instance(), disk));
    let mut permit = bench.queue.try_reserve(256).expect("room");
    let half = permit.split(128);
    let (reserved, ()) = tokio::join!(bench.queue.reserve(100), async {
        tokio::task::yield_now().await;
        drop(half);
    });
    assert_eq!((reserved.len(), permit.len()), (100, 128));
    permit.merge(reserved);
    assert_eq!((permit.len(), bench.shared.places_used()), (228, 228));
}

#[tokio::test]
async fn dropped_events_are_counted_and_told() {
    let disk = Disk::with_room(0);
    let bench = bench(&config(256, WhenFull::DropAndCount), Lines::new(instance(), disk.clone()));
    let mut permit = bench.queue.try_reserve(256).expect("room");
    bench.queue.push(&mut permit, (1..=256).map(event));
    let mut promised = bench.queue.try_reserve(10).expect("always");
    bench.queue.push(&mut promised, (257..=263).map(event));
    assert!(shows(&bench.metrics, "portcullis_audit_events_total{result=\"dropped\"} 7"));
    disk.state().room = usize::MAX;
    eventually("room again", || bench.shared.places_used() == 0).await;
    // The rest of the promise is kept now that there is room.
    bench.queue.push(&mut promised, (264..=266).map(event));
    bench.writer.close().await.expect("closed");
    let lines = lines(&disk.state().bytes);
    assert_eq!(lines.len(), 256 + 1 + 3);
    assert_eq!(lines[256]["class_uid"], 2004);
    assert_eq!(lines[256]["unmapped"]["portcullis"]["dropped"], 7);
    // Metrics count what was dropped too.
    assert!(shows(&bench.metrics, "portcullis_sessions_ended_total{end=\"client\"} 266"));
    assert_eq!(bench.shared.places_used(), 0);
}

#[tokio::test]
async fn more_events_than_reserved_are_kept_all_the_same() {
    let disk = Disk::with_room(usize::MAX);
    let bench = bench(&config(256, WhenFull::Wait), Lines::new(instance(), disk.clone()));
    let mut permit = bench.queue.try_reserve(1).expect("room");
    bench.queue.push(&mut permit, (1..=3).map(event));
    bench.writer.close().await.expect("closed");
    assert_eq!(lines(&disk.state().bytes).len(), 3);
    assert_eq!(bench.shared.places_used(), 0);
}

#[tokio::test]
async fn many_threads_lose_nothing() {
    const THREADS: u64 = 4;
    const EACH: u64 = 2_000;
    let disk = Disk::with_room(usize::MAX);
    let bench = bench(&config(512, WhenFull::Wait), Lines::new(instance(), disk.clone()));
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let queue = bench.queue.clone();
            std::thread::spawn(move || {
                let runtime =
                    tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
                runtime.block_on(async {
                    for number in 0..EACH {
                        let mut permit = queue.reserve(3).await;
                        queue.push(&mut permit, [event(thread * EACH + number)]);
                    }
                });
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("no panic");
    }
    bench.writer.close().await.expect("closed");
    let lines = lines(&disk.state().bytes);
    let mut uids: Vec<_> = lines.iter().map(|line| line["metadata"]["uid"].to_string()).collect();
    uids.sort_unstable();
    uids.dedup();
    assert_eq!(uids.len() as u64, THREADS * EACH);
    assert_eq!(sequences(&lines), (1..=THREADS * EACH).collect::<Vec<_>>());
    assert_eq!(bench.shared.places_used(), 0);
}

#[tokio::test]
async fn a_real_full_device_makes_unready_and_is_given_up_on_close() {
    let file = Rotating::open(Path::new("/dev/full"), rotation(1_000, 2)).expect("a device");
    let bench = bench(&config(256, WhenFull::Refuse), Lines::new(instance(), file));
    let mut permit = bench.queue.try_reserve(256).expect("room");
    bench.queue.push(&mut permit, (1..=256).map(event));
    eventually("unready", || !bench.status.report(0).ready).await;
    assert!(bench.queue.try_reserve(1).is_none());
    let error = bench.writer.close().await.expect_err("nothing was written");
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
}

fn rotation(rotate_bytes: u64, keep: u32) -> Rotation {
    Rotation { rotate_bytes, keep }
}

/// Writes batches of one event each.
fn write(file: Rotating, numbers: std::ops::RangeInclusive<u64>) {
    let mut sink = Lines::new(instance(), file);
    for number in numbers {
        sink.write(&[event(number)]).expect("written");
    }
    sink.close().expect("synced");
}

#[test]
fn a_file_is_private_and_appended_to() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("audit.jsonl");
    for _ in 0..2 {
        write(Rotating::open(&path, rotation(1 << 20, 2)).expect("open"), 1..=2);
    }
    assert_eq!(sequences(&read(&path)), [1, 2, 1, 2]);
    let mode = std::fs::metadata(&path).expect("metadata").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_torn_line_does_not_swallow_the_next() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("audit.jsonl");
    std::fs::write(&path, "{\"whole\":1}\n{\"torn\":").expect("written");
    write(Rotating::open(&path, rotation(1 << 20, 2)).expect("open"), 1..=1);
    let text = std::fs::read_to_string(&path).expect("text");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(&lines[..2], ["{\"whole\":1}", "{\"torn\":"]);
    assert_eq!(lines.len(), 3);
    assert!(serde_json::from_str::<Value>(lines[2]).is_ok());
}

#[test]
fn a_full_file_moves_up_and_only_the_oldest_goes() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("audit.jsonl");
    // Every line is longer than the bound: one line a file.
    write(Rotating::open(&path, rotation(10, 3)).expect("open"), 1..=6);
    let names = ["", ".1", ".2", ".3"];
    let found = names.map(|suffix| {
        let path = folder.path().join(format!("audit.jsonl{suffix}"));
        sequences(&read(&path))
    });
    assert_eq!(found, [[6], [5], [4], [3]]);
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 4);
}

#[test]
fn a_file_that_cannot_be_rotated_grows_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("audit.jsonl");
    // A folder in the way of the successor.
    std::fs::create_dir(folder.path().join("audit.jsonl.new")).expect("a folder");
    write(Rotating::open(&path, rotation(10, 3)).expect("open"), 1..=3);
    assert_eq!(sequences(&read(&path)), [1, 2, 3]);
}

#[test]
fn a_file_moved_away_by_another_gets_a_successor() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("audit.jsonl");
    let mut sink = Lines::new(instance(), Rotating::open(&path, rotation(10, 3)).expect("open"));
    sink.write(&[event(1)]).expect("written");
    std::fs::rename(&path, folder.path().join("elsewhere")).expect("moved");
    sink.write(&[event(2)]).expect("written");
    assert_eq!(sequences(&read(&path)), [2]);
}

#[test]
fn two_processes_do_not_share_a_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("audit.jsonl");
    let _first = Rotating::open(&path, rotation(10, 3)).expect("open");
    let error = Rotating::open(&path, rotation(10, 3)).expect_err("locked");
    assert!(error.to_string().contains("another process"), "{error}");
}

#[tokio::test]
async fn start_names_what_is_wrong_and_writes_when_nothing_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |path: &Path| AuditConfig {
        target: Target::File { path: path.to_owned(), rotate_bytes: 1 << 20, keep: 2 },
        ..config(256, WhenFull::Wait)
    };
    let start = |config: &AuditConfig| {
        start_audit(config, instance(), metrics(), Arc::new(Status::default()))
    };
    let missing = folder.path().join("no/such/audit.jsonl");
    let error = start(&file(&missing)).expect_err("no folder");
    assert!(format!("{error:#}").contains("no/such/audit.jsonl"), "{error:#}");
    let small = AuditConfig { queue_events: 8, ..file(&folder.path().join("a")) };
    assert!(start(&small).is_err());
    let path = folder.path().join("audit.jsonl");
    let (queue, writer) = start(&file(&path)).expect("started");
    assert_eq!((queue.when_full(), queue.wait_deadline().as_secs()), (WhenFull::Wait, 2));
    let mut permit = queue.try_reserve(1).expect("room");
    queue.push(&mut permit, [event(1)]);
    writer.close().await.expect("closed");
    assert_eq!(read(&path).len(), 1);
}
