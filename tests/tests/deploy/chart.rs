//! The Helm chart, rendered by helm with each set of values of its ci folder.

use std::path::Path;
use std::process::Command;

use registry_tests::process::server_command;
use registry_tests::tools::{fail, succeed, tool};
use serde_norway::Value;
use tempfile::TempDir;

use super::{assert_read_by_the_server, documents, effective_configuration, root};

const CHART: &str = "deploy/helm/foundry";
/// Of values: `ci/<name>-values.yaml`.
const SETS: [&str; 4] = ["replicas", "everything", "tokens", "single"];

/// Where the set `tokens` has its files.
const TOKENS: &str = "/run/secrets/foundry";

struct Helm {
    program: std::path::PathBuf,
    home: TempDir,
}

impl Helm {
    /// `None` after saying that `test` is skipped.
    fn new(test: &str) -> Option<Self> {
        Some(Self { program: tool(test, "helm")?, home: TempDir::new().unwrap() })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.env("HOME", self.home.path()).env_remove("KUBECONFIG").args(arguments).current_dir(root());
        command
    }

    /// `helm template` with a set of values.
    fn template(&self, set: &str) -> Command {
        self.command(&["template", "foundry", CHART, "--values", &values(set)])
    }

    /// What a set of values becomes.
    #[track_caller]
    fn render(&self, set: &str) -> Vec<Value> {
        documents(&succeed(&mut self.template(set)))
    }
}

fn values(set: &str) -> String {
    format!("{CHART}/ci/{set}-values.yaml")
}

/// The only object of a kind.
#[track_caller]
fn only<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    let mut found = objects.iter().filter(|object| object["kind"] == kind);
    let object = found.next().unwrap_or_else(|| panic!("there is no {kind}"));
    assert!(found.next().is_none(), "there are several {kind}");
    object
}

fn kinds(objects: &[Value]) -> Vec<&str> {
    let mut kinds: Vec<&str> = objects.iter().map(|object| object["kind"].as_str().unwrap()).collect();
    kinds.sort_unstable();
    kinds
}

fn container(objects: &[Value]) -> &Value {
    &only(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]
}

/// The container's variable of that name.
#[track_caller]
fn variable<'a>(objects: &'a [Value], name: &str) -> &'a Value {
    let variables = container(objects)["env"].as_sequence().unwrap();
    variables.iter().find(|variable| variable["name"] == name).unwrap_or_else(|| panic!("there is no {name}"))
}

fn yaml(text: &str) -> Value {
    serde_norway::from_str(text).unwrap()
}

#[test]
fn the_chart_is_linted() {
    let Some(helm) = Helm::new("helm lints the chart") else { return };
    for set in SETS {
        let said = succeed(&mut helm.command(&["lint", "--strict", CHART, "--values", &values(set)]));
        assert!(said.contains("1 chart(s) linted, 0 chart(s) failed") && !said.contains("[WARNING]"), "{said}");
    }
}

#[test]
fn kubernetes_schemas_accept_what_is_rendered() {
    let test = "what the chart renders fits Kubernetes' schemas";
    let (Some(helm), Some(validate)) = (Helm::new(test), tool(test, "kubernetes-validate")) else { return };
    for set in SETS {
        let file = helm.home.path().join(format!("{set}.yaml"));
        std::fs::write(&file, succeed(&mut helm.template(set))).unwrap();
        // The oldest version that the chart says it works on, and the newest that the checker knows.
        for version in ["1.30.0", "1.37.0"] {
            succeed(Command::new(&validate).args(["--strict", "--kubernetes-version", version]).arg(&file));
        }
    }
}

#[test]
fn each_set_of_values_makes_what_it_asks_for() {
    let Some(helm) = Helm::new("helm renders the chart") else { return };
    let common = ["ConfigMap", "Deployment", "PodDisruptionBudget", "Service", "ServiceAccount"];
    assert_eq!(kinds(&helm.render("replicas")), common);
    let mut everything = common.to_vec();
    everything.extend(["HorizontalPodAutoscaler", "Ingress", "NetworkPolicy", "ServiceMonitor"]);
    everything.sort_unstable();
    assert_eq!(kinds(&helm.render("everything")), everything);
    let mut tokens = common.to_vec();
    tokens.push("ServiceMonitor");
    tokens.sort_unstable();
    assert_eq!(kinds(&helm.render("tokens")), tokens);
    let single = ["ConfigMap", "Deployment", "PersistentVolumeClaim", "Service", "ServiceAccount"];
    assert_eq!(kinds(&helm.render("single")), single);
}

