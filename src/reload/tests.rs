//! Reloads of a real folder, without a process around them.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::oneshot;

use super::*;
use crate::audit::{AuditConfig, Sink, Target, WhenFull, Writer, start_with};
use crate::metrics::Build;

const GOOD: &str =
    "version: 1\nrules:\n  - id: no-drop\n    match: {statements: [drop]}\n    deny: true\n";
const BETTER: &str =
    "version: 1\nrules:\n  - id: no-drop-now\n    match: {statements: [drop]}\n    deny: true\n";
const BROKEN: &str =
    "version: 1\nrules:\n  - id: no-drop\n    mach: {statements: [drop]}\n    deny: true\n";
/// A good set that does not go with the configuration.
const MISFIT: &str = "version: 1\nrules:\n  - id: no-drop\n    match: {statements: [drop]}\n    \
    deny: true\n  - id: no-grant\n    match: {statements: [grant]}\n    deny: true\n";

/// Counts the reloads that were recorded.
struct Recorded(Arc<AtomicU64>);

impl Sink for Recorded {
    fn write(&mut self, batch: &[Event]) -> std::io::Result<()> {
        self.0.fetch_add(u64::try_from(batch.len()).unwrap(), Ordering::SeqCst);
        Ok(())
    }

    fn close(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

struct Bench {
    folder: tempfile::TempDir,
    rules: Arc<ArcSwap<ActiveRules>>,
    status: Arc<Status>,
    reloader: Reloader,
    recorded: Arc<AtomicU64>,
    writer: Writer,
}

impl Bench {
    fn new(poll: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("r.yaml"), GOOD).unwrap();
        let language = Language::without_configuration();
        let (active, tried) = first(folder.path(), &language).unwrap();
        let rules = Arc::new(ArcSwap::from_pointee(active));
        let build = Build { version: "0", commit: "0", started_us: 0 };
        let metrics = Metrics::new(build, &[]).unwrap();
        let status = Arc::new(Status::default());
        let recorded = Arc::new(AtomicU64::new(0));
        let wait_deadline = Duration::from_secs(1);
        let config = AuditConfig {
            target: Target::Stdout,
            queue_events: 256,
            when_full: WhenFull::Wait,
            wait_deadline,
        };
        let sink = Box::new(Recorded(Arc::clone(&recorded)));
        let (audit, writer) = start_with(&config, sink, Arc::clone(&metrics));
        let surroundings = Surroundings {
            language,
            datasources: vec![("demo".into(), Arc::new(Analyzer::default()))],
            status: Arc::clone(&status),
            metrics,
            audit,
            fits: Box::new(|rules| match rules.len() {
                2 => Err("the configuration wants one rule".to_owned()),
                _ => Ok(()),
            }),
            swapped: Box::new(|_| {}),
            now: Box::new(|| Now { wall_us: 1, mono_us: 1 }),
        };
        let directory = folder.path().to_owned();
        let around = (surroundings, Certificates::new(Vec::new()));
        let reloader = Reloader::new(directory, poll, Arc::clone(&rules), tried, around);
        Self { folder, rules, status, reloader, recorded, writer }
    }

    fn write(&self, text: &str) {
        fs::write(self.folder.path().join("r.yaml"), text).unwrap();
    }

    fn state(&self) -> (u64, usize, usize) {
        let rules = self.rules.load_full();
        (rules.generation, rules.set.len(), self.reloader.tried.problems.len())
    }
}

#[tokio::test]
async fn only_changes_are_tried_and_a_broken_set_changes_nothing() {
    let mut bench = Bench::new(Duration::from_secs(3600));
    bench.reloader.announce().await;
    assert!(bench.status.report(0).ready);
    bench.reloader.attempt(Trigger::File).await;
    assert_eq!(bench.state(), (1, 1, 0));
    bench.write(BETTER);
    bench.reloader.attempt(Trigger::File).await;
    assert_eq!(bench.state(), (2, 1, 0));
    let digest = bench.rules.load().digest.clone();

    bench.write(BROKEN);
    bench.reloader.attempt(Trigger::File).await;
    bench.reloader.attempt(Trigger::File).await;
    let (generation, rules, problems) = bench.state();
    assert_eq!((generation, rules), (2, 1));
    assert!(problems > 0);
    assert_eq!(bench.rules.load().digest, digest);
    let answer = bench.reloader.answer().unwrap_err();
    assert!(names_the_key(&answer), "{answer:?}");

    // What is in force again is a change from the broken set.
    bench.write(BETTER);
    bench.reloader.attempt(Trigger::File).await;
    assert_eq!(bench.state(), (3, 1, 0));
    assert_eq!(bench.rules.load().digest, digest);
    bench.reloader.attempt(Trigger::Admin).await;
    assert_eq!(bench.state(), (3, 1, 0));

    fs::remove_dir_all(bench.folder.path()).unwrap();
    bench.reloader.attempt(Trigger::File).await;
    assert_eq!(bench.rules.load().set.len(), 1, "a folder that is gone takes no rule along");
    bench.writer.close().await.unwrap();
    // The start, a change, a refusal, the repair, a refusal.
    assert_eq!(bench.recorded.load(Ordering::SeqCst), 5);
}

#[tokio::test]
async fn what_the_configuration_does_not_go_with_is_not_put_in_force() {
    let mut bench = Bench::new(Duration::from_secs(3600));
    bench.write(MISFIT);
    bench.reloader.attempt(Trigger::File).await;
    assert_eq!(bench.state(), (1, 1, 1));
    let answer = bench.reloader.answer().unwrap_err();
    assert!(answer[0].contains("the configuration wants one rule"), "{answer:?}");
}

fn names_the_key(problems: &[String]) -> bool {
    problems.iter().any(|problem| problem.contains("r.yaml:4:5: error: unknown key `mach`"))
}

/// Runs the reloader until the generation is there.
async fn runs_to(bench: Bench, generation: u64, act: impl AsyncFnOnce(&Path)) {
    let Bench { folder, rules, reloader, writer: _writer, .. } = bench;
    let (requests, receiver) = mpsc::channel(1);
    let reached = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        act(folder.path()).await;
        while rules.load().generation < generation {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        ended = reloader.run(receiver) => panic!("{ended:?}"),
        done = tokio::time::timeout(Duration::from_secs(5), reached) => done.unwrap(),
    }
    drop(requests);
}

#[tokio::test]
async fn a_change_is_seen_by_watching() {
    let bench = Bench::new(Duration::from_secs(3600));
    let act = async |folder: &Path| {
        let new = folder.join("new");
        fs::write(&new, BETTER).unwrap();
        fs::rename(new, folder.join("r.yaml")).unwrap();
    };
    runs_to(bench, 2, act).await;
}

#[tokio::test]
async fn neighbours_of_the_folder_and_readers_of_its_files_are_not_changes() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("rules");
    fs::create_dir(&folder).unwrap();
    let file = folder.join("r.yaml");
    fs::write(&file, GOOD).unwrap();
    let (touched, mut touches) = mpsc::channel(1);
    let _watcher = watch(&folder, touched).unwrap();
    fs::write(parent.path().join("audit.jsonl"), "x").unwrap();
    Files::read(&folder).unwrap();
    let quiet = tokio::time::timeout(Duration::from_millis(200), touches.recv()).await;
    assert!(quiet.is_err());
    fs::write(&file, BETTER).unwrap();
    let seen = tokio::time::timeout(Duration::from_secs(5), touches.recv()).await;
    assert_eq!(seen, Ok(Some(())));
}

