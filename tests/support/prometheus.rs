//! A real Prometheus for tests: scrapes a live service, loads the alert rules, and says which
//! selectors of the dashboards and alerts match nothing.
//!
//! Needs the program `prometheus` (Debian: `apt install prometheus`); [`find`] tells whether it is
//! there.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "test code outside of test functions; each target that includes it uses its part"
)]

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The path of a program, if it is installed. With `CI=true` a missing one is a failure.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file());
    if found.is_none() {
        let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
        assert!(
            !ci,
            "{program} is not installed, and CI=true: apt install prometheus"
        );
        eprintln!("skipped: {program} is not installed (Debian: apt install prometheus)");
    }
    found
}

/// Every selector of every dashboard and alert expression that matches no series of a Prometheus
/// that scrapes the service at `target`; each with the file and expression it stands in. Alert
/// rules that Prometheus cannot evaluate are among the answers.
pub fn unmatched_selectors(program: &Path, target: SocketAddr) -> Result<Vec<String>, String> {
    let prometheus = Prometheus::start(program, target)?;
    prometheus.wait_for_scrape(Duration::from_mins(1))?;
    let mut unmatched = prometheus.wait_for_rules(Duration::from_mins(1))?;
    for expression in expressions() {
        for selector in &expression.selectors {
            let text = selector.text();
            if prometheus.series(&text)?.is_empty() {
                let (file, expr) = (&expression.file, &expression.text);
                unmatched.push(format!("{file}: {text} matches nothing, in: {expr}"));
            }
        }
    }
    Ok(unmatched)
}

/// A Prometheus of its own, which ends with this value, or with the test process.
#[derive(Debug)]
pub struct Prometheus {
    address: SocketAddr,
    process: Child,
    directory: tempfile::TempDir,
}

impl Prometheus {
    /// Starts `program` on a free port, scraping `target` every second.
    pub fn start(program: &Path, target: SocketAddr) -> Result<Self, String> {
        let text = |error: std::io::Error| format!("cannot start prometheus: {error}");
        let directory = tempfile::tempdir().map_err(text)?;
        let rules = root().join("deploy/prometheus/alerts.yml");
        let rules = rules.display();
        let config = format!(
            "global: {{ scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }}\n\
             rule_files: [\"{rules}\"]\n\
             scrape_configs:\n\
             - job_name: swapstream\n  static_configs: [{{ targets: [\"{target}\"] }}]\n"
        );
        let config_file = directory.path().join("prometheus.yml");
        fs::write(&config_file, config).map_err(text)?;
        let log = fs::File::create(directory.path().join("log")).map_err(text)?;
        let address = free_address().map_err(text)?;
        // The shell waits for the end of its input, which comes however this process ends.
        let process = Command::new("sh")
            .arg("-c")
            .arg("\"$@\" & child=$!; cat > /dev/null; kill $child; wait $child")
            .arg("sh")
            .arg(program)
            .arg(format!("--config.file={}", config_file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                directory.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(text)?;
        Ok(Self {
            address,
            process,
            directory,
        })
    }

    /// Waits until the target has been scraped three times, so that rates exist.
    pub fn wait_for_scrape(&self, timeout: Duration) -> Result<(), String> {
        let query = "sum_over_time(up{job=\"swapstream\"}[1m]) >= 3";
        self.wait(timeout, "the target has not been scraped", || {
            let answer = self.get("/api/v1/query", "query", query)?;
            Ok((!array(&answer["data"]["result"]).is_empty()).then_some(()))
        })
    }

    /// Waits until every alert rule has been evaluated; gives those that fail.
    pub fn wait_for_rules(&self, timeout: Duration) -> Result<Vec<String>, String> {
        self.wait(timeout, "the alert rules are not evaluated", || {
            let answer = self.get("/api/v1/rules", "type", "alert")?;
            let groups = array(&answer["data"]["groups"]);
            let rules: Vec<&Value> = groups.iter().flat_map(|g| array(&g["rules"])).collect();
            if rules.is_empty() || rules.iter().any(|rule| rule["health"] == "unknown") {
                return Ok(None);
            }
            let bad = rules.iter().filter(|rule| rule["health"] != "ok");
            Ok(Some(
                bad.map(|r| format!("alert {}: {}", r["name"], r["lastError"]))
                    .collect(),
            ))
        })
    }

    /// The series that `selector` matches.
    pub fn series(&self, selector: &str) -> Result<Vec<Value>, String> {
        let answer = self.get("/api/v1/series", "match[]", selector)?;
        Ok(array(&answer["data"]).to_vec())
    }

    /// Answers a query of the API with one parameter.
    pub fn get(&self, path: &str, name: &str, value: &str) -> Result<Value, String> {
        let text = |error: std::io::Error| format!("{path}: {error}");
        let mut stream = TcpStream::connect(self.address).map_err(text)?;
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .map_err(text)?;
        // HTTP/1.0: no chunks, and the connection ends with the answer.
        let query = format!("{}={}", encode(name), encode(value));
        let request = format!("GET {path}?{query} HTTP/1.0\r\nHost: prometheus\r\n\r\n");
        stream.write_all(request.as_bytes()).map_err(text)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map_err(text)?;
        let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        let json: Value = serde_json::from_str(body)
            .map_err(|error| format!("{path}?{name}={value}: {error} in: {answer}"))?;
        match json["status"].as_str() {
            Some("success") => Ok(json),
            _ => Err(format!("{path}?{name}={value}: {json}")),
        }
    }

    fn wait<T>(
        &self,
        timeout: Duration,
        what: &str,
        mut attempt: impl FnMut() -> Result<Option<T>, String>,
    ) -> Result<T, String> {
        let deadline = Instant::now() + timeout;
        loop {
            let last = match attempt() {
                Ok(Some(value)) => return Ok(value),
                Ok(None) => String::new(),
                Err(error) => error,
            };
            if Instant::now() > deadline {
                let log = fs::read_to_string(self.directory.path().join("log"));
                return Err(format!("{what}: {last}\n{}", log.unwrap_or_default()));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        drop(self.process.wait());
    }
}

fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(byte.into());
        } else {
            encoded.extend([format!("%{byte:02X}")]);
        }
        encoded
    })
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// An expression of a dashboard or an alert.
#[derive(Debug)]
pub struct Expression {
    /// The file, from the repository's root.
    pub file: String,
    /// The expression.
    pub text: String,
    /// The selectors in it.
    pub selectors: Vec<Selector>,
    /// The labels that it groups by or otherwise names outside of selectors.
    pub grouping: BTreeSet<String>,
}

/// A metric name and its label matchers, variables of the dashboard replaced by "everything".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    /// The metric.
    pub metric: String,
    /// Label, operator and value of each matcher.
    pub matchers: Vec<(String, String, String)>,
}