#[test]
fn replicas_come_and_go_without_a_gap() {
    let Some(helm) = Helm::new("the chart's replicas") else { return };
    let objects = helm.render("replicas");
    let deployment = &only(&objects, "Deployment")["spec"];
    assert_eq!(deployment["replicas"], 3);
    assert_eq!(deployment["strategy"], yaml("{type: RollingUpdate, rollingUpdate: {maxUnavailable: 0, maxSurge: 1}}"));
    let container = container(&objects);
    // A pod has to have found its stores once; if they go away afterwards, for all, none is restarted or taken out.
    assert_eq!(container["startupProbe"]["httpGet"], yaml("{path: /readyz, port: http}"));
    assert_eq!(container["livenessProbe"]["httpGet"], yaml("{path: /healthz, port: http}"));
    assert_eq!(container["readinessProbe"]["httpGet"], yaml("{path: '/readyz?exclude=stores', port: http}"));
    // Told to stop, a pod serves until nobody sends it anything new, and then finishes what is under way.
    let pause = container["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().unwrap();
    let configuration = only(&objects, "ConfigMap")["data"]["config.yaml"].as_str().unwrap();
    let grace = yaml(configuration)["server"]["shutdown_grace"].as_str().unwrap().to_owned();
    let patience = deployment["template"]["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap();
    assert_eq!((pause, grace.as_str()), (10, "120s"));
    assert!(patience > pause + 120, "{patience}");

    let service = only(&objects, "Service");
    assert_eq!(service["spec"]["sessionAffinity"], "None");
    let selector = &service["spec"]["selector"];
    assert_eq!(&deployment["selector"]["matchLabels"], selector);
    let budget = &only(&objects, "PodDisruptionBudget")["spec"];
    assert_eq!((&budget["maxUnavailable"], &budget["selector"]["matchLabels"]), (&Value::from(1), selector));
    let spread = deployment["template"]["spec"]["topologySpreadConstraints"].as_sequence().unwrap();
    let keys: Vec<_> = spread.iter().map(|constraint| constraint["topologyKey"].as_str().unwrap()).collect();
    assert_eq!(keys, ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]);

    let objects = helm.render("everything");
    assert!(only(&objects, "Deployment")["spec"].get("replicas").is_none(), "the autoscaler decides how many");
    let scaler = &only(&objects, "HorizontalPodAutoscaler")["spec"];
    assert_eq!(scaler["scaleTargetRef"]["name"], only(&objects, "Deployment")["metadata"]["name"]);
    let annotations = &only(&objects, "Ingress")["metadata"]["annotations"];
    assert_eq!(annotations["nginx.ingress.kubernetes.io/proxy-body-size"], "0");
    assert_eq!(annotations["nginx.ingress.kubernetes.io/proxy-request-buffering"], "off");
    assert!(
        annotations.as_mapping().unwrap().keys().all(|key| !key.as_str().unwrap().contains("affinity")),
        "{annotations:?}"
    );
    assert_eq!(only(&helm.render("single"), "Deployment")["spec"]["strategy"], yaml("{type: Recreate}"));
}

#[test]
fn secrets_are_references() {
    let Some(helm) = Helm::new("the chart's secrets") else { return };
    let secrets = ["FOUNDRY_AUTH__TOKENS", "DB_PASSWORD", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];
    let objects = helm.render("everything");
    let references = secrets.map(|name| variable(&objects, name)["valueFrom"]["secretKeyRef"].clone());
    let expected = [
        "{name: foundry-tokens, key: administrators}",
        "{name: foundry-database, key: password}",
        "{name: foundry-bucket, key: access-key-id}",
        "{name: foundry-bucket, key: secret-access-key}",
    ];
    assert_eq!(references, expected.map(yaml));
    // With an identity of the pod's own there is no key.
    let objects = helm.render("replicas");
    let names: Vec<_> = container(&objects)["env"].as_sequence().unwrap().iter().map(|own| &own["name"]).collect();
    assert!(!names.iter().any(|name| name.as_str().unwrap().contains("ACCESS_KEY")), "{names:?}");
    let annotations = &only(&objects, "ServiceAccount")["metadata"]["annotations"];
    assert_eq!(annotations["eks.amazonaws.com/role-arn"], "arn:aws:iam::123456789012:role/foundry");
}

#[test]
fn pods_may_serve_and_nothing_more() {
    let Some(helm) = Helm::new("the chart's security contexts") else { return };
    for set in SETS {
        let objects = helm.render(set);
        let pod = &only(&objects, "Deployment")["spec"]["template"]["spec"];
        let context = &pod["securityContext"];
        assert_eq!((&context["runAsNonRoot"], &context["runAsUser"]), (&Value::from(true), &Value::from(65532)));
        assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault");
        assert_eq!(pod["automountServiceAccountToken"], false);
        assert_eq!(pod["enableServiceLinks"], false);
        let expected = "{allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, privileged: false, \
                        capabilities: {drop: [ALL]}}";
        assert_eq!(container(&objects)["securityContext"], yaml(expected), "{set}");
        assert!(container(&objects)["resources"]["limits"]["memory"].is_string());
    }
}

#[test]
fn values_that_would_lose_data_or_be_dropped_are_refused() {
    let Some(helm) = Helm::new("values that contradict each other") else { return };
    let refused = |set: &str, change: &str, reason: &str| {
        let said = fail(helm.template(set).args(["--set", change]));
        assert!(said.contains(reason), "{change}: {said}");
    };
    let bare = fail(&mut helm.command(&["template", "foundry", CHART]));
    assert!(bare.contains("set database.host and storage.s3.bucket"), "{bare}");
    refused("replicas", "storage.s3.bucket=", "set database.host and storage.s3.bucket");
    refused("replicas", "database.host=", "set database.host and storage.s3.bucket");
    refused("replicas", "database.existingSecret=", "database.existingSecret must name a Secret");
    refused("replicas", "auth.existingSecret=", "auth.existingSecret must name a Secret");
    refused("tokens", "auth.existingSecret=foundry-tokens", "config.auth.tokens would be without effect");
    refused("replicas", "ingress.enabled=true", "ingress.enabled needs server.trustedProxies");
    // What the pod's own settings have to agree with.
    for key in ["host=::", "port=80", "shutdown_delay=1s", "shutdown_grace=1h", "tls.key=a"] {
        let name = key.split(['=', '.']).next().unwrap();
        refused("single", &format!("config.server.{key}"), &format!("config.server.{name} contradicts the chart"));
    }
    refused("single", "replicaCount=2", "persistence.enabled is for one server");
    refused("single", "database.host=db", "persistence.enabled keeps the metadata on its volume");
    // A key that nobody reads is a mistake.
    refused("replicas", "database.passwort=x", "passwort");
    refused("replicas", "database.sslmode=maybe", "sslmode");
}

#[test]
fn the_server_reads_what_the_chart_sets() {
    let Some(helm) = Helm::new("the chart's configuration") else { return };
    for set in SETS {
        let objects = helm.render(set);
        let variables = container(&objects)["env"].as_sequence().unwrap();
        let names = variables.iter().map(|variable| variable["name"].as_str().unwrap());
        // Read by what verifies certificates.
        assert_read_by_the_server(names.filter(|name| *name != "SSL_CERT_FILE"));

        let configuration = only(&objects, "ConfigMap")["data"]["config.yaml"].as_str().unwrap();
        let secrets = helm.home.path().join("secrets");
        let configuration = configuration.replace(TOKENS, secrets.to_str().unwrap());
        for token in ["administrator", "prometheus"] {
            std::fs::create_dir_all(&secrets).unwrap();
            std::fs::write(secrets.join(token), format!("a-token-for-{token}\n")).unwrap();
        }
        let file = helm.home.path().join("config.yaml");
        std::fs::write(&file, &configuration).unwrap();
        let own = effective_configuration(helm.home.path(), &file, &[]);
        assert_eq!(own.code, Some(0), "{}\n{configuration}", own.stderr);
        if set == "everything" {
            for line in ["base_url: \"https://registry.example.com\"", "grace: \"48h\"", "shutdown_grace: \"60s\""] {
                assert!(own.stdout.contains(line), "{line}\n{}", own.stdout);
            }
        }
    }
    // The container's arguments are the program's own.
    let objects = helm.render("replicas");
    let arguments = container(&objects)["args"].as_sequence().unwrap();
    let file = helm.home.path().join("config.yaml");
    let arguments = arguments.iter().map(|argument| argument.as_str().unwrap());
    let arguments = arguments.map(|argument| if argument.starts_with('/') { file.to_str().unwrap() } else { argument });
    succeed(server_command(Path::new("/")).args(arguments).arg("config"));
}

#[test]
fn files_can_be_mounted_for_what_the_configuration_names() {
    let Some(helm) = Helm::new("more volumes") else { return };
    let objects = helm.render("tokens");
    let pod = &only(&objects, "Deployment")["spec"]["template"]["spec"];
    let volumes = pod["volumes"].as_sequence().unwrap();
    let mounts = container(&objects)["volumeMounts"].as_sequence().unwrap();
    let mounted = |path: &str| {
        let mount = mounts.iter().find(|mount| mount["mountPath"] == path).unwrap_or_else(|| panic!("{mounts:?}"));
        volumes.iter().find(|volume| volume["name"] == mount["name"]).unwrap_or_else(|| panic!("{volumes:?}"))
    };
    assert_eq!(mounted(TOKENS)["secret"]["secretName"], "foundry-tokens");
    assert_eq!(mounted("/run/authority")["configMap"]["name"], "private-authority");
    assert_eq!(variable(&objects, "SSL_CERT_FILE")["value"], "/run/authority/ca.crt");
    // The chart's own are there too.
    assert_eq!(mounted("/etc/foundry")["configMap"]["name"], "foundry");
    assert_eq!(mounted("/tmp")["emptyDir"], yaml("{}"));
    // Prometheus shows the token of which the server has the file.
    let endpoint = &only(&objects, "ServiceMonitor")["spec"]["endpoints"][0];
    let credentials = &endpoint["authorization"]["credentials"];
    let configuration = yaml(only(&objects, "ConfigMap")["data"]["config.yaml"].as_str().unwrap());
    let token = &configuration["auth"]["tokens"][1];
    assert_eq!((&credentials["name"], &credentials["key"]), (&"foundry-tokens".into(), &"prometheus".into()));
    assert_eq!(token["token_file"], format!("{TOKENS}/prometheus"));
    // No list of the environment stands in front of those of the file.
    let names = container(&objects)["env"].as_sequence().unwrap().iter().map(|variable| &variable["name"]);
    assert!(names.into_iter().all(|name| name != "FOUNDRY_AUTH__TOKENS"));
}

#[test]
fn an_ingress_with_a_certificate_says_what_the_registry_is_called() {
    let Some(helm) = Helm::new("the registry's URL") else { return };
    let url = |more: &[&str]| {
        let common = ["--set", "ingress.enabled=true,ingress.host=r.example.com,server.trustedProxies={10.0.0.0/8}"];
        let objects = documents(&succeed(helm.template("replicas").args(common).args(more)));
        let file = only(&objects, "ConfigMap")["data"]["config.yaml"].as_str().unwrap().to_owned();
        yaml(&file)["server"].get("base_url").cloned()
    };
    assert_eq!(url(&["--set", "ingress.tlsSecret=certificate"]), Some("https://r.example.com".into()));
    let own = "ingress.tlsSecret=certificate,server.baseUrl=https://other.example.com";
    assert_eq!(url(&["--set", own]), Some("https://other.example.com".into()));
    // Who ends TLS elsewhere, or not at all, is not known here.
    assert_eq!(url(&[]), None);
}

#[test]
fn prometheus_shows_its_token_where_it_is_given_one() {
    let Some(helm) = Helm::new("metrics for a token") else { return };
    let objects = helm.render("everything");
    let endpoint = &only(&objects, "ServiceMonitor")["spec"]["endpoints"][0];
    let credentials = yaml("{credentials: {name: foundry-prometheus, key: token}}");
    assert_eq!(endpoint["authorization"], credentials, "{endpoint:?}");
    let without = ["--set", "metrics.serviceMonitor.tokenSecret="];
    let objects = documents(&succeed(helm.template("everything").args(without)));
    assert!(only(&objects, "ServiceMonitor")["spec"]["endpoints"][0].get("authorization").is_none());
    for (set, access) in [("everything", "token"), ("replicas", "open")] {
        let objects = helm.render(set);
        let file = only(&objects, "ConfigMap")["data"]["config.yaml"].as_str().unwrap();
        assert_eq!(yaml(file)["metrics"]["access"], access, "{set}");
    }
}
