//! Processor time and memory of processes, as Linux accounts for them.

use std::{collections::HashMap, fs, io, str::FromStr};

use serde::Serialize;

/// Unit of /proc/PID/stat per second: USER_HZ, which is 100 on every architecture that
/// otpd is built for (proc(5)).
const TICKS_PER_SECOND: f64 = 100.0;

/// Process that is measured during a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WatchedProcess {
    /// Name in the report.
    pub name: String,
    /// Process id.
    pub id: u32,
}

impl FromStr for WatchedProcess {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = text.split_once('=').and_then(|(name, id)| {
            let id = id.parse().ok()?;
            (!name.is_empty()).then(|| Self {
                name: name.to_owned(),
                id,
            })
        });
        named.ok_or_else(|| "give NAME=PID, such as server=1234".to_owned())
    }
}

/// Times of one process, as the kernel accounts for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ProcStat {
    id: u32,
    parent: u32,
    /// Ticks in user and in kernel mode, its own and those of children that have ended
    /// and were waited for.
    ticks: u64,
}

/// Parses /proc/PID/stat.
fn parse_stat(text: &str) -> Option<ProcStat> {
    let (id, rest) = text.split_once(' ')?;
    // The command is in parentheses, and may contain blanks and parentheses itself.
    let (_, rest) = rest.rsplit_once(") ")?;
    // The rest starts with the third field: state, ppid, …; 14 to 17 are the times.
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let times = fields.get(11..15)?.iter().map(|time| time.parse::<u64>());
    Some(ProcStat {
        id: id.parse().ok()?,
        parent: fields.get(1)?.parse().ok()?,
        ticks: times.sum::<Result<_, _>>().ok()?,
    })
}

/// Parses a size in kibibytes of /proc/PID/status; returns bytes.
fn parse_size(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let size = line.strip_prefix(':')?.trim().strip_suffix(" kB")?;
    size.parse::<u64>().ok()?.checked_mul(1024)
}

/// Returns the ticks of a process and of all its descendants, with those that have ended.
/// The time of an ended process is in the account of its parent, so that each tick counts
/// once.
fn ticks_of_tree(root: u32, all: &[ProcStat]) -> Option<u64> {
    let mut children = HashMap::<u32, Vec<&ProcStat>>::new();
    for stat in all {
        children.entry(stat.parent).or_default().push(stat);
    }
    let root = all.iter().find(|stat| stat.id == root)?;
    let mut ticks = 0;
    let mut left = vec![root];
    while let Some(stat) = left.pop() {
        ticks += stat.ticks;
        left.extend(children.remove(&stat.id).into_iter().flatten());
    }
    Some(ticks)
}

fn all_processes() -> io::Result<Vec<ProcStat>> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !name.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        // A process may end while its directory is read.
        if let Ok(text) = fs::read_to_string(path.join("stat")) {
            all.extend(parse_stat(&text));
        }
    }
    Ok(all)
}

/// Returns the resident memory of a process in bytes; `None` if there is no such process.
fn resident_bytes(id: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    parse_size(&status, "VmRSS")
}

/// Processor time of each process with its descendants, and of this one; `None` if it is
/// unknown.
#[derive(Clone, Debug)]
struct ProcessorTimes {
    processes: Vec<Option<u64>>,
    own: Option<u64>,
}

/// Measurement of processes.
#[derive(Debug)]
pub struct ProcessWatch {
    processes: Vec<WatchedProcess>,
    begin: Option<ProcessorTimes>,
    /// Maximum of the resident bytes of each process.
    peaks: Vec<Option<u64>>,
}

/// Usage of one process.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProcessUsage {
    /// Name of the process.
    pub name: String,
    /// Processor time with that of its descendants; `None` if it has ended.
    pub cpu_seconds: Option<f64>,
    /// Processor time per pair.
    pub cpu_microseconds_per_pair: Option<f64>,
    /// Resident memory at the end.
    pub resident_bytes: Option<u64>,
    /// Maximum of the resident memory.
    pub peak_resident_bytes: Option<u64>,
}

impl ProcessWatch {
    /// Starts the measurement of these processes.
    ///
    /// # Errors
    /// The first process that does not exist.
    pub fn new(processes: Vec<WatchedProcess>) -> Result<Self, WatchedProcess> {
        let absent = |process: &&WatchedProcess| resident_bytes(process.id).is_none();
        if let Some(process) = processes.iter().find(absent) {
            return Err(process.clone());
        }
        Ok(Self {
            peaks: vec![None; processes.len()],
            processes,
            begin: None,
        })
    }

    /// Begins the phase that counts.
    pub fn begin(&mut self) {
        self.begin = Some(self.times());
        self.sample();
    }

    /// Samples the memory of the processes.
    pub fn sample(&mut self) {
        for (process, peak) in self.processes.iter().zip(&mut self.peaks) {
            *peak = (*peak).max(resident_bytes(process.id));
        }
    }

