//! Commands that run to their end.

use std::process::Command;

/// How a command ended, and what it said.
#[derive(Debug)]
pub struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// Runs `command` to its end.
pub fn run(command: &mut Command) -> Ended {
    let output = command.output().expect("the program starts");
    let text = |bytes| String::from_utf8(bytes).expect("programs speak UTF-8");
    Ended {
        code: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

impl Ended {
    /// What it printed, having done what it was told.
    #[track_caller]
    pub fn done(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }

    /// What it printed, having answered "no".
    #[track_caller]
    pub fn said_no(self) -> String {
        assert_eq!(self.code, Some(1), "{self:?}");
        self.stdout
    }

    /// What it printed, having ended with exit code `code`.
    #[track_caller]
    pub fn printed(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:?}");
        self.stdout
    }

    /// What it printed, however it ended.
    pub fn printed_any(self) -> String {
        self.stdout
    }

    /// What it complained of, having failed with exit code `code`.
    #[track_caller]
    pub fn complaint(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:?}");
        self.stderr
    }

    /// What it complained of, having failed with whatever exit code.
    #[track_caller]
    pub fn failed(self) -> String {
        assert_ne!(self.code, Some(0), "{self:?}");
        self.stderr
    }

    /// Like [`complaint`](Self::complaint), which must be one line.
    #[track_caller]
    pub fn line(self, code: i32) -> String {
        let complaint = self.complaint(code);
        assert_eq!(complaint.lines().count(), 1, "{complaint}");
        complaint.trim_end().to_owned()
    }
}
