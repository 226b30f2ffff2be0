//! The repository itself: arrows between crates point inward, files stay readable, links lead somewhere.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The longest source file, in lines. Around 400 is the aim; one that needs more has two subjects.
const LONGEST_FILE: usize = 600;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the repository").to_owned()
}

/// The workspace's packages, as cargo understands their manifests.
fn packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

fn name(package: &Value) -> &str {
    package["name"].as_str().unwrap()
}

/// What a package depends on; with what it needs only to be built or tested, if wanted.
fn dependencies(package: &Value, with_development: bool) -> BTreeSet<&str> {
    let all = package["dependencies"].as_array().unwrap().iter();
    all.filter(|dependency| with_development || dependency["kind"].is_null()).map(name).collect()
}

/// The files that git knows or would, with one of these extensions, without what is built or fetched.
fn files(extensions: &[&str]) -> Vec<PathBuf> {
    fn walk(folder: &Path, extensions: &[&str], found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let file_name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_symlink() || file_name.starts_with('.') && file_name != ".ci" || file_name == "target" {
                continue;
            }
            if path.is_dir() {
                walk(&path, extensions, found);
            } else if path.extension().is_some_and(|own| extensions.iter().any(|wanted| own == *wanted)) {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&root(), extensions, &mut found);
    found.sort();
    found
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

#[track_caller]
fn assert_none(what: &str, found: &str) {
    assert!(found.is_empty(), "{what}:\n{found}");
}

#[test]
fn arrows_between_crates_point_inward() {
    let allowed = |name: &str| -> Option<&'static [&'static str]> {
        Some(match name {
            "registry-core" | "registry-client" | "registry-test-containers" => &[],
            "registry-test-postgres" => &["registry-test-containers"],
            "registry-adapters" => &["registry-core", "registry-test-postgres"],
            "registry-http" => &["registry-core"],
            "registry-cli" => &["registry-client"],
            "registry-server" => &["registry-core", "registry-adapters", "registry-http"],
            // The tests look at everything from outside; of the inside they may know the domain's values. And adapters
            // are run against servers that only tests start.
            "registry-tests" => {
                &["registry-core", "registry-adapters", "registry-test-containers", "registry-test-postgres"]
            }
            _ => return None,
        })
    };
    let packages = packages();
    let own: BTreeSet<&str> = packages.iter().map(name).collect();
    let mut found = String::new();
    for package in &packages {
        let Some(allowed) = allowed(name(package)) else {
            let _ = writeln!(found, "{} is new: say here what it may depend on", name(package));
            continue;
        };
        for dependency in dependencies(package, true).intersection(&own) {
            // A crate may switch its own features on for its tests.
            if !allowed.contains(dependency) && *dependency != name(package) {
                let _ = writeln!(found, "{} → {dependency}", name(package));
            }
        }
    }
    assert_none("arrows that point outward", &found);
    assert!(own.len() >= 7, "{own:?}");
}

#[test]
fn cargo_run_means_the_server() {
    let packages = packages();
    // With none, or more than one, `cargo run` in the workspace is an error.
    let meant: Vec<&str> = packages.iter().filter_map(|package| package["default_run"].as_str()).collect();
    assert_eq!(meant, ["registry-server"]);
}

#[test]
fn the_domain_does_no_input_or_output() {
    let packages = packages();
    let core = packages.iter().find(|package| name(package) == "registry-core").unwrap();
    // What computes, and what a port's signature needs. Each is here because somebody thought about it.
    let pure = [
        "async-trait",
        "bytes",
        "futures-core",
        "futures-util",
        "proptest",
        "serde",
        "serde_json",
        "sha2",
        "subtle",
        "thiserror",
        "tokio",
        "tracing",
        "uuid",
    ];
    let mut found = String::new();
    for dependency in dependencies(core, true) {
        if !pure.contains(&dependency) && dependency != "registry-core" {
            let _ = writeln!(found, "registry-core → {dependency}");
        }
    }
    // Of tokio only what wakes a task; of the standard library nothing that leaves the process.
    let outside = [
        "std::fs",
        "std::env",
        "std::process",
        "std::thread",
        "std::io::",
        "std::os::",
        "TcpStream",
        "TcpListener",
        "UdpSocket",
        "UnixStream",
        "SystemTime",
        "Instant",
        "println!",
        "eprintln!",
        "tokio::fs",
        "tokio::net",
        "tokio::time",
        "tokio::process",
        "tokio::io",
        "tokio::runtime",
        "tokio::spawn",
    ];
    let source = root().join("crates/registry-core/src");
    // The suites for adapters look at what those do.
    let suites = source.join("testing");
    for path in files(&["rs"]).iter().filter(|path| path.starts_with(&source) && !path.starts_with(&suites)) {
        for (number, line) in std::fs::read_to_string(path).unwrap().lines().enumerate() {
            // A blob's reader may hand over a file that an adapter opened.
            let code = line.split("//").next().unwrap().replace("Option<Arc<std::fs::File>>", "");
            if let Some(word) = outside.iter().find(|word| code.contains(**word)) {
                let _ = writeln!(found, "{}:{}: {word}", shown(path), number + 1);
            }
        }
    }
    assert_none("the domain reaches outside", &found);
}

#[test]
fn files_stay_readable() {
    let mut found = String::new();
    let files = files(&["rs"]);
    assert!(files.len() > 100, "there are files to look at: {}", files.len());
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        let lines = text.lines().count();
        if lines > LONGEST_FILE {
            let _ = writeln!(found, "{} has {lines} lines", shown(&path));
        }
        if !text.ends_with('\n') {
            let _ = writeln!(found, "{} ends within a line", shown(&path));
        }
    }
    assert_none(&format!("more than {LONGEST_FILE} lines, or torn"), &found);
}

