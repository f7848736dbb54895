//! What a file looks like from outside, by which one knows whether it was changed since.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// A file that was written to later than that may be written to again without looking different, as the index of git knows
/// it ("racily clean"): systems tell times in steps of milliseconds, and what is in a log counts a little later than it is
/// there.
const SETTLING: Duration = Duration::from_secs(1);

/// Tells a file from all others of the machine, whatever their names.
pub(super) type Identity = (u64, u64);

/// The looks of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) bytes: u64,
    written: Option<SystemTime>,
    /// When something of it was changed last, be it its name: seconds and nanoseconds.
    changed: Option<(i64, i64)>,
    /// Which file it is; `None` where the system does not tell, and where a file that is open may look as it did though it
    /// was written to.
    file: Option<Identity>,
}

impl Stamp {
    /// `None` if there is no such file.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        let (bytes, written) = (found.len(), found.modified().ok());
        #[cfg(unix)]
        let (changed, file) = {
            use std::os::unix::fs::MetadataExt as _;
            (Some((found.ctime(), found.ctime_nsec())), Some((found.dev(), found.ino())))
        };
        #[cfg(not(unix))]
        let (changed, file) = (None, None);
        Some(Self { bytes, written, changed, file })
    }

    /// Whether the file would look different by now if it had been written to since.
    pub(super) fn is_settled(&self) -> bool {
        self.was_settled_at(SystemTime::now())
    }

    fn was_settled_at(&self, now: SystemTime) -> bool {
        // After a clock was put back, what is written bears another time as well.
        let apart = |written: SystemTime| match now.duration_since(written) {
            Ok(age) => age,
            Err(ahead) => ahead.duration(),
        };
        self.written.is_none_or(|written| apart(written) > SETTLING)
    }

    /// Which file it is.
    pub(super) const fn file(&self) -> Option<Identity> {
        self.file
    }
}

/// Which file has that name now; `None` if there is none, or the system does not tell.
pub(super) fn identity(path: &Path) -> Option<Identity> {
    Stamp::of(path)?.file()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_may_be_written_to_unseen_for_a_second() {
        let file = tempfile::NamedTempFile::new().expect("a file of the test");
        let stamp = Stamp::of(file.path()).expect("a file of the test");
        let written = stamp.written.expect("a file of the test");
        let (tick, settled) = (Duration::from_millis(1), SETTLING + Duration::from_millis(1));
        for close in [written, written + tick, written + SETTLING, written - tick, written - SETTLING] {
            assert!(!stamp.was_settled_at(close), "{close:?}");
        }
        for far in [written + settled, written - settled] {
            assert!(stamp.was_settled_at(far), "{far:?}");
        }
        assert_eq!(SETTLING, Duration::from_secs(1));
    }

    #[test]
    fn other_files_and_other_contents_look_different() {
        let folder = tempfile::tempdir().expect("a file of the test");
        let (one, other) = (folder.path().join("one"), folder.path().join("other"));
        fs::write(&one, "a").expect("a file of the test");
        fs::write(&other, "a").expect("a file of the test");
        let before = Stamp::of(&one).expect("a file of the test");
        assert_eq!(Stamp::of(&one), Some(before.clone()));
        assert_eq!(Stamp::of(&folder.path().join("none")), None);
        if cfg!(unix) {
            assert_ne!(identity(&one), identity(&other));
        }
        fs::write(&one, "ab").expect("a file of the test");
        assert_ne!(Stamp::of(&one), Some(before));
    }
}
