//! Commands that run to completion.

use std::process::Command;

/// Exit status and output of a command.
#[derive(Debug)]
pub struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// Runs `command` to completion.
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
    /// Returns the output of a command that must succeed.
    #[track_caller]
    pub fn done(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }

    /// Returns the output of a command that must exit with code 1.
    #[track_caller]
    pub fn said_no(self) -> String {
        assert_eq!(self.code, Some(1), "{self:?}");
        self.stdout
    }

    /// Returns the output of a command that must exit with `code`.
    #[track_caller]
    pub fn printed(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:?}");
        self.stdout
    }

    /// Returns the output, with any exit code.
    pub fn printed_any(self) -> String {
        self.stdout
    }

    /// Returns the error output of a command that must exit with `code`.
    #[track_caller]
    pub fn complaint(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:?}");
        self.stderr
    }

    /// Returns the error output of a command that must fail, with any exit code.
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
