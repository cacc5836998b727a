//! An image out of one static binary: `FROM scratch`, made by the engine from a build context that exists in memory only.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use bollard::Docker;
use bollard::query_parameters::BuildImageOptionsBuilder;
use bytes::Bytes;
use futures_util::StreamExt;
use thiserror::Error;

use super::marks;

/// The octal size field of a tar header ends here (POSIX.1-1988 ustar: eleven digits).
const TAR_FILE_BYTES_MAX: u64 = 0o777_7777_7777;

/// Why there is no image.
#[derive(Debug, Error)]
pub enum ImageError {
    #[error("{path} cannot be read: {source}", path = path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path} has {bytes} bytes, more than a tar archive can say", path = path.display())]
    TooLarge { path: PathBuf, bytes: u64 },
    #[error("image {name}: the engine does not build it: {message}")]
    Build { name: String, message: String },
}

/// Builds the image `name` that holds the binary at `path` as `/app` and starts it as `entrypoint` (its words after `/app`).
/// Labelled as ours, and with `labels`, so that [`super::sweep`] finds it. The answer is the image's id.
///
/// # Errors
/// [`ImageError`], when the binary cannot be read or the engine refuses.
pub async fn image_from_binary(
    docker: &Docker,
    name: &str,
    path: &Path,
    entrypoint: &[&str],
    labels: &BTreeMap<String, String>,
) -> Result<String, ImageError> {
    let binary = tokio::fs::read(path).await.map_err(|source| ImageError::Read { path: path.to_owned(), source })?;
    let bytes = binary.len() as u64;
    if bytes > TAR_FILE_BYTES_MAX {
        return Err(ImageError::TooLarge { path: path.to_owned(), bytes });
    }
    let words: Vec<&str> = std::iter::once("/app").chain(entrypoint.iter().copied()).collect();
    let words = serde_json::Value::from(words);
    let recipe = format!("FROM scratch\nCOPY app /app\nENTRYPOINT {words}\n");
    let context = tar(&[("Dockerfile", 0o644, recipe.as_bytes()), ("app", 0o755, &binary)]);
    drop(binary);
    let labels: HashMap<String, String> = marks(labels);
    let options =
        BuildImageOptionsBuilder::default().dockerfile("Dockerfile").t(name).rm(true).forcerm(true).labels(&labels);
    let mut progress = docker.build_image(options.build(), None, Some(bollard::body_full(Bytes::from(context))));
    let failed = |message: String| ImageError::Build { name: name.to_owned(), message };
    while let Some(line) = progress.next().await {
        line.map_err(|error| failed(error.to_string()))?;
    }
    let built = docker.inspect_image(name).await.map_err(|error| failed(error.to_string()))?;
    built.id.ok_or_else(|| failed("it is not there after the build".to_owned()))
}

/// A tar archive (ustar) of regular files, owned by root, from the epoch: the same files make the same bytes, and the engine's
/// build cache knows them again.
fn tar(files: &[(&str, u32, &[u8])]) -> Vec<u8> {
    const BLOCK: usize = 512;
    let mut archive =
        Vec::with_capacity(files.iter().map(|(_, _, content)| content.len() + 2 * BLOCK).sum::<usize>() + 2 * BLOCK);
    for (name, mode, content) in files {
        let mut header = [0_u8; BLOCK];
        let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(0, name);
        put(100, &format!("{mode:07o}"));
        put(108, "0000000");
        put(116, "0000000");
        put(124, &format!("{:011o}", content.len()));
        put(136, "00000000000");
        // The checksum is taken with blanks in its place.
        put(148, "        ");
        put(156, "0");
        put(257, "ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        archive.extend_from_slice(&header);
        archive.extend_from_slice(content);
        archive.resize(archive.len().next_multiple_of(BLOCK), 0);
    }
    archive.resize(archive.len() + 2 * BLOCK, 0);
    archive
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tar_reads_what_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let archive = folder.path().join("a.tar");
        std::fs::write(&archive, tar(&[("one", 0o644, b"1"), ("two", 0o755, &[7; 1024])])).unwrap();
        let status = std::process::Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(folder.path()).status();
        assert!(status.unwrap().success());
        assert_eq!(std::fs::read(folder.path().join("one")).unwrap(), b"1");
        assert_eq!(std::fs::read(folder.path().join("two")).unwrap(), [7; 1024]);
    }
}
