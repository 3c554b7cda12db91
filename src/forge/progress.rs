//! How a long forge tells where it is.

/// What the forge does just now.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Phase {
    /// The environment is being made ready.
    Provision,
    /// Tests run on the clean package. Counts test files.
    Reference,
    /// Candidates are screened and validated. Counts valid tasks.
    Forge,
}

impl Phase {
    /// The phase in a word or two.
    pub fn name(self) -> &'static str {
        match self {
            Self::Provision => "provision",
            Self::Reference => "clean runs",
            Self::Forge => "forge",
        }
    }
}

/// Where the forge is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct News {
    /// Package name.
    pub package: String,
    /// Phase.
    pub phase: Phase,
    /// Units done in this phase.
    pub done: u64,
    /// Units wanted in this phase.
    pub wanted: u64,
    /// One short line, such as the number of candidates tried; may be empty.
    pub note: String,
}

/// Who hears of progress. Called often, from the task that forges: must not block.
pub trait Progress {
    /// Takes news.
    fn report(&self, news: News);
}

/// Any closure will do.
impl<F: Fn(News)> Progress for F {
    fn report(&self, news: News) {
        self(news);
    }
}
