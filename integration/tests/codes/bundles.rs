//! What is wrong with a file before anybody asks what it means.

use super::{Act, Case, Logged, Plan, Text, Told, bundle, up};
use hull_integration::{Lab, Stop};
use serde_json::json;
use std::fs;

pub(super) const CASES: &[Case] = &[
    ("bundle-missing", Act(|lab| Logged::new(lab, &["plan", "/no/such/bundle"]).told())),
    (
        "config-missing",
        Act(|lab| Logged::new(lab, &["plan", &lab.new_dir("empty").to_string_lossy()]).told()),
    ),
    ("config-read", Act(config_read)),
    ("config-too-large", Text(|| vec![b' '; (8 << 20) + 1])),
    (
        "config-values",
        Text(|| format!("{{\"process\": {{\"args\": [{}1]}}}}", "1,".repeat(1 << 16)).into_bytes()),
    ),
    ("config-syntax", Text(|| b"{,}".to_vec())),
    ("config-depth", Text(|| format!("{{\"a\": {}{}}}", "[".repeat(64), "]".repeat(64)).into_bytes())),
    ("config-nul", Text(|| b"{\"ociVersion\": \"1.0\\u0000\"}".to_vec())),
    ("config-duplicate", Text(|| b"{\"ociVersion\": \"1.0.0\", \"ociVersion\": \"1.0.0\"}".to_vec())),
    ("config-type", Plan(|b| b.set("/process/args", json!("sh")))),
    ("config-value", Plan(|b| b.namespace("sausage", None))),
    ("config-field-missing", Plan(|b| b.push("/linux/devices", json!({"path": "/dev/x", "type": "c"})))),
    ("null-field", Plan(|b| b.set("/process/user/uid", json!(null)))),
    ("unknown-value", Plan(|b| b.push("/process/capabilities/bounding", json!("CAP_SAUSAGE")))),
    ("unknown-field", Plan(|b| b.set("/sausage", json!(1)))),
    ("more-warnings", Act(more_warnings)),
    ("nul-byte", Act(nul_byte)),
    ("process-missing", Plan(|b| b.remove("/process"))),
    ("resources-missing", Act(|lab| Logged::new(lab, &["update", "--resources", "/no/such", "none"]).told())),
    ("config-exists", Act(config_exists)),
    ("config-unwritable", Act(|lab| Logged::new(lab, &["spec", "--bundle", "/no/such"]).told())),
];

/// A directory can be opened, and not read.
fn config_read(lab: &Lab) -> Result<Told, Stop> {
    let dir = lab.new_dir("bundle");
    fs::create_dir(dir.join("config.json"))?;
    Logged::new(lab, &["plan", &dir.to_string_lossy()]).told()
}

/// Told once the command has succeeded.
fn more_warnings(lab: &Lab) -> Result<Told, Stop> {
    let rule = json!({"allow": false, "access": "rwm", "type": "c", "major": null, "minor": null});
    let rules: Vec<_> = (0..20).map(|_| rule.clone()).collect();
    let b = bundle(lab).set("/linux/resources/devices", json!(rules)).set("/process/user/uid", json!(null));
    Logged::launch(lab, "run", &b).told()
}

/// No file that hull reads may hold one, but the one that it writes itself is not looked at so closely.
fn nul_byte(lab: &Lab) -> Result<Told, Stop> {
    let b = up(lab);
    let file = lab.root.join(&b.id).join("process.json");
    let text = fs::read_to_string(&file)?.replace("TERM=xterm", "TERM=\\u0000");
    fs::write(file, text)?;
    Logged::new(lab, &["exec", &b.id, "/bin/true"]).told()
}

fn config_exists(lab: &Lab) -> Result<Told, Stop> {
    let dir = lab.new_dir("bundle");
    fs::write(dir.join("config.json"), "{}")?;
    Logged::new(lab, &["spec", "--bundle", &dir.to_string_lossy()]).told()
}
