//! Wrong and jumping wall clocks of replicas.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::repository;

/// Library that moves the wall clock of a process, built by the C compiler that the build of
/// otpd needs, too.
pub struct WallClocks {
    library: PathBuf,
    directory: PathBuf,
}

impl WallClocks {
    pub fn new(directory: &Path) -> Self {
        let library = directory.join("wall_clock.so");
        let source = repository::path("tests/safety_net/linearizability/wall_clock.c");
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o"])
            .arg(&library)
            .arg(source)
            .arg("-ldl")
            .status();
        assert!(compiled.expect("there is a C compiler").success());
        Self {
            library,
            directory: directory.to_owned(),
        }
    }

    /// Sets the offset of the wall clock of a replica.
    pub fn set(&self, replica: usize, seconds: i64) {
        let file = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.file(replica));
        let file = file.expect("the directory takes files");
        std::os::unix::fs::FileExt::write_all_at(&file, &seconds.to_ne_bytes(), 0)
            .expect("eight bytes");
    }

    /// Runs `command` under the wall clock of a replica.
    pub fn apply(&self, replica: usize, command: &mut Command) {
        command
            .env("LD_PRELOAD", &self.library)
            .env("WALL_CLOCK_OFFSET", self.file(replica));
    }

    fn file(&self, replica: usize) -> PathBuf {
        self.directory.join(format!("wall_clock_{replica}"))
    }
}

const TEN_YEARS: i64 = 10 * 366 * 24 * 3_600;

#[test]
fn wall_clock_of_one_process_can_be_moved() {
    let directory = tempfile::tempdir().expect("the temporary directory takes files");
    let clocks = WallClocks::new(directory.path());
    let year = |seconds| {
        clocks.set(0, seconds);
        let mut command = Command::new("date");
        clocks.apply(0, command.args(["--utc", "+%Y"]));
        let output = command.output().expect("every system has date").stdout;
        let text = String::from_utf8(output).expect("digits");
        text.trim().parse::<i64>().expect("a year")
    };
    assert!((10..=11).contains(&(year(TEN_YEARS) - year(0))));
}
