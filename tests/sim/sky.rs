//! What everybody in the simulated world shares: its clock, its dice, whether things go wrong at the moment, and the story of
//! what happened so far.

use std::collections::VecDeque;
use std::fmt;
use std::hash::Hasher as _;
use std::time::{Duration, Instant};

/// Simulated time of one step.
pub const STEP: Duration = Duration::from_millis(100);

/// So much of the story is printed when something fails.
const STORY_TAIL: usize = 40;

pub struct Sky {
    pub seed: u64,
    pub step: u32,
    base: Instant,
    /// What every clock says: it jumps forward at times.
    pub now: Duration,
    /// Time without the jumps: what had time to happen.
    pub awake: Duration,
    pub random: fastrand::Rng,
    /// Faults happen.
    pub is_stormy: bool,
    story: VecDeque<String>,
    told: std::hash::DefaultHasher,
}

impl Sky {
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            step: 0,
            base: Instant::now(),
            now: Duration::ZERO,
            awake: Duration::ZERO,
            random: fastrand::Rng::with_seed(seed),
            is_stormy: true,
            story: VecDeque::new(),
            told: std::hash::DefaultHasher::new(),
        }
    }

    pub fn advance(&mut self) {
        self.step += 1;
        self.now += STEP;
        self.awake += STEP;
    }

    /// As after a suspended machine: all clocks are ahead, and nothing happened meanwhile.
    pub fn jump(&mut self, by: Duration) {
        self.now += by;
        self.tell(format_args!("the clocks jump by {by:?}"));
    }

    pub fn instant(&self) -> Instant {
        self.base + self.now
    }

    /// True once in `one_in` times, while it storms.
    pub fn mishap(&mut self, one_in: u32) -> bool {
        self.is_stormy && self.random.u32(0..one_in) == 0
    }

    /// Anything up to so many milliseconds.
    pub fn up_to(&mut self, millis: u64) -> Duration {
        Duration::from_millis(self.random.u64(0..=millis))
    }

    pub fn any_of(&mut self, count: usize) -> Option<usize> {
        (count > 0).then(|| self.random.usize(0..count))
    }

    /// One more line of the story.
    pub fn tell(&mut self, line: impl fmt::Display) {
        let line = format!("{:>8.1}s {line}", self.now.as_secs_f64());
        self.told.write(line.as_bytes());
        self.story.push_back(line);
        if self.story.len() > STORY_TAIL {
            self.story.pop_front();
        }
    }

    /// The whole story in one number: the same seed has the same.
    pub fn story_hash(&self) -> u64 {
        self.told.finish()
    }
}

/// Where we are: the beginning of every message.
impl fmt::Display for Sky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}, step {} ({:?})", self.seed, self.step, self.now)
    }
}

impl Drop for Sky {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the last that happened with seed {}:", self.seed);
            self.story.iter().for_each(|line| eprintln!("  {line}"));
        }
    }
}
