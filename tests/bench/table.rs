//! What is printed: Markdown, fit for docs/.

use std::collections::BTreeMap;

use crate::process::Memory;

fn first_line(path: &str, key: &str) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
    line.split(':').nth(1).unwrap_or(line).trim().to_owned()
}

fn command(program: &str, args: &[&str]) -> String {
    let output = std::process::Command::new(program).args(args).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

/// Commit, machine, load.
pub(crate) fn heading() {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("# Benchmarks\n");
    println!("- commit {}", command("git", &["describe", "--always", "--dirty"]));
    println!("- {cores} cores, {}, Linux {}", first_line("/proc/cpuinfo", "model name"), command("uname", &["-r"]));
    println!("- load average at start: {}", std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim());
    println!("- load generator, references and server share the cores; rounds are interleaved, figures are medians\n");
}

/// A section.
pub(crate) fn section(title: &str, columns: &[&str]) {
    println!("\n## {title}\n\n| {} |", columns.join(" | "));
    println!("|{}", "---|".repeat(columns.len()));
}

/// A row.
pub(crate) fn row(cells: &[String]) {
    println!("| {} |", cells.join(" | "));
}

/// Memory of the processes, those of one name together.
pub(crate) fn memory(title: &str, processes: &[Memory]) {
    section(&format!("Memory, {title}"), &["process", "how many", "RSS MB, median", "PSS MB, median", "PSS MB, all"]);
    let mut named: BTreeMap<&str, Vec<&Memory>> = BTreeMap::new();
    for process in processes {
        named.entry(&process.name).or_default().push(process);
    }
    for (name, all) in named {
        let (rss, pss): (Vec<f64>, Vec<f64>) = all.iter().map(|one| (one.rss_mb, one.pss_mb)).unzip();
        row(&[
            name.to_owned(),
            all.len().to_string(),
            format!("{:.1}", median(&rss)),
            format!("{:.1}", median(&pss)),
            format!("{:.1}", pss.iter().sum::<f64>()),
        ]);
    }
}

/// The median.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
