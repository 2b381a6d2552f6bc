//! The container's terminal: the runtime makes it inside and sends us its other end over a socket.

use std::io::{IoSliceMut, IsTerminal as _};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::termios::{LocalModes, OptionalActions, OutputModes, SpecialCodeIndex, Termios};

use crate::error::CommandError;
use crate::output::Output;

/// The socket that the runtime's `--console-socket` names.
#[derive(Debug)]
pub(super) struct Listener {
    path: PathBuf,
    listener: UnixListener,
}

impl Listener {
    pub(super) fn bind(directory: &Path) -> Result<Self, CommandError> {
        let path = directory.join("console.sock");
        let listener = UnixListener::bind(&path).map_err(|error| {
            CommandError::trouble(format!("cannot listen at `{}`: {error}", path.display()))
        })?;
        // After `create` the runtime has connected or never will.
        listener.set_nonblocking(true).map_err(CommandError::trouble)?;
        Ok(Self { path, listener })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The terminal that the runtime sent, set up for what we read from and write to.
    pub(super) fn accept(&self, output: &Output) -> Result<Console, CommandError> {
        let missing = |error: std::io::Error| {
            CommandError::trouble(format!(
                "the runtime sent no terminal over `{}`: {error}",
                self.path.display()
            ))
        };
        let (stream, _) = self.listener.accept().map_err(missing)?;
        stream.set_read_timeout(Some(std::time::Duration::from_secs(5))).map_err(missing)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut name = [0; 256];
        let flags = RecvFlags::CMSG_CLOEXEC;
        rustix::net::recvmsg(&stream, &mut [IoSliceMut::new(&mut name)], &mut control, flags)
            .map_err(|errno| missing(errno.into()))?;
        let master = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        let master = master.ok_or_else(|| missing(std::io::ErrorKind::InvalidData.into()))?;
        Console::new(master, output.is_terminal())
    }
}

/// The terminal's outer end. Our own terminal is raw as long as this lives, and restored after.
#[derive(Debug)]
pub(super) struct Console {
    pub(super) master: OwnedFd,
    /// Our own terminal's settings from before.
    saved: Option<Termios>,
    /// What a reader of the container's terminal takes for the end of input.
    end_of_input: u8,
}

impl Console {
    fn new(master: OwnedFd, to_terminal: bool) -> Result<Self, CommandError> {
        let from_terminal = std::io::stdin().is_terminal();
        let mut inner = rustix::termios::tcgetattr(&master).map_err(CommandError::trouble)?;
        let end_of_input = inner.special_codes[SpecialCodeIndex::VEOF];
        // Into a file or a pipe goes what the program wrote, without carriage returns and without its own input.
        if !to_terminal {
            inner.output_modes.remove(OutputModes::OPOST);
        }
        if !from_terminal {
            inner.local_modes.remove(LocalModes::ECHO);
        }
        rustix::termios::tcsetattr(&master, OptionalActions::Now, &inner).map_err(CommandError::trouble)?;
        let mut console = Self { master, saved: None, end_of_input };
        if from_terminal {
            let own = rustix::termios::tcgetattr(std::io::stdin()).map_err(CommandError::trouble)?;
            let mut raw = own.clone();
            raw.make_raw();
            // Our own notes still want their lines to begin at the left.
            raw.output_modes = own.output_modes;
            console.saved = Some(own);
            rustix::termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &raw)
                .map_err(CommandError::trouble)?;
            console.resize();
        }
        Ok(console)
    }

    /// Gives the container's terminal the size of ours; without one it keeps its own.
    pub(super) fn resize(&self) {
        if let Ok(size) = rustix::termios::tcgetwinsize(std::io::stdin()) {
            match rustix::termios::tcsetwinsize(&self.master, size) {
                Ok(()) | Err(_) => {}
            }
        }
    }

    /// Tells a reader inside that nothing more will come.
    pub(super) fn end_input(&self) -> rustix::io::Result<usize> {
        rustix::io::write(&self.master, &[self.end_of_input])
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        if let Some(saved) = &self.saved {
            // A terminal that is gone needs no settings.
            match rustix::termios::tcsetattr(std::io::stdin(), OptionalActions::Flush, saved) {
                Ok(()) | Err(_) => {}
            }
        }
    }
}
