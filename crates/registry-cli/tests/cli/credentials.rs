//! Login, logout, and which server and token a command uses.
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::support::server::{Loopback, Reply, closed_url};
use crate::support::{Ended, Home, Terminal, blocking};

const NO_PACKAGES: &str = r#"{"packages":[]}"#;

async fn open_server() -> Loopback {
    Loopback::start(|_, _| Reply::json(200, NO_PACKAGES)).await
}

/// The token that the last request carried.
fn last_token(server: &Loopback) -> Option<String> {
    let seen = server.seen();
    seen.last().expect("asked").header("authorization").map(str::to_owned)
}

#[tokio::test]
async fn login_tries_the_token_and_saves_it_for_its_owner_alone() {
    let server = open_server().await;
    let home = Home::new();
    let ended =
        home.run_with_input(&["login", "--server", &server.url(), "--token-stdin"], "s3cret\n").await.silently();
    assert!(ended.stdout.starts_with(&format!("Logged in to {}; the token is saved in ", server.url())), "{ended:?}");
    assert_eq!(last_token(&server).as_deref(), Some("Bearer s3cret"), "it was tried");

    let mode = |path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(home.credentials()), 0o600);
    assert_eq!(mode(home.credentials().parent().expect("it has one").to_owned()), 0o700);

    // From now on neither has to be named.
    home.run(&["list", "--json"]).await.silently();
    assert_eq!(last_token(&server).as_deref(), Some("Bearer s3cret"));
}

/// Starts `login` on a terminal and waits until that shows no longer what is typed.
async fn ask_for_token(home: &Home, url: &str) -> (Terminal, Child) {
    let terminal = Terminal::new();
    let mut command = home.command(&["login", "--server", url]);
    command.stdin(terminal.side()).stderr(terminal.side()).stdout(Stdio::piped());
    let child = command.spawn().expect("it starts");
    let asked = async {
        while terminal.echoes() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), asked).await.expect("it asks for the token");
    (terminal, child)
}

#[tokio::test]
async fn a_person_is_asked_for_the_token_which_the_terminal_does_not_show() {
    let server = open_server().await;
    let home = Home::new();
    let (terminal, child) = ask_for_token(&home, &server.url()).await;
    terminal.type_line("s3cret");
    let ended = Ended::of(blocking(move || child.wait_with_output().expect("it ends")).await);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(last_token(&server).as_deref(), Some("Bearer s3cret"));
    assert!(terminal.echoes(), "typing shows again");
    let shown = blocking(move || terminal.read_to_end()).await;
    assert!(shown.contains(&format!("Token for {}: ", server.url())) && !shown.contains("s3cret"), "{shown:?}");
}

#[tokio::test]
async fn an_interrupted_question_leaves_the_terminal_as_it_was() {
    let home = Home::new();
    let (terminal, child) = ask_for_token(&home, &closed_url().await).await;
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT)
        .expect("it runs");
    let output = blocking(move || child.wait_with_output().expect("it ends")).await;
    assert_eq!(Ended::of(output).code, 130);
    assert!(terminal.echoes(), "typing shows again");
}

#[tokio::test]
async fn a_login_that_fails_saves_nothing() {
    let server = Loopback::start(|_, _| Reply::error(401, "unauthenticated", "no such token")).await;
    let home = Home::new();
    let ended = home.run_with_input(&["login", "--server", &server.url(), "--token-stdin"], "s3cret").await;
    assert_eq!(ended.code, 4, "{ended:?}");
    let ended = home.run_with_input(&["login", "--server", &closed_url().await, "--token-stdin"], "s3cret").await;
    assert_eq!(ended.code, 7, "{ended:?}");
    let ended = home.run_with_input(&["login", "--server", &server.url(), "--token-stdin"], "").await;
    assert_eq!(ended.code, 2, "{ended:?}");
    let ended = home.run(&["login", "--server", &server.url()]).await;
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(ended.stderr.contains("--token-stdin"), "{ended:?}");
    assert!(!home.credentials().exists());
}

#[tokio::test]
async fn a_token_that_may_not_list_is_still_a_token() {
    let server = Loopback::start(|_, _| Reply::error(403, "forbidden", "no")).await;
    let mut home = Home::with_server(&server.url());
    home.run(&["login", "--json"]).await.silently();
    home.variables.clear();
    assert_eq!(home.run(&["list"]).await.code, 4);
    assert_eq!(last_token(&server).as_deref(), Some("Bearer s3cret"), "it was taken from REGISTRY_TOKEN and saved");
}

