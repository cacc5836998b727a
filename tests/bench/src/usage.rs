//! What a process and its children have used of the machine, read from `/proc`.
//!
//! `schedstat` counts nanoseconds on a CPU exactly; `stat` splits them into user and system by samples of the timer, so its two
//! numbers are taken for their proportion alone.

use std::fs;
use std::io;
use std::ops::Sub;
use std::path::Path;
use std::time::Duration;

/// CPU time of a tree of processes since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cpu {
    pub total: Duration,
    /// In ticks of the kernel.
    user_ticks: u64,
    system_ticks: u64,
}

/// CPU time of one interval, split.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Split {
    pub total: Duration,
    pub user: Duration,
    pub system: Duration,
}

impl Sub for Cpu {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            total: self.total.saturating_sub(earlier.total),
            user_ticks: self.user_ticks.saturating_sub(earlier.user_ticks),
            system_ticks: self.system_ticks.saturating_sub(earlier.system_ticks),
        }
    }
}

impl Cpu {
    fn add(&mut self, other: Self) {
        self.total += other.total;
        self.user_ticks += other.user_ticks;
        self.system_ticks += other.system_ticks;
    }

    /// The exact total, in the proportion of the ticks.
    #[must_use]
    pub fn split(self) -> Split {
        let ticks = self.user_ticks + self.system_ticks;
        let share = if ticks == 0 { 0.0 } else { self.user_ticks as f64 / ticks as f64 };
        let user = self.total.mul_f64(share);
        Split { total: self.total, user, system: self.total - user }
    }
}

/// The process and all its descendants.
#[must_use]
pub fn tree(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let mut next = 0;
    while let Some(parent) = all.get(next).copied() {
        next += 1;
        for task in tasks(parent) {
            let children = fs::read_to_string(format!("/proc/{parent}/task/{task}/children")).unwrap_or_default();
            all.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
    }
    all
}

/// The threads of one process.
fn tasks(pid: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// CPU time of all threads of all `pids`.
///
/// # Errors
/// When a process is gone.
pub fn cpu(pids: &[u32]) -> io::Result<Cpu> {
    let mut sum = Cpu::default();
    for pid in pids {
        let tasks = tasks(*pid);
        if tasks.is_empty() {
            return Err(io::Error::other(format!("process {pid} is gone")));
        }
        for task in tasks {
            sum.add(cpu_of_task(&format!("/proc/{pid}/task/{task}")));
        }
    }
    Ok(sum)
}

/// A thread that ended between listing and reading counts nothing.
fn cpu_of_task(folder: &str) -> Cpu {
    let read = |file| fs::read_to_string(Path::new(folder).join(file)).unwrap_or_default();
    let total = parse_schedstat(&read("schedstat")).unwrap_or_default();
    let (user_ticks, system_ticks) = parse_stat(&read("stat")).unwrap_or_default();
    Cpu { total, user_ticks, system_ticks }
}

/// The threads of a process by name, each with its time on CPU.
#[must_use]
pub fn threads(pid: u32) -> Vec<(String, Duration)> {
    let mut found = Vec::new();
    for task in tasks(pid) {
        let folder = format!("/proc/{pid}/task/{task}");
        let name = fs::read_to_string(format!("{folder}/comm")).unwrap_or_default().trim().to_owned();
        found.push((format!("{name}/{task}"), cpu_of_task(&folder).total));
    }
    found
}

/// Time that all cores together have been busy since the machine started, whoever made them so.
#[must_use]
pub fn machine() -> Duration {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let tick = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    Duration::from_secs_f64(parse_busy(&text).unwrap_or_default() as f64 / tick as f64)
}

/// Ticks of the first line, `cpu`, but for idle and waiting for disks. What a guest used is in user already.
fn parse_busy(stat: &str) -> Option<u64> {
    let fields: Option<Vec<u64>> =
        stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace().map(|field| field.parse().ok()).collect();
    let fields = fields.filter(|fields| fields.len() >= 8)?;
    Some(fields[..8].iter().sum::<u64>() - fields[3] - fields[4])
}

/// Resident memory of all `pids`, in bytes.
#[must_use]
pub fn resident(pids: &[u32]) -> u64 {
    let of = |pid: &u32| parse_resident(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?);
    pids.iter().filter_map(of).sum()
}

/// Nanoseconds on CPU: the first of three numbers.
fn parse_schedstat(text: &str) -> Option<Duration> {
    text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

/// `utime` and `stime`: fields 14 and 15. The second field is a name in parentheses, that may hold spaces and parentheses.
fn parse_stat(text: &str) -> Option<(u64, u64)> {
    let mut fields = text.get(text.rfind(')')? + 1..)?.split_whitespace().skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// `VmRSS`, in kB in the file.
fn parse_resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedstat_is_nanoseconds_first() {
        assert_eq!(parse_schedstat("1234567890 555 42\n"), Some(Duration::from_nanos(1_234_567_890)));
        assert_eq!(parse_schedstat(""), None);
        assert_eq!(parse_schedstat("x 1 2"), None);
    }

    #[test]
    fn stat_is_read_behind_any_name() {
        let rest = "S 1 2 3 0 -1 4194560 100 200 0 0 77 33 5 6 20 0 1 0 9999";
        for name in ["nginx", "tokio (rt) w) x", "a b c"] {
            assert_eq!(parse_stat(&format!("4711 ({name}) {rest}")), Some((77, 33)), "{name}");
        }
        assert_eq!(parse_stat("4711 (cut) S 1"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn a_machine_is_busy_unless_it_is_idle() {
        let text = "cpu  10 2 5 1000 300 0 4 1 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        assert_eq!(parse_busy(text), Some(22));
        assert_eq!(parse_busy("cpu  10 2\n"), None);
        assert_eq!(parse_busy(""), None);
    }

    #[test]
    fn resident_memory_is_in_bytes() {
        assert_eq!(parse_resident("Name:\tx\nVmHWM:\t  9 kB\nVmRSS:\t    3388 kB\n"), Some(3388 * 1024));
        assert_eq!(parse_resident("Name:\tkthreadd\n"), None);
    }

    #[test]
    fn the_split_keeps_the_exact_total() {
        let cpu = Cpu { total: Duration::from_millis(1000), user_ticks: 25, system_ticks: 75 };
        let split = cpu.split();
        assert_eq!(split.user, Duration::from_millis(250));
        assert_eq!(split.user + split.system, split.total);
        assert_eq!(Cpu::default().split(), Split::default());
    }

    #[test]
    fn this_process_has_used_time_and_memory() {
        let pids = tree(std::process::id());
        assert!(cpu(&pids).unwrap().total > Duration::ZERO);
        assert!(resident(&pids) > 100_000);
        assert!(cpu(&[u32::MAX]).is_err());
    }
}
