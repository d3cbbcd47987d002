//! Runs the whole evaluation, and writes its tables and charts into docs/guard.md. The only
//! argument is the root of the repository.

use std::{env, fs, path::Path, process::ExitCode};

use otpd_guard_evaluation::report::{EvaluationReport, report};

const BEGIN: &str = "<!-- evaluation: written by ./check long guard -->\n";
const END: &str = "<!-- evaluation: end -->";

fn main() -> ExitCode {
    let Some(root) = env::args().nth(1) else {
        eprintln!("usage: otpd-guard-evaluation ROOT");
        return ExitCode::from(64);
    };
    match write(Path::new(&root), &report()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("otpd-guard-evaluation: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write(root: &Path, report: &EvaluationReport) -> Result<(), String> {
    let page = root.join("docs/guard.md");
    let text = fs::read_to_string(&page).map_err(|error| format!("{}: {error}", page.display()))?;
    let parts = text.split_once(BEGIN).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(END)?;
        Some((before, after))
    });
    let (before, after) = parts.ok_or("docs/guard.md has no marks of the generated part")?;
    let text = format!("{before}{BEGIN}\n{}\n\n{END}{after}", report.tables);
    fs::write(&page, text).map_err(|error| format!("{}: {error}", page.display()))?;
    let folder = root.join("docs/guard");
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    for (name, chart) in &report.charts {
        let file = folder.join(name);
        fs::write(&file, chart).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    Ok(())
}
