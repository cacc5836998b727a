//! One Compose project, as a user starts it, and removed when the test ends.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use mesh_tests::daemon::binary;
use mesh_tests::eventually::eventually;
use tempfile::TempDir;

/// Images and a first answer on a busy machine.
pub const DEADLINE: std::time::Duration = std::time::Duration::from_secs(60);

/// What `docker` says; a failure is a test's end.
pub fn docker(arguments: &[&str]) -> String {
    said("docker", &output("docker", arguments, &BTreeMap::new()))
}

fn output(program: &str, arguments: &[&str], environment: &BTreeMap<String, String>) -> Output {
    let ran = Command::new(program).args(arguments).envs(environment).output();
    ran.unwrap_or_else(|error| panic!("{program} cannot be run: {error}"))
}

fn said(program: &str, output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {errors}{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// An image `FROM scratch` of files, removed on drop.
pub struct Image {
    pub name: String,
}

impl Image {
    /// Of a Dockerfile and the files it copies, by the name it knows them under.
    pub fn build(dockerfile: &str, target: Option<&str>, files: &[(&str, &Path)]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("weft-e2e-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        std::fs::write(folder.path().join("Dockerfile"), dockerfile).expect("it can be written to");
        for (file, source) in files {
            std::fs::copy(source, folder.path().join(file)).expect("a binary can be copied");
        }
        let folder = folder.path().display().to_string();
        let mut arguments = vec!["build", "-q", "-t", &name, "--build-arg", "BINARIES=."];
        arguments.extend(target.iter().flat_map(|target| ["--target", target]));
        arguments.push(&folder);
        docker(&arguments);
        Self { name }
    }

    /// One of ours, by its stage in our Dockerfile.
    pub fn of_ours(stage: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace");
        let dockerfile = std::fs::read_to_string(root.join("Dockerfile")).expect("there is a Dockerfile");
        let ours = ["mesh-discovery", "mesh-proxy", "mesh-ctl"].map(|name| (name, binary(name)));
        let files: Vec<(&str, &Path)> = ours.iter().map(|(name, path)| (*name, path.as_path())).collect();
        Self::build(&dockerfile, Some(stage), &files)
    }

    /// This very binary, which plays every part of a test's project.
    pub fn of_this_binary() -> Self {
        let this = std::env::current_exe().expect("a test knows its own path");
        Self::build("FROM scratch\nCOPY app /app\nENTRYPOINT [\"/app\"]\n", None, &[("app", &this)])
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // One that is in use is removed with `docker rmi` by whoever keeps it.
        let _ = output("docker", &["rmi", "-f", &self.name], &BTreeMap::new());
    }
}

/// A project that runs.
pub struct Project {
    pub name: String,
    files: Vec<PathBuf>,
    environment: BTreeMap<String, String>,
    _folder: TempDir,
}

impl Project {
    /// Of a Compose file's text.
    pub fn of(purpose: &str, text: &str) -> Self {
        Self::over(purpose, None, text)
    }

    /// Of one of our examples, by its folder, with `text` as the second file over it.
    pub fn of_example(example: &str, text: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace");
        Self::over(example, Some(root.join("examples").join(example).join("compose.yaml")), text)
    }

    fn over(purpose: &str, base: Option<PathBuf>, text: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let file = folder.path().join("compose.yaml");
        std::fs::write(&file, text).expect("it can be written to");
        let name = format!("weft-{purpose}-{}", std::process::id());
        let files = base.into_iter().chain([file]).collect();
        Self { name, files, environment: BTreeMap::new(), _folder: folder }
    }

    /// With a variable of the Compose file.
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.environment.insert(key.to_owned(), value.to_owned());
        self
    }

    /// `docker-compose …` of this project.
    pub fn compose(&self, arguments: &[&str]) -> String {
        said("docker-compose", &self.try_compose(arguments))
    }

    fn try_compose(&self, arguments: &[&str]) -> Output {
        let files: Vec<String> = self.files.iter().map(|file| file.display().to_string()).collect();
        let mut all = vec!["-p", self.name.as_str()];
        all.extend(files.iter().flat_map(|file| ["-f", file]));
        all.extend(arguments);
        output("docker-compose", &all, &self.environment)
    }

    /// The container ids of a service's replicas that run, short as their host names are.
    pub fn replicas(&self, service: &str) -> Vec<String> {
        let label = |key: &str, value: &str| format!("label=com.docker.compose.{key}={value}");
        let (project, service) = (label("project", &self.name), label("service", service));
        let found = docker(&["ps", "--no-trunc", "--format", "{{.ID}}", "--filter", &project, "--filter", &service]);
        found.lines().map(|id| id[..12].to_owned()).collect()
    }

    /// The only replica of a service.
    pub fn replica(&self, service: &str) -> String {
        self.replicas(service).pop().unwrap_or_else(|| panic!("no {service} runs"))
    }

    /// Everything a client has printed.
    pub fn calls(&self, client: &str) -> Calls {
        Calls::of(&self.replica(client))
    }

    /// Waits until `client` got answers from exactly these replicas in its last `count` calls.
    pub fn until_answered_by(&self, client: &str, count: usize, replicas: &[String]) {
        let mut wanted = replicas.to_vec();
        wanted.sort();
        eventually(&format!("answers to {client} by {wanted:?}"), DEADLINE, || {
            let calls = self.calls(client);
            let last: Vec<String> = calls.last(count).answers().into_keys().collect();
            if calls.lines.len() >= count && last == wanted { Ok(()) } else { Err(format!("{:?}", calls.last(count))) }
        });
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", String::from_utf8_lossy(&self.try_compose(&["logs", "--tail=30"]).stdout));
        }
        let _ = self.try_compose(&["down", "-v", "-t", "0"]);
    }
}

/// The lines of a client.
#[derive(Debug, Clone)]
pub struct Calls {
    pub lines: Vec<String>,
}

impl Calls {
    pub fn of(container: &str) -> Self {
        Self { lines: docker(&["logs", container]).lines().map(str::to_owned).collect() }
    }

    pub fn last(&self, count: usize) -> Self {
        Self { lines: self.lines[self.lines.len().saturating_sub(count)..].to_vec() }
    }

    /// How often each replica answered; failures are counted as `FAILED`.
    pub fn answers(&self) -> BTreeMap<String, usize> {
        let mut found = BTreeMap::new();
        for line in &self.lines {
            let who = line.strip_prefix("200 ").unwrap_or("FAILED");
            *found.entry(who.to_owned()).or_default() += 1;
        }
        found
    }

    pub fn failures(&self) -> Vec<&String> {
        self.lines.iter().filter(|line| !line.starts_with("200 ")).collect()
    }
}