impl Selector {
    /// The selector as Prometheus takes it.
    pub fn text(&self) -> String {
        let matchers = self.matchers.iter();
        let matchers: Vec<String> = matchers.map(|(l, o, v)| format!("{l}{o}\"{v}\"")).collect();
        format!("{}{{{}}}", self.metric, matchers.join(","))
    }
}

/// Every expression of every dashboard and alert rule.
pub fn expressions() -> Vec<Expression> {
    let mut expressions = Vec::new();
    let dashboards = fs::read_dir(root().join("deploy/grafana/dashboards")).unwrap();
    for entry in dashboards {
        let path = entry.unwrap().path();
        let json = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let mut found = Vec::new();
        dashboard_expressions(&json, &mut found);
        expressions.extend(found.into_iter().map(|text| expression(&path, text)));
    }
    let alerts = root().join("deploy/prometheus/alerts.yml");
    let found = alert_expressions(&fs::read_to_string(&alerts).unwrap());
    expressions.extend(found.into_iter().map(|text| expression(&alerts, text)));
    expressions
}

fn expression(path: &Path, text: String) -> Expression {
    let file = path.strip_prefix(root()).unwrap_or(path);
    Expression {
        file: file.display().to_string(),
        selectors: selectors(&text),
        grouping: grouping(&text),
        text,
    }
}

/// The expressions of panels and annotations (`expr`) and of variables (`definition`).
fn dashboard_expressions(json: &Value, found: &mut Vec<String>) {
    match json {
        Value::Array(items) => items
            .iter()
            .for_each(|item| dashboard_expressions(item, found)),
        Value::Object(map) => {
            for (key, value) in map {
                match value.as_str() {
                    Some(text) if key == "expr" || key == "definition" => {
                        found.push(text.to_owned());
                    }
                    _ => dashboard_expressions(value, found),
                }
            }
        }
        _ => {}
    }
}

/// The expressions of a file of rules: `expr:` with the rest of its line, or with the deeper
/// indented lines below it. Whether the file is right YAML is promtool's to say.
pub fn alert_expressions(rules: &str) -> Vec<String> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let lines: Vec<&str> = rules.lines().collect();
    let mut found = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let Some(rest) = line.trim_start().strip_prefix("expr:") else {
            continue;
        };
        let rest = rest.trim();
        if rest.starts_with(['>', '|']) {
            let block = lines.iter().skip(number + 1);
            let block = block.take_while(|below| indent(below) > indent(line));
            found.push(block.map(|line| line.trim()).collect::<Vec<_>>().join(" "));
        } else {
            found.push(rest.to_owned());
        }
    }
    found
}

/// The selectors of our metrics and of `up` in an expression.
pub fn selectors(expression: &str) -> Vec<Selector> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut selectors = Vec::new();
    let mut rest = expression;
    let mut quoted = false;
    while let Some(first) = rest.chars().next() {
        quoted ^= first == '"';
        let length = rest.find(|c| !word(c)).unwrap_or(rest.len());
        if quoted || length == 0 {
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let (metric, after) = rest.split_at(length);
        rest = after;
        let ours = metric.starts_with("swapstream_") || metric.starts_with("process_");
        if ours || metric == "up" {
            let body = after
                .strip_prefix('{')
                .and_then(|body| body.split_once('}'));
            selectors.push(Selector {
                metric: metric.to_owned(),
                matchers: body.map(|(body, _)| matchers(body)).unwrap_or_default(),
            });
            rest = body.map_or(after, |(_, after)| after);
        }
    }
    selectors
}

fn matchers(body: &str) -> Vec<(String, String, String)> {
    let parts = body
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let name_end = part.find(['=', '!']).unwrap();
            let value_begin = part.find('"').unwrap();
            let value = part[value_begin..].trim_matches('"');
            let value = if value.starts_with('$') { ".*" } else { value };
            let operator = &part[name_end..value_begin];
            (
                part[..name_end].trim().to_owned(),
                operator.trim().to_owned(),
                value.to_owned(),
            )
        })
        .collect()
}

/// The labels in `by (…)`, and the last argument of `label_values(…)`.
fn grouping(expression: &str) -> BTreeSet<String> {
    let lists = expression.split("by (").skip(1);
    let mut labels: BTreeSet<String> = lists
        .filter_map(|rest| rest.split_once(')'))
        .flat_map(|(list, _)| list.split(','))
        .map(|label| label.trim().to_owned())
        .collect();
    if let Some(arguments) = expression.strip_prefix("label_values(")
        && let Some((_, label)) = arguments.trim_end_matches(')').rsplit_once(',')
    {
        labels.insert(label.trim().to_owned());
    }
    labels
}