#[test]
fn nothing_is_left_to_be_done_later() {
    // Put together, so that this file does not find itself.
    let words = [
        concat!("to", "do!"),
        concat!("unimpl", "emented!"),
        concat!("db", "g!("),
        concat!("#[ig", "nore"),
        concat!("FIX", "ME"),
        concat!("TO", "DO"),
        concat!("XX", "X"),
        concat!("<<<<", "<<< "),
    ];
    let mut found = String::new();
    for path in files(&["rs", "toml", "md", "sql", "sh", "go", "yaml", "yml"]) {
        for (number, line) in std::fs::read_to_string(&path).unwrap().lines().enumerate() {
            if let Some(word) = words.iter().find(|word| line.contains(**word)) {
                let _ = writeln!(found, "{}:{}: {word}", shown(&path), number + 1);
            }
        }
    }
    assert_none("left for later", &found);
}

/// The lines of the tables of a manifest whose names hold `dependencies`: table, line.
fn dependency_lines(text: &str) -> Vec<(String, String)> {
    let mut table = String::new();
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            table = line.trim_matches(['[', ']']).to_owned();
        } else if table.ends_with("dependencies") && !line.is_empty() && !line.starts_with('#') {
            found.push((table.clone(), line.to_owned()));
        }
    }
    found
}

#[test]
fn dependencies_are_declared_once_alphabetically_and_with_a_reason() {
    let mut found = String::new();
    let root_manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let declared = dependency_lines(&root_manifest);
    assert!(declared.len() > 20, "{declared:?}");
    let key = |line: &str| line.split(['.', ' ', '=']).next().unwrap().to_owned();
    let (own, foreign): (Vec<_>, Vec<_>) =
        declared.iter().map(|(_, line)| line).partition(|line| line.contains("path = "));
    for group in [&own, &foreign] {
        for pair in group.windows(2) {
            if key(pair[0]) > key(pair[1]) {
                let _ = writeln!(found, "Cargo.toml: {} stands before {}", key(pair[0]), key(pair[1]));
            }
        }
    }
    for line in &foreign {
        if !line.contains(" # ") {
            let _ = writeln!(found, "Cargo.toml: {} has no reason", key(line));
        }
    }
    let mut used = BTreeSet::new();
    for package in packages() {
        let manifest = PathBuf::from(package["manifest_path"].as_str().unwrap());
        for (table, line) in dependency_lines(&std::fs::read_to_string(&manifest).unwrap()) {
            used.insert(key(&line));
            if !line.contains("workspace = true") && !line.contains("path = \".\"") {
                let _ = writeln!(found, "{}: [{table}] {line}", shown(&manifest));
            }
        }
    }
    for line in own.iter().chain(&foreign) {
        if !used.contains(&key(line)) {
            let _ = writeln!(found, "Cargo.toml: nothing uses {}", key(line));
        }
    }
    assert_none("dependencies out of order", &found);
}

#[test]
fn nothing_is_compiled_before_there_is_a_compiler() {
    let script = std::fs::read_to_string(root().join(".ci/run")).unwrap();
    let steps: Vec<&str> = script.lines().filter(|line| line.starts_with("step '")).collect();
    let installs = steps.iter().position(|step| step.ends_with("tests/lib/install ci")).expect("it installs");
    let needs_nothing = |step: &&str| step.contains(" cargo fmt ");
    assert!(steps[..installs].iter().all(needs_nothing), "{steps:?}");
    let installer = std::fs::read_to_string(root().join("tests/lib/install")).unwrap();
    let ci = installer.split_once("\nci() {\n").and_then(|(_, rest)| rest.split_once("\n}")).expect("it is there").0;
    assert!(ci.find("debian build-essential") < ci.find("cargo_program"), "{ci}");
    assert!(ci.contains("debian build-essential"), "{ci}");
}

