//! The files that Weft makes in a state folder, by name. Nothing else in there is ever touched: the folder may be anybody's.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use mesh_discovery::runtime::process;
use mesh_discovery::store::StoreError;
use mesh_discovery::store::embedded::{Embedded, FILE_NAME};

/// What the proxy in `mesh-ctl dev` keeps, and the demo's own state folder.
const PROXY_FOLDER: &str = "proxy";
pub const DEMO_FOLDER: &str = "demo";

/// Every file that is ours in a state folder, the demo's in it included. Links are not followed.
///
/// # Errors
/// When a folder cannot be read.
pub fn files(state_dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for folder in [state_dir.to_owned(), state_dir.join(DEMO_FOLDER)] {
        found.extend(matching(&folder, |name| name == FILE_NAME || is_cache(name))?);
        found.extend(matching(&folder.join(PROXY_FOLDER), is_cache)?);
        // A folder called so may be anybody's: ours has a lock.
        let processes = folder.join(process::FOLDER);
        if processes.join("lock").is_file() {
            let ends = [".json", ".json.new", ".log"];
            found.extend(matching(&processes, |name| name == "lock" || ends.iter().any(|end| name.ends_with(end)))?);
        }
    }
    Ok(found)
}

fn is_cache(name: &str) -> bool {
    name.starts_with("xds-") && (name.ends_with(".cache") || name.contains(".cache."))
}

fn matching(folder: &Path, is_ours: impl Fn(&str) -> bool) -> io::Result<Vec<PathBuf>> {
    // A link leads elsewhere.
    if !fs::symlink_metadata(folder).is_ok_and(|found| found.is_dir()) {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_file() && entry.file_name().to_str().is_some_and(&is_ours) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Who uses the folder now, in words; none when nobody does.
#[must_use]
pub fn in_use(state_dir: &Path) -> Option<String> {
    [state_dir.to_owned(), state_dir.join(DEMO_FOLDER)].iter().find_map(|folder| {
        if folder.join(process::FOLDER).join("lock").is_file()
            && let Err(error) = process::check_unowned(folder)
        {
            return Some(error.to_string());
        }
        let opened = folder.join(FILE_NAME).is_file().then(|| Embedded::open(folder));
        match opened {
            // One that is damaged is nobody's.
            Some(Err(error @ StoreError::InUse { .. })) => Some(error.to_string()),
            _ => None,
        }
    })
}

/// Removes our files, and each of our folders that is empty then. True when the state folder itself is gone.
///
/// # Errors
/// A file that cannot be removed.
pub fn remove(state_dir: &Path) -> io::Result<bool> {
    for file in files(state_dir)? {
        fs::remove_file(file)?;
    }
    let demo = state_dir.join(DEMO_FOLDER);
    let below = |folder: &Path| [process::FOLDER, PROXY_FOLDER].map(|name| folder.join(name));
    for folder in below(&demo).into_iter().chain([demo]).chain(below(state_dir)) {
        // Not empty, or not there.
        let _ = fs::remove_dir(folder);
    }
    Ok(fs::remove_dir(state_dir).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        folder
    }

    const OURS: [&str; 6] = [
        "discovery.redb",
        "processes/lock",
        "processes/t-web-1.json",
        "processes/t-web-1.log",
        "proxy/xds-mesh-ctl.cache",
        "demo/processes/lock",
    ];

    #[test]
    fn a_folder_that_is_all_ours_goes_as_a_whole() {
        let folder = with(&OURS);
        assert_eq!(files(folder.path()).unwrap().len(), OURS.len());
        assert!(remove(folder.path()).unwrap());
        assert!(!folder.path().exists());
    }

    #[test]
    fn what_is_not_ours_stays() {
        let others = ["thesis.txt", "processes/notes.md", "proxy/a/b", "demo/film.mp4"];
        let folder = with(&[OURS.as_slice(), &others].concat());
        assert!(!remove(folder.path()).unwrap());
        for other in others {
            assert!(folder.path().join(other).exists(), "{other}");
        }
        assert_eq!(files(folder.path()).unwrap(), Vec::<PathBuf>::new());
        let none = with(&["thesis.txt", "processes/data.json", "a.cache"]);
        assert_eq!(files(none.path()).unwrap(), Vec::<PathBuf>::new(), "no lock, so not our processes");
    }

    #[test]
    fn a_folder_in_use_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let open = Embedded::open(folder.path()).unwrap();
        assert!(in_use(folder.path()).is_some_and(|words| words.contains("in use")));
        drop(open);
        assert_eq!(in_use(folder.path()), None);
    }
}
