//! Tar archives as the engine sends them, read piece by piece without trust. Pure.
//!
//! Nothing is ever unpacked: an archive of an agent's tree becomes names and bytes in
//! memory. A reader of our own, because names with line breaks, which an agent can make,
//! must not be able to pass for other records.

use std::borrow::Cow;

/// One thing in an archive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// Its path, as bytes, without a trailing `/`.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
}

/// What a thing in an archive is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A regular file; no content when it is larger than what is kept.
    File(Option<Vec<u8>>),
    /// Another name of a file that came before.
    Same(Vec<u8>),
    /// A directory.
    Directory,
    /// A symbolic link, and where it leads.
    Link(Vec<u8>),
    /// A pipe or a device.
    Other,
}

/// A block of an archive.
const BLOCK: usize = 512;
/// Extended headers larger than this are nobody's names (1 MiB).
const MAX_EXTENDED: u64 = 1 << 20;

/// Takes an archive in pieces of any size.
#[derive(Debug)]
pub struct Reader {
    keep: u64,
    state: State,
    block: Vec<u8>,
    extended: Extended,
}

#[derive(Debug)]
enum State {
    Header,
    Content {
        what: What,
        left: u64,
        padding: u64,
        bytes: Option<Vec<u8>>,
    },
    End,
}

#[derive(Debug)]
enum What {
    Thing(Found),
    Pax,
    LongName,
    LongLink,
    Ignored,
}

/// What headers before a header say of it.
#[derive(Debug, Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

impl Reader {
    /// A reader that keeps the content of files up to `keep` bytes.
    pub fn new(keep: u64) -> Self {
        Self {
            keep,
            state: State::Header,
            block: Vec::with_capacity(BLOCK),
            extended: Extended::default(),
        }
    }