#[test]
fn what_a_registry_refuses_ends_the_installation() {
    let folder = tempfile::tempdir().unwrap();
    let (commands, tools) = (folder.path().join("commands"), folder.path().join("tools"));
    std::fs::create_dir_all(tools.join("bin")).unwrap();
    std::fs::create_dir(&commands).unwrap();
    let executable = |path: PathBuf, text: &str| {
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    executable(commands.join("rustc"), "#!/bin/sh\necho rustc 1.2.3\n");
    // How often it waited for the registry to think better of it.
    let waits = folder.path().join("waits");
    executable(commands.join("sleep"), &format!("#!/bin/sh\necho waited >>{}\n", waits.display()));
    let install = |answer: &str| {
        executable(commands.join("cargo"), &format!("#!/bin/sh\necho 'error: a registry: {answer}' >&2\nexit 101\n"));
        let mut command = Command::new("bash");
        command.arg(root().join("tests/lib/install")).arg("mutants").env("FOUNDRY_TOOLS", &tools);
        let path = std::env::var("PATH").unwrap();
        let output = command.env("PATH", format!("{}:{path}", commands.display())).output().expect("bash runs");
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    for answer in ["403 Forbidden", "404 Not Found", "410 Gone"] {
        let (installed, said) = install(answer);
        assert!(!installed, "{answer}");
        assert!(said.contains("cargo-mutants: its registry refuses") && said.contains(answer), "{said}");
    }
    assert_eq!(std::fs::read_to_string(&waits).unwrap().lines().count(), 3 * 2, "each was asked three times");
    executable(tools.join("bin/cargo-mutants"), "");
    assert_eq!(install("403 Forbidden"), (true, String::new()), "it was put there by hand");
    let (installed, said) = install("500 Internal Server Error");
    assert!(!installed && said.contains("building cargo-mutants failed"), "{said}");
}

#[test]
fn lints_are_the_workspaces() {
    let mut found = String::new();
    for package in packages() {
        let manifest = PathBuf::from(package["manifest_path"].as_str().unwrap());
        let text = std::fs::read_to_string(&manifest).unwrap();
        if !text.contains("[lints]\nworkspace = true") {
            let _ = writeln!(found, "{}", shown(&manifest));
        }
        if package["license"] != "MIT" || package["publish"] != serde_json::json!([]) {
            let _ = writeln!(found, "{}: license or publish", shown(&manifest));
        }
    }
    assert_none("manifests that do not inherit", &found);
    for package in packages() {
        let folder = PathBuf::from(package["manifest_path"].as_str().unwrap()).with_file_name("src");
        let sources = files(&["rs"]).into_iter().filter(|path| path.starts_with(&folder));
        let sources: Vec<String> = sources.map(|path| std::fs::read_to_string(path).unwrap()).collect();
        let says = |what: &str| sources.iter().any(|source| source.contains(what));
        // Who needs unsafe code has one place for it, which says why.
        if !says("#![forbid(unsafe_code)]") && !says("expect(unsafe_code") {
            let _ = writeln!(found, "{}", name(&package));
        }
    }
    assert_none("crates that could hold unsafe code and hold none", &found);
    assert!(std::fs::read_to_string(root().join("LICENSE")).unwrap().starts_with("MIT License"));
}

/// The targets of the Markdown links of a text, outside of code.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut in_block = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        }
        if in_block {
            continue;
        }
        let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
        let mut rest = prose.as_str();
        while let Some((_, after)) = rest.split_once("](") {
            let Some((target, after)) = after.split_once(')') else { break };
            found.push(target.split(' ').next().unwrap().to_owned());
            rest = after;
        }
    }
    found
}

/// The anchors of a text's headings, as hosting sites make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let heading = line.trim_start_matches('#').trim().to_lowercase();
            let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut found = String::new();
    let mut looked_at = 0;
    for path in files(&["md"]) {
        let text = std::fs::read_to_string(&path).unwrap();
        for link in links(&text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            looked_at += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            if !target.exists() {
                let _ = writeln!(found, "{}: {link}", shown(&path));
            } else if !anchor.is_empty()
                && target.extension().is_some_and(|extension| extension == "md")
                && !anchors(&std::fs::read_to_string(&target).unwrap()).contains(anchor)
            {
                let _ = writeln!(found, "{}: {link} (no such heading)", shown(&path));
            }
        }
    }
    assert_none("dead links", &found);
    assert!(looked_at > 0);
}
