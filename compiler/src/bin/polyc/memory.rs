//! Memory: what the machine has, what may be used, and what was.

use std::fs;

/// Assumed where the system does not say.
const UNKNOWN: usize = 8 << 30;

/// Bytes that this process may use: half of what the machine has, or what its control group is given.
pub fn available() -> usize {
    let machine = status("/proc/meminfo", "MemTotal:").unwrap_or(UNKNOWN);
    let groups = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let of_group = |path: &&str| fs::read_to_string(path).ok()?.trim().parse::<usize>().ok();
    groups.iter().filter_map(of_group).fold(machine, usize::min) / 2
}

/// The most that this process has used so far, where the system says.
pub fn peak() -> Option<usize> {
    status("/proc/self/status", "VmHWM:")
}

/// A line such as `MemTotal: 16384 kB` of a file, in bytes.
fn status(path: &str, name: &str) -> Option<usize> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// A number of bytes such as `4GiB`, `800MB` or `3000000000`.
pub fn parse(text: &str) -> Result<usize, String> {
    const UNITS: [(&str, f64); 8] = [
        ("KiB", 1024.0),
        ("MiB", 1048576.0),
        ("GiB", 1073741824.0),
        ("TiB", 1099511627776.0),
        ("kB", 1e3),
        ("MB", 1e6),
        ("GB", 1e9),
        ("TB", 1e12),
    ];
    let unit = UNITS.iter().find_map(|(name, size)| Some((text.strip_suffix(name)?, *size)));
    let (number, size) = unit.unwrap_or((text, 1.0));
    let bytes = number.trim().parse::<f64>().ok().map(|number| number * size);
    let bytes = bytes.filter(|bytes| (1.0..1e18).contains(bytes));
    bytes.map(|bytes| bytes as usize).ok_or_else(|| "expected a size such as 4GiB or 800MB".into())
}

/// A number of bytes for people.
pub fn text(bytes: usize) -> String {
    let bytes = bytes as f64;
    if bytes >= 1e9 {
        format!("{:.1} GiB", bytes / 1073741824.0)
    } else {
        format!("{:.0} MiB", bytes / 1048576.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written() {
        assert_eq!(parse("4GiB"), Ok(4 << 30));
        assert_eq!(parse("1.5 MiB"), Ok(3 << 19));
        assert_eq!(parse("800MB"), Ok(800_000_000));
        assert_eq!(parse("12345"), Ok(12345));
        for wrong in ["", "GiB", "-1GiB", "4XiB", "nan", "1e30GiB", "0"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(text(4 << 30), "4.0 GiB");
        assert!(available() > 1 << 20 && peak().is_none_or(|peak| peak > 1 << 20));
    }
}