#[tokio::test]
async fn a_change_is_seen_by_polling() {
    let bench = Bench::new(Duration::from_millis(50));
    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("r.yaml"), BETTER).unwrap();
    let swap = other.path().join("r.yaml");
    // A link whose target changes elsewhere: nothing happens in the watched folder.
    fs::write(&swap, GOOD).unwrap();
    fs::remove_file(bench.folder.path().join("r.yaml")).unwrap();
    std::os::unix::fs::symlink(&swap, bench.folder.path().join("r.yaml")).unwrap();
    runs_to(bench, 2, async |_: &Path| fs::write(&swap, BETTER).unwrap()).await;
}

#[tokio::test]
async fn whoever_asks_is_answered() {
    let Bench { folder, reloader, writer: _writer, .. } = Bench::new(Duration::from_secs(3600));
    let (requests, receiver) = mpsc::channel(1);
    let ask = async || {
        let (answer, answered) = oneshot::channel();
        requests.send(ReloadRequest { answer }).await.unwrap();
        answered.await.unwrap()
    };
    let talk = async {
        assert_eq!(ask().await.unwrap().generation, 1);
        fs::write(folder.path().join("r.yaml"), BROKEN).unwrap();
        assert!(names_the_key(&ask().await.unwrap_err()));
        fs::write(folder.path().join("r.yaml"), BETTER).unwrap();
        assert_eq!(ask().await.unwrap().generation, 2);
    };
    tokio::select! {
        ended = reloader.run(receiver) => panic!("{ended:?}"),
        () = talk => {}
    }
}