    /// Ends the phase that counts. Returns the usage of each process in it, and the
    /// processor seconds of this process.
    pub fn end(&mut self) -> (Vec<ProcessUsage>, Option<f64>) {
        self.sample();
        let end = self.times();
        let begin = self.begin.take();
        let usages = (0..).zip(&self.processes).map(|(index, process)| {
            let at_begin = begin.as_ref().and_then(|times| times.processes[index]);
            ProcessUsage {
                name: process.name.clone(),
                cpu_seconds: seconds_between(at_begin, end.processes[index]),
                cpu_microseconds_per_pair: None,
                resident_bytes: resident_bytes(process.id),
                peak_resident_bytes: self.peaks[index],
            }
        });
        let own = seconds_between(begin.as_ref().and_then(|times| times.own), end.own);
        (usages.collect(), own)
    }

    fn times(&self) -> ProcessorTimes {
        let all = if self.processes.is_empty() {
            Vec::new()
        } else {
            all_processes().unwrap_or_default()
        };
        let processes = self.processes.iter();
        let own = fs::read_to_string("/proc/self/stat").ok();
        ProcessorTimes {
            processes: processes
                .map(|process| ticks_of_tree(process.id, &all))
                .collect(),
            own: own.and_then(|text| Some(parse_stat(&text)?.ticks)),
        }
    }
}

fn seconds_between(begin: Option<u64>, end: Option<u64>) -> Option<f64> {
    #[expect(
        clippy::cast_precision_loss,
        reason = "2^53 ticks are millions of years"
    )]
    let ticks = end?.checked_sub(begin?)? as f64;
    Some(ticks / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn stat_is_parsed_with_any_command_name() {
        for command in ["(postgres)", "(a b)", "(a) (b)", "(:-))"] {
            let text = format!(
                "4242 {command} S 17 4242 4242 0 -1 4194560 100 200 3 4 7 11 13 19 20 0 8 0 5000 1000 50 18446744073709551615 1 1\n"
            );
            let stat = ProcStat {
                id: 4242,
                parent: 17,
                ticks: 7 + 11 + 13 + 19,
            };
            assert_eq!(parse_stat(&text), Some(stat), "{command}");
        }
        for text in ["", "4242", "4242 (postgres) S 17 4242", "4242 (postgres"] {
            assert_eq!(parse_stat(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_are_parsed_in_bytes() {
        let status = "Name:\totpd\nVmHWM:\t   25104 kB\nVmRSS:\t   20480 kB\nThreads:\t5\n";
        assert_eq!(parse_size(status, "VmRSS"), Some(20 * 1024 * 1024));
        assert_eq!(parse_size(status, "Threads"), None);
        assert_eq!(parse_size(status, "Vm"), None);
        assert_eq!(parse_size("Name:\tkthreadd\n", "VmRSS"), None);
    }

    #[test]
    fn process_tree_contains_only_descendants_of_its_root() {
        let stat = |id, parent, ticks| ProcStat { id, parent, ticks };
        let all = [
            stat(1, 0, 1),
            stat(50, 40, 10_000),
            stat(40, 1, 100),
            stat(60, 40, 1_000),
            stat(70, 60, 100_000),
            stat(80, 1, 10),
        ];
        assert_eq!(ticks_of_tree(40, &all), Some(111_100));
        assert_eq!(ticks_of_tree(1, &all), Some(111_111));
        assert_eq!(ticks_of_tree(70, &all), Some(100_000));
        assert_eq!(ticks_of_tree(2, &all), None);
    }

    #[test]
    fn cpu_time_of_exited_children_is_counted() {
        // A shell that starts a shell that works, waits for it, and then waits for the
        // test.
        let work = "sh -c 'i=0; while [ $i -lt 300000 ]; do i=$((i + 1)); done'; echo done; read x";
        let mut child = Command::new("sh")
            .args(["-c", work])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("every system has a shell");
        let process = WatchedProcess {
            name: "shell".to_owned(),
            id: child.id(),
        };
        let mut watch = ProcessWatch::new(vec![process]).expect("the process runs");
        watch.begin();
        let mut said = [0; 5];
        let stdout = child.stdout.as_mut().expect("standard output is piped");
        io::Read::read_exact(stdout, &mut said).expect("the shell writes a line when it is done");
        let (usages, own) = watch.end();
        drop(child.stdin.take());
        child.wait().expect("the process is a child of the test");

        assert!(own.is_some());
        let usage = &usages[0];
        assert!(usage.cpu_seconds > Some(0.0), "{usage:?}");
        assert!(usage.resident_bytes > Some(0), "{usage:?}");
        assert!(usage.peak_resident_bytes >= usage.resident_bytes);
        let (usages, _) = watch.end();
        assert_eq!(usages[0].cpu_seconds, None);
        assert_eq!(usages[0].resident_bytes, None);
    }

    #[test]
    fn named_process_must_exist() {
        let named = |name: &str, id| WatchedProcess {
            name: name.to_owned(),
            id,
        };
        assert_eq!("server=42".parse(), Ok(named("server", 42)));
        for bad in ["", "1", "=1", "a=", "a=x", "a=-1", "a=1=2"] {
            assert!(bad.parse::<WatchedProcess>().is_err(), "{bad}");
        }
        let absent = named("absent", u32::MAX);
        assert_eq!(ProcessWatch::new(vec![absent.clone()]).err(), Some(absent));
    }
}
