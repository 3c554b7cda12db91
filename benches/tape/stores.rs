//! The tape and its peers behind one trait.

use crate::steps::Batch;
use gametape_schemas::codec;
use gametape_tape::SledTape;
use std::error::Error;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Anything that goes wrong ends the benchmark.
pub type Outcome<T> = Result<T, Box<dyn Error>>;

/// An append-only store of records.
pub trait Store: Sized + Sync {
    /// Its name in the table.
    const NAME: &'static str;
    /// Opens or makes it.
    fn open(path: &Path) -> Outcome<Self>;
    /// Appends, and returns when the events are durable.
    fn append(&self, batch: Batch<'_>) -> Outcome<()>;
    /// Reads and decodes everything; the number of records.
    fn replay(&self) -> Outcome<usize>;
    /// Closes it.
    fn close(self) -> Outcome<()>;
}

/// Bytes that a file, or all files under a directory, take on the disk (files may have
/// holes).
pub fn bytes_under(path: &Path) -> io::Result<u64> {
    if path.is_file() {
        return Ok(path.metadata()?.blocks() * 512);
    }
    let mut sum = 0;
    for entry in std::fs::read_dir(path)? {
        sum += bytes_under(&entry?.path())?;
    }
    Ok(sum)
}

/// Drops what the page cache holds of a file, or of all files under a directory. What is
/// dirty is written first.
pub fn forget(path: &Path) -> io::Result<()> {
    use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
    if path.is_file() {
        let file = File::open(path)?;
        file.sync_all()?;
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
        return Ok(());
    }
    for entry in std::fs::read_dir(path)? {
        forget(&entry?.path())?;
    }
    Ok(())
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ours.
pub struct Tape(SledTape);

impl Store for Tape {
    const NAME: &'static str = "tape";

    fn open(path: &Path) -> Outcome<Self> {
        Ok(Self(SledTape::open(path, Arc::new(|| 1))?))
    }

    fn append(&self, batch: Batch<'_>) -> Outcome<()> {
        self.0.append(batch.events.to_vec())?;
        Ok(())
    }

    fn replay(&self) -> Outcome<usize> {
        let mut events = 0;
        loop {
            match self.0.read(events as u64, 4_096)?.len() {
                0 => return Ok(events),
                more => events += more,
            }
        }
    }

    fn close(self) -> Outcome<()> {
        self.0.close();
        Ok(())
    }
}

/// SQLite in WAL mode with `synchronous=FULL`, one transaction an append.
pub struct Sqlite(Mutex<rusqlite::Connection>);

impl Store for Sqlite {
    const NAME: &'static str = "sqlite";

    fn open(path: &Path) -> Outcome<Self> {
        std::fs::create_dir_all(path)?;
        let connection = rusqlite::Connection::open(path.join("db"))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.execute(
            "CREATE TABLE IF NOT EXISTS event (seq INTEGER PRIMARY KEY, body BLOB NOT NULL)",
            [],
        )?;
        Ok(Self(Mutex::new(connection)))
    }

    fn append(&self, batch: Batch<'_>) -> Outcome<()> {
        let rows = batch.encoded()?;
        let mut connection = locked(&self.0);
        let transaction = connection.transaction()?;
        {
            let mut insert =
                transaction.prepare_cached("INSERT INTO event (seq, body) VALUES (?1, ?2)")?;
            for (seq, body) in rows {
                insert.execute(rusqlite::params![seq as i64, body])?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    fn replay(&self) -> Outcome<usize> {
        let connection = locked(&self.0);
        let mut select = connection.prepare("SELECT body FROM event ORDER BY seq")?;
        let mut rows = select.query([])?;
        let mut events = 0;
        while let Some(row) = rows.next()? {
            let body = row.get_ref(0)?.as_blob()?;
            codec::decode(body)?;
            events += 1;
        }
        Ok(events)
    }

    fn close(self) -> Outcome<()> {
        let connection = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        connection.close().map_err(|(_, error)| error)?;
        Ok(())
    }
}

const TABLE: redb::TableDefinition<u64, &[u8]> = redb::TableDefinition::new("event");

/// redb with its default durability (immediate).
pub struct Redb(redb::Database);

impl Store for Redb {
    const NAME: &'static str = "redb";

    fn open(path: &Path) -> Outcome<Self> {
        Ok(Self(redb::Database::create(path)?))
    }

    fn append(&self, batch: Batch<'_>) -> Outcome<()> {
        let rows = batch.encoded()?;
        let transaction = self.0.begin_write()?;
        {
            let mut table = transaction.open_table(TABLE)?;
            for (seq, body) in &rows {
                table.insert(seq, body.as_slice())?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    fn replay(&self) -> Outcome<usize> {
        use redb::ReadableTable;
        let table = self.0.begin_read()?.open_table(TABLE)?;
        let mut events = 0;
        for pair in table.iter()? {
            let (_, body) = pair?;
            codec::decode(body.value())?;
            events += 1;
        }
        Ok(events)
    }

    fn close(self) -> Outcome<()> {
        Ok(())
    }
}

/// A file of length, crc32c and record, with `fdatasync` after each append.
pub struct Plain(Mutex<File>);

impl Store for Plain {
    const NAME: &'static str = "plain";

    fn open(path: &Path) -> Outcome<Self> {
        let file = File::options()
            .create(true)
            .read(true)
            .append(true)
            .open(path)?;
        Ok(Self(Mutex::new(file)))
    }

    fn append(&self, batch: Batch<'_>) -> Outcome<()> {
        let mut out = Vec::new();
        for (_, body) in batch.encoded()? {
            out.extend_from_slice(&(body.len() as u32).to_le_bytes());
            out.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
            out.extend_from_slice(&body);
        }
        let mut file = locked(&self.0);
        file.write_all(&out)?;
        file.sync_data()?;
        Ok(())
    }

    fn replay(&self) -> Outcome<usize> {
        let mut all = Vec::new();
        locked(&self.0).read_to_end(&mut all)?;
        let mut events = 0;
        let mut rest = all.as_slice();
        while let Some((head, tail)) = rest.split_first_chunk::<8>() {
            let [a, b, c, d, e, f, g, h] = *head;
            let length = u32::from_le_bytes([a, b, c, d]) as usize;
            let (body, tail) = tail.split_at_checked(length).ok_or("a torn record")?;
            if crc32c::crc32c(body) != u32::from_le_bytes([e, f, g, h]) {
                return Err("a damaged record".into());
            }
            codec::decode(body)?;
            events += 1;
            rest = tail;
        }
        Ok(events)
    }

    fn close(self) -> Outcome<()> {
        Ok(())
    }
}
