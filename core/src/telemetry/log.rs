//! The human log on stderr: `RUST_LOG` decides, `info` by default; colour only on a terminal, never with `NO_COLOR`.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Sets the process-wide subscriber; a second call changes nothing, so that several daemons may live in one process.
pub fn init(default_filter: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default_filter));
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colour).with_writer(std::io::stderr);
    // It would complain on stderr, and panic where nobody reads that.
    let subscriber = subscriber.log_internal_errors(false);
    if subscriber.try_init().is_err() {
        tracing::debug!("the log was set up already");
    }
}

/// One line for people on stderr, in place of `eprintln!`, which panics where nobody reads any more.
#[macro_export]
macro_rules! tell {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        // Who does not read it wants nothing of it; what is done does not depend on it.
        let _ = writeln!(std::io::stderr(), $($words)*);
    }};
}