#[tokio::test]
async fn a_saved_token_goes_to_its_own_server_only() {
    let (mine, other) = (open_server().await, open_server().await);
    let home = Home::new();
    home.run_with_input(&["login", "--server", &mine.url(), "--token-stdin"], "s3cret").await.silently();
    home.run(&["list", "--server", &other.url(), "--json"]).await.silently();
    assert_eq!(last_token(&other), None);
    // The same address, spelt in another way.
    home.run(&["list", "--server", &format!("{}/", mine.url()), "--json"]).await.silently();
    assert_eq!(last_token(&mine).as_deref(), Some("Bearer s3cret"));
}

#[tokio::test]
async fn the_command_line_beats_the_environment_and_that_the_login() {
    let (saved, environment, flag) = (open_server().await, open_server().await, open_server().await);
    let mut home = Home::new();
    home.run_with_input(&["login", "--server", &saved.url(), "--token-stdin"], "s3cret-saved").await.silently();
    home.variables = vec![("REGISTRY_SERVER", environment.url()), ("REGISTRY_TOKEN", "s3cret-env".to_owned())];
    home.run(&["list", "--json"]).await.silently();
    assert_eq!(last_token(&environment).as_deref(), Some("Bearer s3cret-env"));
    home.run(&["list", "--json", "--server", &flag.url(), "--token", "s3cret-flag"]).await.silently();
    assert_eq!(last_token(&flag).as_deref(), Some("Bearer s3cret-flag"));
    // An empty variable is none.
    home.variables = vec![("REGISTRY_SERVER", String::new()), ("REGISTRY_TOKEN", String::new())];
    home.run(&["list", "--json"]).await.silently();
    assert_eq!(last_token(&saved).as_deref(), Some("Bearer s3cret-saved"));
}

#[tokio::test]
async fn a_refused_saved_token_leads_back_to_login() {
    let server = Loopback::start(|n, _| match n {
        0 => Reply::json(200, NO_PACKAGES),
        _ => Reply::error(401, "unauthenticated", "revoked"),
    })
    .await;
    let home = Home::new();
    home.run_with_input(&["login", "--server", &server.url(), "--token-stdin"], "s3cret").await.silently();
    let ended = home.run(&["list"]).await;
    assert_eq!(ended.code, 4);
    assert!(ended.stderr.contains(&format!("registry-cli login --server {}", server.url())), "{ended:?}");
}

#[tokio::test]
async fn logout_forgets_one_server_or_all() {
    let (first, second) = (open_server().await, open_server().await);
    let home = Home::new();
    for server in [&first, &second] {
        home.run_with_input(&["login", "--server", &server.url(), "--token-stdin"], "s3cret").await.silently();
    }
    let ended = home.run(&["logout", "--server", &first.url()]).await.silently();
    assert_eq!(ended.stdout, format!("Logged out of {}\n", first.url()));
    home.run(&["list", "--json"]).await.silently();
    assert_eq!(last_token(&second).as_deref(), Some("Bearer s3cret"), "the other one stays");

    let document = home.run(&["logout", "--all", "--json"]).await.silently().document();
    assert_eq!(document["forgotten"], serde_json::json!([second.url()]));
    assert!(!fs::read_to_string(home.credentials()).expect("there").contains("s3cret"));
    let ended = home.run(&["logout"]).await.silently();
    assert_eq!(
        ended.stdout, "No token was saved for http://localhost:8080\n",
        "the default server is the default again"
    );
}

#[tokio::test]
async fn an_unencrypted_way_to_another_machine_is_warned_of_and_loose_files_too() {
    let server = open_server().await;
    let home = Home::new();
    home.run_with_input(&["login", "--server", &server.url(), "--token-stdin"], "s3cret").await.silently();
    fs::set_permissions(home.credentials(), fs::Permissions::from_mode(0o644)).expect("set");
    let ended = home.run(&["list", "--json"]).await;
    assert!(ended.stderr.contains("chmod 600"), "{ended:?}");

    fs::write(home.credentials(), "{").expect("written");
    let ended = home.run(&["list"]).await;
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("remove ") && ended.stderr.contains("log in again"), "{ended:?}");
    // What is named on the command line needs no file.
    assert_eq!(home.run(&["list", "--json", "--server", &server.url(), "--token", "s3cret"]).await.code, 0);
}
