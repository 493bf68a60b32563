//! Finds a Java, and gets the jars of Apache Kafka once per machine from a Maven repository.
//!
//! The jars live in a cache outside the repository, so that a fresh checkout or a clean build
//! directory downloads nothing.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{env, fmt, io};

use super::supervisor::wait_child;

/// The Kafka that the tests are known to pass with.
pub const PINNED_VERSION: &str = "4.4.0";
/// The newest Kafka for tests that restart a broker under open transactions. 4.3.0 and 4.4.0 end a
/// transaction without its markers where one of its partitions has no leader at that moment
/// (KAFKA-20734), as on a broker that is alone and starts or stops.
pub const KEEPS_MARKERS: &str = "4.2.0";
/// Kafka brokers need this since 4.0.
const MIN_JAVA: u32 = 17;
/// The size of the download of [`PINNED_VERSION`], for the notice.
const DOWNLOAD_MB: u32 = 45;
/// Kafka's API is slf4j 1.7, so the binding must be of that line; this is its last release.
const SLF4J_SIMPLE_VERSION: &str = "1.7.36";
const DEPENDENCY_PLUGIN_VERSION: &str = "3.8.1";
const DOWNLOAD_DEADLINE: Duration = Duration::from_mins(15);
/// A file in a directory of jars that says nothing is missing from it.
const COMPLETE: &str = "complete";
const FOREIGN_HINT: &str = "or set SWAPSTREAM_TEST_KAFKA=host:port to use a broker that runs";

/// Why there is no broker to test with.
#[derive(Debug, Clone)]
pub struct Unavailable {
    /// What is missing and how to get it.
    pub reason: String,
    /// Everything is there, but it does not work. A test must not pass over that in silence.
    pub broken: bool,
}

impl Unavailable {
    pub fn missing(reason: impl Into<String>) -> Self {
        Unavailable {
            reason: reason.into(),
            broken: false,
        }
    }

    pub fn broken(reason: impl Into<String>) -> Self {
        Unavailable {
            reason: reason.into(),
            broken: true,
        }
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.reason)
    }
}

impl std::error::Error for Unavailable {}

/// What it takes to run a broker.
#[derive(Debug, Clone)]
pub struct Kit {
    /// The program itself. A wrapper on the PATH would stand between us and the broker's pid.
    pub java: PathBuf,
    pub jars: PathBuf,
    pub version: String,
}

impl Kit {
    /// Finds or downloads the Kafka of this version, unless the environment asks for another one;
    /// once per process.
    pub fn resolve(version: &str) -> Result<Arc<Kit>, Unavailable> {
        type Kits = BTreeMap<String, Result<Arc<Kit>, Unavailable>>;
        static KITS: Mutex<Kits> = Mutex::new(BTreeMap::new());
        let mut kits = KITS.lock().unwrap_or_else(PoisonError::into_inner);
        let resolved = kits.entry(version.to_owned()).or_insert_with(|| {
            let java = find_java()?;
            let cache = JarCache::locate(version)?;
            let jars = cache.fetch()?;
            Ok(Arc::new(Kit {
                java,
                jars,
                version: cache.version,
            }))
        });
        resolved.clone()
    }
}

/// The Java of `JAVA_HOME`, else the one on the PATH, if it is new enough.
fn find_java() -> Result<PathBuf, Unavailable> {
    let (program, origin) = match env::var_os("JAVA_HOME").filter(|home| !home.is_empty()) {
        Some(home) => (Path::new(&home).join("bin/java"), "in JAVA_HOME"),
        None => (PathBuf::from("java"), "on the PATH"),
    };
    let how = format!("install a JDK or JRE {MIN_JAVA}+, {FOREIGN_HINT}");
    let output = Command::new(&program)
        .args(["-XshowSettings:properties", "-version"])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| {
            Unavailable::missing(format!(
                "no Java {MIN_JAVA}+ found {origin} ({error}): {how}"
            ))
        })?;
    let settings = String::from_utf8_lossy(&output.stderr);
    let property = |name: &str| {
        settings.lines().find_map(|line| {
            let (key, value) = line.split_once(" = ")?;
            (key.trim() == name).then(|| value.trim().to_owned())
        })
    };
    let version = property("java.specification.version").unwrap_or_default();
    // Before 9 this reads "1.8", which is also too old.
    let major: u32 = version
        .split('.')
        .next()
        .and_then(|major| major.parse().ok())
        .unwrap_or(0);
    if major < MIN_JAVA {
        let found = if version.is_empty() {
            "no version".to_owned()
        } else {
            format!("Java {version}")
        };
        return Err(Unavailable::missing(format!(
            "no Java {MIN_JAVA}+ found: the one {origin} says {found}: {how}"
        )));
    }
    let real = property("java.home").map(|home| Path::new(&home).join("bin/java"));
    Ok(real.filter(|java| java.is_file()).unwrap_or(program))
}

fn maven_exists() -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|dir| dir.join("mvn").is_file())
}

/// The place of one version's jars.
struct JarCache {
    root: PathBuf,
    version: String,
}

