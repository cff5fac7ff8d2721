//! A wall clock of the test's own for the real program: a library that is loaded before the C library's and adds to its
//! `CLOCK_REALTIME`. The program has no such hook. The C compiler is the linker that Rust needs, so it is there.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;

use super::bench::Bench;

const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *seconds = MAP_FAILED;

__attribute__((constructor)) static void open_shift(void) {
    int file = open(getenv("TEST_CLOCK"), O_RDONLY);
    seconds = mmap(0, 8, PROT_READ, MAP_SHARED, file, 0);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = (int)syscall(SYS_clock_gettime, clock, now);
    if (!failed && clock == CLOCK_REALTIME && seconds != MAP_FAILED) now->tv_sec += *seconds;
    return failed;
}
"#;

/// How far a program's wall clock is ahead.
pub(crate) struct WallClock {
    shift: File,
    directory: tempfile::TempDir,
}

impl WallClock {
    pub(crate) fn new() -> WallClock {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("clock.c"), SOURCE).expect("writes");
        let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
        let mut build = Command::new(compiler);
        build.args(["-shared", "-fPIC", "-o"]).arg(path("clock.so")).arg(path("clock.c"));
        assert!(build.status().expect("a C compiler, which Rust links with").success());
        let shift = File::create(path("shift")).expect("a file");
        let clock = WallClock { shift, directory };
        clock.set_ahead(0);
        clock
    }

    /// The programs of `bench` that start from now on have this clock.
    pub(crate) fn lend_to(&self, bench: &mut Bench) {
        let path = |name: &str| -> PathBuf { self.directory.path().join(name) };
        bench.set("LD_PRELOAD", path("clock.so").to_str().expect("text"));
        bench.set("TEST_CLOCK", path("shift").to_str().expect("text"));
    }

    /// Sets the clock, also of programs that run.
    pub(crate) fn set_ahead(&self, seconds: i64) {
        self.shift.write_all_at(&seconds.to_le_bytes(), 0).expect("writes");
    }
}
