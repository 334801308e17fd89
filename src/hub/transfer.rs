//! The bytes of one file, going on where a cut came.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    path::Path,
};

use reqwest::{StatusCode, Url, blocking::Response, header::CONTENT_RANGE};

use super::{
    client::Client,
    failure::{Failure, Outcome, innermost},
    progress::{Event, Progress},
};
use crate::{Error, Result};

/// One file on its way.
pub(super) struct Transfer<'a> {
    pub(super) client: &'a Client,
    pub(super) url: Url,
    pub(super) size: Option<u64>,
    pub(super) place: &'a str,
    pub(super) progress: Progress<'a>,
}

impl Transfer<'_> {
    /// Fills the file, going on where an earlier transfer was cut; flushed to the disk at the end.
    pub(super) fn fill(&self, path: &Path, resume: bool) -> Outcome<()> {
        let mut file = File::options()
            .create(true)
            .truncate(!resume)
            .write(true)
            .open(path)
            .map_err(Error::io(path))?;
        let found = file.seek(SeekFrom::End(0)).map_err(Error::io(path))?;
        let mut sink = Sink {
            file: &mut file,
            path,
            len: found,
        };
        if self.size.is_some_and(|size| found > size) {
            sink.restart()?;
        }
        let mut fruitless = 0;
        while self.size != Some(sink.len) || sink.len == 0 {
            let before = sink.len;
            match self.go_on(&mut sink) {
                Ok(()) => break,
                Err(failure) => {
                    fruitless = if sink.len > before { 1 } else { fruitless + 1 };
                    if fruitless >= self.client.options.attempts {
                        return Err(failure);
                    }
                    self.client.pause(failure, fruitless, self.progress)?;
                }
            }
        }
        file.sync_all().map_err(Error::io(path))?;
        Ok(())
    }

    /// One request, until its body ends.
    fn go_on(&self, sink: &mut Sink) -> Outcome<()> {
        let mut answer = self.client.get(self.url.clone(), sink.len)?;
        if !continues_at(&answer, sink.len) {
            sink.restart()?;
        }
        if answer.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            return Err(cut("the server refuses to go on in the middle"));
        }
        let mut buffer = vec![0; 1 << 18];
        loop {
            self.tell(sink.len);
            let count = answer
                .read(&mut buffer)
                .map_err(|error| cut(&innermost(&error)))?;
            if count == 0 {
                break;
            }
            sink.write(&buffer[..count])?;
            // More than was announced can only be wrong: the hash will tell.
            if self.size.is_some_and(|size| sink.len > size) {
                return Ok(());
            }
        }
        match self.size {
            Some(size) if sink.len < size => Err(cut("the connection ended early")),
            _ => Ok(()),
        }
    }

    fn tell(&self, done: u64) {
        (self.progress)(Event::Download {
            file: self.place,
            done,
            total: self.size,
        });
    }
}

/// The growing file.
struct Sink<'a> {
    file: &'a mut File,
    path: &'a Path,
    len: u64,
}

impl Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(Error::io(self.path))?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn restart(&mut self) -> Result<()> {
        self.file
            .set_len(0)
            .and_then(|()| self.file.rewind())
            .map_err(Error::io(self.path))?;
        self.len = 0;
        Ok(())
    }
}

fn cut(reason: &str) -> Failure {
    Failure::Busy {
        after: None,
        reason: format!("the transfer was cut ({reason})"),
    }
}

/// Whether an answer's body follows the first `len` bytes.
fn continues_at(answer: &Response, len: u64) -> bool {
    if answer.status() != StatusCode::PARTIAL_CONTENT {
        return len == 0;
    }
    let range = answer
        .headers()
        .get(CONTENT_RANGE)
        .and_then(|value| value.to_str().ok());
    range.is_some_and(|range| range.starts_with(&format!("bytes {len}-")))
}