impl JarCache {
    fn locate(version: &str) -> Result<JarCache, Unavailable> {
        let version = set("SWAPSTREAM_TEST_KAFKA_VERSION").unwrap_or_else(|| version.to_owned());
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || ".-_".contains(letter);
        if !version.starts_with(|first: char| first.is_ascii_digit())
            || !version.chars().all(is_plain)
        {
            return Err(Unavailable::broken(format!(
                "SWAPSTREAM_TEST_KAFKA_VERSION is not a version: {version:?}"
            )));
        }
        let root = set("SWAPSTREAM_TEST_CACHE")
            .map(PathBuf::from)
            .or_else(|| Some(Path::new(&set("XDG_CACHE_HOME")?).join("swapstream")))
            .or_else(|| Some(Path::new(&set("HOME")?).join(".cache/swapstream")))
            .ok_or_else(|| {
                Unavailable::missing(
                    "no place for Apache Kafka: set SWAPSTREAM_TEST_CACHE to a directory",
                )
            })?;
        Ok(JarCache { root, version })
    }

    fn jars(&self) -> PathBuf {
        self.root.join(format!("kafka-{}", self.version))
    }

    fn is_complete(&self) -> bool {
        self.jars().join(COMPLETE).is_file()
    }

    /// The directory with the jars, after a download if it is the first time.
    fn fetch(&self) -> Result<PathBuf, Unavailable> {
        if !self.is_complete() {
            if !maven_exists() {
                return Err(Unavailable::missing(format!(
                    "no Maven found to download Apache Kafka {} with: install it so that `mvn` is on the PATH, {FOREIGN_HINT}",
                    self.version
                )));
            }
            let filed = |error: io::Error| {
                Unavailable::broken(format!(
                    "cannot keep Apache Kafka in {}: {error}",
                    self.root.display()
                ))
            };
            fs::create_dir_all(&self.root).map_err(filed)?;
            // Other test processes wait here for the one that downloads. The kernel lets go of the
            // lock when that one dies.
            let lock = File::create(self.root.join(format!("kafka-{}.lock", self.version)))
                .map_err(filed)?;
            lock.lock().map_err(filed)?;
            if !self.is_complete() {
                self.download().map_err(filed)??;
            }
        }
        Ok(self.jars())
    }

    /// Downloads into a directory of its own, and gives that its final name when it is complete.
    fn download(&self) -> io::Result<Result<(), Unavailable>> {
        let partial = self.root.join(format!("kafka-{}.partial", self.version));
        for leftover in [&partial, &self.jars()] {
            match fs::remove_dir_all(leftover) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        fs::create_dir_all(&partial)?;
        eprintln!(
            "downloading Apache Kafka {} (about {DOWNLOAD_MB} MB) into {} ...",
            self.version,
            self.jars().display()
        );
        if let Err(reason) = run_maven(&self.version, &partial)? {
            fs::remove_dir_all(&partial)?;
            return Ok(Err(Unavailable::missing(format!(
                "Maven cannot download Apache Kafka {} ({reason}): check the network, {FOREIGN_HINT}",
                self.version
            ))));
        }
        fs::write(partial.join(COMPLETE), "")?;
        fs::rename(&partial, self.jars())?;
        Ok(Ok(()))
    }
}

fn run_maven(version: &str, dir: &Path) -> io::Result<Result<(), String>> {
    let pom = dir.join("pom.xml");
    let log = dir.join("maven.log");
    fs::write(&pom, pom_text(version))?;
    let output = File::create(&log)?;
    let mut maven = Command::new("mvn")
        .args(["-q", "-B", "-f"])
        .arg(&pom)
        .arg("dependency:copy-dependencies")
        .arg("-DincludeScope=runtime")
        .arg(format!("-DoutputDirectory={}", dir.display()))
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()?;
    let outcome = match wait_child(&mut maven, DOWNLOAD_DEADLINE) {
        Some(status) if status.success() => Ok(()),
        Some(status) => {
            let said = fs::read_to_string(&log)?;
            let errors = said.lines().filter(|line| line.contains("ERROR"));
            let first = errors.map(str::trim).next().unwrap_or_default();
            Err(format!("{status} {first}"))
        }
        None => {
            maven.kill()?;
            maven.wait()?;
            Err(format!("nothing for {DOWNLOAD_DEADLINE:?}"))
        }
    };
    Ok(outcome)
}

/// `kafka_2.13` pulls in everything a broker needs; with slf4j-simple its log goes to stderr.
fn pom_text(version: &str) -> String {
    format!(
        r#"<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>swapstream.test</groupId>
  <artifactId>kafka-broker</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>{version}</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId>
      <artifactId>slf4j-simple</artifactId>
      <version>{SLF4J_SIMPLE_VERSION}</version>
    </dependency>
  </dependencies>
  <build>
    <plugins>
      <plugin>
        <groupId>org.apache.maven.plugins</groupId>
        <artifactId>maven-dependency-plugin</artifactId>
        <version>{DEPENDENCY_PLUGIN_VERSION}</version>
      </plugin>
    </plugins>
  </build>
</project>
"#
    )
}

/// An environment variable, where empty means not set.
pub fn set(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}
