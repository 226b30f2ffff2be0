//! deploy/cloudformation.yml.

use std::process::Command;

use registry_tests::tools::{succeed, tool};
use serde_norway::Value;

use super::{assert_read_by_the_server, documents, read, root};

const FILE: &str = "deploy/cloudformation.yml";

fn resources() -> Value {
    documents(&read(FILE)).remove(0)["Resources"].clone()
}

/// What a resource is made with.
#[track_caller]
fn properties<'a>(resources: &'a Value, name: &str, kind: &str) -> &'a Value {
    assert_eq!(resources[name]["Type"], kind, "{name}");
    &resources[name]["Properties"]
}

fn yaml(text: &str) -> Value {
    serde_norway::from_str(text).unwrap()
}

/// The strings of a list or of a single one.
fn strings(value: &Value) -> Vec<&str> {
    match value {
        Value::Sequence(list) => list.iter().filter_map(Value::as_str).collect(),
        other => other.as_str().into_iter().collect(),
    }
}

#[test]
fn the_linter_finds_nothing() {
    let Some(lint) = tool("cfn-lint reads the template", "cfn-lint") else { return };
    // Informational rules too.
    succeed(Command::new(lint).args(["--include-checks", "I", "--"]).arg(root().join(FILE)));
}

#[test]
fn replicas_may_touch_the_objects_of_their_bucket_and_nothing_else() {
    let resources = resources();
    let role = properties(&resources, "TaskRole", "AWS::IAM::Role");
    assert!(role.get("ManagedPolicyArns").is_none());
    let policies = role["Policies"].as_sequence().unwrap();
    let statements = policies.iter().flat_map(|policy| policy["PolicyDocument"]["Statement"].as_sequence().unwrap());
    let mut actions: Vec<&str> = statements.flat_map(|statement| strings(&statement["Action"])).collect();
    actions.sort_unstable();
    // What docs/configuration.md says that credentials need, word for word.
    let documented = read("docs/configuration.md");
    let mut expected: Vec<&str> = documented.split('`').filter(|word| word.starts_with("s3:")).collect();
    expected.sort_unstable();
    assert!(expected.len() >= 6, "{expected:?}");
    assert_eq!(actions, expected);
    for role in ["TaskRole", "ExecutionRole"] {
        let policies = resources[role]["Properties"]["Policies"].as_sequence().unwrap();
        for statement in policies.iter().flat_map(|policy| policy["PolicyDocument"]["Statement"].as_sequence().unwrap())
        {
            let actions = strings(&statement["Action"]);
            assert!(actions.iter().all(|action| !action.contains('*')), "{role}: {actions:?}");
            // The login to a registry of images has no resource.
            if actions != ["ecr:GetAuthorizationToken"] {
                assert!(!strings(&statement["Resource"]).contains(&"*"), "{role}: {actions:?} on everything");
            }
        }
    }
}

#[test]
fn what_was_stored_is_encrypted_private_and_outlives_the_stack() {
    let resources = resources();
    let bucket = properties(&resources, "Bucket", "AWS::S3::Bucket");
    assert!(bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"][0].is_mapping());
    let access = bucket["PublicAccessBlockConfiguration"].as_mapping().unwrap();
    assert!(access.len() == 4 && access.values().all(|blocked| *blocked == true), "{access:?}");
    let rules = bucket["LifecycleConfiguration"]["Rules"].as_sequence().unwrap();
    let aborting = rules.iter().find(|rule| rule.get("AbortIncompleteMultipartUpload").is_some()).unwrap();
    let days = aborting["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"].as_u64().unwrap();
    // An upload that moves may take longer than a day; Foundry ends those that do not.
    assert!(aborting["Status"] == "Enabled" && days >= 7, "{aborting:?}");
    // No rule takes an object that is there.
    assert!(rules.iter().all(|rule| rule.get("ExpirationInDays").is_none() && rule.get("Transitions").is_none()));
    let database = properties(&resources, "Database", "AWS::RDS::DBInstance");
    for (key, value) in [("StorageEncrypted", true), ("PubliclyAccessible", false), ("DeletionProtection", true)] {
        assert_eq!(database[key], value, "{key}");
    }
    assert_eq!(resources["Bucket"]["DeletionPolicy"], "Retain");
    assert_eq!(resources["Database"]["DeletionPolicy"], "Snapshot");
}

#[test]
fn the_service_is_what_foundry_needs() {
    let resources = resources();
    let task = properties(&resources, "TaskDefinition", "AWS::ECS::TaskDefinition");
    let container = &task["ContainerDefinitions"][0];
    assert_eq!(container["ReadonlyRootFilesystem"], true);
    assert_eq!(container["User"], "65532:65532");
    let name = |entry: &Value| entry["Name"].as_str().unwrap().to_owned();
    let plain: Vec<_> = container["Environment"].as_sequence().unwrap().iter().map(name).collect();
    let secret: Vec<_> = container["Secrets"].as_sequence().unwrap().iter().map(name).collect();
    assert_eq!(secret, ["FOUNDRY_AUTH__TOKENS", "DB_USER", "DB_PASSWORD"]);
    assert!(plain.iter().all(|name| !name.contains("PASSWORD") && !name.contains("TOKENS") && !name.contains("KEY")));
    assert_read_by_the_server(plain.iter().chain(&secret).map(String::as_str));

    let group = properties(&resources, "TargetGroup", "AWS::ElasticLoadBalancingV2::TargetGroup");
    // Not of the stores: ECS replaces what is not healthy, all at once if a store is away.
    assert_eq!(group["HealthCheckPath"], "/healthz");
    assert_eq!(container["HealthCheck"]["Command"], yaml("[CMD, registry-server, healthcheck]"));
    let attributes = group["TargetGroupAttributes"].as_sequence().unwrap();
    let sticky = attributes.iter().find(|attribute| attribute["Key"] == "stickiness.enabled").unwrap();
    assert_eq!(sticky["Value"], "false");
    let service = properties(&resources, "Service", "AWS::ECS::Service");
    assert!(service.get("DesiredCount").is_none(), "an update of the stack would undo what was scaled out");
    let target = properties(&resources, "ScalableTarget", "AWS::ApplicationAutoScaling::ScalableTarget");
    assert_eq!(target["MinCapacity"], "DesiredCount");
    let service = &service["DeploymentConfiguration"];
    assert_eq!(service["MinimumHealthyPercent"], 100);
    assert_eq!(service["DeploymentCircuitBreaker"]["Rollback"], true);
}