    /// Takes the next bytes; `take` gets what they complete.
    ///
    /// # Errors
    /// Why this is no archive.
    pub fn push(&mut self, mut bytes: &[u8], take: &mut impl FnMut(Found)) -> Result<(), String> {
        while !bytes.is_empty() {
            match &mut self.state {
                State::End => return Ok(()),
                State::Header => {
                    let (part, rest) = bytes.split_at(bytes.len().min(BLOCK - self.block.len()));
                    self.block.extend_from_slice(part);
                    bytes = rest;
                    if self.block.len() == BLOCK {
                        let block = std::mem::take(&mut self.block);
                        self.header(&block, take)?;
                    }
                }
                State::Content {
                    left,
                    padding,
                    bytes: kept,
                    ..
                } => {
                    let of_content = bytes
                        .len()
                        .min(usize::try_from(*left).unwrap_or(usize::MAX));
                    let (part, rest) = bytes.split_at(of_content);
                    if let Some(kept) = kept {
                        kept.extend_from_slice(part);
                    }
                    *left -= part.len() as u64;
                    let skipped = rest
                        .len()
                        .min(usize::try_from(*padding).unwrap_or(usize::MAX));
                    *padding -= skipped as u64;
                    bytes = rest.get(skipped..).unwrap_or_default();
                    if *left == 0 && *padding == 0 {
                        self.content_ends(take)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// To be asked at the end of the stream.
    ///
    /// # Errors
    /// When the archive is torn.
    pub fn finish(&self) -> Result<(), String> {
        match self.state {
            State::End => Ok(()),
            _ => Err("the archive ends before its end".to_owned()),
        }
    }

    fn header(&mut self, block: &[u8], take: &mut impl FnMut(Found)) -> Result<(), String> {
        if block.iter().all(|byte| *byte == 0) {
            self.state = State::End;
            return Ok(());
        }
        let sum: u64 = block
            .iter()
            .enumerate()
            .map(|(at, byte)| {
                u64::from(if (148..156).contains(&at) {
                    b' '
                } else {
                    *byte
                })
            })
            .sum();
        if number(field(block, 148, 8)) != Some(sum) {
            return Err("a header of the archive is damaged".to_owned());
        }
        let of_header = number(field(block, 124, 12)).ok_or("a size cannot be read")?;
        let flag = block.get(156).copied().unwrap_or(0);
        if matches!(flag, b'x' | b'g' | b'L' | b'K') {
            if of_header > MAX_EXTENDED {
                return Err("an extended header is too large".to_owned());
            }
            let what = match flag {
                b'x' => What::Pax,
                b'L' => What::LongName,
                b'K' => What::LongLink,
                _ => What::Ignored,
            };
            return self.content(what, of_header, true, take);
        }
        let said = std::mem::take(&mut self.extended);
        let name = said.path.unwrap_or_else(|| name_of(block));
        let link = said
            .link
            .unwrap_or_else(|| until_nul(field(block, 157, 100)).to_vec());
        let size = said.size.unwrap_or(of_header);
        let mode = number(field(block, 100, 8)).unwrap_or(0) as u32 & 0o7777;
        let (kind, size) = match flag {
            0 | b'0' | b'7' => (Kind::File(None), size),
            b'1' => (Kind::Same(link), 0),
            b'2' => (Kind::Link(link), 0),
            b'5' => (Kind::Directory, 0),
            b'3' | b'4' | b'6' => (Kind::Other, 0),
            // What we do not know has content like a file and is nothing to us.
            _ => (Kind::Other, size),
        };
        let keep = matches!(kind, Kind::File(_)) && size <= self.keep;
        let path = name.strip_suffix(b"/").unwrap_or(&name).to_vec();
        self.content(What::Thing(Found { path, kind, mode }), size, keep, take)
    }

    fn content(
        &mut self,
        what: What,
        size: u64,
        keep: bool,
        take: &mut impl FnMut(Found),
    ) -> Result<(), String> {
        self.state = State::Content {
            what,
            left: size,
            padding: size.next_multiple_of(BLOCK as u64) - size,
            // A size that a header claims is believed only as bytes come.
            bytes: keep.then(Vec::new),
        };
        if size == 0 {
            self.content_ends(take)?;
        }
        Ok(())
    }

    fn content_ends(&mut self, take: &mut impl FnMut(Found)) -> Result<(), String> {
        let State::Content { what, bytes, .. } = std::mem::replace(&mut self.state, State::Header)
        else {
            return Ok(());
        };
        let content = bytes.as_deref().unwrap_or_default();
        match what {
            What::Ignored => {}
            What::LongName => self.extended.path = Some(until_nul(content).to_vec()),
            What::LongLink => self.extended.link = Some(until_nul(content).to_vec()),
            What::Pax => self.records(content)?,
            What::Thing(mut found) => {
                if let Kind::File(kept) = &mut found.kind {
                    *kept = bytes;
                }
                take(found);
            }
        }
        Ok(())
    }

    /// Records `LENGTH KEY=VALUE\n`: each is as long as it says, whatever its value holds.
    fn records(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        let wrong = || "an extended header cannot be read".to_owned();
        while !bytes.is_empty() {
            let blank = bytes.iter().position(|b| *b == b' ').ok_or_else(wrong)?;
            let (digits, _) = bytes.split_at(blank);
            let length: usize = std::str::from_utf8(digits)
                .ok()
                .and_then(|digits| digits.parse().ok())
                .ok_or_else(wrong)?;
            let record = bytes.get(blank + 1..length).ok_or_else(wrong)?;
            let record = record.strip_suffix(b"\n").ok_or_else(wrong)?;
            let equals = record.iter().position(|b| *b == b'=').ok_or_else(wrong)?;
            let (key, value) = record.split_at(equals);
            let value = value.get(1..).unwrap_or_default();
            match key {
                b"path" => self.extended.path = Some(value.to_vec()),
                b"linkpath" => self.extended.link = Some(value.to_vec()),
                b"size" => {
                    let text = String::from_utf8_lossy(value);
                    self.extended.size = Some(text.parse().map_err(|_| wrong())?);
                }
                _ => {}
            }
            bytes = bytes.get(length..).unwrap_or_default();
        }
        Ok(())
    }
}

fn field(block: &[u8], from: usize, length: usize) -> &[u8] {
    block.get(from..from + length).unwrap_or_default()
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn name_of(block: &[u8]) -> Vec<u8> {
    let name = until_nul(field(block, 0, 100));
    let prefix = until_nul(field(block, 345, 155));
    // Only POSIX headers have a prefix; GNU's have other things there.
    if field(block, 257, 6) == b"ustar\0" && !prefix.is_empty() {
        [prefix, b"/", name].concat()
    } else {
        name.to_vec()
    }
}

/// An octal number, or GNU's large binary one.
fn number(field: &[u8]) -> Option<u64> {
    if field.first().is_some_and(|byte| byte & 0x80 != 0) {
        let mut value: u64 = 0;
        for (at, byte) in field.iter().enumerate() {
            let byte = if at == 0 { byte & 0x7f } else { *byte };
            value = value.checked_mul(256)?.checked_add(u64::from(byte))?;
        }
        return Some(value);
    }
    let text: Cow<'_, str> = String::from_utf8_lossy(until_nul(field));
    match text.trim() {
        "" => Some(0),
        digits => u64::from_str_radix(digits, 8).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(archive: &[u8], piece: usize) -> Result<Vec<Found>, String> {
        let (mut reader, mut out) = (Reader::new(1000), Vec::new());
        for piece in archive.chunks(piece) {
            reader.push(piece, &mut |found| out.push(found))?;
        }
        reader.finish().map(|()| out)
    }

    fn archive(names: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, content) in names {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o755);
            builder.append_data(&mut header, name, *content).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn files_come_back_in_pieces_of_any_size() {
        let long = "d/".repeat(90) + "long";
        let large = vec![b'x'; 1001];
        let bytes = archive(&[("a", b"1"), (&long, b""), ("large", &large), ("z", b"26")]);
        for piece in [1, 7, 512, 100_000] {
            let found = read(&bytes, piece).unwrap();
            let names: Vec<_> = found.iter().map(|f| f.path.as_slice()).collect();
            assert_eq!(names, [&b"a"[..], long.as_bytes(), b"large", b"z"]);
            assert_eq!(found[3].kind, Kind::File(Some(b"26".to_vec())));
            assert_eq!((&found[2].kind, found[2].mode), (&Kind::File(None), 0o755));
        }
        assert!(read(&bytes[..600], 64).is_err(), "torn");
        let mut damaged = bytes.clone();
        damaged[3] ^= 1;
        assert!(read(&damaged, 64).is_err(), "damaged");
    }

    #[test]
    fn a_line_break_in_a_name_makes_no_record_of_its_own() {
        let name = format!("{}\n17 path=evil.py", "n".repeat(120));
        let mut builder = tar::Builder::new(Vec::new());
        builder
            .append_pax_extensions([("path", name.as_bytes())])
            .unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_path("short").unwrap();
        header.set_size(0);
        header.set_cksum();
        builder.append(&header, &b""[..]).unwrap();
        let found = read(&builder.into_inner().unwrap(), 100).unwrap();
        assert_eq!(found[0].path, name.as_bytes());
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(
            bytes in prop::collection::vec(any::<u8>(), 0..2000),
            at in 0usize..1500,
        ) {
            let _ = read(&bytes, 100);
            let mut near = archive(&[("a", b"content"), ("b", b"")]);
            if let Some(byte) = near.get_mut(at) {
                *byte = bytes.first().copied().unwrap_or(0);
            }
            let _ = read(&near, 100);
        }
    }
}
