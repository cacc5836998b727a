//! Exchanges that no table can tell: in each the test plays both ends, step by step.

use libtest_mimic::Trial;

/// One test a function; its name begins with the section that it comes from.
pub fn trials(theme: &str, all: &[(&str, fn())]) -> Vec<Trial> {
    let trial = |&(name, test): &(&str, fn())| {
        Trial::test(format!("{theme}: RFC {name}"), move || {
            test();
            Ok(())
        })
    };
    all.iter().map(trial).collect()
}
