//! What lists of processes show. The words of a plan name places of the host, and inside
//! anybody can read process 1's.

use std::io;

/// Shows these words instead of the program's arguments, as far as they fit.
///
/// # Errors
/// The kernel does not say where the arguments lie.
pub fn show(words: &[&[u8]]) -> io::Result<()> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (start, length) =
        place(&stat).ok_or_else(|| io::Error::other("unknown place of the arguments"))?;
    let mut text = words.join(&0);
    // The last byte stays zero: else the kernel reads on behind it.
    text.truncate(length.saturating_sub(1));
    text.resize(length, 0);
    let place = std::ptr::with_exposed_provenance_mut::<u8>(start);
    // SAFETY: the kernel has put the arguments there, in memory of this process that can
    // be written and stays for its life; the text is as long as they are and lies
    // elsewhere. Whoever asks for arguments is given copies, and nobody asks any more.
    unsafe { std::ptr::copy_nonoverlapping(text.as_ptr(), place, length) };
    Ok(())
}

/// Where the arguments begin, and their length, in a line of `/proc/PID/stat`.
fn place(stat: &str) -> Option<(usize, usize)> {
    // The name in parentheses may hold anything. After it comes the third field.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(48 - 3).map(str::parse);
    let (start, end): (usize, usize) = (fields.next()?.ok()?, fields.next()?.ok()?);
    Some((start, end.checked_sub(start)?)).filter(|_| start != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_lie_where_the_kernel_says() {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let (_, length) = place(&stat).unwrap();
        let line = std::fs::read("/proc/self/cmdline").unwrap();
        assert_eq!(length, line.len());
        assert_eq!(place("1 (a) b) S 2 3"), None);
    }
}
