//! How much memory this process may use, and the bounds that depend on it.
//!
//! Bodies, unsent responses and caches each take at most an eighth of it by default, so that together they leave room
//! for everything else in a small container.

use std::path::Path;
use std::sync::OnceLock;

/// The default of a bound: `bytes_max`, or an eighth of the memory of this process if that is less.
pub fn of_memory(bytes_max: usize) -> usize {
    static MEMORY: OnceLock<usize> = OnceLock::new();
    bytes_max.min(MEMORY.get_or_init(|| memory_bytes(Path::new("/"))) / 8)
}

/// The smaller of the machine's memory and the limits of the control groups of this process (versions 1 and 2). What
/// cannot be read limits nothing.
fn memory_bytes(root: &Path) -> usize {
    let meminfo = std::fs::read_to_string(root.join("proc/meminfo")).unwrap_or_default();
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
    let of_machine = total.and_then(|kib| kib.trim().parse::<usize>().ok()).map(|kib| kib.saturating_mul(1_024));
    let groups = std::fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let of_groups = groups.lines().filter_map(|line| group_limit(&root.join("sys/fs/cgroup"), line));
    of_groups.chain(of_machine).min().unwrap_or(usize::MAX)
}

/// The limit of one line of `/proc/self/cgroup`: `number:controllers:path`. The limits of all parent groups hold too.
/// In a container the path may name a group that only the host sees; then the mounted root is the container's group.
fn group_limit(mounted: &Path, line: &str) -> Option<usize> {
    let (_, group) = line.split_once(':')?;
    let (controllers, path) = group.split_once(':')?;
    let (directory, file) = match controllers {
        "" => (mounted.to_path_buf(), "memory.max"),
        names if names.split(',').any(|name| name == "memory") => (mounted.join("memory"), "memory.limit_in_bytes"),
        _ => return None,
    };
    let groups = Path::new(path.trim_start_matches('/')).ancestors();
    let limits = groups.filter_map(|group| std::fs::read_to_string(directory.join(group).join(file)).ok());
    // Version 2 says "max" for no limit.
    limits.filter_map(|text| text.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(groups: &str, files: &[(&str, &str)]) -> usize {
        let root = tempfile::tempdir().expect("a directory");
        let texts = [("proc/meminfo", "MemTotal:       2048 kB\nMemFree: 1 kB\n"), ("proc/self/cgroup", groups)];
        for (path, text) in texts.iter().chain(files) {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a directory")).expect("writes");
            std::fs::write(path, text).expect("writes");
        }
        memory_bytes(root.path())
    }

    #[test]
    fn the_smallest_limit_of_machine_and_groups_holds() {
        const MACHINE: usize = 2048 * 1024;
        assert_eq!(memory("", &[]), MACHINE);
        let second = "0::/a/b\n";
        assert_eq!(memory(second, &[("sys/fs/cgroup/a/b/memory.max", "1000000\n")]), 1_000_000);
        assert_eq!(memory(second, &[("sys/fs/cgroup/a/b/memory.max", "max\n")]), MACHINE);
        let both = [("sys/fs/cgroup/a/b/memory.max", "max\n"), ("sys/fs/cgroup/a/memory.max", "900000\n")];
        assert_eq!(memory(second, &both), 900_000);
        // In a container, the mounted root.
        assert_eq!(memory(second, &[("sys/fs/cgroup/memory.max", "800000\n")]), 800_000);
        let first = "5:cpu,cpuacct:/x\n4:memory:/c\n0::/\n";
        let limit = "sys/fs/cgroup/memory/c/memory.limit_in_bytes";
        assert_eq!(memory(first, &[(limit, "700000\n")]), 700_000);
        assert_eq!(memory(first, &[(limit, "9223372036854771712\n")]), MACHINE);
    }
}
