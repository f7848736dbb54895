//! The example `code_stats`, killed half-way: called again, it does not read again what it had read.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const FILES: u64 = 400;
/// Larger than can be read before the process is killed, and no room on the disk.
const ENDLESS: u64 = 1 << 42;

/// The program, built by whoever builds this test.
fn program() -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--example", "code_stats"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    assert!(build.status().unwrap().success(), "the example can be built");
    let test = std::env::current_exe().unwrap();
    let program = test.ancestors().nth(2).unwrap().join("examples/code_stats");
    Command::new(program)
}

/// Writes over a file so that its folder describes it as before.
fn spoil(path: &Path) {
    let data = std::fs::metadata(path).unwrap();
    std::fs::write(path, "x".repeat(usize::try_from(data.len()).unwrap())).unwrap();
    File::options().write(true).open(path).unwrap().set_modified(data.modified().unwrap()).unwrap();
}

/// How many files it remembers.
fn cached(home: &Path) -> u64 {
    let Ok(connection) = rusqlite::Connection::open(home.join("orchestrator.db")) else { return 0 };
    let count = connection.query_row("SELECT count(*) FROM cache", [], |row| row.get(0));
    count.map_or(0, i64::cast_unsigned)
}

#[test]
fn code_stats_goes_on_where_it_was_killed() {
    let folder = tempfile::tempdir().unwrap();
    let (home, code) = (folder.path().join("home"), folder.path().join("code"));
    std::fs::create_dir(&code).unwrap();
    for n in 0..FILES {
        std::fs::write(code.join(format!("{n}.rs")), format!("//! {n}\n\nfn f() {{}}\n\n")).unwrap();
    }
    let endless = code.join("endless.rs");
    File::create(&endless).unwrap().set_len(ENDLESS).unwrap();
    let command = || {
        let mut command = program();
        command.arg(&code).arg("--json").env("ORCHESTRATOR_HOME", &home).stderr(Stdio::null());
        command
    };

    let mut killed = command().stdout(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while cached(&home) < FILES / 2 {
        assert!(Instant::now() < deadline, "it remembers {} files", cached(&home));
        std::thread::sleep(Duration::from_millis(1));
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    let read = cached(&home);

    // Whoever reads a file again finds no line in it.
    for n in 0..FILES {
        spoil(&code.join(format!("{n}.rs")));
    }
    std::fs::remove_file(&endless).unwrap();
    let output = command().output().unwrap();
    assert!(output.status.success());
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    println!("{read} of {FILES} files had been read: {report}");
    assert_eq!(report["total"]["files"], FILES, "{report}");
    assert_eq!(report["total"]["lines"], read * 4, "{report}");
}
