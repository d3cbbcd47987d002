//! Metrics of the process from /proc, under the names that every exporter uses.

use std::fs;

use super::MetricKind;

/// Units of /proc/PID/stat per second: USER_HZ, which is 100 on every architecture that otpd is built
/// for (proc(5)).
const TICKS_PER_SECOND: f64 = 100.0;

type ProcReader = fn() -> Option<f64>;

/// Kind, name, help and reader of each metric.
pub(super) const ALL: [(MetricKind, &str, &str, ProcReader); 5] = [
    (
        MetricKind::Counter,
        "process_cpu_seconds",
        "CPU time in user and in kernel mode",
        cpu_seconds,
    ),
    (
        MetricKind::Gauge,
        "process_resident_memory_bytes",
        "Memory that is in use and not swapped out",
        resident_bytes,
    ),
    (
        MetricKind::Gauge,
        "process_open_fds",
        "Open files and connections",
        open_files,
    ),
    (
        MetricKind::Gauge,
        "process_max_fds",
        "Maximum number of open files and connections",
        max_files,
    ),
    (
        MetricKind::Gauge,
        "process_start_time_seconds",
        "Start of the process, in seconds since the Unix epoch",
        start_time,
    ),
];

/// Returns a field of /proc/self/stat by its number in proc(5), from 3 on.
fn stat(number: usize) -> Option<f64> {
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    // The command is in parentheses, and may contain blanks and parentheses itself.
    let (_, rest) = text.rsplit_once(") ")?;
    let field = rest.split_ascii_whitespace().nth(number.checked_sub(3)?)?;
    field.parse().ok()
}

fn cpu_seconds() -> Option<f64> {
    Some((stat(14)? + stat(15)?) / TICKS_PER_SECOND)
}

fn resident_bytes() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024.0)
}

fn open_files() -> Option<f64> {
    let count = fs::read_dir("/proc/self/fd").ok()?.count();
    // The descriptor that lists the folder is counted, and is closed again by now.
    u32::try_from(count.saturating_sub(1)).ok().map(f64::from)
}

fn max_files() -> Option<f64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let name = "Max open files";
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

fn start_time() -> Option<f64> {
    let kernel = fs::read_to_string("/proc/stat").ok()?;
    let booted = kernel
        .lines()
        .find_map(|line| line.strip_prefix("btime "))?;
    let booted: f64 = booted.trim().parse().ok()?;
    Some(booted + stat(22)? / TICKS_PER_SECOND)
}
