//! A pseudo-terminal, for what a command shows to a person.

use std::io::{Read, Write};

/// A terminal, seen from the side of the person.
pub struct Terminal(std::fs::File);

impl Terminal {
    pub fn new() -> Self {
        use rustix::pty::{OpenptFlags, grantpt, openpt, unlockpt};
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("usable");
        let size = rustix::termios::Winsize { ws_row: 24, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&master, size).expect("resized");
        Self(master.into())
    }

    /// The side of the program.
    pub fn side(&self) -> std::fs::File {
        let name = rustix::pty::ptsname(&self.0, Vec::new()).expect("it has a name").into_string().expect("UTF-8");
        std::fs::OpenOptions::new().read(true).write(true).open(name).expect("it opens")
    }

    /// Whether it shows what is typed.
    pub fn echoes(&self) -> bool {
        let modes = rustix::termios::tcgetattr(&self.0).expect("a terminal");
        modes.local_modes.contains(rustix::termios::LocalModes::ECHO)
    }

    pub fn type_line(&self, line: &str) {
        (&self.0).write_all(format!("{line}\n").as_bytes()).expect("typed");
    }

    /// What it shows until no program has it open any more.
    pub fn read_to_end(&self) -> String {
        let (mut seen, mut piece) = (Vec::new(), [0; 4096]);
        // Linux ends a terminal without writers with EIO.
        while let Ok(read @ 1..) = (&self.0).read(&mut piece) {
            seen.extend_from_slice(&piece[..read]);
        }
        String::from_utf8_lossy(&seen).into_owned()
    }
}
